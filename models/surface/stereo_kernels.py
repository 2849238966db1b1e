"""numba kernels of dense stereo: how unlike a slanted patch is in other views, PatchMatch,
agreement, cleaning."""

import numba
import numpy as np

RADIUS = 3
"""Half the side of the patch compared, in pixels."""
SIDE = 2 * RADIUS + 1
COLOR_SIGMA = np.float32(15.0)
"""Grey levels of difference from the middle pixel at which a pixel of the patch hardly counts."""
ZOOM = 3
"""Other views are compared enlarged so many times, by the nearest pixel: one read in place of a
bilinear one's four."""
BEST = 2
"""Views counted, of those compared: in the others the surface may be hidden."""
NOISE = np.float32(4.0)
"""Variance in squared grey levels below which a patch has no texture to compare."""
UNSEEN = np.float32(1.2)
"""Unlikeness of a view that does not see the patch."""
HOLD = np.float32(0.3)
HOLD_REACH = np.float32(0.1)
"""Cost of leaving the start, for each part of inverse depth, up to a part."""
_ACROSS = np.tile(np.arange(-RADIUS, RADIUS + 1), SIDE).astype(np.float32)
_DOWN = np.repeat(np.arange(-RADIUS, RADIUS + 1), SIDE).astype(np.float32)
_ZOOM = np.float32(ZOOM)
_TIE = np.float32(5e-4)
_FAST = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": True,
    "forceinline": True,
}
"""Of helpers with fast arithmetic: a copy that is not part of its caller is rounded otherwise, and
which copy is called would depend on whether kernels were compiled just now or come from the cache."""


@numba.njit(cache=True, nogil=True)
def patch_weights(image, y, x, weights, values):
    """Weights (P,) of a patch's pixels by how they resemble the middle one, the same times grey -
    mean; variance."""
    height, width = image.shape
    total = np.float32(0)
    mean = np.float32(0)
    k = 0
    for j in range(y - RADIUS, y + RADIUS + 1):
        for i in range(x - RADIUS, x + RADIUS + 1):
            grey = image[min(max(j, 0), height - 1), min(max(i, 0), width - 1)]
            apart = (grey - image[y, x]) / COLOR_SIGMA
            weights[k] = np.exp(-apart * apart)
            values[k] = grey
            total += weights[k]
            mean += weights[k] * grey
            k += 1
    mean /= total
    variance = np.float32(0)
    for k in range(SIDE * SIDE):
        weights[k] /= total
        apart = values[k] - mean
        values[k] = weights[k] * apart
        variance += values[k] * apart
    return variance


@numba.njit(**_FAST)
def unlikeness(source, width, height, A, T, weights, values, variance, x, y, rho, slope_x, slope_y):
    """1 - weighted correlation of the patch round pixel (x, y) with ``source``, on the plane of
    inverse depth ``rho``.

    ``source`` is the other view, width x height, enlarged and flat. Inverse depth changes by
    ``slope`` a pixel. A pixel p is seen in the source at A p + T rho(p) (homogeneous); round the
    middle that map is taken as affine.
    """
    X = A[0, 0] * x + A[0, 1] * y + A[0, 2] + T[0] * rho
    Y = A[1, 0] * x + A[1, 1] * y + A[1, 2] + T[1] * rho
    Z = A[2, 0] * x + A[2, 1] * y + A[2, 2] + T[2] * rho
    if not Z > 0:
        return UNSEEN
    u, v = X / Z, Y / Z
    if not (u >= 1 and v >= 1 and u <= width - 1 and v <= height - 1):
        return UNSEEN
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
    mean = np.float32(0)
    square = np.float32(0)
    product = np.float32(0)
    for k in range(SIDE * SIDE):  # one loop over flat arrays: it runs in vector registers
        column = np.int32(min(max(u + ux * _ACROSS[k] + uy * _DOWN[k], np.float32(0)), right))
        row = np.int32(min(max(v + vx * _ACROSS[k] + vy * _DOWN[k], np.float32(0)), bottom))
        grey = source[np.uint32(row * stride + column)]
        part = weights[k] * grey
        mean += part
        square += part * grey
        product += values[k] * grey
    spread = max(square - mean * mean, np.float32(0)) + NOISE
    return min(np.float32(1) - product / np.sqrt(spread * (variance + NOISE)), UNSEEN)


@numba.njit(**_FAST)
def _cost(
    sources, width, height, A, T, weights, values, variance, x, y, rho, slope_x, slope_y, start
):
    """Mean unlikeness of the best views, and what leaving the start costs."""
    best = np.float32(9)
    second = np.float32(9)
    for s in range(len(A)):
        c = unlikeness(
            sources[s],
            width,
            height,
            A[s],
            T[s],
            weights,
            values,
            variance,
            x,
            y,
            rho,
            slope_x,
            slope_y,
        )
        if c < best:
            best, second = c, best
        elif c < second:
            second = c
    views = best if len(A) == 1 else (best + second) / BEST
    return views + HOLD * min(abs(rho / start - np.float32(1)), HOLD_REACH)


