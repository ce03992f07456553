"""Imported before torch, whose OpenMP threads read this once, when they are loaded.

By default they wait for each other in a busy loop. Where another program has one of the cores that
costs a scheduler's time slice at every one of the hundreds of steps of an inspection: measured on
2 cores with one busy otherwise, 62 ms instead of 15 ms. Whoever sets the variable decides.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
