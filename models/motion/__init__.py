"""Tracks and static scene -> masks of moving objects, and the scene without them."""

from models.motion.segments import label_movers
from models.motion.still_scene import (
    MASK_MARGIN,
    least_tracks,
    masked_scene,
    needed_memory,
    static_tracks,
    with_points,
    without_movers,
)

__all__ = [
    "MASK_MARGIN",
    "label_movers",
    "least_tracks",
    "masked_scene",
    "needed_memory",
    "static_tracks",
    "with_points",
    "without_movers",
]