@numba.njit(cache=True, nogil=True)
def _random(seed, count):
    """A number in [-0.5, 0.5) from a counter (splitmix64)."""
    a = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(count) * np.uint64(
        0xD1B54A32D192ED03
    )
    a = (a ^ (a >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    a = (a ^ (a >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    a = a ^ (a >> np.uint64(31))
    return np.float32(np.float64(a >> np.uint64(40)) / 16777216.0 - 0.5)


@numba.njit(cache=True, nogil=True)
def begin(image, sources, A, T, rho, slope, cost, start, region, top, bottom):
    """Costs (H, W) of the planes that the search starts from, in rows [top, bottom)."""
    weights = np.empty(SIDE * SIDE, np.float32)
    values = np.empty(SIDE * SIDE, np.float32)
    for y in range(top, bottom):
        for x in range(image.shape[1]):
            if region[y, x]:
                variance = patch_weights(image, y, x, weights, values)
                patch = weights, values, variance, np.float32(x + 0.5), np.float32(y + 0.5)
                plane = rho[y, x], slope[y, x, 0], slope[y, x, 1], start[y, x]
                cost[y, x] = _cost(sources, image.shape[1], image.shape[0], A, T, *patch, *plane)


@numba.njit(cache=True, nogil=True)
def sweep(
    image, sources, A, T, rho, slope, cost, start, region, colour, reach, spread, seed, top, bottom
):
    """Tries the planes of 8 neighbours and 2 random ones at every second pixel (a checkerboard) of
    the region.

    Only pixels of the other colour are read, so rows can be shared out among threads.
    Source: Galliani, Lasinger, Schindler, "Massively parallel multiview stereopsis by surface
    normal diffusion", 2015.
    """
    height, width = image.shape
    weights = np.empty(SIDE * SIDE, np.float32)
    values = np.empty(SIDE * SIDE, np.float32)
    away = np.array(
        [(0, -1), (0, 1), (-1, 0), (1, 0), (0, -reach), (0, reach), (-reach, 0), (reach, 0)]
    )
    for y in range(top, bottom):
        for x in range((y + colour) % 2, width, 2):
            if not region[y, x]:
                continue
            variance = patch_weights(image, y, x, weights, values)
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
                    if (
                        abs(new - r) + np.float32(4) * (abs(new_sx - sx) + abs(new_sy - sy))
                        < _TIE * r
                    ):
                        continue
                else:
                    far = spread if n == 8 else np.float32(0.2) * spread
                    count = 3 * (2 * (y * width + x) + n)
                    new = r * (np.float32(1) + np.float32(2) * far * _random(seed, count))
                    new_sx = sx + np.float32(0.2) * far * r * _random(seed, count + 1)
                    new_sy = sy + np.float32(0.2) * far * r * _random(seed, count + 2)
                if not new > 0:
                    continue
                c = _cost(sources, width, height, A, T, *patch, new, new_sx, new_sy, start[y, x])
                if c < best:
                    best = c
                    r = new
                    sx = new_sx
                    sy = new_sy
            cost[y, x] = best
            rho[y, x] = r
            slope[y, x, 0] = sx
            slope[y, x, 1] = sy


@numba.njit(cache=True, nogil=True, error_model="numpy")
def agreement(rho, others, A, T, region, tolerance, top, bottom, out):
    """In how many other views' maps (S, H, W) each pixel's surface is found, in rows [top,
    bottom)."""
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
                    # a point of z-depth 1 / r lies at Z / r in the other view, whose map says 1 / z
                    out[y, x] += abs(others[s, int(Y / Z), int(X / Z)] * Z / r - 1) < tolerance


@numba.njit(cache=True, nogil=True)
def weighted_median(rho, sure, rgb, region, radius, sigma, top, bottom, out):
    """Median (H, W) of the sure values around, weighted by likeness of colour and nearness, in rows
    [top, bottom).

    Source: Ma et al., "Constant time weighted median filtering for stereo matching and beyond",
    2013.
    """
    height, width = rho.shape
    size = (2 * radius + 1) ** 2
    value = np.empty(size, np.float32)
    weight = np.empty(size, np.float32)
    for y in range(top, bottom):
        for x in range(width):
            out[y, x] = rho[y, x]
            if not region[y, x]:
                continue
            n = 0
            total = np.float32(0)
            for j in range(max(0, y - radius), min(height, y + radius + 1)):
                for i in range(max(0, x - radius), min(width, x + radius + 1)):
                    if sure[j, i]:
                        apart = np.float32(0)
                        for c in range(3):
                            apart += (rgb[j, i, c] - rgb[y, x, c]) ** 2
                        away = ((j - y) ** 2 + (i - x) ** 2) / np.float32(radius * radius)
                        value[n] = rho[j, i]
                        weight[n] = np.exp(-apart / (sigma * sigma) - away)
                        total += weight[n]
                        n += 1
            if not total > 1e-3:
                continue
            below = np.float32(0)
            for k in np.argsort(value[:n]):
                below += weight[k]
                if below >= total / 2:
                    out[y, x] = value[k]
                    break
