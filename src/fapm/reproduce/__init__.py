"""The paper's tables and figures, made again on whatever data sets are there.

:mod:`~fapm.reproduce.published` is what was printed, :mod:`~fapm.reproduce.table1`,
:mod:`~fapm.reproduce.table2` and :mod:`~fapm.reproduce.cost_model` are what is measured and counted
here, :mod:`~fapm.reproduce.output` writes it down. Nothing else imports this package.
"""
