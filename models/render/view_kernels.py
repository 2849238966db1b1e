"""numba kernels of a view: the visible meshes of a pixel, the points of the colour field to read,
and the sums of their colours.

Each kernel handles a range of pixels on the calling thread; callers divide the work.
"""

import math

import numpy as np

from models.run import njit
from models.surface import draw_band, evaluate_depth


@njit(nogil=True, cache=True)
def _gather_meshes(depth, weight, pixel, own_depth, own_weight):
    """Copies depth and weight of the meshes that cover a pixel, in their order: the planes of M
    meshes lie far apart in memory. Returns their number."""
    count = 0
    for k in range(len(depth)):
        if math.isfinite(depth[k, pixel]):
            own_depth[count] = depth[k, pixel]
            own_weight[count] = weight[k, pixel]
            count = count + 1
    return count


# in any order: a vector of meshes at a time
@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"}, forceinline=True)
def _sum_near(depth, weight, count, middle, reach):
    """Sum of the weights of the first ``count`` meshes whose depth is within ``reach``."""
    total = np.float32(0)
    for m in range(count):
        total += weight[m] if abs(depth[m] - middle) < reach else np.float32(0)
    return total


@njit(nogil=True, cache=True)
def _find_majority(depth, weight, count, agreement):
    """Index of the mesh whose surface has the largest sum of weights, the nearest mesh at equal
    sums, among the first ``count`` >= 1; -1 if none has a weight."""
    # fast path: nearly all pixels see meshes that agree with the nearest mesh
    nearest = 0
    most = depth[0]
    for k in range(1, count):
        if depth[k] < depth[nearest]:
            nearest = k
        most = max(most, depth[k])
    least = depth[nearest]
    if most - least < agreement * least:
        return nearest
    best = -1
    best_vote = np.float32(0)
    for k in range(count):
        d = depth[k]
        vote = _sum_near(depth, weight, count, d, agreement * d)
        # 1e-4: sums of weights differ by rounding; blending has the same number
        level = vote > best_vote * np.float32(0.9999) and d < depth[best]
        if vote > best_vote * np.float32(1.0001) or level:
            best = k
            best_vote = vote
    return best


@njit(nogil=True, cache=True)
def _blend_pixel(depth, weight, count, agreement, least, share):
    """Fills the first ``count`` values of ``share``; returns the depth of the visible surface, inf
    without a surface."""
    if count == 0:
        return np.float32(np.inf)
    best = _find_majority(depth, weight, count, agreement)
    if best < 0:
        return np.float32(np.inf)
    d = depth[best]
    largest = np.float32(0)
    for k in range(count):
        share[k] = weight[k] if abs(depth[k] - d) < agreement * d else np.float32(0)
        largest = max(largest, share[k])
    if not largest > 0:
        return np.float32(np.inf)
    # small shares are dropped: each would cost a reading of the field
    kept = np.float32(0)
    mean = np.float32(0)
    for k in range(count):
        if share[k] > 0 and share[k] >= least * largest:
            kept += share[k]
            mean += share[k] * depth[k]
        else:
            share[k] = 0
    for k in range(count):
        share[k] /= kept
    return mean / kept


@njit(nogil=True, cache=True, error_model="numpy")
def draw_depth(planes, boxes, trust, importance, near, top, depth, weight):
    """Fills depth (rows, W) of a mesh in the rows from ``top`` on, inf if empty, and weight: trust
    of the face * importance."""
    nearest = np.empty(depth.shape, np.float32)
    face = np.empty(depth.shape, np.int32)
    draw_band(planes, boxes, near, top, nearest, face)
    for row in range(len(depth)):
        for column in range(depth.shape[1]):
            t = face[row, column]
            depth[row, column] = (
                evaluate_depth(planes[t], column + 0.5, top + row + 0.5) if t >= 0 else np.inf
            )
            weight[row, column] = importance * trust[t] if t >= 0 else 0


