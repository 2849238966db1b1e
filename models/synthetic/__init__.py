"""A clip with known ground truth; ``python -m models.synthetic FOLDER`` writes it."""

from models.synthetic.sample import render_room

__all__ = ["render_room"]
