"""The paper's tables and figures, made again on whatever data sets are there."""
