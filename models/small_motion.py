"""Bundle adjustment from pure rotation, for cameras that move too little for a mapper to start.

Points are a direction and an inverse depth, so a far point costs nothing (Yu and Gallup, "3D reconstruction from
accidental motion", 2014); cameras start at rotations without translation and need no first pair of frames.
"""

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras

SCALE = 1.0
"""Residual in pixels at which an observation has lost half its weight (Cauchy)."""
DEPTH_PRIOR = 0.05
"""Pull of each inverse depth to 1, against residuals in pixels; it also fixes the scale of the scene."""
SHIFT_PRIOR = 1e-2
"""Pull of each camera's shift to 0, per unit of the typical depth and pixel of focal length."""


def adjust_rotation(
    xy: Float[np.ndarray, "F N 2"], visible: Bool[np.ndarray, "F N"], turning: Cameras, rounds: int = 60
) -> tuple[Cameras, float]:
    """Lets cameras that only turn also move, to explain the tracks' parallax; typical depth 1.

    Args:
        turning: a rotation for each frame and the focal length (kept); the world is the first camera's axes.

    Returns:
        The cameras and the median residual in pixels over the visible observations.
    """
    frame, track = np.nonzero(visible)
    order = np.argsort(track, kind="stable")
    frame, track = frame[order], track[order]
    seen = np.ascontiguousarray(xy[frame, track], np.float64)
    first = np.searchsorted(track, np.arange(visible.shape[1] + 1))
    K = turning.K.double().numpy()
    pose = turning.cam_from_world.double().numpy().copy()
    points = _start(xy, visible, K, pose)
    damping, cost = 1e-3, np.inf
    for _ in range(rounds):
        new_cost, step, new_points = _round(seen, frame, first, K, pose, points, damping)
        if new_cost > cost:  # the step that led here was bad: back, and a shorter one
            pose, points, damping = kept_pose, kept_points, 10 * damping
            cost = np.inf
            continue
        settled = cost - new_cost < 1e-5 * new_cost
        kept_pose, kept_points, cost = pose, points, new_cost
        pose, points, damping = _moved(pose, step), new_points, max(0.4 * damping, 1e-8)
        if settled:
            break
    residual = _miss(seen, frame, first, K, kept_pose, kept_points)
    return _as_cameras(turning, kept_pose), float(np.median(residual))


def _start(xy: np.ndarray, visible: np.ndarray, K: np.ndarray, pose: np.ndarray) -> Float[np.ndarray, "N 4"]:
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
    """Cost here, and the Levenberg-Marquardt step of cameras and points (Schur complement over the points)."""
    cost, S, g, blocks = _reduced_system(seen, frame, first, K, pose, points, damping)
    S += np.eye(len(S)) * 1e-9
    fixed = np.arange(6)  # the first camera stays
    S[fixed], S[:, fixed], g[fixed] = 0, 0, 0
    S[fixed, fixed] = 1
    step = np.linalg.solve(S, g).reshape(-1, 6)
    return cost, step, _back_substituted(frame, first, points, step, *blocks)


@numba.njit(cache=True)
def _jacobians(K, pose, point, u, v, Jc, Jp):
    """Residual of one observation and its derivatives by camera (rotation, shift) and point (tangent, depth)."""
    R = pose[:3, :3]
    d, rho = point[:3], point[3]
    a = R @ d
    p = a + rho * pose[:3, 3]
    z = max(p[2], 1e-3)
    f, h = K[0, 0], K[1, 1]
    D = np.array([[f / z, 0.0, -f * p[0] / z**2], [0.0, h / z, -h * p[1] / z**2]])
    skew = np.array([[0.0, a[2], -a[1]], [-a[2], 0.0, a[0]], [a[1], -a[0], 0.0]])  # d(exp(w) a) / dw
    Jc[:, :3] = D @ skew
    Jc[:, 3:] = rho * D
    Jp[:, :2] = D @ (R @ _tangent(d))
    Jp[:, 2] = D @ pose[:3, 3]
    return u - (f * p[0] / z + K[0, 2]), v - (h * p[1] / z + K[1, 2])


