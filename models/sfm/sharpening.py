"""Sub-pixel tracks from known geometry: each observation is aligned to the patch of the track's
middle frame.

Frame-to-frame tracking drifts. With cameras and a local plane the middle frame's patch is warped
into any other frame, and its alignment there (gain, bias and shift) does not drift.
"""

from dataclasses import dataclass, replace

import cv2
import numba
import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.run import SILENT, Progress, copy_array, njit
from models.sfm.options import CameraOptions
from models.sfm.triangulation import Points, choose_anchors
from models.tracks import PointTracks

# Half the side of a patch in pixels. Part of compiled kernels.
_RADIUS = 6
# Neighbours that a local plane is fitted to, and the fewest of a frame.
_PLANE_NEIGHBOURS = 12
_MIN_NEIGHBOURS = 6
# Changes of inverse depth, as shares, by which a neighbour lies off a plane, in the rounds of the fit
# from each start. Larger last ones join surfaces across small depth jumps.
_WIDTHS = (0.03, 0.03, 0.03), (0.24, 0.12, 0.06, 0.03, 0.03)
# Pixels within which neighbours count alike. Larger lets far neighbours bend the plane.
_NEAR = 4.5
# Weight of a prior of no slope, in neighbours about a pixel away. Larger flattens slanted surfaces.
_FLATTEN = 0.1
# Sum of the Scharr kernel's weights: it turns its sums into grey levels a pixel.
_SCHARR = 32


@dataclass(frozen=True)
class _Planes:
    """Local planes of n tracks in their middle frames."""

    anchor: Int[np.ndarray, "n"]
    """The middle frame."""
    center: Float[np.ndarray, "n 2"]
    """Pixel of the point."""
    rho: Float[np.ndarray, "n"]
    """Inverse depth in 1 / world units."""
    slope: Float[np.ndarray, "n 2"]
    """Its change per pixel, constant on a plane."""

    def select(self, rows: Int[np.ndarray, "m"]) -> "_Planes":
        """Some of the planes."""
        return _Planes(self.anchor[rows], self.center[rows], self.rho[rows], self.slope[rows])


def sharpen_tracks(
    frames: UInt8[np.ndarray, "F H W 3"],
    tracks: PointTracks,
    cameras: Cameras,
    points: Points,
    progress: Progress = SILENT,
    options: CameraOptions = CameraOptions(),
) -> PointTracks:
    """Tracks with each observation at the best match of the middle frame's warped patch.

    Args:
        tracks: positions in float32, which are overwritten.
        points: 3D points of the tracks under ``cameras``. Tracks without a point do not change.
        progress: hears the stage "sharpening".

    Returns:
        The tracks; observations that do not look like the middle frame's patch are not visible.
    """
    K = cameras.K.double().numpy()
    pose = cameras.cam_from_world.double().numpy()
    good = np.flatnonzero(np.isfinite(points.xyz).all(1) & points.agrees.any(0))
    planes = _fit_planes(points, K, pose, good)
    template = np.zeros((len(good), (2 * _RADIUS + 1) ** 2), np.float32)
    for t in range(len(frames)):
        rows = np.flatnonzero(planes.anchor == t)
        template[rows] = _cut_patches(_to_grey(frames[t]), planes.center[rows])
    visible = copy_array(tracks.visible)
    for t in range(len(frames)):
        rows = np.flatnonzero(tracks.visible[t, good])
        # The middle frame's own patch is the reference.
        rows = rows[planes.anchor[rows] != t]
        n = good[rows]
        warp = _warp_planes(K, pose, planes.select(rows), t)
        start = tracks.xy[t, n].astype(np.float64)
        moved, likeness = _align_patches(_to_grey(frames[t]), template[rows], warp, start)
        near = np.linalg.norm(moved - start, axis=1) < options.sharpening_reach
        fine = (likeness > options.similar) & near
        tracks.xy[t, n[fine]] = moved[fine]
        visible[t, n] &= likeness > options.unlike
        progress.step("sharpening", t + 1, len(frames))
    # The reference lies at the projection of the point, around which its patch was cut.
    tracks.xy[planes.anchor, good] = planes.center
    return replace(tracks, visible=visible)


