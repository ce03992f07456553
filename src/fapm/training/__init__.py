"""From frames to a memory: what fit, update and audit share."""
