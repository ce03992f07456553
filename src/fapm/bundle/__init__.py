"""What a fit leaves, and the one file that holds it."""
