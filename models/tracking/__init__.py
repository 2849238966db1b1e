"""Frames -> 2D tracks."""

from models.tracking.growing import (
    TRACKERS,
    Tracker,
    for_length,
    grow_tracks,
    half_life,
    open_tracker,
    register_tracker,
    thin,
    track_points,
)

__all__ = [
    "TRACKERS",
    "Tracker",
    "for_length",
    "grow_tracks",
    "half_life",
    "open_tracker",
    "register_tracker",
    "thin",
    "track_points",
]
