"""One module per command of the command line.

Commands import what needs torch themselves: help and mistakes in typing do not wait for it.
"""
