"""Camera paths for new views: the cameras of a clip -> cameras.

A new path is a function ``(clip, times, *, own settings) -> Cameras`` in ``TRAJECTORIES``, one
camera for each of ``times`` (frames of the clip, fractional). Its settings are numbers;
``path_script`` reads them from a text.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from models.cameras import Cameras, look_at, middle_frame
from models.clip import load_transforms
from models.paths.stabilization import interpolate_cameras, smooth_path

CameraPath = tuple[Cameras, list[float]]
"""Cameras, and the time of the moving layers at each, in frames of the clip."""
CLEAR_SHARE = 0.5
"""A camera leaves its starting point by at most this share of the distance to the nearest
surface."""


def _unbounded(center: Float[Tensor, "3"]) -> float:
    return math.inf


@dataclass(frozen=True)
class Clip:
    """What paths start from."""

    cameras: Cameras
    depth: float
    """Typical depth of the scene seen from the middle camera, in world units."""
    clearance: Callable[[Float[Tensor, "3"]], float] = _unbounded
    """Distance from a point to the scene's nearest surface, in world units."""

    def reach(self, k: int, wanted: float) -> float:
        """How far a camera may go from frame k's, if it wants to go so far."""
        return min(wanted, CLEAR_SHARE * self.clearance(self.cameras.centers[k]))


def spiral(clip: Clip, times: list[float], *, radius: float = 0.08, turns: float = 2) -> Cameras:
    """Circles around the middle camera and looks at the point ``depth`` before it; a smooth closed
    loop.

    Args:
        radius: reach sideways, as a share of ``depth``; half of that up and down, and forward and
            back once.
        turns: whole circles.
    """
    k = middle_frame(clip.cameras)
    angle = _loop(len(times))
    around = torch.stack(
        [torch.cos(turns * angle), torch.sin(turns * angle) / 2, torch.sin(angle) / 2], 1
    )
    largest = float(around.norm(dim=1).max())
    return _looking(clip, k, clip.reach(k, radius * clip.depth * largest) / largest * around)


def orbit(clip: Clip, times: list[float], *, degrees: float = 15.0) -> Cameras:
    """Swings ``degrees`` to either side of the middle camera on a circle around the point ``depth``
    before it."""
    return _swing(clip, middle_frame(clip.cameras), len(times), degrees)


def dolly(clip: Clip, times: list[float], *, reach: float = 0.2) -> Cameras:
    """Moves from the middle camera towards the scene by ``reach``, a share of ``depth``, and
    back."""
    k = middle_frame(clip.cameras)
    forward = clip.reach(k, reach * clip.depth) * (1 - torch.cos(_loop(len(times)))) / 2
    return _looking(
        clip, k, torch.stack([torch.zeros_like(forward), torch.zeros_like(forward), forward], 1)
    )


def zoom(clip: Clip, times: list[float], *, factor: float = 1.5) -> Cameras:
    """Stays at the middle camera; the focal length grows ``factor``-fold and comes back."""
    path = _looking(
        clip, middle_frame(clip.cameras), torch.zeros(len(times), 3, dtype=torch.float64)
    )
    K = path.K.clone()
    K[:, [0, 1], [0, 1]] *= factor ** ((1 - torch.cos(_loop(len(times)))) / 2)[:, None].to(K)
    return Cameras(K, path.world_from_cam, path.width, path.height)


def stabilized(clip: Clip, times: list[float], *, sigma: float = 12.0) -> Cameras:
    """The clip's own path without its shake, smoothed over about ``sigma`` frames to either
    side."""
    return interpolate_cameras(smooth_path(clip.cameras, sigma), times)


def bullet_time(clip: Clip, times: list[float], *, degrees: float = 15.0) -> Cameras:
    """Swings to either side of the stabilized camera of the first of ``times``, where the movers
    stand still."""
    start = stabilized(clip, times[:1])
    k = round(times[0])
    poses = clip.cameras.world_from_cam.clone()
    K = clip.cameras.K.clone()
    poses[k] = start.world_from_cam[0]
    K[k] = start.K[0]
    moved = Clip(Cameras(K, poses, start.width, start.height), clip.depth, clip.clearance)
    return _swing(moved, k, len(times), degrees)


TRAJECTORIES: dict[str, Callable[..., Cameras]] = {
    "spiral": spiral,
    "orbit": orbit,
    "dolly": dolly,
    "zoom": zoom,
    "stabilized": stabilized,
    "bullet_time": bullet_time,
}


def from_file(path: str | Path) -> CameraPath:
    """A path from a transforms.json, with the times that it gives.

    Raises:
        InputError: the file cannot be used.
    """
    cameras, times, _ = load_transforms(Path(path))
    return cameras, times


def _loop(num_frames: int) -> Float[Tensor, "F"]:
    """Angles once around; the last lies one step before the first, so that a video loops without a
    pause."""
    return 2 * math.pi * torch.arange(num_frames, dtype=torch.float64) / num_frames


def _swing(clip: Clip, k: int, num_frames: int, degrees: float) -> Cameras:
    """From frame k's camera to either side and back on a circle around the point ``depth`` before
    it."""
    half = math.radians(min(abs(degrees), 180.0)) / 2
    chord = clip.reach(k, 2 * clip.depth * math.sin(half))
    angle = math.copysign(2 * math.asin(chord / (2 * clip.depth)), degrees) * torch.sin(
        _loop(num_frames)
    )
    return _looking(
        clip,
        k,
        clip.depth
        * torch.stack([torch.sin(angle), torch.zeros_like(angle), 1 - torch.cos(angle)], 1),
    )


def _looking(clip: Clip, k: int, offsets: Float[Tensor, "F 3"]) -> Cameras:
    """Cameras shifted by ``offsets`` in frame k's camera axes, all looking at the point ``depth``
    before it."""
    cameras = clip.cameras
    pose = cameras.world_from_cam[k].double()
    rotation = pose[:3, :3]
    eye = pose[:3, 3]
    target = eye + clip.depth * rotation[:, 2]
    up = -rotation[:, 1]
    poses = torch.stack(
        [look_at(eye + rotation @ offset, target, up) for offset in offsets.double()]
    )
    K = cameras.K[k].expand(len(offsets), 3, 3)
    return Cameras(K, poses.to(cameras.world_from_cam), cameras.width, cameras.height)
