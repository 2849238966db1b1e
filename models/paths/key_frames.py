"""Keyframes of a camera -> a smooth path through them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline
from torch import Tensor

from models.cameras import Cameras
from models.run import InputError


@dataclass(frozen=True)
class KeyFrame:
    """Pose, lens and time that a camera path passes through."""

    world_from_cam: Float[np.ndarray, "4 4"]
    """Rigid pose, OpenCV camera axes to world."""
    fov: float
    """Vertical field of view in radians."""
    time: float
    """Frame of the clip, may be fractional."""


def interpolate_keys(
    keys: Sequence[KeyFrame], frames_between: int, width: int, height: int
) -> tuple[Cameras, list[float]]:
    """Cameras that pass through all keyframes, and their times in frames of the clip.

    Positions and orientations follow cubic splines; times and fields of view change linearly.

    Args:
        frames_between: steps from one keyframe to the next.
        width: of the rendered images, in pixels.
        height: of the rendered images, in pixels; the vertical field of view spans it.

    Raises:
        InputError: there are fewer than two keyframes.
    """
    if len(keys) < 2:
        raise InputError(f"a camera path needs at least 2 key frames and has {len(keys)}; set more")
    knots = np.arange(len(keys), dtype=np.float64)
    s = np.linspace(0, len(keys) - 1, (len(keys) - 1) * frames_between + 1)
    centers = [key.world_from_cam[:3, 3] for key in keys]
    rotations = Rotation.from_matrix([key.world_from_cam[:3, :3] for key in keys])
    poses = np.tile(np.eye(4), (len(s), 1, 1))
    # natural ends: no acceleration at the first and the last keyframe
    poses[:, :3, 3] = CubicSpline(knots, centers, bc_type="natural")(s)
    poses[:, :3, :3] = RotationSpline(knots, rotations)(s).as_matrix()
    times = np.interp(s, knots, [key.time for key in keys])
    fovs = np.interp(s, knots, [key.fov for key in keys])
    K = torch.stack([K_from_fov(fov, width, height) for fov in fovs])
    return Cameras(K, torch.from_numpy(poses), width, height), times.tolist()


def K_from_fov(fov: float, width: int, height: int) -> Float[Tensor, "3 3"]:
    """Intrinsics in pixels of a camera with a vertical field of view in radians and a centred
    principal point."""
    focal = height / 2 / math.tan(fov / 2)
    return torch.tensor(
        [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64
    )


def pose_from_wxyz(
    wxyz: Float[np.ndarray, "4"], position: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    """world_from_cam of a camera of the viewer's page, whose axes are OpenCV's too.

    Args:
        wxyz: unit quaternion, real part first.
        position: camera centre in the world.
    """
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(wxyz, scalar_first=True).as_matrix()
    pose[:3, 3] = position
    return pose
