"""numba kernels of the hash grid.

Samples are stored in blocks of 64: features are (blocks, rows, 64) with the sample last, so that
a vector holds the same feature of 16 samples. All sums run in an order that does not depend on
the number of threads: tables are scattered level by level, each by a single thread.

Source of the encoding: Müller et al., "Instant neural graphics primitives with a multiresolution
hash encoding", 2022.
"""

import numpy as np
from torch import Tensor

from models.field.kernels.vectors import (
    LANES,
    add_pair,
    clip,
    clip_keep_nan,
    fma,
    gather_pairs,
    load,
    splat,
    splat_int,
    store,
    to_float,
    to_int,
)
from models.field.reference import PRIME_Y, PRIME_Z
from models.run import njit

BLOCK = 64
"""Samples of a block of features."""


@njit(nogil=True, cache=True)
def _lattice(coordinate, scale, resolution):
    """Cell and fraction along an axis; a coordinate outside [-1, 1] is moved to the border."""
    low = splat(np.float32(-1))
    one = splat(np.float32(1))
    # NaN stays in the fraction, so that it shows in the colours; the cell stays inside the table.
    position = (clip_keep_nan(coordinate, low, one) + one) * splat(scale)
    cell = to_int(clip(position, splat(np.float32(0)), splat(np.float32(resolution - 1))))
    return cell, position - to_float(cell)


@njit(nogil=True, cache=True)
def _lower_and_upper(cell, step):
    """Index parts of the two lattice points of a cell along an axis."""
    lower = cell * splat_int(step)
    return lower, lower + splat_int(step)


@njit(nogil=True, cache=True)
def _corner_index(x, y, z, dense, mask):
    """Table entries of 16 lattice points, from the index parts of the three axes."""
    if dense:
        return x + y + z
    return (x ^ y ^ z) & splat_int(mask)


@njit(nogil=True, cache=True)
def _corners(coordinates, at, padded, resolution, dense, mask):
    """For 16 samples: the lower and upper index part and the fraction of each axis."""
    # Cells for each unit of the box, which is 2 units wide.
    scale = np.float32(resolution) * np.float32(0.5)
    # A dense level's entries are in order, x fastest; the hash leaves x as it is.
    step_y = resolution + 1 if dense else PRIME_Y
    step_z = (resolution + 1) * (resolution + 1) if dense else PRIME_Z
    cx, fx = _lattice(load(coordinates, at), scale, resolution)
    cy, fy = _lattice(load(coordinates, padded + at), scale, resolution)
    cz, fz = _lattice(load(coordinates, 2 * padded + at), scale, resolution)
    return (
        _lower_and_upper(cx, 1),
        _lower_and_upper(cy, step_y),
        _lower_and_upper(cz, step_z),
        fx,
        fy,
        fz,
    )


