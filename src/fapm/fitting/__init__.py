"""What a fit decides from good pictures."""
