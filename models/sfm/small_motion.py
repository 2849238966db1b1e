"""Bundle adjustment from pure rotation, for cameras that move too little for a mapper to start.

Points are a direction and an inverse depth, so a far point costs nothing (Yu and Gallup, "3D
reconstruction from accidental motion", 2014); cameras start at rotations without translation and
need no first pair of frames.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from models.cameras import Cameras
from models.run import njit
from models.tracks import PointTracks

# Share of the residual of a camera that turns, below which the residual of a camera that also moves
# must lie. Larger takes more cameras as moving, and slips of tracks as parallax.
_STEADY_GAIN = 0.7
# Constants of compiled kernels.
# Residual in pixels at which an observation has lost half its weight (Cauchy).
_SCALE = 1.0
# Pull of each inverse depth to 1, against residuals in pixels. It also fixes the scene's scale.
_DEPTH_PRIOR = 0.05
# Pull of each camera's shift to 0, per unit of the typical depth and pixel of focal length.
_SHIFT_PRIOR = 1e-2
# Levenberg-Marquardt: most rounds, the relative gain at which it stops, and its damping.
_MAX_ROUNDS = 60
_SETTLED = 1e-5
_FIRST_DAMPING = 1e-3


@dataclass(frozen=True)
class _Observations:
    """S observations, track by track."""

    xy: Float[np.ndarray, "S 2"]
    """Pixels."""
    frame: Int[np.ndarray, "S"]
    first: Int[np.ndarray, "N1"]
    """Row of each track's first observation, and at the end S."""


def find_small_motion(
    tracks: PointTracks, turning: Cameras, residual: float
) -> tuple[Cameras, float] | None:
    """``adjust_rotation``, or None where cameras that turn explain the tracks about as well.

    Args:
        residual: of the turning cameras, in pixels.
    """
    moving, moving_residual = adjust_rotation(tracks, turning)
    return None if moving_residual > _STEADY_GAIN * residual else (moving, moving_residual)


def adjust_rotation(tracks: PointTracks, turning: Cameras) -> tuple[Cameras, float]:
    """Lets cameras that only turn also move, to explain the tracks' parallax; typical depth 1.

    Args:
        turning: a rotation for each frame, and the focal length, which is kept. The world has the
            first camera's axes.

    Returns:
        The cameras, and the median residual in pixels over the visible observations.
    """
    observations = _gather_observations(tracks)
    K = turning.K.double().numpy()
    pose = turning.cam_from_world.double().numpy().copy()
    points = _start_points(tracks, K, pose)
    damping = _FIRST_DAMPING
    cost = np.inf
    for _ in range(_MAX_ROUNDS):
        new_cost, step, new_points = _solve_step(observations, K, pose, points, damping)
        # The step that led here was bad: back to the state before it, and a shorter step.
        if new_cost > cost:
            pose = kept_pose
            points = kept_points
            damping = 10 * damping
            cost = np.inf
            continue
        settled = cost - new_cost < _SETTLED * new_cost
        kept_pose = pose
        kept_points = points
        cost = new_cost
        pose = _move_cameras(pose, step)
        points = new_points
        damping = max(0.4 * damping, 1e-8)
        if settled:
            break
    given = observations.xy, observations.frame, observations.first
    residual = _measure_residuals(*given, K, kept_pose, kept_points)
    return _cameras_from_poses(turning, kept_pose), float(np.median(residual))


def _gather_observations(tracks: PointTracks) -> _Observations:
    """The visible observations, track by track."""
    frame, track = np.nonzero(tracks.visible)
    order = np.argsort(track, kind="stable")
    frame = frame[order]
    track = track[order]
    xy = np.ascontiguousarray(tracks.xy[frame, track], np.float64)
    return _Observations(xy, frame, np.searchsorted(track, np.arange(tracks.num_tracks + 1)))


def _start_points(
    tracks: PointTracks, K: Float[np.ndarray, "F 3 3"], pose: Float[np.ndarray, "F 4 4"]
) -> Float[np.ndarray, "N 4"]:
    """Mean viewing direction of each track in the world, and inverse depth 1."""
    xy = tracks.xy
    rays = np.concatenate([xy, np.ones_like(xy[..., :1])], -1) @ np.linalg.inv(K).transpose(0, 2, 1)
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)) @ pose[:, :3, :3]
    direction = (rays * tracks.visible[..., None]).sum(0)
    direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
    return np.concatenate([direction, np.ones((len(direction), 1))], 1)


def _move_cameras(
    pose: Float[np.ndarray, "F 4 4"], step: Float[np.ndarray, "F 6"]
) -> Float[np.ndarray, "F 4 4"]:
    """cam_from_world poses after a step of rotation vectors and shifts."""
    moved = pose.copy()
    moved[:, :3, :3] = Rotation.from_rotvec(step[:, :3]).as_matrix() @ pose[:, :3, :3]
    moved[:, :3, 3] += step[:, 3:]
    return moved


