"""numba kernels of PatchMatch stereo: unlikeness of slanted patches, and the search for planes.

A surface is described at each pixel by rho, its inverse depth, and by slope, the
change of rho a pixel along x and y. A pixel p of the frame projects into source view
s at A[s] p + T[s] rho, homogeneous.
"""

from itertools import product

import numpy as np

from models.run import njit

ZOOM = 3
"""Enlargement of the source views: reading the nearest enlarged pixel costs a single memory
access, a bilinear interpolation four."""
BEST = 2
"""Source views whose unlikeness counts; in the others the surface may be hidden."""
# half the side of the compared patch, in pixels
_RADIUS = 3
# grey levels from the middle pixel at which a pixel's weight in the patch falls to about 1/e
_COLOR_SIGMA = np.float32(15.0)
_INVERSE_SIGMA = 1 / _COLOR_SIGMA
# variance in squared grey levels below which a patch has no texture to compare
_NOISE = np.float32(4.0)
# unlikeness of a source view that does not see the patch, and the largest of any view
_UNSEEN = np.float32(1.2)
# cost of leaving the starting depth: _HOLD times the relative change of inverse depth, which counts
# up to _HOLD_REACH
_HOLD = np.float32(0.3)
_HOLD_REACH = np.float32(0.1)
# relative difference of inverse depth within the patch below which two planes count as equal
_TIE = np.float32(5e-4)
# relative difference of inverse depth from which a candidate is tried
_APART = np.float32(0.02)
# offsets of the patch's pixels from its middle: every second pixel, as on a checkerboard, tells as
# much as all of them. A corner is left out: 24 pixels are whole vector registers.
_ACROSS, _DOWN = (
    np.array(
        [
            offset[axis]
            for offset in product(range(-_RADIUS, _RADIUS + 1), repeat=2)
            if sum(offset) % 2 == 0 and offset != (_RADIUS, _RADIUS)
        ],
        np.float32,
    )
    for axis in (1, 0)
)
_COUNT = len(_ACROSS)
_ACROSS_INT = _ACROSS.astype(np.int32)
_DOWN_INT = _DOWN.astype(np.int32)
# pixels of the patch in the first of two loops: LLVM turns loops of 16 and of 8 into vector code, but
# not a loop of 24
_SPLIT = 16
_ZOOM = np.float32(ZOOM)
# Helpers with fast arithmetic are inlined. The compiler rounds a separate copy differently, and the
# copy that is called would depend on whether a kernel was just compiled or came from the cache.
FAST = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": True,
    "forceinline": True,
}


@njit(**FAST)
def fall_off(squared):
    """(1 - a / 16)^16, 0 from 16 on: close to exp(-a), which the compiler cannot turn into vector
    code."""
    value = max(np.float32(1) - squared * np.float32(1 / 16), np.float32(0))
    value *= value
    value *= value
    value *= value
    return value * value


@njit(**FAST)
def _read_patch(image, y, x, weights, values, first, end):
    """Fills in greys and weights, which are not yet divided by their sum, of the patch's pixels
    [first, end); returns the sums of the weights and of weight * grey."""
    bottom = np.int32(image.shape[0] - 1)
    right = np.int32(image.shape[1] - 1)
    flat = image.ravel()
    middle = image[y, x]
    total = np.float32(0)
    mean = np.float32(0)
    for k in range(first, end):
        j = min(max(np.int32(y) + _DOWN_INT[k], np.int32(0)), bottom)
        i = min(max(np.int32(x) + _ACROSS_INT[k], np.int32(0)), right)
        grey = flat[np.uint32(j * (right + np.int32(1)) + i)]
        apart = (grey - middle) * _INVERSE_SIGMA
        weight = fall_off(apart * apart)
        weights[k] = weight
        values[k] = grey
        total += weight
        mean += weight * grey
    return total, mean


@njit(**FAST)
def _center_patch(weights, values, total, mean, first, end):
    """Divides the weights by their sum; values become weight * (grey - mean). Returns the sum of
    weight * (grey - mean)^2."""
    variance = np.float32(0)
    for k in range(first, end):
        weight = weights[k] * total
        apart = values[k] - mean
        weights[k] = weight
        values[k] = weight * apart
        variance += weight * apart * apart
    return variance


@njit(cache=True, nogil=True)
def weigh_patch(image, y, x, weights, values):
    """Fills in weights (P,), which sum to 1 and fall with the grey difference from the middle pixel
    (y, x), and values (P,) = weight * (grey - mean); returns the weighted variance."""
    total, mean = _read_patch(image, y, x, weights, values, 0, _SPLIT)
    more_total, more_mean = _read_patch(image, y, x, weights, values, _SPLIT, _COUNT)
    total = np.float32(1) / (total + more_total)
    mean = (mean + more_mean) * total
    variance = _center_patch(weights, values, total, mean, 0, _SPLIT)
    return variance + _center_patch(weights, values, total, mean, _SPLIT, _COUNT)


