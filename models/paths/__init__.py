"""Cameras -> cameras: trajectories for new views.

Files, in reading order:

- ``trajectories`` - kinds of paths: spiral, orbit, dolly, zoom, stabilized, bullet_time
- ``stabilization`` - the clip's own path without its shake; cameras between frames
- ``path_script`` - several trajectories joined, each with its share of the clip's time
- ``path_text`` - the command line's text -> path script
- ``path_files`` - paths from files: transforms.json, nerfstudio's viewer, glTF
- ``gltf_camera`` - an animated camera of glTF
- ``key_frames`` - keyframes set in the viewer -> a smooth path through them
"""

from models.paths.key_frames import K_from_fov, KeyFrame, interpolate_keys, pose_from_wxyz
from models.paths.path_files import PathDefaults, read_path
from models.paths.path_script import PathScript
from models.paths.path_text import parse_path
from models.paths.trajectories import CameraPath, Clip

__all__ = [
    "CameraPath",
    "Clip",
    "K_from_fov",
    "KeyFrame",
    "PathDefaults",
    "PathScript",
    "interpolate_keys",
    "parse_path",
    "pose_from_wxyz",
    "read_path",
]
