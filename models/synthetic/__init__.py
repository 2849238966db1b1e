"""A clip with known ground truth; ``python -m models.synthetic FOLDER`` writes it."""
