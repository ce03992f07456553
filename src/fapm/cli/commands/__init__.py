"""One module per command that people use on their parts.

Commands import what needs torch themselves: help and mistakes in typing do not wait for it.
"""
