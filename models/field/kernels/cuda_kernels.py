"""Triton kernels of the hash grid and of Adam, for CUDA tensors; imported only when
such a tensor comes.

Tables may be half precision: sums and gradients are float32. The scatter into the tables uses
atomic additions, whose order, and so the last bits of a gradient, changes from run to run.
"""

import math
from functools import cache

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.field.reference import PRIME_Y, PRIME_Z, AdamRule

# Samples, and elements of a tensor, that one program of triton handles.
_BLOCK = 256
_ADAM_BLOCK = 1024
_Y = tl.constexpr(PRIME_Y)
_Z = tl.constexpr(PRIME_Z)


@triton.jit
def _lattice(x, resolution):
    """Cell and fraction along an axis. Comparisons keep NaN in the fraction; the cell stays inside
    the lattice."""
    clamped = tl.where(x < -1.0, -1.0, tl.where(x > 1.0, 1.0, x))
    position = (clamped + 1.0) * (resolution * 0.5)
    cell = tl.minimum(tl.maximum(position.to(tl.int32), 0), resolution - 1)
    return cell, position - cell.to(tl.float32)


@triton.jit
def _side(fraction, upper: tl.constexpr):
    """Weight of the lower or upper end of an axis."""
    return fraction if upper else 1.0 - fraction


@triton.jit
def _entry(x, y, z, resolution, dense, entries):
    """Index of a lattice point: in order (x fastest), or by the spatial hash."""
    side = resolution + 1
    ordered = x + side * (y + side * z)
    hashed = x.to(tl.uint32) ^ (y.to(tl.uint32) * _Y) ^ (z.to(tl.uint32) * _Z)
    return tl.where(dense != 0, ordered, (hashed & (entries - 1).to(tl.uint32)).to(tl.int32))


@triton.jit
def _cell(points, rows, inside, resolution):
    """Cells and fractions of a block of points."""
    cx, fx = _lattice(tl.load(points + rows * 3, mask=inside, other=0.0), resolution)
    cy, fy = _lattice(tl.load(points + rows * 3 + 1, mask=inside, other=0.0), resolution)
    cz, fz = _lattice(tl.load(points + rows * 3 + 2, mask=inside, other=0.0), resolution)
    return cx, cy, cz, fx, fy, fz


