"""The result of a fit, and the one file that holds it."""
