"""The method of the paper: patch-wise, layer-wise memory, adaptive coreset sampling, scoring.

Read in this order: :mod:`~fapm.memory.patches` and :mod:`~fapm.memory.geometry` (section 2.1),
:mod:`~fapm.memory.coreset`, :mod:`~fapm.memory.memorise` and :mod:`~fapm.memory.bank` (2.2),
:mod:`~fapm.memory.search` and :mod:`~fapm.memory.scoring` (2.3). No module here imports one that
deals with files, engines or the web. The modules that only describe cells and keys do not need
torch.
"""
