"""2D tracks -> a camera for each frame and a 3D point for each track.

In reading order:

- ``options``: settings that a person may tune.
- ``rotation``: a camera that only turns or stands still.
- ``colmap``: COLMAP's mappers and bundle adjustment.
- ``colmap_files``: COLMAP's model folders, read and written.
- ``adjustment``: bundle adjustment, lens, zoom, and scenes solved inside out.
- ``mapping``: the mappers tried and judged; keyframes of a long clip.
- ``triangulation``: points of static tracks, with the uncertainty of their depth.
- ``sharpening``: observations aligned to sub-pixels by known geometry.
- ``small_motion``: bundle adjustment that starts from a pure rotation.
- ``given``: cameras that the user gives.
- ``static_scene``: all of it in order: ``solve_scene`` and ``sharpen_scene``.
- ``doubt``: how well the cameras explain the tracks, and the likely cause where they do not.
- ``track_file``: the content of the background's track file.
"""

from models.sfm.adjustment import bundle_adjust, choose_depth_order, straighten_points
from models.sfm.colmap import (
    MIN_SHARED,
    read_poses,
    run_mapper,
    write_database,
)
from models.sfm.colmap_files import write_model
from models.sfm.doubt import judge_scene
from models.sfm.given import KnownCameras, cameras_of_clip
from models.sfm.options import CameraOptions
from models.sfm.rotation import solve_rotation
from models.sfm.small_motion import find_small_motion
from models.sfm.static_scene import (
    StaticScene,
    refine_scene,
    sharpen_scene,
    solve_points,
    solve_scene,
    straighten_scene,
)
from models.sfm.track_file import make_background_tracks, measure_depth_of_thirds
from models.sfm.triangulation import UNSURE, DepthGuess, Points, choose_anchors, triangulate

__all__ = [
    "MIN_SHARED",
    "UNSURE",
    "CameraOptions",
    "DepthGuess",
    "KnownCameras",
    "Points",
    "StaticScene",
    "bundle_adjust",
    "cameras_of_clip",
    "choose_anchors",
    "choose_depth_order",
    "find_small_motion",
    "judge_scene",
    "make_background_tracks",
    "measure_depth_of_thirds",
    "read_poses",
    "refine_scene",
    "run_mapper",
    "sharpen_scene",
    "solve_points",
    "solve_rotation",
    "solve_scene",
    "straighten_points",
    "straighten_scene",
    "triangulate",
    "write_database",
    "write_model",
]
