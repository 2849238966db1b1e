"""Camera paths for new views: cameras of a clip -> cameras.

A trajectory is a frozen dataclass in ``TRAJECTORIES``. Its fields are numbers, which
``path_text`` reads from the command line; its method ``follow`` returns a camera for each of some
times.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from models.cameras import Cameras, find_middle_frame, look_at
from models.paths.stabilization import interpolate_cameras, stabilize_cameras

CameraPath = tuple[Cameras, list[float]]
"""Cameras, and the time of the movers at each, in frames of the clip."""
CLEAR_SHARE = 0.5
"""Largest distance of a camera from its starting point, as a share of the distance from there to
the nearest surface."""


def _ignore_surfaces(center: Float[Tensor, "3"]) -> float:
    return math.inf


@dataclass(frozen=True)
class Clip:
    """Cameras and geometry that trajectories start from."""

    cameras: Cameras
    """Camera of each frame of the clip."""
    depth: float
    """Typical depth of the scene in front of the middle camera, in world units."""
    clearance: Callable[[Float[Tensor, "3"]], float] = _ignore_surfaces
    """Distance from a world point to the nearest surface of the scene, in world units."""

    def limit_reach(self, k: int, wanted: float) -> float:
        """The wanted distance from frame k's camera, or less if a surface is near; world units."""
        return min(wanted, CLEAR_SHARE * self.clearance(self.cameras.centers[k]))


class Trajectory(Protocol):
    """A kind of camera path with its settings."""

    def follow(self, clip: Clip, times: Sequence[float]) -> Cameras:
        """A camera for each of ``times``, in frames of the clip (may be fractional)."""
        ...


@dataclass(frozen=True)
class Spiral:
    """Circles round the middle camera, looking at the point ``depth`` before it; a smooth closed
    loop."""

    radius: float = 0.08
    """Reach sideways as a share of the scene's depth; half of it up and down, and once forward and
    back."""
    turns: float = 2
    """Number of whole circles."""

    def follow(self, clip: Clip, times: Sequence[float]) -> Cameras:
        k = find_middle_frame(clip.cameras)
        angle = _divide_circle(len(times))
        around = torch.stack(
            [
                torch.cos(self.turns * angle),
                torch.sin(self.turns * angle) / 2,
                torch.sin(angle) / 2,
            ],
            1,
        )
        # the clearance bounds the farthest point of the loop
        largest = float(around.norm(dim=1).max())
        reach = clip.limit_reach(k, self.radius * clip.depth * largest)
        return _look_from(clip, k, reach / largest * around)


@dataclass(frozen=True)
class Orbit:
    """Swings on a circle around the point ``depth`` before the middle camera."""

    degrees: float = 15.0
    """Largest angle to either side."""

    def follow(self, clip: Clip, times: Sequence[float]) -> Cameras:
        return _swing(clip, find_middle_frame(clip.cameras), len(times), self.degrees)


@dataclass(frozen=True)
class Dolly:
    """Moves from the middle camera towards the scene and back."""

    reach: float = 0.2
    """Distance as a share of the scene's depth."""

    def follow(self, clip: Clip, times: Sequence[float]) -> Cameras:
        k = find_middle_frame(clip.cameras)
        reach = clip.limit_reach(k, self.reach * clip.depth)
        forward = reach * (1 - torch.cos(_divide_circle(len(times)))) / 2
        still = torch.zeros_like(forward)
        return _look_from(clip, k, torch.stack([still, still, forward], 1))


@dataclass(frozen=True)
class Zoom:
    """Stays at the middle camera while the focal length grows and shrinks again."""

    factor: float = 1.5
    """Largest focal length, relative to the clip's."""

    def follow(self, clip: Clip, times: Sequence[float]) -> Cameras:
        still = torch.zeros(len(times), 3, dtype=torch.float64)
        path = _look_from(clip, find_middle_frame(clip.cameras), still)
        # a geometric change looks even to the eye
        share = (1 - torch.cos(_divide_circle(len(times)))) / 2
        K = path.K.clone()
        K[:, [0, 1], [0, 1]] *= self.factor ** share[:, None].to(K)
        return Cameras(K, path.world_from_cam, path.width, path.height)


@dataclass(frozen=True)
class Stabilized:
    """The clip's own path without its shake."""

    sigma: float = 12.0
    """Reach of the smoothing to either side, in frames."""

    def follow(self, clip: Clip, times: Sequence[float]) -> Cameras:
        return interpolate_cameras(stabilize_cameras(clip.cameras, self.sigma), times)


@dataclass(frozen=True)
class BulletTime:
    """Swings to either side of the stabilised camera of the first time, while the movers stand
    still."""

    degrees: float = 15.0
    """Largest angle to either side."""

    def follow(self, clip: Clip, times: Sequence[float]) -> Cameras:
        # the swing starts where a stabilised part before it ends
        start = Stabilized().follow(clip, times[:1])
        k = round(times[0])
        poses = clip.cameras.world_from_cam.clone()
        K = clip.cameras.K.clone()
        poses[k] = start.world_from_cam[0]
        K[k] = start.K[0]
        moved = Clip(Cameras(K, poses, start.width, start.height), clip.depth, clip.clearance)
        return _swing(moved, k, len(times), self.degrees)


TRAJECTORIES: dict[str, type[Trajectory]] = {
    "spiral": Spiral,
    "orbit": Orbit,
    "dolly": Dolly,
    "zoom": Zoom,
    "stabilized": Stabilized,
    "bullet_time": BulletTime,
}
"""Kinds of camera paths by the name that the command line takes."""


def _divide_circle(num_frames: int) -> Float[Tensor, "F"]:
    """Angles once around; the last lies a step before the first, so that a video loops without a
    pause."""
    return 2 * math.pi * torch.arange(num_frames, dtype=torch.float64) / num_frames


def _swing(clip: Clip, k: int, num_frames: int, degrees: float) -> Cameras:
    """From frame k's camera to either side and back, on a circle around the point ``depth`` before
    it."""
    # the chord from the start to the widest point is bounded by the clearance
    half = math.radians(min(abs(degrees), 180.0)) / 2
    chord = clip.limit_reach(k, 2 * clip.depth * math.sin(half))
    widest = math.copysign(2 * math.asin(chord / (2 * clip.depth)), degrees)
    angle = widest * torch.sin(_divide_circle(num_frames))
    offsets = torch.stack([torch.sin(angle), torch.zeros_like(angle), 1 - torch.cos(angle)], 1)
    return _look_from(clip, k, clip.depth * offsets)


def _look_from(clip: Clip, k: int, offsets: Float[Tensor, "F 3"]) -> Cameras:
    """Cameras at ``offsets`` in frame k's camera axes, all looking at the point ``depth`` before
    frame k's camera."""
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
