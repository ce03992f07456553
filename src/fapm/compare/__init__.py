"""Other detectors beside FAPM, on the same pictures. Only ``fapm compare`` uses this package."""
