"""numba kernels of the hash grid.

Samples are stored in blocks of 64: features are (blocks, rows, 64) with the sample last, so that
one vector holds the same feature of 16 samples. All sums run in an order that does not depend on
the number of threads: tables are scattered level by level, each by one thread.

Source of the encoding: Müller et al., "Instant neural graphics primitives with a multiresolution
hash encoding", 2022.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.field.reference import PRIME_Y, PRIME_Z
from models.field.vectors import (
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
from models.run import run_tasks, scratch

BLOCK = 64


def block_count(samples: int) -> int:
    """Blocks of 64 that hold so many samples."""
    return -(-samples // BLOCK)


@njit(nogil=True, cache=True)
def _lattice(coordinate, scale, resolution):
    """Cell and fraction along one axis; a coordinate outside [-1, 1] is moved to the border."""
    low = splat(np.float32(-1))
    one = splat(np.float32(1))
    position = (clip_keep_nan(coordinate, low, one) + one) * splat(scale)
    cell = to_int(clip(position, splat(np.float32(0)), splat(np.float32(resolution - 1))))
    return cell, position - to_float(cell)


@njit(nogil=True, cache=True)
def _lower_and_upper(cell, step):
    lower = cell * splat_int(step)
    return lower, lower + splat_int(step)


@njit(nogil=True, cache=True)
def _corner_index(x, y, z, dense, mask):
    if dense:
        return x + y + z
    return (x ^ y ^ z) & splat_int(mask)


@njit(nogil=True, cache=True)
def _corners(coordinates, at, padded, resolution, dense, mask):
    """For 16 samples: the lower and upper index part and the fraction of each axis."""
    scale = np.float32(resolution) * np.float32(0.5)
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
    coordinates, padded, begin, end, table, level, entries, resolution, dense, weight, rows, blocks
):
    """Writes the two features of one level, times ``weight``, for samples [begin, end) (multiples
    of 16).

    Args:
        coordinates: (3 * padded,) world coordinates, axis by axis.
        table: all levels, flat: (L * entries * 2,).
        blocks: (padded / 64 * rows * 64,) features, written.
    """
    one = splat(np.float32(1))
    scaled = splat(weight)
    base = level * entries * 2
    for at in range(begin, end, LANES):
        x, y, z, fx, fy, fz = _corners(coordinates, at, padded, resolution, dense, entries - 1)
        first = splat(np.float32(0))
        second = splat(np.float32(0))
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
    coordinates, padded, count, gradients, level, entries, resolution, dense, weight, rows, blocks
):
    """Adds one level's gradient: ``gradients`` (flat, as the table) += d features / d table applied
    to ``blocks``."""
    one = splat(np.float32(1))
    scaled = splat(weight)
    base = level * entries * 2
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
        store(pair, 0, load(blocks, source) * scaled)
        store(pair, LANES, load(blocks, source + BLOCK) * scaled)
        for lane in range(min(LANES, count - at)):
            first = pair[lane]
            second = pair[LANES + lane]
            for corner in range(8):
                k = corner * LANES + lane
                add_pair(gradients, base + 2 * np.int64(index[k]), share[k], first, second)


@njit(nogil=True, cache=True)
def point_gradient(
    coordinates, padded, begin, end, table, entries, resolutions, dense, weights, rows, blocks, out
):
    """Adds dL/dcoordinates (3 * padded,) for samples [begin, end), given dL/dfeatures in
    ``blocks``.

    A coordinate outside [-1, 1] gets the slope at the border: the caller clears it.
    """
    one = splat(np.float32(1))
    zero = splat(np.float32(0))
    for level in range(len(resolutions)):
        base = level * entries * 2
        is_dense = dense[level]
        scaled = splat(weights[level] * np.float32(resolutions[level]) * np.float32(0.5))
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
                at_low = fma(g0, low[0], g1 * low[1])
                slope = fma(g0, high[0], g1 * high[1]) - at_low
                value = fma(fx, slope, at_low)
                dx = fma(wy * wz, slope, dx)
                dy = dy + wz * value if corner & 1 else dy - wz * value
                dz = dz + wy * value if corner & 2 else dz - wy * value
            store(out, at, load(out, at) + dx)
            store(out, padded + at, load(out, padded + at) + dy)
            store(out, 2 * padded + at, load(out, 2 * padded + at) + dz)


@dataclass(frozen=True)
class Levels:
    """What the kernels must know of a hash grid."""

    resolutions: np.ndarray
    """(L,) int64 cells along an axis."""
    dense: np.ndarray
    """(L,) bool: every lattice point has its own entry (x fastest); else entries are found by the
    spatial hash."""
    entries: int
    """Entries of each level's table, a power of two."""
    code_width: int = 0
    """Numbers of a sample that stand in its block below the features."""

    def block_shape(self, samples: int) -> tuple[int, int, int]:
        """(blocks, rows, 64) of the features of so many samples."""
        return block_count(samples), self.rows, BLOCK

    @property
    def rows(self) -> int:
        """Rows of a feature block: two for each level and the code, filled up to a multiple of 8
        that stays zero."""
        return -(-(2 * len(self.resolutions) + self.code_width) // 8) * 8

    def write_code(self, blocks: np.ndarray, row: int, code: Float[Tensor, "S E"] | None) -> None:
        """Writes a code of each sample into rows ``row`` ... of blocks, which are zero."""
        if code is None:
            return
        whole = len(code) // BLOCK
        for k, column in enumerate(code.numpy().T):
            blocks[:whole, row + k] = column[: whole * BLOCK].reshape(whole, BLOCK)
            if rest := len(column) - whole * BLOCK:
                blocks[whole, row + k, :rest] = column[whole * BLOCK :]


def coordinate_planes(points: Float[Tensor, "S 3"]) -> np.ndarray:
    """Points axis by axis, each axis filled up to whole blocks: (3, padded) float32."""
    count = len(points)
    planes = np.zeros((3, block_count(count) * BLOCK), np.float32)
    planes[:, :count] = points.detach().numpy().T
    return planes


def flat_view(tensor: Tensor) -> np.ndarray:
    """A contiguous tensor's own memory as a flat array."""
    return tensor.detach().view(-1).numpy()


def _rows_from(blocks: np.ndarray, row: int) -> np.ndarray:
    """Blocks as a flat array in which their row ``row`` stands where the first would."""
    return blocks.reshape(-1)[row * BLOCK :]


def grid_forward(
    planes: np.ndarray,
    tables: Float[Tensor, "L T 2"],
    levels: Levels,
    weights: np.ndarray,
    blocks: np.ndarray,
    row: int = 0,
) -> np.ndarray:
    """Fills feature blocks (blocks, rows, 64) from ``row`` on, at points given as planes; what is
    left is zero.

    ``weights`` (L,) float32 scales the levels.
    """
    padded = planes.shape[1]
    count = len(levels.resolutions)
    rows = blocks.shape[1]
    blocks[:, row + 2 * count :] = 0
    flat = _rows_from(blocks, row)
    flat_planes = planes.reshape(-1)
    table = flat_view(tables)
    # Two tasks a level let more threads than levels help; a level's table stays in the second-level cache.
    middle = padded // 2 // BLOCK * BLOCK

    def task(index: int) -> None:
        level, upper = divmod(index, 2)
        begin, end = (middle, padded) if upper else (0, middle)
        fixed = (
            table,
            level,
            levels.entries,
            levels.resolutions[level],
            levels.dense[level],
            weights[level],
        )
        encode_level(flat_planes, padded, begin, end, *fixed, rows, flat)

    run_tasks(task, 2 * count)
    return blocks


def grid_backward(
    planes: np.ndarray,
    count: int,
    inward: np.ndarray,
    gradient: Tensor,
    levels: Levels,
    weights: np.ndarray,
    row: int = 0,
) -> None:
    """Adds dL/dtables to ``gradient`` (L, T, 2), given dL/dfeatures of ``count`` points in blocks
    from ``row`` on."""
    flat = _rows_from(inward, row)
    flat_planes = planes.reshape(-1)
    table = flat_view(gradient)

    def task(level: int) -> None:
        fixed = (
            table,
            level,
            levels.entries,
            levels.resolutions[level],
            levels.dense[level],
            weights[level],
        )
        scatter_level(flat_planes, planes.shape[1], count, *fixed, inward.shape[1], flat)

    # The last levels miss the cache most: they start first.
    last = len(levels.resolutions) - 1
    run_tasks(lambda index: task(last - index), last + 1)


def grid_point_gradient(
    planes: np.ndarray,
    count: int,
    inward: np.ndarray,
    tables: Float[Tensor, "L T 2"],
    levels: Levels,
    weights: np.ndarray,
    row: int = 0,
) -> Float[Tensor, "S 3"]:
    """dL/dpoints of ``count`` points given as planes, from dL/dfeatures in blocks from ``row`` on.

    Zero along an axis on which the point lies outside [-1, 1].
    """
    # A thread takes all its samples through a level before the next: a level's table stays in the second-level cache.
    padded = planes.shape[1]
    parts = torch.get_num_threads()
    out = scratch("point slopes", 3, padded)
    out[:] = 0
    fixed = (
        flat_view(tables),
        levels.entries,
        levels.resolutions,
        levels.dense,
        weights,
        inward.shape[1],
    )
    arrays = _rows_from(inward, row), out.reshape(-1)

    def task(part: int) -> None:
        begin, end = (padded // BLOCK * i // parts * BLOCK for i in (part, part + 1))
        point_gradient(planes.reshape(-1), padded, begin, end, *fixed, *arrays)

    run_tasks(task, parts)
    out[~(np.abs(planes) <= 1)] = 0  # in numpy: torch would wake its threads for so little
    return torch.from_numpy(out[:, :count].T.copy())


class EncodeBlocks(torch.autograd.Function):
    """Feature blocks of points, differentiable: apply(points, tables, levels, weights)."""

    @staticmethod
    def forward(ctx, points, tables, levels, weights):
        planes = coordinate_planes(points)
        ctx.save_for_backward(points, tables)
        ctx.planes = planes
        ctx.levels = levels
        ctx.weights = weights
        blocks = np.empty(levels.block_shape(len(points)), np.float32)
        return torch.from_numpy(grid_forward(planes, tables, levels, weights, blocks))

    @staticmethod
    @once_differentiable
    def backward(ctx, inward):
        points, tables = ctx.saved_tensors
        planes = ctx.planes
        levels = ctx.levels
        weights = ctx.weights
        inward = inward.contiguous().numpy()
        point_gradient = table_gradient = None
        if ctx.needs_input_grad[0]:
            point_gradient = grid_point_gradient(
                planes, len(points), inward, tables, levels, weights
            )
        if ctx.needs_input_grad[1]:
            table_gradient = torch.zeros_like(tables)
            grid_backward(planes, len(points), inward, table_gradient, levels, weights)
        return point_gradient, table_gradient, None, None
