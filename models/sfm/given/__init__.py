"""Cameras that a user gives.

- ``matching``: which camera of a file belongs to which frame.
- ``known_cameras``: the cameras of the frames, and their lenses.
- ``missing``: frames without a camera placed by their tracks, and doubt told.
"""

from models.sfm.given.known_cameras import KnownCameras, cameras_of_clip, read_cameras
from models.sfm.given.missing import place_missing, warn_of_contradiction

__all__ = [
    "KnownCameras",
    "cameras_of_clip",
    "place_missing",
    "read_cameras",
    "warn_of_contradiction",
]
