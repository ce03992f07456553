"""A memory that learns and forgets on the line."""
