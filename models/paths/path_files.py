"""Camera paths from files: transforms.json, nerfstudio's camera_path.json, an animated camera in
glTF (as Blender exports it)."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from models.cameras import OPENGL_FROM_OPENCV, Cameras, find_camera_problem
from models.clip import load_transforms
from models.paths.gltf_camera import read_gltf_camera
from models.paths.key_frames import K_from_fov
from models.paths.trajectories import CameraPath
from models.run import MAX_SIDE, InputError, read_json

# Most cameras of a path; more is a mistake.
_MOST = 100_000


@dataclass(frozen=True)
class PathDefaults:
    """The clip's size and frame rate, used where a path file does not state them."""

    width: int
    """In pixels."""
    height: int
    """In pixels."""
    fps: float
    """Frames per second of the clip: a time in seconds becomes a frame of the clip."""


def read_path(path: str | Path, clip: PathDefaults) -> CameraPath:
    """Reads cameras and the time of each.

    The kind of the file follows from its content: ``.glb`` and ``.gltf`` with an animated camera,
    JSON with ``camera_path`` of nerfstudio's viewer, else transforms.json. All are in the scene's
    own world: that of transforms.json, scene.glb and the exported camera paths.

    Raises:
        InputError: the file cannot be used.
    """
    path = Path(path)
    if path.suffix.lower() in (".glb", ".gltf"):
        return read_gltf_camera(path, clip.height, clip.fps)
    content = read_json(path, "camera path")
    if isinstance(content, dict) and "camera_path" in content:
        return _read_nerfstudio(path, content, clip)
    cameras, times, _ = load_transforms(path)
    return cameras, times


def _read_nerfstudio(path: Path, content: dict, clip: PathDefaults) -> CameraPath:
    """Cameras of nerfstudio's viewer: camera_to_world in OpenGL axes, vertical field of view in
    degrees. ``time`` in frames of the clip is ours; without it the clip plays a frame a camera."""
    try:
        width = int(content.get("render_width", clip.width))
        height = int(content.get("render_height", clip.height))
        views = list(content["camera_path"])
        poses = torch.tensor([view["camera_to_world"] for view in views], dtype=torch.float64)
        poses = poses.reshape(len(views), 4, 4) @ OPENGL_FROM_OPENCV
        fovs = [float(view["fov"]) for view in views]
        if not all(0 < fov < 180 for fov in fovs):
            raise ValueError("a field of view is not between 0 and 180 degrees")
        K = torch.stack([K_from_fov(math.radians(fov), width, height) for fov in fovs])
        times = [float(view.get("time", i)) for i, view in enumerate(views)]
    except (
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        OverflowError,
    ) as error:
        raise InputError(
            f"{path}: is no camera path of nerfstudio's viewer ({type(error).__name__}: {error}); "
            "export it again"
        ) from error
    problem = find_camera_problem(K, poses)
    if not 0 < len(views) <= _MOST or not 0 < min(width, height) <= max(width, height) <= MAX_SIDE:
        problem = f"it has {len(views)} cameras of {width}x{height}"
    if problem is None and not all(math.isfinite(time) for time in times):
        problem = "a time is not finite"
    if problem is not None:
        raise InputError(f"{path}: cannot be used as a camera path: {problem}")
    return Cameras(K, poses, width, height), times
