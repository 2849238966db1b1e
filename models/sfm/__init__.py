"""2D tracks -> a camera for each frame and a 3D point for each track."""

from models.sfm.colmap import (
    MIN_SHARED,
    bundle_adjust,
    poses_of,
    run_mapper,
    write_database,
    write_model,
)
from models.sfm.known_cameras import cameras_of_clip
from models.sfm.mapping import Progress
from models.sfm.rotation import solve_rotation
from models.sfm.small_motion import adjust_rotation
from models.sfm.static_scene import (
    StaticScene,
    scene_of_values,
    scene_values,
    sharpen_scene,
    solve_points,
    solve_scene,
)
from models.sfm.track_file import make_background_tracks
from models.sfm.triangulation import UNSURE, DepthGuess, Points, anchors, triangulate

__all__ = [
    "MIN_SHARED",
    "UNSURE",
    "DepthGuess",
    "Points",
    "Progress",
    "StaticScene",
    "adjust_rotation",
    "anchors",
    "bundle_adjust",
    "cameras_of_clip",
    "make_background_tracks",
    "poses_of",
    "run_mapper",
    "scene_of_values",
    "scene_values",
    "sharpen_scene",
    "solve_points",
    "solve_rotation",
    "solve_scene",
    "triangulate",
    "write_database",
    "write_model",
]
