"""Bundle adjustment from pure rotation, for cameras that move too little for a mapper to start.

Points are a direction and an inverse depth, so a far point costs nothing (Yu and Gallup, "3D
reconstruction from accidental motion", 2014); cameras start at rotations without translation and
need no first pair of frames.
"""

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras

SCALE = 1.0
"""Residual in pixels at which an observation has lost half its weight (Cauchy)."""
DEPTH_PRIOR = 0.05
"""Pull of each inverse depth to 1, against residuals in pixels; it also fixes the scale of the
scene."""
SHIFT_PRIOR = 1e-2
"""Pull of each camera's shift to 0, per unit of the typical depth and pixel of focal length."""


def adjust_rotation(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    turning: Cameras,
    rounds: int = 60,
) -> tuple[Cameras, float]:
    """Lets cameras that only turn also move, to explain the tracks' parallax; typical depth 1.

    Args:
        turning: a rotation for each frame and the focal length (kept); the world is the first
            camera's axes.

    Returns:
        The cameras and the median residual in pixels over the visible observations.
    """
    frame, track = np.nonzero(visible)
    order = np.argsort(track, kind="stable")
    frame = frame[order]
    track = track[order]
    seen = np.ascontiguousarray(xy[frame, track], np.float64)
    first = np.searchsorted(track, np.arange(visible.shape[1] + 1))
    K = turning.K.double().numpy()
    pose = turning.cam_from_world.double().numpy().copy()
    points = _start(xy, visible, K, pose)
    damping = 1e-3
    cost = np.inf
    for _ in range(rounds):
        new_cost, step, new_points = _round(seen, frame, first, K, pose, points, damping)
        if new_cost > cost:  # the step that led here was bad: back, and a shorter one
            pose = kept_pose
            points = kept_points
            damping = 10 * damping
            cost = np.inf
            continue
        settled = cost - new_cost < 1e-5 * new_cost
        kept_pose = pose
        kept_points = points
        cost = new_cost
        pose = _moved(pose, step)
        points = new_points
        damping = max(0.4 * damping, 1e-8)
        if settled:
            break
    residual = _miss(seen, frame, first, K, kept_pose, kept_points)
    return _as_cameras(turning, kept_pose), float(np.median(residual))


def _start(
    xy: np.ndarray, visible: np.ndarray, K: np.ndarray, pose: np.ndarray
) -> Float[np.ndarray, "N 4"]:
    """Mean viewing direction of each track in the world, at inverse depth 1."""
    rays = np.concatenate([xy, np.ones_like(xy[..., :1])], -1) @ np.linalg.inv(K).transpose(0, 2, 1)
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)) @ pose[:, :3, :3]
    direction = (rays * visible[..., None]).sum(0)
    direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
    return np.concatenate([direction, np.ones((len(direction), 1))], 1)


def _moved(pose: np.ndarray, step: Float[np.ndarray, "F 6"]) -> Float[np.ndarray, "F 4 4"]:
    from scipy.spatial.transform import Rotation

    moved = pose.copy()
    moved[:, :3, :3] = Rotation.from_rotvec(step[:, :3]).as_matrix() @ pose[:, :3, :3]
    moved[:, :3, 3] += step[:, 3:]
    return moved


def _as_cameras(turning: Cameras, cam_from_world: np.ndarray) -> Cameras:
    world_from_cam = np.linalg.inv(cam_from_world)
    world_from_cam = cam_from_world[0] @ world_from_cam
    return Cameras(turning.K, torch.from_numpy(world_from_cam), turning.width, turning.height)


def _round(seen, frame, first, K, pose, points, damping):
    """Cost here, and the Levenberg-Marquardt step of cameras and points (Schur complement over the
    points)."""
    cost, S, g, blocks = _reduced_system(seen, frame, first, K, pose, points, damping)
    S += np.eye(len(S)) * 1e-9
    fixed = np.arange(6)  # the first camera stays
    S[fixed] = 0
    S[:, fixed] = 0
    g[fixed] = 0
    S[fixed, fixed] = 1
    step = np.linalg.solve(S, g).reshape(-1, 6)
    return cost, step, _back_substituted(frame, first, points, step, *blocks)


@numba.njit(cache=True)
def _jacobians(K, pose, point, tangent, u, v, Jc, Jp):
    """Residual of one observation and its derivatives by camera (rotation, shift) and point
    (tangent, depth)."""
    a0 = pose[0, 0] * point[0] + pose[0, 1] * point[1] + pose[0, 2] * point[2]
    a1 = pose[1, 0] * point[0] + pose[1, 1] * point[1] + pose[1, 2] * point[2]
    a2 = pose[2, 0] * point[0] + pose[2, 1] * point[1] + pose[2, 2] * point[2]
    rho = point[3]
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