@njit(**FAST)
def _sum_greys(source, weights, values, along, down, stride, first, end):
    """Sums over the patch's pixels [first, end) of weight * grey, weight * grey^2 and value * grey
    in the enlarged view.

    along, down: of the column and of the row: that of the middle, its derivatives by the pixel, and
    the largest.
    """
    mean = np.float32(0)
    square = np.float32(0)
    product = np.float32(0)
    u, ux, uy, right = along
    v, vx, vy, bottom = down
    for k in range(first, end):
        column = np.int32(min(max(u + ux * _ACROSS[k] + uy * _DOWN[k], np.float32(0)), right))
        row = np.int32(min(max(v + vx * _ACROSS[k] + vy * _DOWN[k], np.float32(0)), bottom))
        grey = source[np.uint32(row * stride + column)]
        part = weights[k] * grey
        mean += part
        square += part * grey
        product += values[k] * grey
    return mean, square, product


@njit(**FAST)
def measure_unlikeness(
    source, width, height, A, T, weights, values, variance, x, y, rho, slope_x, slope_y
):
    """1 - weighted correlation of the patch round pixel (x, y) with a source view.

    source: the view, width x height, enlarged and flat; A (3, 3), T (3,): its projection, which is
    linearised at the middle of the patch; weights, values, variance: see weigh_patch.
    """
    X = A[0, 0] * x + A[0, 1] * y + A[0, 2] + T[0] * rho
    Y = A[1, 0] * x + A[1, 1] * y + A[1, 2] + T[1] * rho
    Z = A[2, 0] * x + A[2, 1] * y + A[2, 2] + T[2] * rho
    if not Z > 0:
        return _UNSEEN
    u, v = X / Z, Y / Z
    if not (u >= 1 and v >= 1 and u <= width - 1 and v <= height - 1):
        return _UNSEEN
    # derivatives of (u, v) by the pixel
    zx = A[2, 0] + T[2] * slope_x
    zy = A[2, 1] + T[2] * slope_y
    ux = (A[0, 0] + T[0] * slope_x - u * zx) / Z
    uy = (A[0, 1] + T[0] * slope_y - u * zy) / Z
    vx = (A[1, 0] + T[1] * slope_x - v * zx) / Z
    vy = (A[1, 1] + T[1] * slope_y - v * zy) / Z
    u = u * _ZOOM
    v = v * _ZOOM
    ux = ux * _ZOOM
    uy = uy * _ZOOM
    vx = vx * _ZOOM
    vy = vy * _ZOOM
    right = np.float32(width * ZOOM - 1)
    bottom = np.float32(height * ZOOM - 1)
    stride = np.int32(width * ZOOM)
    patch = source, weights, values, (u, ux, uy, right), (v, vx, vy, bottom), stride
    mean, square, product = _sum_greys(*patch, 0, _SPLIT)
    more_mean, more_square, more_product = _sum_greys(*patch, _SPLIT, _COUNT)
    mean += more_mean
    square += more_square
    product += more_product
    # rounding can leave a negative variance
    spread = max(square - mean * mean, np.float32(0)) + _NOISE
    return min(np.float32(1) - product / np.sqrt(spread * (variance + _NOISE)), _UNSEEN)


@njit(**FAST)
def _measure_cost(
    sources, width, height, A, T, weights, values, variance, x, y, rho, slope_x, slope_y, start
):
    """Mean unlikeness of the best views, plus the cost of leaving the starting depth."""
    # above any unlikeness
    best = np.float32(9)
    second = np.float32(9)
    for s in range(len(A)):
        c = measure_unlikeness(
            sources[s], width, height, A[s], T[s], weights, values, variance, x, y, rho, slope_x, slope_y,
        )  # fmt: skip
        if c < best:
            best, second = c, best
        elif c < second:
            second = c
    views = best if len(A) == 1 else (best + second) / BEST
    return views + _HOLD * min(abs(rho / start - np.float32(1)), _HOLD_REACH)


