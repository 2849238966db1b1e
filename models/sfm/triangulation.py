"""3D points of static tracks under known cameras, each with the uncertainty of its depth."""

from dataclasses import dataclass, replace

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.run import allocate, njit
from models.tracks import PointTracks

UNSURE = 0.1
"""Relative standard deviation of depth above which a point takes depth from its neighbours. Larger
believes points of less parallax."""
AGREEING = 2.0
"""Reprojection error in pixels up to which an observation agrees with its point."""
# Strength of the prior on inverse depth: none, and for a scene without depth.
_NO_PRIOR = 1e-4
_FLAT_PRIOR = 1e6
# Sure neighbours whose median depth a point takes.
_NEIGHBOURS = 8
# Pixels that a frame of distance in time counts when neighbours are sought.
_PIXELS_PER_FRAME = 4.0
# Reach of the camera path, in units of the scene's depth, that keeps numbers near 1.
_DEPTH_PER_REACH = 3


@dataclass(frozen=True)
class DepthGuess:
    """Depth of each track from a source other than its parallax, in the track's middle visible
    frame (``choose_anchors``)."""

    depth: Float[np.ndarray, "N"]
    """z-depth in world units; NaN if unknown."""
    uncertainty: Float[np.ndarray, "N"]
    """Its relative standard deviation."""


@dataclass(frozen=True)
class Points:
    """A static point for each track."""

    xyz: Float[np.ndarray, "N 3"]
    """World position; not finite if the track has none."""
    agrees: Bool[np.ndarray, "F N"]
    """Observations that are visible and lie near the projection of their point."""
    residual: Float[np.ndarray, "S"]
    """Reprojection error in pixels of each agreeing observation, frame by frame."""
    uncertainty: Float[np.ndarray, "N"]
    """Relative standard deviation of depth for a pixel of noise, from the track's parallax alone."""

    def restrict(self, kept: Bool[np.ndarray, "F N"]) -> "Points":
        """The same points with only the observations that are ``kept``."""
        agrees = allocate(self.agrees.shape, bool)
        np.logical_and(self.agrees, kept, out=agrees)
        return replace(self, agrees=agrees, residual=self.residual[kept[self.agrees]])


def triangulate(
    tracks: PointTracks,
    cameras: Cameras,
    flat: bool = False,
    guess: DepthGuess | None = None,
    limit: float = AGREEING,
) -> Points:
    """Points of least robust reprojection error, in inverse depth along the track's middle ray.

    Inverse depth keeps far points and low parallax well-behaved (Civera et al., "Inverse depth
    parametrization for monocular SLAM", 2008). A point of too little parallax is solved again with
    the median of its sure neighbours as a prior, or with ``guess`` if that is less uncertain. The
    result scales with the cameras, in any unit of length.

    Args:
        flat: put all points at z-depth 1 of their middle frame.
        guess: depth from another source.
        limit: reprojection error in pixels up to which an observation agrees.
    """
    xy = tracks.xy
    visible = tracks.visible
    # For each layout of memory the kernels are compiled anew, which takes many seconds.
    K = np.ascontiguousarray(cameras.K.double().numpy())
    unit = 1.0 if flat else _estimate_depth(cameras.centers.double().numpy())
    pose = np.ascontiguousarray(cameras.cam_from_world.double().numpy())
    # Depths near 1 keep the priors' strengths meaningful in any unit.
    pose[:, :3, 3] /= unit
    anchor = choose_anchors(visible)
    start = np.ones(len(anchor))
    strength = np.full(len(anchor), _FLAT_PRIOR if flat else _NO_PRIOR)
    xyz, rho, sigma = _solve(xy, visible, K, pose, anchor, start, strength, np.arange(len(anchor)))
    if not flat:
        start, strength = _ask_neighbours(xy, anchor, rho, sigma)
        if guess is not None:
            start, strength = _prefer_guess(start, strength, guess, sigma, unit)
        unsure = strength > 0
        xyz[unsure], *_ = _solve(
            xy, visible, K, pose, anchor, start, strength, np.flatnonzero(unsure)
        )
    agrees = allocate(visible.shape, bool)
    _find_agreeing(xy, visible, K, pose, xyz, np.float32(limit), agrees)
    # A point needs two views, and half of its track: otherwise the track is of no static point.
    enough = (agrees.sum(0) >= 2) & (agrees.sum(0) >= 0.5 * visible.sum(0))
    agrees &= enough
    residual = _measure_residuals(xy, agrees, K, pose, xyz, np.cumsum([0, *agrees.sum(1)]))
    xyz[~enough] = np.nan
    return Points(unit * xyz, agrees, residual, sigma)


def _estimate_depth(centers: Float[np.ndarray, "F 3"]) -> float:
    """A likely depth of the scene in world units: three times the reach of the camera path; 1 for
    still cameras."""
    middle = centers.mean(0)
    reach = np.linalg.norm(centers - middle, axis=1).max()
    return float(_DEPTH_PER_REACH * reach) if reach > 1e-6 * np.linalg.norm(middle) else 1.0