@numba.njit(cache=True)
def _tangent(d):
    """Two unit vectors at right angles to d and to each other."""
    helper = np.array([1.0, 0.0, 0.0]) if abs(d[0]) < 0.7 else np.array([0.0, 1.0, 0.0])
    a = np.cross(d, helper)
    a /= np.linalg.norm(a)
    b = np.cross(d, a)
    out = np.empty((3, 2))
    out[:, 0] = a
    out[:, 1] = b
    return out


@numba.njit(cache=True)
def _reduced_system(seen, frame, first, K, pose, points, damping):
    """Cost, the cameras' normal equations with the points eliminated, and what gives the points'
    step back."""
    S, g, cost = _shift_prior(K, pose)
    W = np.zeros((len(frame), 6, 3))
    V_inverse = np.zeros((len(points), 3, 3))
    gp = np.zeros((len(points), 3))
    Jc = np.zeros((2, 6))
    Jp = np.zeros((2, 3))
    for n in range(len(points)):
        V = np.zeros((3, 3))
        V[2, 2] = DEPTH_PRIOR**2
        gp[n, 2] = DEPTH_PRIOR**2 * (1.0 - points[n, 3])
        cost += (DEPTH_PRIOR * (1.0 - points[n, 3])) ** 2
        tangent = _tangent(points[n, :3])
        for i in range(first[n], first[n + 1]):
            t = frame[i]
            ex, ey = _jacobians(K[t], pose[t], points[n], tangent, seen[i, 0], seen[i, 1], Jc, Jp)
            e2 = (ex * ex + ey * ey) / SCALE**2
            w = 1.0 / (1.0 + e2)
            cost += SCALE**2 * np.log(1.0 + e2)
            _accumulate(w, ex, ey, Jc, Jp, 6 * t, S, g, V, gp[n], W[i])
        for k in range(3):
            V[k, k] += damping * V[k, k] + 1e-9
        V_inverse[n] = np.linalg.inv(V)
    for k in range(len(S)):
        S[k, k] += damping * S[k, k]
    for n in range(len(points)):
        _eliminate(frame, first[n], first[n + 1], W, V_inverse[n], gp[n], S, g)
    return cost, S, g, (W, V_inverse, gp)


@numba.njit(cache=True)
def _shift_prior(K, pose):
    S = np.zeros((6 * len(pose), 6 * len(pose)))
    g = np.zeros(6 * len(pose))
    cost = 0.0
    for t in range(len(pose)):
        hold = (SHIFT_PRIOR * K[t, 0, 0]) ** 2
        for k in range(3):
            S[6 * t + 3 + k, 6 * t + 3 + k] += hold
            g[6 * t + 3 + k] -= hold * pose[t, k, 3]
            cost += hold * pose[t, k, 3] ** 2
    return S, g, cost


@numba.njit(cache=True)
def _accumulate(w, ex, ey, Jc, Jp, s, S, g, V, gp, W):
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


@numba.njit(cache=True)
def _eliminate(frame, start, stop, W, V_inverse, gp, S, g):
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


@numba.njit(cache=True)
def _back_substituted(frame, first, points, step, W, V_inverse, gp):
    """Points moved by their part of the step."""
    moved = points.copy()
    for n in range(len(points)):
        rest = gp[n].copy()
        for i in range(first[n], first[n + 1]):
            for k in range(6):
                for m in range(3):
                    rest[m] -= W[i, k, m] * step[frame[i], k]
        change = V_inverse[n] @ rest
        d = points[n, :3] + _tangent(points[n, :3]) @ change[:2]
        moved[n, :3] = d / np.linalg.norm(d)
        moved[n, 3] = max(points[n, 3] + change[2], 1e-3)
    return moved


@numba.njit(cache=True)
def _miss(seen, frame, first, K, pose, points):
    out = np.zeros(len(frame))
    Jc = np.zeros((2, 6))
    Jp = np.zeros((2, 3))
    for n in range(len(points)):
        tangent = _tangent(points[n, :3])
        for i in range(first[n], first[n + 1]):
            t = frame[i]
            ex, ey = _jacobians(K[t], pose[t], points[n], tangent, seen[i, 0], seen[i, 1], Jc, Jp)
            out[i] = np.sqrt(ex * ex + ey * ey)
    return out
