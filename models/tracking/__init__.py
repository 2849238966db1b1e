"""Frames -> 2D tracks."""

from models.tracking.growing import grow_tracks, open_tracker, register_tracker, track_points

__all__ = ["grow_tracks", "open_tracker", "register_tracker", "track_points"]
