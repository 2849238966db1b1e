"""Cameras -> cameras: trajectories for new views."""

from models.paths.key_frames import KeyFrame, intrinsics, pose_matrix, smooth_path
from models.paths.path_script import PathScript, parse_path
from models.paths.trajectories import CameraPath, Clip, from_file

__all__ = [
    "CameraPath",
    "Clip",
    "KeyFrame",
    "PathScript",
    "from_file",
    "intrinsics",
    "parse_path",
    "pose_matrix",
    "smooth_path",
]
