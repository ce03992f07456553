"""The paper: patch-wise and layer-wise memory, adaptive coreset sampling, scoring.

Read in this order: :mod:`~fapm.memory.patches` (section 2.1), :mod:`~fapm.memory.coreset` (2.2),
:mod:`~fapm.memory.bank` and :mod:`~fapm.memory.scoring` (2.3). Nothing here knows of files, engines
or the web.
"""
