"""The paper's tables and figures, made again on the available data sets.

:mod:`~fapm.reproduce.published` holds the printed figures. :mod:`~fapm.reproduce.table1`,
:mod:`~fapm.reproduce.table2` and :mod:`~fapm.reproduce.cost_model` measure and count ours, and
:mod:`~fapm.reproduce.output` writes them. Only the command line imports this package.
"""