def _cameras_from_poses(turning: Cameras, cam_from_world: Float[np.ndarray, "F 4 4"]) -> Cameras:
    """Cameras with the first camera's axes as the world's."""
    world_from_cam = np.linalg.inv(cam_from_world)
    world_from_cam = cam_from_world[0] @ world_from_cam
    return Cameras(turning.K, torch.from_numpy(world_from_cam), turning.width, turning.height)


def _solve_step(
    observations: _Observations,
    K: Float[np.ndarray, "F 3 3"],
    pose: Float[np.ndarray, "F 4 4"],
    points: Float[np.ndarray, "N 4"],
    damping: float,
) -> tuple[float, Float[np.ndarray, "F 6"], Float[np.ndarray, "N 4"]]:
    """Cost, Levenberg-Marquardt step of the cameras, and the moved points (Schur complement over
    the points)."""
    frame = observations.frame
    first = observations.first
    cost, S, g, blocks = _reduce_system(observations.xy, frame, first, K, pose, points, damping)
    S += np.eye(len(S)) * 1e-9
    # The first camera does not move.
    fixed = np.arange(6)
    S[fixed] = 0
    S[:, fixed] = 0
    g[fixed] = 0
    S[fixed, fixed] = 1
    step = np.linalg.solve(S, g).reshape(-1, 6)
    return cost, step, _move_points(frame, first, points, step, *blocks)


@njit(cache=True)
def _differentiate(K, pose, point, tangent, u, v, Jc, Jp):
    """Residual of an observation, and its derivatives by camera (rotation, shift) and point
    (tangent, inverse depth)."""
    a0 = pose[0, 0] * point[0] + pose[0, 1] * point[1] + pose[0, 2] * point[2]
    a1 = pose[1, 0] * point[0] + pose[1, 1] * point[1] + pose[1, 2] * point[2]
    a2 = pose[2, 0] * point[0] + pose[2, 1] * point[1] + pose[2, 2] * point[2]
    rho = point[3]
    # Kept in front of the camera, so that the projection stays finite.
    z = max(a2 + rho * pose[2, 3], 1e-3)
    x, y = (a0 + rho * pose[0, 3]) / z, (a1 + rho * pose[1, 3]) / z
    for r in range(2):
        f = K[r, r] / z
        ratio = x if r == 0 else y
        d0, d1, d2 = (f, 0.0, -f * ratio) if r == 0 else (0.0, f, -f * ratio)
        Jc[r, 0] = d2 * a1 - d1 * a2  # d(exp(w) a) / dw = -[a]x
        Jc[r, 1] = d0 * a2 - d2 * a0
        Jc[r, 2] = d1 * a0 - d0 * a1
        Jc[r, 3] = rho * d0
        Jc[r, 4] = rho * d1
        Jc[r, 5] = rho * d2
        for k in range(2):
            t0 = (
                pose[0, 0] * tangent[0, k] + pose[0, 1] * tangent[1, k] + pose[0, 2] * tangent[2, k]
            )
            t1 = (
                pose[1, 0] * tangent[0, k] + pose[1, 1] * tangent[1, k] + pose[1, 2] * tangent[2, k]
            )
            t2 = (
                pose[2, 0] * tangent[0, k] + pose[2, 1] * tangent[1, k] + pose[2, 2] * tangent[2, k]
            )
            Jp[r, k] = d0 * t0 + d1 * t1 + d2 * t2
        Jp[r, 2] = d0 * pose[0, 3] + d1 * pose[1, 3] + d2 * pose[2, 3]
    return u - (K[0, 0] * x + K[0, 2]), v - (K[1, 1] * y + K[1, 2])


@njit(cache=True)
def _span_tangent(d):
    """Two unit vectors orthogonal to d and to each other."""
    helper = np.array([1.0, 0.0, 0.0]) if abs(d[0]) < 0.7 else np.array([0.0, 1.0, 0.0])
    a = np.cross(d, helper)
    a /= np.linalg.norm(a)
    b = np.cross(d, a)
    out = np.empty((3, 2))
    out[:, 0] = a
    out[:, 1] = b
    return out