@triton.jit
def _forward_kernel(
    points, tables, resolutions, dense, out, count, entries, levels: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """out (S, 2 L) = features of a level for a block of points."""
    level = tl.program_id(1)
    rows = (tl.program_id(0) * block + tl.arange(0, block)).to(tl.int64)
    inside = rows < count
    resolution = tl.load(resolutions + level)
    ordered = tl.load(dense + level)
    cx, cy, cz, fx, fy, fz = _cell(points, rows, inside, resolution)
    first = tl.zeros([block], tl.float32)
    second = tl.zeros([block], tl.float32)
    for corner in tl.static_range(8):
        dx = corner & 1
        dy = (corner >> 1) & 1
        dz = corner >> 2
        share = _side(fx, corner & 1) * _side(fy, (corner >> 1) & 1) * _side(fz, corner >> 2)
        index = _entry(cx + dx, cy + dy, cz + dz, resolution, ordered, entries).to(tl.int64)
        address = tables + (level.to(tl.int64) * entries + index) * 2
        first += share * tl.load(address, mask=inside, other=0.0).to(tl.float32)
        second += share * tl.load(address + 1, mask=inside, other=0.0).to(tl.float32)
    to = out + rows * (2 * levels) + 2 * level
    tl.store(to, first, mask=inside)
    tl.store(to + 1, second, mask=inside)


@triton.jit
def _table_kernel(
    points, gradient, resolutions, dense, inward, count, entries, levels: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """gradient (L, T, 2) += the share of each corner in dL/dfeatures."""
    level = tl.program_id(1)
    rows = (tl.program_id(0) * block + tl.arange(0, block)).to(tl.int64)
    inside = rows < count
    resolution = tl.load(resolutions + level)
    ordered = tl.load(dense + level)
    cx, cy, cz, fx, fy, fz = _cell(points, rows, inside, resolution)
    source = inward + rows * (2 * levels) + 2 * level
    first = tl.load(source, mask=inside, other=0.0)
    second = tl.load(source + 1, mask=inside, other=0.0)
    for corner in tl.static_range(8):
        dx = corner & 1
        dy = (corner >> 1) & 1
        dz = corner >> 2
        share = _side(fx, corner & 1) * _side(fy, (corner >> 1) & 1) * _side(fz, corner >> 2)
        index = _entry(cx + dx, cy + dy, cz + dz, resolution, ordered, entries).to(tl.int64)
        address = gradient + (level.to(tl.int64) * entries + index) * 2
        tl.atomic_add(address, share * first, mask=inside, sem="relaxed")
        tl.atomic_add(address + 1, share * second, mask=inside, sem="relaxed")


@triton.jit
def _point_kernel(
    points, tables, resolutions, dense, inward, out, count, entries, levels: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """out (S, 3) = dL/dpoints, all levels summed in order; points outside the box get the slope at
    its border."""
    rows = (tl.program_id(0) * block + tl.arange(0, block)).to(tl.int64)
    inside = rows < count
    sum_x = tl.zeros([block], tl.float32)
    sum_y = tl.zeros([block], tl.float32)
    sum_z = tl.zeros([block], tl.float32)
    for level in range(levels):
        resolution = tl.load(resolutions + level)
        ordered = tl.load(dense + level)
        scale = resolution * 0.5
        cx, cy, cz, fx, fy, fz = _cell(points, rows, inside, resolution)
        source = inward + rows * (2 * levels) + 2 * level
        first = tl.load(source, mask=inside, other=0.0) * scale
        second = tl.load(source + 1, mask=inside, other=0.0) * scale
        for corner in tl.static_range(8):
            dx = corner & 1
            dy = (corner >> 1) & 1
            dz = corner >> 2
            wx = _side(fx, corner & 1)
            wy = _side(fy, (corner >> 1) & 1)
            wz = _side(fz, corner >> 2)
            index = _entry(cx + dx, cy + dy, cz + dz, resolution, ordered, entries).to(tl.int64)
            address = tables + (index + tl.cast(entries, tl.int64) * level) * 2
            value = first * tl.load(address, mask=inside, other=0.0).to(tl.float32)
            value += second * tl.load(address + 1, mask=inside, other=0.0).to(tl.float32)
            sum_x += wy * wz * value * (2 * dx - 1)
            sum_y += wx * wz * value * (2 * dy - 1)
            sum_z += wx * wy * value * (2 * dz - 1)
    tl.store(out + rows * 3, sum_x, mask=inside)
    tl.store(out + rows * 3 + 1, sum_y, mask=inside)
    tl.store(out + rows * 3 + 2, sum_z, mask=inside)


@triton.jit
def _adam_kernel(
    values, gradients, first, second, count, rate, correction, beta1, beta2, eps, sparse: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """An Adam step; with ``sparse`` elements without a gradient are not even read."""
    at = (tl.program_id(0) * block + tl.arange(0, block)).to(tl.int64)
    inside = at < count
    g = tl.load(gradients + at, mask=inside, other=0.0)
    moved = inside & (g != 0) if sparse else inside
    m = beta1 * tl.load(first + at, mask=moved, other=0.0) + (1 - beta1) * g
    v = beta2 * tl.load(second + at, mask=moved, other=0.0) + (1 - beta2) * g * g
    old = tl.load(values + at, mask=moved, other=0.0)
    tl.store(values + at, old - rate * m / (tl.sqrt(v) / correction + eps), mask=moved)
    tl.store(first + at, m, mask=moved)
    tl.store(second + at, v, mask=moved)
    tl.store(gradients + at, 0.0, mask=moved)


def adam_step(
    value: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    step: int,
    rate: float,
    rule: AdamRule,
) -> None:
    """An Adam step in place, on contiguous float32 CUDA tensors of equal shape; zeroes the
    gradient."""
    (first, second), (beta1, beta2) = moments, rule.betas
    scale = rate / (1 - beta1**step)
    correction = math.sqrt(1 - beta2**step)
    fixed = value.numel(), scale, correction, beta1, beta2, rule.eps
    tensors = (tensor.detach() for tensor in (value, gradient, first, second))
    _adam_kernel[(triton.cdiv(value.numel(), _ADAM_BLOCK),)](
        *tensors, *fixed, sparse=rule.sparse, block=_ADAM_BLOCK
    )


class _Encode(torch.autograd.Function):
    """Features of points, differentiable: apply(points, tables, resolutions, dense)."""

    @staticmethod
    def forward(ctx, points, tables, resolutions, dense):
        count, (levels, entries, _) = len(points), tables.shape
        out = torch.empty(count, 2 * levels, device=points.device)
        if count:
            grid = (triton.cdiv(count, _BLOCK), levels)
            fixed = resolutions, dense
            read = tables.half() if torch.is_autocast_enabled(points.device.type) else tables
            _forward_kernel[grid](
                points, read, *fixed, out, count, entries, levels=levels, block=_BLOCK
            )
        ctx.save_for_backward(points, tables, resolutions, dense)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, inward):
        points, tables, *fixed = ctx.saved_tensors
        count, (levels, entries, _) = len(points), tables.shape
        sizes = {"levels": levels, "block": _BLOCK}
        blocks = triton.cdiv(count, _BLOCK)
        inward = inward.float().contiguous()
        slope = gradient = None
        if ctx.needs_input_grad[0]:
            slope = torch.zeros_like(points)
            if count:
                _point_kernel[(blocks,)](
                    points, tables, *fixed, inward, slope, count, entries, **sizes
                )
            # Outside the box the features are constant.
            slope = torch.where(points.abs() <= 1, slope, torch.zeros_like(slope))
        if ctx.needs_input_grad[1]:
            gradient = torch.zeros(tables.shape, device=tables.device)
            if count:
                _table_kernel[(blocks, levels)](
                    points, gradient, *fixed, inward, count, entries, **sizes
                )
            gradient = gradient.to(tables.dtype)
        return slope, gradient, None, None


def encode(
    points: Float[Tensor, "S 3"],
    tables: Float[Tensor, "L T 2"],
    resolutions: list[int],
    dense: list[bool],
) -> Float[Tensor, "S C"]:
    """Features (S, 2 L), float32, differentiable in points and tables; see HashGrid.forward.

    Under autocast the tables are read as half precision; their gradient stays float32.
    """
    sizes = _copy_sizes(tuple(resolutions), tuple(dense), points.device)
    return _Encode.apply(points.float().contiguous(), tables, *sizes)


@cache
def _copy_sizes(
    resolutions: tuple[int, ...], dense: tuple[bool, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """The levels' sizes on the device. They stay there: a copy in each step would wait for all
    queued work."""
    resolution = torch.tensor(resolutions, dtype=torch.int32, device=device)
    return resolution, torch.tensor(dense, dtype=torch.int32, device=device)
