"""Camera paths for new views: the cameras of a clip -> cameras, and the time of the moving layers at each.

A new path is a function ``(cameras, depth, num_frames, *, freeze_time, own settings) -> (Cameras, times)`` in
``TRAJECTORIES``. ``depth`` is the median depth of the scene as seen from the clip's middle camera, in world units;
``times`` are frame numbers of the clip, fractional, that play it once, or ``freeze_time`` throughout.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from models.cameras import Cameras, load_transforms, look_at
from models.errors import InputError

CameraPath = tuple[Cameras, list[float]]


def middle_frame(cameras: Cameras) -> int:
    """The frame whose camera centre is nearest the mean of the path."""
    centers = cameras.centers
    return int((centers - centers.mean(0)).norm(dim=1).argmin())


def spiral(
    cameras: Cameras,
    depth: float,
    num_frames: int,
    *,
    freeze_time: float | None = None,
    radius_share: float = 0.08,
    turns: int = 2,
    height_share: float = 0.5,
    forward_share: float = 0.5,
) -> CameraPath:
    """Circles around the middle camera and looks at the point ``depth`` before it; a smooth closed loop.

    Args:
        radius_share: radius sideways, as a share of ``depth``.
        turns: whole circles; the path moves forward and back once meanwhile.
        height_share: radius up and down, as a share of the radius sideways.
        forward_share: reach forward and back, as a share of the radius sideways.
    """
    angle = _loop(num_frames)
    radius = radius_share * depth
    around = [torch.cos(turns * angle), height_share * torch.sin(turns * angle), forward_share * torch.sin(angle)]
    return _looking(cameras, depth, radius * torch.stack(around, 1)), _times(cameras, num_frames, freeze_time)


def orbit(
    cameras: Cameras, depth: float, num_frames: int, *, freeze_time: float | None = None, degrees: float = 15.0
) -> CameraPath:
    """Swings ``degrees`` to either side of the middle camera on a circle around the point ``depth`` before it."""
    angle = math.radians(degrees) * torch.sin(_loop(num_frames))
    around = torch.stack([torch.sin(angle), torch.zeros_like(angle), 1 - torch.cos(angle)], 1)
    return _looking(cameras, depth, depth * around), _times(cameras, num_frames, freeze_time)


def dolly(
    cameras: Cameras, depth: float, num_frames: int, *, freeze_time: float | None = None, reach_share: float = 0.2
) -> CameraPath:
    """Moves from the middle camera towards the scene by ``reach_share`` of ``depth``, and back."""
    forward = reach_share * depth * (1 - torch.cos(_loop(num_frames))) / 2
    around = torch.stack([torch.zeros_like(forward), torch.zeros_like(forward), forward], 1)
    return _looking(cameras, depth, around), _times(cameras, num_frames, freeze_time)


def zoom(
    cameras: Cameras, depth: float, num_frames: int, *, freeze_time: float | None = None, factor: float = 1.5
) -> CameraPath:
    """Stays at the middle camera; the focal length grows ``factor``-fold and comes back."""
    path = _looking(cameras, depth, torch.zeros(num_frames, 3, dtype=torch.float64))
    K = path.K.clone()
    K[:, [0, 1], [0, 1]] *= factor ** ((1 - torch.cos(_loop(num_frames))) / 2)[:, None].to(K)
    return Cameras(K, path.world_from_cam, path.width, path.height), _times(cameras, num_frames, freeze_time)


def stabilized(
    cameras: Cameras, depth: float, num_frames: int, *, freeze_time: float | None = None, sigma: float = 6.0
) -> CameraPath:
    """The clip's own path without its shake: poses and intrinsics averaged under a Gaussian of ``sigma`` frames.

    ``freeze_time`` stops the moving layers, not the camera.
    """
    at = torch.tensor(_times(cameras, num_frames, None), dtype=torch.float64)
    distance = (at[:, None] - torch.arange(len(cameras), dtype=torch.float64)) / sigma
    weight = torch.softmax(-distance.square() / 2, 1)
    poses = (weight @ cameras.world_from_cam.double().flatten(1)).unflatten(1, (4, 4))
    u, _, vt = torch.linalg.svd(poses[:, :3, :3])
    turned = torch.det(u @ vt).sign()  # the nearest rotation to the mean of matrices is the chordal mean
    poses[:, :3, :3] = torch.cat([u[..., :2], u[..., 2:] * turned[:, None, None]], 2) @ vt
    K = (weight @ cameras.K.double().flatten(1)).unflatten(1, (3, 3))
    path = Cameras(K.to(cameras.K), poses.to(cameras.world_from_cam), cameras.width, cameras.height)
    return path, _times(cameras, num_frames, freeze_time)


TRAJECTORIES: dict[str, Callable[..., CameraPath]] = {
    "spiral": spiral,
    "orbit": orbit,
    "dolly": dolly,
    "zoom": zoom,
    "stabilized": stabilized,
}


def check_trajectory(name: str) -> None:
    """Raises InputError where there is no path of that name."""
    if name not in TRAJECTORIES:
        raise InputError(f"there is no camera path '{name}'; choose one of {', '.join(TRAJECTORIES)}")


def make_trajectory(name: str, cameras: Cameras, depth: float, num_frames: int, **settings: float | None) -> CameraPath:
    """The path of that name; see the functions for their settings.

    Raises:
        InputError: there is no path of that name.
    """
    check_trajectory(name)
    if depth <= 0 or num_frames < 1:
        raise ValueError(f"needs a positive depth and number of frames, not {depth} and {num_frames}")
    return TRAJECTORIES[name](cameras, depth, num_frames, **settings)


def from_file(path: str | Path) -> CameraPath:
    """A path from a transforms.json, with the times that it gives.

    Raises:
        InputError: the file cannot be used.
    """
    cameras, times, _ = load_transforms(Path(path))
    return cameras, times


def _loop(num_frames: int) -> Float[Tensor, "F"]:
    """Angles once around; the last lies one step before the first, so that a video loops without a pause."""
    return 2 * math.pi * torch.arange(num_frames, dtype=torch.float64) / num_frames


def _times(cameras: Cameras, num_frames: int, freeze_time: float | None) -> list[float]:
    if freeze_time is not None:
        return [float(freeze_time)] * num_frames
    return torch.linspace(0, len(cameras) - 1, num_frames, dtype=torch.float64).tolist()


def _looking(cameras: Cameras, depth: float, offsets: Float[Tensor, "F 3"]) -> Cameras:
    """Cameras shifted by ``offsets`` in the middle camera's axes, all looking at the point ``depth`` before it."""
    k = middle_frame(cameras)
    pose = cameras.world_from_cam[k].double()
    rotation, eye = pose[:3, :3], pose[:3, 3]
    target, up = eye + depth * rotation[:, 2], -rotation[:, 1]
    poses = torch.stack([look_at(eye + rotation @ offset, target, up) for offset in offsets.double()])
    K = cameras.K[k].expand(len(offsets), 3, 3)
    return Cameras(K, poses.to(cameras.world_from_cam), cameras.width, cameras.height)