def choose_anchors(visible: Bool[np.ndarray, "F N"]) -> Int[np.ndarray, "N"]:
    """The middle visible frame of each track."""
    middle = (visible.sum(0) + 1) // 2
    count = np.zeros(len(middle), np.int64)
    anchor = np.zeros(len(middle), np.int64)
    for t, seen in enumerate(visible):
        count += seen
        anchor[seen & (count == middle)] = t
    return anchor


def _ask_neighbours(
    xy: np.ndarray, anchor: np.ndarray, rho: np.ndarray, sigma: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Prior of unsure points: median inverse depth of the nearest sure points in image and time,
    and its strength (inverse variance)."""
    sure = (sigma < UNSURE) & (rho > 0)
    prior = np.ones(len(rho))
    strength = np.zeros(len(rho))
    if sure.sum() < _NEIGHBOURS:
        return prior, strength
    own = xy[anchor, np.arange(len(anchor))]
    place = np.concatenate([own, _PIXELS_PER_FRAME * anchor[:, None]], 1)
    unsure = np.flatnonzero(~sure)
    _, near = cKDTree(place[sure]).query(place[unsure], _NEIGHBOURS)
    values = rho[sure][near]
    prior[unsure] = np.median(values, 1)
    # Neighbours that agree by chance must not hold a point harder than a tenth of its depth.
    spread = np.maximum(values.std(1), 0.1 * prior[unsure])
    strength[unsure] = 1.0 / spread**2
    return prior, strength


def _prefer_guess(
    prior: np.ndarray, strength: np.ndarray, guess: DepthGuess, sigma: np.ndarray, unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """The prior of unsure points from their neighbours, or the guess if it is less uncertain."""
    # Relative errors of depth and of inverse depth are equal to first order.
    rho = unit / guess.depth
    known = 1 / np.maximum(guess.uncertainty * rho, 1e-6 * rho) ** 2
    better = (sigma >= UNSURE) & np.isfinite(rho) & (known > strength)
    return np.where(better, rho, prior), np.where(better, known, strength)


@njit(cache=True, parallel=True)
def _solve(xy, visible, K, pose, anchor, prior, strength, chosen):
    """Levenberg-Marquardt on (x, y, inverse depth) in the anchor camera of each chosen track.

    Returns world points, inverse depths and relative standard deviations of depth. Tracks are
    chosen by index: a copy of their observations would take as much memory again.
    """
    xyz = np.full((len(chosen), 3), np.nan)
    rho_out = np.zeros(len(chosen))
    sigma_out = np.full(len(chosen), np.inf)
    for i in numba.prange(len(chosen)):
        n = chosen[i]
        a = anchor[n]
        u = (xy[a, n, 0] - K[a, 0, 2]) / K[a, 0, 0]
        v = (xy[a, n, 1] - K[a, 1, 2]) / K[a, 1, 1]
        rho = prior[n]
        seen = _gather_observations(xy, visible, K, pose, a, n)
        H, g, cost = _build_equations(u, v, rho, prior[n], strength[n], seen)
        damping = 1e-3
        for _ in range(25):
            # Marquardt's damping scales with the diagonal.
            A = H.copy()
            for k in range(3):
                A[k, k] += damping * H[k, k] + 1e-12
            step = np.linalg.solve(A, g)
            u_new = u - step[0]
            v_new = v - step[1]
            # A point stays in front of its anchor camera.
            rho_new = max(rho - step[2], 1e-4 * prior[n])
            H_new, g_new, cost_new = _build_equations(
                u_new, v_new, rho_new, prior[n], strength[n], seen
            )
            if cost_new < cost:
                settled = cost - cost_new < 1e-7 * cost
                u = u_new
                v = v_new
                rho = rho_new
                H = H_new
                g = g_new
                cost = cost_new
                damping = max(0.3 * damping, 1e-9)
                if settled:
                    break
            else:
                damping *= 10
                if damping > 1e6:
                    break
        local = np.array([u / rho, v / rho, 1.0 / rho]) - pose[a, :3, 3]
        for k in range(3):
            xyz[i, k] = (
                pose[a, 0, k] * local[0] + pose[a, 1, k] * local[1] + pose[a, 2, k] * local[2]
            )
        rho_out[i] = rho
        sigma_out[i] = 1.0 / (rho * np.sqrt(max(_reduce_information(H) - strength[n], 1e-300)))
    return xyz, rho_out, sigma_out


@njit(cache=True)
def _reduce_information(H):
    """Information about inverse depth with the ray's direction free (Schur complement)."""
    # Without information on the ray there is none on the depth.
    det = H[0, 0] * H[1, 1] - H[0, 1] * H[1, 0]
    if det < 1e-12:
        return 0.0
    a = (H[1, 1] * H[0, 2] - H[0, 1] * H[1, 2]) / det
    b = (H[0, 0] * H[1, 2] - H[1, 0] * H[0, 2]) / det
    return H[2, 2] - a * H[0, 2] - b * H[1, 2]


@njit(cache=True)
def _gather_observations(xy, visible, K, pose, a, n):
    """A row for each observation: pose relative to the anchor camera (9 + 3), fx, fy, cx, cy,
    pixel."""
    times = np.flatnonzero(visible[:, n])
    seen = np.empty((len(times), 18))
    for row, t in enumerate(times):
        for i in range(3):
            shift = pose[t, i, 3]
            for j in range(3):
                r = 0.0
                for k in range(3):
                    r += pose[t, i, k] * pose[a, j, k]
                seen[row, 3 * i + j] = r
                shift -= r * pose[a, j, 3]
            seen[row, 9 + i] = shift
        seen[row, 12] = K[t, 0, 0]
        seen[row, 13] = K[t, 1, 1]
        seen[row, 14] = K[t, 0, 2]
        seen[row, 15] = K[t, 1, 2]
        seen[row, 16] = xy[t, n, 0]
        seen[row, 17] = xy[t, n, 1]
    return seen


@njit(cache=True)
def _build_equations(u, v, rho, prior, strength, seen):
    """Huber-weighted normal equations of the reprojection of (u, v, 1) / rho, and the cost in
    squared pixels."""
    H = np.zeros((3, 3))
    g = np.zeros(3)
    cost = strength * (rho - prior) ** 2
    H[2, 2] = strength
    g[2] = strength * (rho - prior)
    jx = np.empty(3)
    jy = np.empty(3)
    for o in seen:
        x = o[0] * u + o[1] * v + o[2] + rho * o[9]
        y = o[3] * u + o[4] * v + o[5] + rho * o[10]
        z = o[6] * u + o[7] * v + o[8] + rho * o[11]
        if z < 1e-6:
            # Behind the camera: a large cost, and no slope.
            cost += 1e4
            continue
        ex = o[12] * x / z + o[14] - o[16]
        ey = o[13] * y / z + o[15] - o[17]
        e = np.sqrt(ex * ex + ey * ey)
        # Huber's loss with its corner at one pixel.
        w = 1.0 if e < 1.0 else 1.0 / e
        cost += e * e if e < 1.0 else 2.0 * e - 1.0
        for k in range(3):
            c = k if k < 2 else 9
            stride = 3 if k < 2 else 1
            dx = o[c]
            dy = o[c + stride]
            dz = o[c + 2 * stride]
            jx[k] = o[12] * (dx - x / z * dz) / z
            jy[k] = o[13] * (dy - y / z * dz) / z
        for k in range(3):
            g[k] += w * (jx[k] * ex + jy[k] * ey)
            for m in range(3):
                H[k, m] += w * (jx[k] * jx[m] + jy[k] * jy[m])
    return H, g, cost


@njit(cache=True)
def _project(point, K, pose):
    x = pose[0, 0] * point[0] + pose[0, 1] * point[1] + pose[0, 2] * point[2] + pose[0, 3]
    y = pose[1, 0] * point[0] + pose[1, 1] * point[1] + pose[1, 2] * point[2] + pose[1, 3]
    z = pose[2, 0] * point[0] + pose[2, 1] * point[1] + pose[2, 2] * point[2] + pose[2, 3]
    return x, y, z


@njit(cache=True)
def _measure_miss(point, seen, K, pose):
    """Reprojection error in pixels of an observation; infinite behind the camera."""
    x, y, z = _project(point, K, pose)
    if z <= 1e-9:
        return np.float32(np.inf)
    ex = K[0, 0] * x / z + K[0, 2] - seen[0]
    ey = K[1, 1] * y / z + K[1, 2] - seen[1]
    return np.float32(np.sqrt(ex * ex + ey * ey))


@njit(cache=True, parallel=True)
def _find_agreeing(xy, visible, K, pose, xyz, limit, near):
    """Makes ``near``, all False, True for observations near the projection of their point."""
    for t in numba.prange(len(visible)):
        for n in range(visible.shape[1]):
            if visible[t, n]:
                near[t, n] = _measure_miss(xyz[n], xy[t, n], K[t], pose[t]) < limit


@njit(cache=True, parallel=True)
def _measure_residuals(xy, agrees, K, pose, xyz, first):
    """Reprojection errors of agreeing observations; ``first`` counts them in the frames before."""
    residual = np.empty(first[-1], np.float32)
    for t in numba.prange(len(agrees)):
        row = first[t]
        for n in range(agrees.shape[1]):
            if agrees[t, n]:
                residual[row] = _measure_miss(xyz[n], xy[t, n], K[t], pose[t])
                row += 1
    return residual
