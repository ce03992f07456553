"""Folders and tables of pictures: which are good, and what is known of the others."""
