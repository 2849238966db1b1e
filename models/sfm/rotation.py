"""A camera that only turns (or stands still): rotations and focal length from tracks, no
structure."""

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras

STILL_LIMIT = 0.5
"""A camera that carries no part of its image farther than this, in pixels, stands still."""
CLEARLY = 0.02
"""Gain in pixels of residual below which one focal length explains the tracks no better than
another."""


def solve_rotation(
    xy: Float[np.ndarray, "F N 2"], visible: Bool[np.ndarray, "F N"], width: int, height: int
) -> tuple[Cameras, float]:
    """The best camera that turns about its centre, and the median distance in pixels that it
    leaves.

    Each track is one direction; each frame's rotation carries directions to its rays (Kabsch),
    robustly weighted. The focal length is the one on a ladder, then refined, whose residual is
    least; where the camera hardly turns all fit alike and the usual 1.2 times the longer side
    stays. Poses of a camera that does not turn at all are exactly the identity. The first frame's
    axes are the world's.
    """
    focal = _focal_length(xy, visible, width, height)
    rotations, error = _fit(xy, visible, focal, width, height, 20)
    poses = np.tile(np.eye(4), (len(xy), 1, 1))
    if _largest_motion(rotations[visible.any(1)], focal, width, height) > STILL_LIMIT:
        poses[:, :3, :3] = rotations
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Cameras(
        torch.from_numpy(np.tile(K, (len(xy), 1, 1))), torch.from_numpy(poses), width, height
    ), error


def _focal_length(xy: np.ndarray, visible: np.ndarray, width: int, height: int) -> float:
    """In pixels; the usual one where no other explains the tracks clearly better."""

    def error(focal: float) -> float:
        return _fit(xy, visible, focal, width, height, 6)[1]

    usual = 1.2 * max(width, height)
    ladder = max(width, height) * np.geomspace(0.5, 4.0, 10)
    errors = np.array([error(f) for f in ladder])
    best = int(errors.argmin())
    if error(usual) - errors[best] < max(CLEARLY, 0.03 * errors[best]):
        return usual
    fine = np.geomspace(ladder[max(0, best - 1)], ladder[min(len(ladder) - 1, best + 1)], 9)
    return float(fine[np.argmin([error(f) for f in fine])])


def _largest_motion(
    rotations: Float[np.ndarray, "F 3 3"], focal: float, width: int, height: int
) -> float:
    """How far, in pixels, the rotations carry the image's centre or corners at most."""
    x, y = width / 2 / focal, height / 2 / focal
    rays = np.array([[0, 0, 1], [x, y, 1], [-x, y, 1], [x, -y, 1], [-x, -y, 1]])
    relative = rotations[0].T @ rotations
    return float(focal * np.linalg.norm(relative @ rays.T - rays.T, axis=1).max())


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
        miss = focal * np.linalg.norm(
            np.einsum("fij,fnj->fni", rotations, rays) - direction, axis=-1
        )
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