@njit(nogil=True, cache=True)
def _order_shares(share, count, order):
    """Fills ``order`` with the indices of positive shares, the largest first, and the first at equal
    shares; returns their number."""
    found = 0
    for k in range(count):
        if not share[k] > 0:
            continue
        at = found
        while at > 0 and share[order[at - 1]] < share[k]:
            order[at] = order[at - 1]
            at = at - 1
        order[at] = k
        found = found + 1
    return found


@njit(nogil=True, cache=True)
def _find_group(x, y, z, corner, first, end, tolerance):
    """The group of [first, end) within the tolerance along each axis of (x, y, z); -1 for none."""
    for g in range(first, end):
        k = g - first
        if (
            abs(x - corner[k, 0]) < tolerance
            and abs(y - corner[k, 1]) < tolerance
            and abs(z - corner[k, 2]) < tolerance
        ):
            return g
    return -1


@njit(nogil=True, cache=True, error_model="numpy")
def _intersect(ray, column, row, depth):
    """The point of a pixel centre's ray at a z-depth, in the field's box; see tile_points."""
    px, py = column + 0.5, row + 0.5
    x = (ray[0, 0] * px + ray[0, 1] * py + ray[0, 2]) * depth + ray[0, 3]
    y = (ray[1, 0] * px + ray[1, 1] * py + ray[1, 2]) * depth + ray[1, 3]
    z = (ray[2, 0] * px + ray[2, 1] * py + ray[2, 2]) * depth + ray[2, 3]
    w = (ray[3, 0] * px + ray[3, 1] * py + ray[3, 2]) * depth + ray[3, 3]
    scale = 1 / w
    return scale * x, scale * y, scale * z


@njit(nogil=True, cache=True, error_model="numpy")
def tile_points(depth, weight, width, top, ray, limits, planes, padded, pixel, part, surface):
    """Points of the colour field to read for a tile of rows, each with its pixel and its part of
    the pixel's colour.

    Surfaces of a pixel closer than the tolerance are read at a single point, their weighted mean:
    the field cannot resolve them.

    Args:
        depth, weight: (M, P) of the meshes; P whole rows of ``width`` pixels from row ``top`` on.
        ray: (4, 4) float64: the first three columns times (x, y, 1) * depth, plus the last, are the
        homogeneous point. limits: agreement, least share, and tolerance along each axis of the box.
        planes: (3 * padded,) the points axis by axis, written, as are ``pixel`` and ``part`` for
        each point. surface: (P,) depth of the surface, written.

    Returns:
        The number of points.
    """
    count = 0
    own_depth = np.empty(len(depth), np.float32)
    own_weight = np.empty(len(depth), np.float32)
    share = np.empty(len(depth), np.float32)
    order = np.empty(len(depth), np.int64)
    leader = np.empty((len(depth), 3))
    for p in range(depth.shape[1]):
        covering = _gather_meshes(depth, weight, p, own_depth, own_weight)
        given = own_depth, own_weight, covering
        surface[p] = _blend_pixel(*given, limits[0], limits[1], share)
        if not math.isfinite(surface[p]):
            continue
        # groups of this pixel start here, the largest share first
        first = count
        for i in range(_order_shares(share, covering, order)):
            k = order[i]
            amount = share[k]
            x, y, z = _intersect(ray, p % width, top + p // width, np.float64(own_depth[k]))
            g = _find_group(x, y, z, leader, first, count, limits[2])
            if g < 0:
                g = count
                count = count + 1
                leader[g - first, 0] = x
                leader[g - first, 1] = y
                leader[g - first, 2] = z
                pixel[g] = p
                part[g] = 0
                planes[g] = planes[padded + g] = planes[2 * padded + g] = 0
            part[g] += amount
            planes[g] += np.float32(amount * x)
            planes[padded + g] += np.float32(amount * y)
            planes[2 * padded + g] += np.float32(amount * z)
        for g in range(first, count):
            for axis in range(3):
                planes[axis * padded + g] /= part[g]
    return count


@njit(nogil=True, cache=True)
def add_colors(colors, pixel, part, count, rgb):
    """Adds the colours (count, 3) of points, times their parts, to their pixels in rgb (P, 3)."""
    for i in range(count):
        for c in range(3):
            rgb[pixel[i], c] += part[i] * colors[i, c]
