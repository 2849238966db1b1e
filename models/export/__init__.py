"""Scene -> files for other programs."""
