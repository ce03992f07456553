"""Pictures to frames, which the encoder sees, and the way back."""
