"""A camera that only turns (or stands still): rotations and focal length from tracks, no structure."""

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras


def solve_rotation(
    xy: Float[np.ndarray, "F N 2"], visible: Bool[np.ndarray, "F N"], width: int, height: int
) -> tuple[Cameras, float]:
    """The best camera that turns about its centre, and the median distance in pixels that it leaves.

    Each track is one direction; each frame's rotation carries directions to its rays (Kabsch), robustly
    weighted. The focal length is the one on a ladder, then refined, whose residual is least; where the camera
    hardly turns all fit alike and the usual 1.2 times the longer side stays.
    """
    size = max(width, height)
    ladder = size * np.geomspace(0.5, 4.0, 10)
    errors = np.array([_fit(xy, visible, f, width, height, 6)[1] for f in ladder])
    usual = _fit(xy, visible, 1.2 * size, width, height, 6)[1]
    best = int(errors.argmin())
    if errors[best] > 0.97 * usual:
        focal = 1.2 * size
    else:
        lo, hi = ladder[max(0, best - 1)], ladder[min(len(ladder) - 1, best + 1)]
        fine = np.geomspace(lo, hi, 7)
        focal = fine[np.argmin([_fit(xy, visible, f, width, height, 6)[1] for f in fine])]
    rotations, error = _fit(xy, visible, focal, width, height, 20)
    poses = np.tile(np.eye(4), (len(xy), 1, 1))
    moved = np.median(np.linalg.norm(xy - xy[:1], axis=-1)[visible & visible[:1]]) if visible.any() else 0.0
    if moved > 0.3:
        poses[:, :3, :3] = rotations
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Cameras(torch.from_numpy(np.tile(K, (len(xy), 1, 1))), torch.from_numpy(poses), width, height), error


def _fit(
    xy: np.ndarray, visible: np.ndarray, focal: float, width: int, height: int, rounds: int
) -> tuple[Float[np.ndarray, "F 3 3"], float]:
    """world_from_cam rotations at a given focal length, and the median residual in pixels."""
    rays = np.concatenate([(xy - [width / 2, height / 2]) / focal, np.ones_like(xy[..., :1])], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    rotations = _chain(rays, visible)
    weight = visible.astype(np.float64)
    for _ in range(rounds):
        direction = np.einsum("fn,fij,fnj->ni", weight, rotations, rays)
        direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
        rotations = np.stack([_kabsch(rays[t], direction, weight[t]) for t in range(len(rays))])
        miss = focal * np.linalg.norm(np.einsum("fij,fnj->fni", rotations, rays) - direction, axis=-1)
        weight = visible / (1.0 + miss**2)
    rotations = rotations[0].T @ rotations
    return rotations, float(np.median(miss[visible]))


def _chain(rays: np.ndarray, visible: np.ndarray) -> Float[np.ndarray, "F 3 3"]:
    """A start: rotations from frame to frame, multiplied up."""
    rotations = [np.eye(3)]
    for t in range(1, len(rays)):
        both = (visible[t - 1] & visible[t]).astype(np.float64)
        rotations.append(rotations[-1] @ _kabsch(rays[t], rays[t - 1], both))
    return np.stack(rotations)


def _kabsch(source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Rotation R with target ~ R source, weighted least squares."""
    u, _, vt = np.linalg.svd(np.einsum("n,ni,nj->ij", weight, target, source))
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