@njit(nogil=True, cache=True)
def encode_level(
    coordinates, padded, begin, end, table, level, entries, resolution, dense, factor, rows, blocks
):
    """Writes the two features of a level, times ``factor``, for samples [begin, end) (multiples
    of 16).

    Args:
        coordinates: (3 * padded,) world coordinates, axis by axis.
        table: all levels, flat: (L * entries * 2,).
        blocks: (padded / 64 * rows * 64,) features, written.
    """
    one = splat(np.float32(1))
    scaled = splat(factor)
    base = level * entries * 2
    for at in range(begin, end, LANES):
        x, y, z, fx, fy, fz = _corners(coordinates, at, padded, resolution, dense, entries - 1)
        first = splat(np.float32(0))
        second = splat(np.float32(0))
        # Four edges along x: x is interpolated first, between the two ends of each edge.
        for corner in range(4):
            wy = fy if corner & 1 else one - fy
            wz = fz if corner & 2 else one - fz
            cy = y[1] if corner & 1 else y[0]
            cz = z[1] if corner & 2 else z[0]
            low = gather_pairs(table, base, _corner_index(x[0], cy, cz, dense, entries - 1))
            high = gather_pairs(table, base, _corner_index(x[1], cy, cz, dense, entries - 1))
            w = wy * wz
            first = fma(w, fma(fx, high[0] - low[0], low[0]), first)
            second = fma(w, fma(fx, high[1] - low[1], low[1]), second)
        to = (at // BLOCK * rows + 2 * level) * BLOCK + at % BLOCK
        store(blocks, to, first * scaled)
        store(blocks, to + BLOCK, second * scaled)


@njit(nogil=True, cache=True)
def scatter_level(
    coordinates, padded, count, gradients, level, entries, resolution, dense, rows, blocks
):
    """Adds a level's gradient: ``gradients`` (flat, as the table) += d features / d table applied
    to ``blocks``."""
    one = splat(np.float32(1))
    base = level * entries * 2
    # Corner by corner, 16 samples each: vectors compute them, single adds scatter them.
    index = np.empty(8 * LANES, np.int32)
    share = np.empty(8 * LANES, np.float32)
    pair = np.empty(2 * LANES, np.float32)
    for at in range(0, count, LANES):
        x, y, z, fx, fy, fz = _corners(coordinates, at, padded, resolution, dense, entries - 1)
        for corner in range(4):
            w = (fy if corner & 1 else one - fy) * (fz if corner & 2 else one - fz)
            cy = y[1] if corner & 1 else y[0]
            cz = z[1] if corner & 2 else z[0]
            store(index, 2 * corner * LANES, _corner_index(x[0], cy, cz, dense, entries - 1))
            store(index, (2 * corner + 1) * LANES, _corner_index(x[1], cy, cz, dense, entries - 1))
            store(share, 2 * corner * LANES, w * (one - fx))
            store(share, (2 * corner + 1) * LANES, w * fx)
        source = (at // BLOCK * rows + 2 * level) * BLOCK + at % BLOCK
        store(pair, 0, load(blocks, source))
        store(pair, LANES, load(blocks, source + BLOCK))
        # Sample by sample, as two lanes may add to the same entry.
        for lane in range(min(LANES, count - at)):
            first = pair[lane]
            second = pair[LANES + lane]
            for corner in range(8):
                k = corner * LANES + lane
                add_pair(gradients, base + 2 * np.int64(index[k]), share[k], first, second)


@njit(nogil=True, cache=True)
def point_gradient(
    coordinates, padded, begin, end, table, entries, resolutions, dense, rows, blocks, out
):
    """Adds dL/dcoordinates (3 * padded,) for samples [begin, end), given dL/dfeatures in
    ``blocks``.

    A coordinate outside [-1, 1] gets the slope at the border, which the caller clears.
    """
    one = splat(np.float32(1))
    zero = splat(np.float32(0))
    for level in range(len(resolutions)):
        base = level * entries * 2
        is_dense = dense[level]
        # d position / d coordinate, in cells.
        scaled = splat(np.float32(resolutions[level]) * np.float32(0.5))
        for at in range(begin, end, LANES):
            x, y, z, fx, fy, fz = _corners(
                coordinates, at, padded, resolutions[level], is_dense, entries - 1
            )
            source = (at // BLOCK * rows + 2 * level) * BLOCK + at % BLOCK
            g0 = load(blocks, source) * scaled
            g1 = load(blocks, source + BLOCK) * scaled
            dx = zero
            dy = zero
            dz = zero
            for corner in range(4):
                wy = fy if corner & 1 else one - fy
                wz = fz if corner & 2 else one - fz
                cy = y[1] if corner & 1 else y[0]
                cz = z[1] if corner & 2 else z[0]
                low = gather_pairs(table, base, _corner_index(x[0], cy, cz, is_dense, entries - 1))
                high = gather_pairs(table, base, _corner_index(x[1], cy, cz, is_dense, entries - 1))
                # Features projected on dL/dfeatures: one number for each end of the edge.
                at_low = fma(g0, low[0], g1 * low[1])
                slope = fma(g0, high[0], g1 * high[1]) - at_low
                value = fma(fx, slope, at_low)
                dx = fma(wy * wz, slope, dx)
                dy = dy + wz * value if corner & 1 else dy - wz * value
                dz = dz + wy * value if corner & 2 else dz - wy * value
            store(out, at, load(out, at) + dx)
            store(out, padded + at, load(out, padded + at) + dy)
            store(out, 2 * padded + at, load(out, 2 * padded + at) + dz)


def flat_view(tensor: Tensor) -> np.ndarray:
    """A contiguous tensor's own memory as a flat array."""
    return tensor.detach().view(-1).numpy()
