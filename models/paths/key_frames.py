"""Key frames of a camera -> a smooth path through them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from models.cameras import Cameras
from models.run import InputError


@dataclass(frozen=True)
class KeyFrame:
    """Where a camera is to be, and when."""

    world_from_cam: Float[ndarray, "4 4"]
    """Rigid pose, OpenCV camera axes to world."""
    fov: float
    """Vertical field of view in radians."""
    time: float
    """Frame of the clip, may be fractional."""


def smooth_path(
    keys: Sequence[KeyFrame], frames_between: int, width: int, height: int
) -> tuple[Cameras, list[float]]:
    """Cameras that pass through all key frames, ``frames_between`` steps from one to the next, and
    their times.

    Positions and orientations follow cubic splines; times and fields of view go in straight lines.

    Args:
        width: of the pictures to render, in pixels.
        height: likewise; it shows the key frames' fields of view.

    Raises:
        InputError: there are fewer than two key frames.
    """
    if len(keys) < 2:
        raise InputError(f"a camera path needs at least 2 key frames and has {len(keys)}; set more")
    at = np.arange(len(keys), dtype=np.float64)
    s = np.linspace(0, len(keys) - 1, (len(keys) - 1) * frames_between + 1)
    poses = np.tile(np.eye(4), (len(s), 1, 1))
    poses[:, :3, 3] = CubicSpline(
        at, [key.world_from_cam[:3, 3] for key in keys], bc_type="natural"
    )(s)
    turns = Rotation.from_matrix([key.world_from_cam[:3, :3] for key in keys])
    poses[:, :3, :3] = RotationSpline(at, turns)(s).as_matrix()
    times = np.interp(s, at, [key.time for key in keys])
    fovs = np.interp(s, at, [key.fov for key in keys])
    K = torch.stack([intrinsics(fov, width, height) for fov in fovs])
    return Cameras(K, torch.from_numpy(poses), width, height), times.tolist()


def intrinsics(fov: float, width: int, height: int) -> Float[torch.Tensor, "3 3"]:
    """K in pixels of a camera with that vertical field of view (radians) and a centred principal
    point."""
    focal = height / 2 / math.tan(fov / 2)
    return torch.tensor(
        [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64
    )


def pose_matrix(wxyz: ndarray, position: ndarray) -> ndarray:
    """world_from_cam of a page's camera, whose axes are OpenCV's too."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(wxyz, scalar_first=True).as_matrix()
    pose[:3, 3] = position
    return pose
