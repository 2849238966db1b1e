"""Sub-pixel tracks once geometry is known: each sighting is aligned to the patch of the track's
middle frame.

Frame-to-frame tracking drifts. With cameras and a local plane known, the middle frame's patch can
be warped into any other frame as it should look there, so that a plain alignment of it (gain, bias
and shift) does not drift.
"""

from collections.abc import Callable

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.sfm.triangulation import Points, anchors

RADIUS = 6
"""Half the patch's side in pixels."""
REACH = 2.5
"""A sighting may move at most so far, in pixels."""
SIMILAR = 0.8
"""Correlation from which an alignment is believed."""
UNLIKE = 0.4
"""Correlation below which a sighting is dropped: the point is hidden or the track has slipped."""


def sharpen_tracks(
    frames: UInt8[np.ndarray, "F H W 3"],
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    cameras: Cameras,
    points: Points,
    progress: Callable[[int], None] = lambda frames_done: None,
    out: Float[np.ndarray, "F N 2"] | None = None,
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Tracks whose sightings lie where the middle frame's patch, warped by the geometry, fits best.

    Args:
        xy: pixels, top-left pixel centre (0.5, 0.5).
        points: 3D points of the tracks under ``cameras``; tracks without one stay as they are.
        out: where positions are written, ``xy`` itself or a copy of it; a new array if not given.

    Returns:
        Positions and visibility; sightings that do not look like the middle one are no longer
        visible.
    """
    K = cameras.K.double().numpy()
    pose = cameras.cam_from_world.double().numpy()
    good = np.flatnonzero(np.isfinite(points.xyz).all(1) & points.agrees.any(0))
    anchor = anchors(points.agrees)
    center, rho, slope = _local_planes(points, K, pose, anchor, good)
    template = np.zeros((len(good), (2 * RADIUS + 1) ** 2), np.float32)
    for t in range(len(frames)):
        rows = np.flatnonzero(anchor[good] == t)
        template[rows] = _patches(_grey(frames[t]), center[rows])
    sharp = xy.astype(np.float32) if out is None else out
    seen = visible.copy()
    for t in range(len(frames)):
        rows = np.flatnonzero(visible[t, good])
        rows = rows[anchor[good[rows]] != t]
        n = good[rows]
        warp = _warps(K, pose, anchor[n], t, center[rows], rho[rows], slope[rows])
        image = _grey(frames[t])
        gx = cv2.Scharr(image, -1, 1, 0) / 32
        gy = cv2.Scharr(image, -1, 0, 1) / 32
        start = sharp[t, n].astype(np.float64)
        moved, likeness = _align(image, gx, gy, template[rows], warp, start)
        fine = (likeness > SIMILAR) & (np.linalg.norm(moved - start, axis=1) < REACH)
        sharp[t, n[fine]] = moved[fine]
        seen[t, n] &= likeness > UNLIKE
        progress(t + 1)
    own = anchor[good], good
    sharp[own] = center
    return sharp, seen


def _grey(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _local_planes(
    points: Points, K: np.ndarray, pose: np.ndarray, anchor: np.ndarray, good: np.ndarray
):
    """For each good track, in its middle frame: pixel, inverse depth, and its slope per pixel
    (constant on a plane)."""
    center = np.zeros((len(good), 2))
    rho = np.ones(len(good))
    slope = np.zeros((len(good), 2))
    for t in np.unique(anchor[good]):
        rows = np.flatnonzero(anchor[good] == t)
        around = good[points.agrees[t, good]]
        pixels, inverse = _pixels(points.xyz[around], K[t], pose[t])
        center[rows], rho[rows] = _pixels(points.xyz[good[rows]], K[t], pose[t])
        if len(around) < 6:
            continue
        _, near = cKDTree(pixels).query(center[rows], min(12, len(around)))
        offset = pixels[near] - center[rows, None]
        change = inverse[near] - rho[rows, None]
        weight = np.exp(-((change / (0.03 * rho[rows, None])) ** 2)) / (20.0 + (offset**2).sum(-1))
        normal = np.einsum("nk,nki,nkj->nij", weight, offset, offset) + 1.0 * np.eye(2)
        slope[rows] = np.linalg.solve(
            normal, np.einsum("nk,nki,nk->ni", weight, offset, change)[..., None]
        )[..., 0]
    return center, rho, slope


def _pixels(xyz: np.ndarray, K: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    local = (xyz @ pose[:3, :3].T + pose[:3, 3]) @ K.T
    return local[:, :2] / local[:, 2:], 1 / local[:, 2]


def _warps(K, pose, anchor, t, center, rho, slope) -> Float[np.ndarray, "n 3 3"]:
    """Homographies from offsets in the middle frame's patch, (dx, dy, 1), to homogeneous pixels of
    frame t.

    A pixel x of the middle frame at inverse depth r lies at R K^-1 x + r s in frame t's axes; r is
    affine in x.
    """
    rotation = pose[t, :3, :3] @ pose[anchor, :3, :3].transpose(0, 2, 1)
    shift = pose[t, :3, 3] - (rotation @ pose[anchor, :3, 3, None])[..., 0]
    affine = np.zeros((len(anchor), 3, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = affine[:, 2, 2] = 1
    affine[:, :2, 2] = center
    inverse_depth = np.concatenate([slope, rho[:, None]], 1)
    rays = rotation @ np.linalg.inv(K[anchor]) @ affine
    return K[t] @ (rays + shift[:, :, None] * inverse_depth[:, None])


def _patches(image: np.ndarray, center: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n P"]:
    out = np.zeros((len(center), (2 * RADIUS + 1) ** 2), np.float32)
    _cut(image, center, out)
    return out


@numba.njit(cache=True, inline="always")
def _sample(image, x, y):
    """Bilinear, in pixels whose first centre is (0.5, 0.5); the border repeats."""
    height, width = image.shape
    x, y = min(max(x - 0.5, 0.0), width - 1.001), min(max(y - 0.5, 0.0), height - 1.001)
    i, j = int(y), int(x)
    a, b = np.float32(y - i), np.float32(x - j)
    top = image[i, j] * (1 - b) + image[i, j + 1] * b
    return top * (1 - a) + (image[i + 1, j] * (1 - b) + image[i + 1, j + 1] * b) * a


@numba.njit(cache=True, parallel=True)
def _cut(image, center, out):
    side = 2 * RADIUS + 1
    for n in numba.prange(len(center)):
        for k in range(side * side):
            out[n, k] = _sample(
                image, center[n, 0] + k % side - RADIUS, center[n, 1] + k // side - RADIUS
            )


@numba.njit(cache=True, parallel=True)
def _align(image, gx, gy, template, warp, start):
    """Gauss-Newton on the shift of each warped patch, gain and bias eliminated; new centres and
    correlations."""
    side = 2 * RADIUS + 1
    size = side * side
    moved = start.copy()
    likeness = np.zeros(len(start))
    for n in numba.prange(len(start)):
        T = template[n] - template[n].mean()
        px, py = np.empty(size), np.empty(size)
        for k in range(size):
            dx, dy = k % side - RADIUS, k // side - RADIUS
            z = warp[n, 2, 0] * dx + warp[n, 2, 1] * dy + warp[n, 2, 2]
            px[k] = (warp[n, 0, 0] * dx + warp[n, 0, 1] * dy + warp[n, 0, 2]) / z
            py[k] = (warp[n, 1, 0] * dx + warp[n, 1, 1] * dy + warp[n, 1, 2]) / z
        middle = size // 2
        cx, cy = px[middle], py[middle]
        sx = start[n, 0] - cx
        sy = start[n, 1] - cy
        patch = np.empty(size, np.float32)
        jx = np.empty(size, np.float32)
        jy = np.empty(size, np.float32)
        for _ in range(8):
            for k in range(size):
                patch[k] = _sample(image, px[k] + sx, py[k] + sy)
                jx[k] = _sample(gx, px[k] + sx, py[k] + sy)
                jy[k] = _sample(gy, px[k] + sx, py[k] + sy)
            patch -= patch.mean()
            jx -= jx.mean()
            jy -= jy.mean()
            power = (patch * patch).sum() + 1e-3
            gain = (T * patch).sum() / power
            likeness[n] = (T * patch).sum() / np.sqrt(power * ((T * T).sum() + 1e-3))
            if likeness[n] < 0.2:
                break
            error = T / gain - patch
            a = (jx * jx).sum() + 1e-3
            b = (jx * jy).sum()
            c = (jy * jy).sum() + 1e-3
            u, v = (jx * error).sum(), (jy * error).sum()
            det = a * c - b * b
            step_x = (c * u - b * v) / det
            step_y = (a * v - b * u) / det
            limit = max(1.0, np.sqrt(step_x**2 + step_y**2))
            sx += step_x / limit
            sy += step_y / limit
            if abs(step_x) + abs(step_y) < 0.01:
                break
        moved[n, 0] = cx + sx
        moved[n, 1] = cy + sy
    return moved, likeness
