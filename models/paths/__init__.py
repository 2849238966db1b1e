"""Cameras -> cameras: trajectories for new views."""

from models.paths.key_frames import KeyFrame, intrinsics, pose_matrix, smooth_path
from models.paths.path_script import PathScript, parse_path
from models.paths.trajectories import CameraPath, Clip, from_file, middle_frame

__all__ = [
    "CameraPath",
    "Clip",
    "KeyFrame",
    "PathScript",
    "from_file",
    "intrinsics",
    "middle_frame",
    "parse_path",
    "pose_matrix",
    "smooth_path",
]
