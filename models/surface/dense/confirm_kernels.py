"""numba kernels that clean depth maps: agreement of views, weighted median along colours."""

import numpy as np
from jaxtyping import Float32, Int32

from models.run import njit
from models.surface.dense.stereo_kernels import FAST, fall_off

# above any inverse depth
_FAR = np.float32(3e38)
# relative width of a range of inverse depths at which bisection ends: it holds few values
_CLOSE = np.float32(1e-4)
# halvings of the range of inverse depths at most: the bits of a float32
_HALVINGS = 32
# neighbours of a pixel are a multiple of this: LLVM unrolls loops over four registers of eight
_REGISTERS = 32


@njit(cache=True, nogil=True, error_model="numpy")
def count_agreement(rho, others, A, T, region, tolerance, top, bottom, out):
    """Counts the source views whose inverse depth maps ``others`` (S, H, W) confirm each pixel's
    surface, in rows [top, bottom).

    tolerance: largest relative difference of depth.
    """
    height, width = rho.shape
    for y in range(top, bottom):
        for x in range(width):
            out[y, x] = 0
            if not region[y, x]:
                continue
            px = x + 0.5
            py = y + 0.5
            r = rho[y, x]
            for s in range(len(A)):
                X = A[s, 0, 0] * px + A[s, 0, 1] * py + A[s, 0, 2] + T[s, 0] * r
                Y = A[s, 1, 0] * px + A[s, 1, 1] * py + A[s, 1, 2] + T[s, 1] * r
                Z = A[s, 2, 0] * px + A[s, 2, 1] * py + A[s, 2, 2] + T[s, 2] * r
                if Z > 0 and 0 <= X < Z * width and 0 <= Y < Z * height:
                    # z-depth in the source view: Z / r; its map holds 1 / z
                    out[y, x] += abs(others[s, int(Y / Z), int(X / Z)] * Z / r - 1) < tolerance


@njit(**FAST)
def _weigh_neighbours(planes, size, y, x, offsets, near, scale, weights, values):
    """Fills in weight and inverse depth of each neighbour of the pixel (y, x); returns the sum of
    the weights."""
    height, width = size
    rho, sure, red, green, blue = planes
    middle = y * width + x
    total = np.float32(0)
    for k in range(len(near)):
        j = np.int32(y) + offsets[0, k]
        i = np.int32(x) + offsets[1, k]
        row = min(max(j, np.int32(0)), height - np.int32(1))
        column = min(max(i, np.int32(0)), width - np.int32(1))
        at = np.uint32(row * width + column)
        apart = (
            (red[at] - red[middle]) ** 2
            + (green[at] - green[middle]) ** 2
            + (blue[at] - blue[middle]) ** 2
        )
        weight = fall_off(apart * scale) * near[k] * sure[at]
        weight = weight if row == j and column == i else np.float32(0)
        weights[k] = weight
        values[k] = rho[at]
        total += weight
    return total


@njit(**FAST)
def _sum_up_to(weights, values, limit):
    """Sum of the weights of the values up to ``limit``."""
    total = np.float32(0)
    for k in range(len(weights)):
        total += weights[k] if values[k] <= limit else np.float32(0)
    return total


@njit(**FAST)
def _find_range(weights, values):
    """The least and the largest value of a positive weight."""
    low = _FAR
    high = np.float32(0)
    for k in range(len(weights)):
        low = min(low, values[k] if weights[k] > 0 else _FAR)
        high = max(high, values[k] if weights[k] > 0 else np.float32(0))
    return low, high


@njit(**FAST)
def _find_above(weights, values, limit):
    """The least value of a positive weight above ``limit``."""
    least = _FAR
    for k in range(len(weights)):
        least = min(least, values[k] if weights[k] > 0 and values[k] > limit else _FAR)
    return least


@njit(**FAST)
def find_weighted_median(weights, values, total):
    """The least of the positive values at which the weights up to it reach half their sum.

    By bisection: sorting takes several times as long.
    """
    low, high = _find_range(weights, values)
    half = total / np.float32(2)
    if _sum_up_to(weights, values, low) >= half:
        return low
    for _ in range(_HALVINGS):
        if high - low <= _CLOSE * low:
            break
        middle = (low + high) / np.float32(2)
        if _sum_up_to(weights, values, middle) >= half:
            high = middle
        else:
            low = middle
    # few values are left in (low, high]
    median = _find_above(weights, values, low)
    while median < high and _sum_up_to(weights, values, median) < half:
        median = _find_above(weights, values, median)
    return min(median, high)


def list_neighbours(
    radius: int,
) -> tuple[Int32[np.ndarray, "2 n"], Float32[np.ndarray, "n"]]:
    """Rows and columns of the pixels within ``radius`` along each axis, every second as on a
    checkerboard, and their weights, which fall with the distance. Pixels of weight 0 fill the last
    vector register."""
    rows, columns = np.indices((2 * radius + 1, 2 * radius + 1)).reshape(2, -1) - radius
    offsets = np.stack([rows, columns])[:, (rows + columns) % 2 == 0].astype(np.int32)
    near = np.exp(-(offsets.astype(np.float32) ** 2).sum(0) / max(radius, 1) ** 2)
    fill = -len(near) % _REGISTERS
    return np.pad(offsets, ((0, 0), (0, fill))), np.pad(near, (0, fill)).astype(np.float32)


@njit(cache=True, nogil=True)
def filter_median(rho, sure, rgb, region, offsets, near, sigma, top, bottom, out):
    """Weighted median (H, W) of the sure inverse depths around each pixel of the region, in rows
    [top, bottom).

    Weights fall with the distance and with the colour difference. sure: (H, W) float32, 0 or 1;
    rgb: (3, H, W); offsets, near: see ``list_neighbours``; sigma: in grey levels.

    Source: Ma et al., "Constant time weighted median filtering for stereo matching and beyond",
    2013.
    """
    height, width = rho.shape
    size = np.int32(height), np.int32(width)
    colors = rgb[0].ravel(), rgb[1].ravel(), rgb[2].ravel()
    planes = rho.ravel(), sure.ravel(), *colors
    scale = np.float32(1) / (sigma * sigma)
    values = np.empty(len(near), np.float32)
    weights = np.empty(len(near), np.float32)
    for y in range(top, bottom):
        for x in range(width):
            out[y, x] = rho[y, x]
            if not region[y, x]:
                continue
            total = _weigh_neighbours(planes, size, y, x, offsets, near, scale, weights, values)
            # else no sure pixel of similar colour
            if total > 1e-3:
                out[y, x] = find_weighted_median(weights, values, total)
