"""Other detectors beside FAPM, on the same pictures. Used by ``fapm compare`` alone."""