def _to_grey(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _align_patches(
    image: Float[np.ndarray, "H W"],
    template: Float[np.ndarray, "n P"],
    warp: Float[np.ndarray, "n 3 3"],
    start: Float[np.ndarray, "n 2"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
    """Pixels of the warped patches' best match in an image, and their correlation there."""
    gx = cv2.Scharr(image, -1, 1, 0) / _SCHARR
    gy = cv2.Scharr(image, -1, 0, 1) / _SCHARR
    return _align(image, gx, gy, template, warp, start)


def _fit_planes(
    points: Points,
    K: Float[np.ndarray, "F 3 3"],
    pose: Float[np.ndarray, "F 4 4"],
    good: Int[np.ndarray, "n"],
) -> _Planes:
    """The local plane of each good track, from its neighbours' inverse depths in its middle
    frame."""
    anchor = choose_anchors(points.agrees)[good]
    center = np.zeros((len(good), 2))
    rho = np.ones(len(good))
    slope = np.zeros((len(good), 2))
    for t in np.unique(anchor):
        rows = np.flatnonzero(anchor == t)
        around = good[points.agrees[t, good]]
        pixels, inverse = _project(points.xyz[around], K[t], pose[t])
        center[rows], rho[rows] = _project(points.xyz[good[rows]], K[t], pose[t])
        # Too few neighbours for a plane: the patch faces the camera.
        if len(around) < _MIN_NEIGHBOURS:
            continue
        _, near = cKDTree(pixels).query(center[rows], min(_PLANE_NEIGHBOURS, len(around)))
        offset = pixels[near] - center[rows, None]
        change = inverse[near] / rho[rows, None] - 1
        slope[rows] = rho[rows, None] * _fit_slopes(offset, change)
    return _Planes(anchor, center, rho, slope)


def _fit_slopes(
    offset: Float[np.ndarray, "n k 2"], change: Float[np.ndarray, "n k"]
) -> Float[np.ndarray, "n 2"]:
    """Slope of the plane through each point that most of its neighbours lie near.

    Reweighted least squares from two starts: neighbours at about the point's own depth, which leave
    out another surface, and neighbours at most depths, which a surface seen at a slant needs.

    Args:
        offset: pixels from the point to its neighbours.
        change: of their inverse depth relative to the point's; slopes are in the same unit.
    """
    near = 1 / (_NEAR**2 + (offset**2).sum(-1))
    best, least = np.zeros((len(offset), 2)), np.full(len(offset), np.inf)
    for widths in _WIDTHS:
        weight = near * np.exp(-((change / widths[0]) ** 2))
        for width in widths:
            normal = np.einsum("nk,nki,nkj->nij", weight, offset, offset) + _FLATTEN * np.eye(2)
            right = np.einsum("nk,nki,nk->ni", weight, offset, change)
            slope = np.linalg.solve(normal, right[..., None])[..., 0]
            misfit = change - np.einsum("nki,ni->nk", offset, slope)
            weight = near * np.exp(-((misfit / width) ** 2))
        cost = (near - weight).sum(1)
        better = cost < least
        best[better], least[better] = slope[better], cost[better]
    return best


def _project(
    xyz: Float[np.ndarray, "n 3"], K: Float[np.ndarray, "3 3"], pose: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
    """Pixels and inverse depths of world points in a frame."""
    local = (xyz @ pose[:3, :3].T + pose[:3, 3]) @ K.T
    return local[:, :2] / local[:, 2:], 1 / local[:, 2]


def _warp_planes(
    K: Float[np.ndarray, "F 3 3"], pose: Float[np.ndarray, "F 4 4"], planes: _Planes, t: int
) -> Float[np.ndarray, "n 3 3"]:
    """Homographies from offsets in the middle frame's patch, (dx, dy, 1), to homogeneous pixels of
    frame t.

    A pixel x of the middle frame at inverse depth r lies at R K^-1 x + r s in frame t's axes, where
    R and s are the relative rotation and shift. On a plane r is affine in x.
    """
    anchor = planes.anchor
    rotation = pose[t, :3, :3] @ pose[anchor, :3, :3].transpose(0, 2, 1)
    shift = pose[t, :3, 3] - (rotation @ pose[anchor, :3, 3, None])[..., 0]
    affine = np.zeros((len(anchor), 3, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = affine[:, 2, 2] = 1
    affine[:, :2, 2] = planes.center
    inverse_depth = np.concatenate([planes.slope, planes.rho[:, None]], 1)
    rays = rotation @ np.linalg.inv(K[anchor]) @ affine
    return K[t] @ (rays + shift[:, :, None] * inverse_depth[:, None])


def _cut_patches(
    image: Float[np.ndarray, "H W"], center: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n P"]:
    """Grey levels of the square patches round some pixels."""
    out = np.zeros((len(center), (2 * _RADIUS + 1) ** 2), np.float32)
    _cut(image, center, out)
    return out


@njit(cache=True, inline="always")
def _sample(image, x, y):
    """Bilinear value at a pixel; the border repeats.

    Not optical_flow.sample_field: inlined here, and of other rounding, which the tracks depend on.
    """
    height, width = image.shape
    x, y = min(max(x - 0.5, 0.0), width - 1.001), min(max(y - 0.5, 0.0), height - 1.001)
    i, j = int(y), int(x)
    a, b = np.float32(y - i), np.float32(x - j)
    top = image[i, j] * (1 - b) + image[i, j + 1] * b
    return top * (1 - a) + (image[i + 1, j] * (1 - b) + image[i + 1, j + 1] * b) * a


@njit(cache=True, parallel=True)
def _cut(image, center, out):
    side = 2 * _RADIUS + 1
    for n in numba.prange(len(center)):
        for k in range(side * side):
            out[n, k] = _sample(
                image, center[n, 0] + k % side - _RADIUS, center[n, 1] + k // side - _RADIUS
            )


@njit(cache=True, parallel=True)
def _align(image, gx, gy, template, warp, start):
    """Gauss-Newton on the shift of each warped patch, gain and bias eliminated.

    Returns the new centres and the correlations.
    """
    side = 2 * _RADIUS + 1
    size = side * side
    moved = start.copy()
    likeness = np.zeros(len(start))
    for n in numba.prange(len(start)):
        T = template[n] - template[n].mean()
        px, py = np.empty(size), np.empty(size)
        for k in range(size):
            dx, dy = k % side - _RADIUS, k // side - _RADIUS
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
        a, b, c = 0.0, 0.0, 0.0
        for step in range(8):
            for k in range(size):
                patch[k] = _sample(image, px[k] + sx, py[k] + sy)
            patch -= patch.mean()
            # Later steps are small: the gradient of the second step serves them.
            if step < 2:
                for k in range(size):
                    jx[k] = _sample(gx, px[k] + sx, py[k] + sy)
                    jy[k] = _sample(gy, px[k] + sx, py[k] + sy)
                jx -= jx.mean()
                jy -= jy.mean()
                a = (jx * jx).sum() + 1e-3
                b = (jx * jy).sum()
                c = (jy * jy).sum() + 1e-3
            power = (patch * patch).sum() + 1e-3
            gain = (T * patch).sum() / power
            likeness[n] = (T * patch).sum() / np.sqrt(power * ((T * T).sum() + 1e-3))
            # Not the same patch: its gradient leads nowhere.
            if likeness[n] < 0.2:
                break
            error = T / gain - patch
            u, v = (jx * error).sum(), (jy * error).sum()
            det = a * c - b * b
            step_x = (c * u - b * v) / det
            step_y = (a * v - b * u) / det
            # Steps of at most a pixel, the range in which the gradient is valid.
            limit = max(1.0, np.sqrt(step_x**2 + step_y**2))
            sx += step_x / limit
            sy += step_y / limit
            if abs(step_x) + abs(step_y) < 0.01:
                break
        moved[n, 0] = cx + sx
        moved[n, 1] = cy + sy
    return moved, likeness