@numba.njit(cache=True)
def _tangent(d):
    """Two unit vectors at right angles to d and to each other."""
    helper = np.array([1.0, 0.0, 0.0]) if abs(d[0]) < 0.7 else np.array([0.0, 1.0, 0.0])
    a = np.cross(d, helper)
    a /= np.linalg.norm(a)
    b = np.cross(d, a)
    out = np.empty((3, 2))
    out[:, 0], out[:, 1] = a, b
    return out


@numba.njit(cache=True)
def _reduced_system(seen, frame, first, K, pose, points, damping):
    num_frames, num_points = len(pose), len(points)
    S = np.zeros((6 * num_frames, 6 * num_frames))
    g = np.zeros(6 * num_frames)
    W = np.zeros((len(frame), 6, 3))
    V_inverse, gp = np.zeros((num_points, 3, 3)), np.zeros((num_points, 3))
    Jc, Jp = np.zeros((2, 6)), np.zeros((2, 3))
    cost = 0.0
    for t in range(num_frames):
        hold = SHIFT_PRIOR * K[t, 0, 0]
        for k in range(3):
            S[6 * t + 3 + k, 6 * t + 3 + k] += hold**2
            g[6 * t + 3 + k] -= hold**2 * pose[t, k, 3]
            cost += (hold * pose[t, k, 3]) ** 2
    for n in range(num_points):
        V = np.zeros((3, 3))
        V[2, 2] = DEPTH_PRIOR**2
        gp[n, 2] = DEPTH_PRIOR**2 * (1.0 - points[n, 3])
        cost += (DEPTH_PRIOR * (1.0 - points[n, 3])) ** 2
        for i in range(first[n], first[n + 1]):
            t = frame[i]
            ex, ey = _jacobians(K[t], pose[t], points[n], seen[i, 0], seen[i, 1], Jc, Jp)
            e2 = (ex * ex + ey * ey) / SCALE**2
            w = 1.0 / (1.0 + e2)
            cost += SCALE**2 * np.log(1.0 + e2)
            e = np.array([ex, ey])
            S[6 * t : 6 * t + 6, 6 * t : 6 * t + 6] += w * Jc.T @ Jc
            g[6 * t : 6 * t + 6] += w * Jc.T @ e
            V += w * Jp.T @ Jp
            gp[n] += w * Jp.T @ e
            W[i] = w * Jc.T @ Jp
        for k in range(3):
            V[k, k] += damping * V[k, k] + 1e-9
        V_inverse[n] = np.linalg.inv(V)
    for k in range(6 * num_frames):
        S[k, k] += damping * S[k, k]
    for n in range(num_points):
        for i in range(first[n], first[n + 1]):
            s = 6 * frame[i]
            WV = W[i] @ V_inverse[n]
            g[s : s + 6] -= WV @ gp[n]
            for j in range(first[n], first[n + 1]):
                r = 6 * frame[j]
                S[s : s + 6, r : r + 6] -= WV @ W[j].T
    return cost, S, g, (W, V_inverse, gp)


@numba.njit(cache=True)
def _back_substituted(frame, first, points, step, W, V_inverse, gp):
    """Points moved by their part of the step."""
    moved = points.copy()
    for n in range(len(points)):
        rest = gp[n].copy()
        for i in range(first[n], first[n + 1]):
            rest -= W[i].T @ step[frame[i]]
        change = V_inverse[n] @ rest
        d = points[n, :3] + _tangent(points[n, :3]) @ change[:2]
        moved[n, :3] = d / np.linalg.norm(d)
        moved[n, 3] = max(points[n, 3] + change[2], 1e-3)
    return moved


@numba.njit(cache=True)
def _miss(seen, frame, first, K, pose, points):
    out = np.zeros(len(frame))
    Jc, Jp = np.zeros((2, 6)), np.zeros((2, 3))
    for n in range(len(points)):
        for i in range(first[n], first[n + 1]):
            t = frame[i]
            ex, ey = _jacobians(K[t], pose[t], points[n], seen[i, 0], seen[i, 1], Jc, Jp)
            out[i] = np.sqrt(ex * ex + ey * ey)
    return out
