"""A clip's own camera path without its shake: the nearest path whose velocity changes little.

Whittaker's smoother, on positions and rotations: least squares between distance from the given path
and squared second differences. Unlike a moving average, the smoother has no bias at the ends.
Source: Eilers, "A perfect smoother", 2003.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import solveh_banded
from scipy.spatial.transform import Rotation, Slerp

from models.cameras import Cameras

# Gauss-Newton steps on the rotations; their axes turn so little from frame to frame that further
# steps change nothing
_ITERATIONS = 12
# frames; beyond it the system's condition number (16 sigma^4) leaves too few digits of a float64
_LARGEST_SIGMA = 1000.0


def stabilize_cameras(cameras: Cameras, sigma: float) -> Cameras:
    """Cameras of every frame with poses and intrinsics smoothed over time.

    Args:
        sigma: reach of the smoothing to either side, in frames; at most 1000 are used.
    """
    # a second difference needs three frames
    if len(cameras) < 3:
        return cameras
    weight = min(sigma, _LARGEST_SIGMA) ** 4
    system = _build_system(len(cameras), weight)
    poses = cameras.world_from_cam.double().numpy().copy()
    poses[:, :3, 3] = solveh_banded(system, poses[:, :3, 3])
    rotations = Rotation.from_matrix(poses[:, :3, :3])
    poses[:, :3, :3] = _smooth_rotations(rotations, weight, system).as_matrix()
    K = solveh_banded(system, cameras.K.double().flatten(1).numpy()).reshape(-1, 3, 3)
    return _replace_matrices(cameras, K, poses)


def interpolate_cameras(cameras: Cameras, times: list[float]) -> Cameras:
    """Cameras at fractional frames: positions and intrinsics linear, rotations at constant angular
    velocity between frames; the end cameras beyond the ends."""
    # Slerp needs two rotations
    if len(cameras) == 1:
        return cameras[[0] * len(times)]
    frames = np.arange(len(cameras))
    at = np.clip(np.asarray(times, float), 0, len(cameras) - 1)
    poses = np.tile(np.eye(4), (len(at), 1, 1))
    given = cameras.world_from_cam.double().numpy()
    poses[:, :3, :3] = Slerp(frames, Rotation.from_matrix(given[:, :3, :3]))(at).as_matrix()
    poses[:, :3, 3] = np.stack([np.interp(at, frames, given[:, i, 3]) for i in range(3)], 1)
    flat = cameras.K.double().flatten(1).numpy()
    K = np.stack([np.interp(at, frames, flat[:, i]) for i in range(9)], 1).reshape(-1, 3, 3)
    return _replace_matrices(cameras, K, poses)


def _build_system(num_frames: int, weight: float) -> Float[np.ndarray, "3 F"]:
    """I + weight D^T D with second differences D, as the upper band that ``solveh_banded`` takes:
    five diagonals, so memory and time grow with the number of frames and not with its square."""
    row = 1.0, -2.0, 1.0
    band = np.zeros((3, num_frames))
    for offset in range(3):
        for k in range(3 - offset):
            column = k + offset
            band[2 - offset, column : num_frames - 2 + column] += row[k] * row[column]
    # weight D^T D, then the identity
    band *= weight
    band[2] += 1.0
    return band


def _smooth_rotations(given: Rotation, weight: float, system: Float[np.ndarray, "3 F"]) -> Rotation:
    """Gauss-Newton in the tangent space of each frame's rotation."""
    smooth = given
    for _ in range(_ITERATIONS):
        velocity = (smooth[:-1].inv() * smooth[1:]).as_rotvec()
        # residuals as rotation vectors in the frame's own axes
        away = (smooth.inv() * given).as_rotvec()
        roughness = _transpose_second_differences(np.diff(velocity, axis=0))
        step = solveh_banded(system, away - weight * roughness)
        smooth = smooth * Rotation.from_rotvec(step)
    return smooth


def _transpose_second_differences(values: Float[np.ndarray, "M 3"]) -> Float[np.ndarray, "F 3"]:
    """D^T values, F = M + 2."""
    result = np.zeros((len(values) + 2, 3))
    result[:-2] += values
    result[1:-1] -= 2 * values
    result[2:] += values
    return result


def _replace_matrices(
    cameras: Cameras, K: Float[np.ndarray, "F 3 3"], poses: Float[np.ndarray, "F 4 4"]
) -> Cameras:
    """Cameras with other matrices, of the same image size, types and device."""
    return Cameras(
        torch.from_numpy(K).to(cameras.K),
        torch.from_numpy(poses).to(cameras.world_from_cam),
        cameras.width,
        cameras.height,
    )
