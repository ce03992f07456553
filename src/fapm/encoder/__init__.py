"""The frozen network: its specification, its weights and its graph."""
