"""Figures of merit, and the time that work takes."""
