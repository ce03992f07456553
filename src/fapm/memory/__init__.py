"""The paper: patch-wise and layer-wise memory, adaptive coreset sampling, scoring.

Read in this order: :mod:`~fapm.memory.patches` and :mod:`~fapm.memory.geometry` (section 2.1),
:mod:`~fapm.memory.coreset`, :mod:`~fapm.memory.memorise` and :mod:`~fapm.memory.bank` (2.2),
:mod:`~fapm.memory.search` and :mod:`~fapm.memory.scoring` (2.3). Not in the paper:
:mod:`~fapm.updating.extend`, :mod:`~fapm.updating.probe` and :mod:`~fapm.fitting.outliers`.
Nothing here
knows of files, engines or the web. What only says where things are, and what they are, needs no
torch.
"""