@njit(cache=True, nogil=True)
def _draw_random(seed, count):
    """Pseudo-random number in [-0.5, 0.5) of a counter.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (splitmix64), 2014.
    """
    a = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(count) * np.uint64(
        0xD1B54A32D192ED03
    )
    a = (a ^ (a >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    a = (a ^ (a >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    a = a ^ (a >> np.uint64(31))
    return np.float32(np.float64(a >> np.uint64(40)) / 16777216.0 - 0.5)


@njit(cache=True, nogil=True)
def start_costs(image, sources, A, T, rho, slope, cost, start, region, top, bottom):
    """Fills in cost (H, W) of the starting planes in the region (H, W), in rows [top, bottom)."""
    weights = np.empty(_COUNT, np.float32)
    values = np.empty(_COUNT, np.float32)
    for y in range(top, bottom):
        for x in range(image.shape[1]):
            if region[y, x]:
                variance = weigh_patch(image, y, x, weights, values)
                patch = weights, values, variance, np.float32(x + 0.5), np.float32(y + 0.5)
                plane = rho[y, x], slope[y, x, 0], slope[y, x, 1], start[y, x]
                cost[y, x] = _measure_cost(
                    sources, image.shape[1], image.shape[0], A, T, *patch, *plane
                )


@njit(cache=True, nogil=True)
def try_depths(image, sources, A, T, rho, slope, cost, start, region, candidates, top, bottom):
    """Takes, at each pixel of the region in rows [top, bottom), the best of the present plane and
    planes parallel to the image at the inverse depths ``candidates`` (C, H, W)."""
    height, width = image.shape
    weights = np.empty(_COUNT, np.float32)
    values = np.empty(_COUNT, np.float32)
    flat = np.float32(0)
    for y in range(top, bottom):
        for x in range(width):
            if not region[y, x]:
                continue
            variance = weigh_patch(image, y, x, weights, values)
            patch = weights, values, variance, np.float32(x + 0.5), np.float32(y + 0.5)
            for k in range(len(candidates)):
                new = candidates[k, y, x]
                if abs(new / rho[y, x] - np.float32(1)) < _APART:
                    continue
                c = _measure_cost(
                    sources, width, height, A, T, *patch, new, flat, flat, start[y, x]
                )
                if c < cost[y, x]:
                    cost[y, x] = c
                    rho[y, x] = new
                    slope[y, x, 0] = flat
                    slope[y, x, 1] = flat


@njit(cache=True, nogil=True)
def sweep(
    image, sources, A, T, rho, slope, cost, start, region, colour, reach, spread, seed, top, bottom
):
    """Tries the planes of 8 neighbours and 2 random planes at each pixel of a checkerboard's
    colour, in the region and in rows [top, bottom).

    reach: pixels to the far neighbours; spread: largest relative random change of inverse depth.
    Source: Galliani, Lasinger, Schindler, "Massively parallel multiview stereopsis by surface
    normal diffusion", 2015.
    """
    # neighbours are of the other colour, so that rows can be shared out among threads
    height, width = image.shape
    weights = np.empty(_COUNT, np.float32)
    values = np.empty(_COUNT, np.float32)
    away = np.array(
        [(0, -1), (0, 1), (-1, 0), (1, 0), (0, -reach), (0, reach), (-reach, 0), (reach, 0)]
    )
    for y in range(top, bottom):
        for x in range((y + colour) % 2, width, 2):
            if not region[y, x]:
                continue
            variance = weigh_patch(image, y, x, weights, values)
            patch = weights, values, variance, np.float32(x + 0.5), np.float32(y + 0.5)
            best = cost[y, x]
            r = rho[y, x]
            sx = slope[y, x, 0]
            sy = slope[y, x, 1]
            for n in range(10):
                if n < 8:
                    j, i = y + away[n, 0], x + away[n, 1]
                    if j < 0 or i < 0 or j >= height or i >= width:
                        continue
                    new_sx = slope[j, i, 0]
                    new_sy = slope[j, i, 1]
                    new = rho[j, i] + new_sx * np.float32(x - i) + new_sy * np.float32(y - j)
                    # a plane that hardly differs from the best is not tried
                    bend = abs(new_sx - sx) + abs(new_sy - sy)
                    if abs(new - r) + np.float32(4) * bend < _TIE * r:
                        continue
                else:
                    # a coarse and a fine random change
                    far = spread if n == 8 else np.float32(0.2) * spread
                    count = 3 * (2 * (y * width + x) + n)
                    new = r * (np.float32(1) + np.float32(2) * far * _draw_random(seed, count))
                    new_sx = sx + np.float32(0.2) * far * r * _draw_random(seed, count + 1)
                    new_sy = sy + np.float32(0.2) * far * r * _draw_random(seed, count + 2)
                if not new > 0:
                    continue
                c = _measure_cost(
                    sources, width, height, A, T, *patch, new, new_sx, new_sy, start[y, x]
                )
                if c < best:
                    best = c
                    r = new
                    sx = new_sx
                    sy = new_sy
            cost[y, x] = best
            rho[y, x] = r
            slope[y, x, 0] = sx
            slope[y, x, 1] = sy