@njit(cache=True)
def _reduce_system(seen, frame, first, K, pose, points, damping):
    """Cost, the cameras' normal equations with the points eliminated, and the blocks from which the
    points' step is recovered."""
    S, g, cost = _hold_shifts(K, pose)
    W = np.zeros((len(frame), 6, 3))
    V_inverse = np.zeros((len(points), 3, 3))
    gp = np.zeros((len(points), 3))
    Jc = np.zeros((2, 6))
    Jp = np.zeros((2, 3))
    for n in range(len(points)):
        V = np.zeros((3, 3))
        V[2, 2] = _DEPTH_PRIOR**2
        gp[n, 2] = _DEPTH_PRIOR**2 * (1.0 - points[n, 3])
        cost += (_DEPTH_PRIOR * (1.0 - points[n, 3])) ** 2
        tangent = _span_tangent(points[n, :3])
        for i in range(first[n], first[n + 1]):
            t = frame[i]
            ex, ey = _differentiate(
                K[t], pose[t], points[n], tangent, seen[i, 0], seen[i, 1], Jc, Jp
            )
            e2 = (ex * ex + ey * ey) / _SCALE**2
            # Cauchy's weight.
            w = 1.0 / (1.0 + e2)
            cost += _SCALE**2 * np.log(1.0 + e2)
            _accumulate(w, ex, ey, Jc, Jp, 6 * t, S, g, V, gp[n], W[i])
        for k in range(3):
            V[k, k] += damping * V[k, k] + 1e-9
        # The point's own block, inverted for its elimination.
        V_inverse[n] = np.linalg.inv(V)
    for k in range(len(S)):
        S[k, k] += damping * S[k, k]
    for n in range(len(points)):
        _eliminate(frame, first[n], first[n + 1], W, V_inverse[n], gp[n], S, g)
    return cost, S, g, (W, V_inverse, gp)


@njit(cache=True)
def _hold_shifts(K, pose):
    """Normal equations and cost of the prior on shifts."""
    S = np.zeros((6 * len(pose), 6 * len(pose)))
    g = np.zeros(6 * len(pose))
    cost = 0.0
    for t in range(len(pose)):
        hold = (_SHIFT_PRIOR * K[t, 0, 0]) ** 2
        for k in range(3):
            S[6 * t + 3 + k, 6 * t + 3 + k] += hold
            g[6 * t + 3 + k] -= hold * pose[t, k, 3]
            cost += hold * pose[t, k, 3] ** 2
    return S, g, cost


@njit(cache=True)
def _accumulate(w, ex, ey, Jc, Jp, s, S, g, V, gp, W):
    """Adds a weighted observation to the normal equations."""
    for k in range(6):
        g[s + k] += w * (Jc[0, k] * ex + Jc[1, k] * ey)
        for m in range(6):
            S[s + k, s + m] += w * (Jc[0, k] * Jc[0, m] + Jc[1, k] * Jc[1, m])
        for m in range(3):
            W[k, m] = w * (Jc[0, k] * Jp[0, m] + Jc[1, k] * Jp[1, m])
    for k in range(3):
        gp[k] += w * (Jp[0, k] * ex + Jp[1, k] * ey)
        for m in range(3):
            V[k, m] += w * (Jp[0, k] * Jp[0, m] + Jp[1, k] * Jp[1, m])


@njit(cache=True)
def _eliminate(frame, start, stop, W, V_inverse, gp, S, g):
    """Takes a point out of the cameras' normal equations."""
    WV = np.empty((6, 3))
    for i in range(start, stop):
        s = 6 * frame[i]
        for k in range(6):
            for m in range(3):
                WV[k, m] = (
                    W[i, k, 0] * V_inverse[0, m]
                    + W[i, k, 1] * V_inverse[1, m]
                    + W[i, k, 2] * V_inverse[2, m]
                )
            g[s + k] -= WV[k, 0] * gp[0] + WV[k, 1] * gp[1] + WV[k, 2] * gp[2]
        for j in range(start, stop):
            r = 6 * frame[j]
            for k in range(6):
                for m in range(6):
                    S[s + k, r + m] -= (
                        WV[k, 0] * W[j, m, 0] + WV[k, 1] * W[j, m, 1] + WV[k, 2] * W[j, m, 2]
                    )


@njit(cache=True)
def _move_points(frame, first, points, step, W, V_inverse, gp):
    """Points moved by their part of the step (back substitution)."""
    moved = points.copy()
    for n in range(len(points)):
        rest = gp[n].copy()
        for i in range(first[n], first[n + 1]):
            for k in range(6):
                for m in range(3):
                    rest[m] -= W[i, k, m] * step[frame[i], k]
        change = V_inverse[n] @ rest
        d = points[n, :3] + _span_tangent(points[n, :3]) @ change[:2]
        moved[n, :3] = d / np.linalg.norm(d)
        # Inverse depth stays positive: the point in front of the camera.
        moved[n, 3] = max(points[n, 3] + change[2], 1e-3)
    return moved


@njit(cache=True)
def _measure_residuals(seen, frame, first, K, pose, points):
    """Reprojection error in pixels of each observation."""
    out = np.zeros(len(frame))
    Jc = np.zeros((2, 6))
    Jp = np.zeros((2, 3))
    for n in range(len(points)):
        tangent = _span_tangent(points[n, :3])
        for i in range(first[n], first[n + 1]):
            t = frame[i]
            ex, ey = _differentiate(
                K[t], pose[t], points[n], tangent, seen[i, 0], seen[i, 1], Jc, Jp
            )
            out[i] = np.sqrt(ex * ex + ey * ey)
    return out
