"""A clip with known ground truth; ``python -m models.synthetic FOLDER`` writes it."""

from models.synthetic.sample import RoomOptions, render_room

__all__ = ["RoomOptions", "render_room"]
