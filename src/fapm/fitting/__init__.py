"""Decisions of a fit, from good pictures."""
