"""A clip's own camera path without its shake: the nearest path whose speed changes little.

Whittaker's smoother, on places and on rotations: least squares between staying near the path and a
small second difference. Unlike an average under a window it has no bias at the ends. Source:
Eilers, "A perfect smoother", 2003.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from models.cameras import Cameras

ITERATIONS = 12


def smooth_path(cameras: Cameras, sigma: float) -> Cameras:
    """Cameras of every frame, smoothed over about ``sigma`` frames to either side; intrinsics
    too."""
    if len(cameras) < 3:
        return cameras
    difference = np.diff(np.eye(len(cameras)), 2, axis=0)
    roughness = sigma**4 * difference.T @ difference
    system = np.eye(len(cameras)) + roughness
    poses = cameras.world_from_cam.double().numpy().copy()
    poses[:, :3, 3] = np.linalg.solve(system, poses[:, :3, 3])
    poses[:, :3, :3] = _smooth_rotations(
        Rotation.from_matrix(poses[:, :3, :3]), difference, sigma**4, system
    )
    K = np.linalg.solve(system, cameras.K.double().flatten(1).numpy()).reshape(-1, 3, 3)
    return Cameras(
        torch.from_numpy(K).to(cameras.K), torch.from_numpy(poses).to(cameras.world_from_cam),
        cameras.width, cameras.height,
    )  # fmt: skip


def _smooth_rotations(
    given: Rotation, difference: np.ndarray, weight: float, system: np.ndarray
) -> Float[np.ndarray, "F 3 3"]:
    """Gauss-Newton on the rotations' own tangents, whose axes turn little from frame to frame."""
    smooth = given
    for _ in range(ITERATIONS):
        velocity = (smooth[:-1].inv() * smooth[1:]).as_rotvec()
        away = (smooth.inv() * given).as_rotvec()
        step = np.linalg.solve(system, away - weight * difference.T @ np.diff(velocity, axis=0))
        smooth = smooth * Rotation.from_rotvec(step)
    return smooth.as_matrix()


def at_times(cameras: Cameras, times: list[float]) -> Cameras:
    """Cameras between those of frames: places and intrinsics linear, rotations at constant
    speed."""
    if len(cameras) == 1:
        return cameras[[0] * len(times)]
    known = np.arange(len(cameras))
    at = np.clip(np.asarray(times, float), 0, len(cameras) - 1)
    poses = np.tile(np.eye(4), (len(at), 1, 1))
    given = cameras.world_from_cam.double().numpy()
    poses[:, :3, :3] = Slerp(known, Rotation.from_matrix(given[:, :3, :3]))(at).as_matrix()
    poses[:, :3, 3] = np.stack([np.interp(at, known, given[:, i, 3]) for i in range(3)], 1)
    flat = cameras.K.double().flatten(1).numpy()
    K = np.stack([np.interp(at, known, flat[:, i]) for i in range(9)], 1).reshape(-1, 3, 3)
    return Cameras(
        torch.from_numpy(K).to(cameras.K), torch.from_numpy(poses).to(cameras.world_from_cam),
        cameras.width, cameras.height,
    )  # fmt: skip
