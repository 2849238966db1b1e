"""numba kernels of the colour MLP (features -> 64 -> 64 -> 3, ReLU, sigmoid), forward and backward
fused.

A block of 64 samples passes through all layers while its activations stay in the first-level cache;
the backward pass recomputes them. Activations are (sample, unit), so that every product (forward,
backward, gradient of weights) is the same register tile: broadcast a factor, stream 64-wide rows of
the other.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.field.kernels.grid_kernels import BLOCK
from models.field.kernels.matrix_tile import matrix_tile, wide_registers
from models.field.kernels.vectors import (
    LANES,
    clip_keep_nan,
    exp2_int,
    fma,
    lane_sum,
    load,
    rounded,
    splat,
    store,
    to_int,
)
from models.run import njit, run_tasks, split_range

WIDTH = 64
"""Units of a hidden layer."""
CHANNELS = 3
"""Colours of the output layer."""
# The tile's sums must fit the vector registers: 32 of 512 bits, or half as many of half the width.
_ROWS, _COLUMNS = (8, 2) if wide_registers() else (4, 1)
# Activations of a block in one layer.
_AREA = BLOCK * WIDTH
_forward_tile = matrix_tile(_ROWS, _COLUMNS, "row", "relu")
_plain_tile = matrix_tile(_ROWS, _COLUMNS, "zero", "none")
_masked_tile = matrix_tile(_ROWS, _COLUMNS, "zero", "mask")
_adding_tile = matrix_tile(_ROWS, _COLUMNS, "c", "none")
_colour_tile = matrix_tile(CHANNELS, 2, "c", "none")
_bias_tile = matrix_tile(1, 4, "c", "none")


@njit(nogil=True, cache=True)
def _forward(c, a, a_at, a_row, a_k, b, b_at, depth, bias_at):
    """C (64, 64) = relu(A B + bias)."""
    for r in range(0, BLOCK, _ROWS):
        for n in range(0, WIDTH, _COLUMNS * LANES):
            to = r * WIDTH + n
            a_from = a_at + r * a_row
            _forward_tile(
                c, to, WIDTH, a, a_from, a_row, a_k, b, b_at + n, WIDTH, depth, b, bias_at + n
            )


@njit(nogil=True, cache=True)
def _back(c, a, a_row, a_k, b, b_at, depth):
    """C (64, 64) = A B for elements of C above zero, else 0: the gradient through a ReLU replaces
    the ReLU's result."""
    for r in range(0, BLOCK, _ROWS):
        for n in range(0, WIDTH, _COLUMNS * LANES):
            to = r * WIDTH + n
            _masked_tile(c, to, WIDTH, a, r * a_row, a_row, a_k, b, b_at + n, WIDTH, depth, c, to)


@njit(nogil=True, cache=True)
def _add_outer(c, c_at, rows, a, a_at, a_row, a_k, b):
    """C (rows, 64) += A B over the 64 samples: the gradient of a layer's weights."""
    for r in range(0, rows, _ROWS):
        for n in range(0, WIDTH, _COLUMNS * LANES):
            to = c_at + r * WIDTH + n
            _adding_tile(c, to, WIDTH, a, a_at + r * a_row, a_row, a_k, b, n, WIDTH, BLOCK, c, 0)


@njit(nogil=True, cache=True)
def _sigmoid(x):
    """1 / (1 + exp(-x)) to 1e-7: exp by 2^n times the Taylor polynomial of the rest, |rest| <= ln 2
    / 2."""
    f = np.float32
    # exp(87) is close to the largest float32.
    x = clip_keep_nan(splat(f(0)) - x, splat(f(-87)), splat(f(87)))
    # x = n ln 2 + rest, with ln 2 in two parts so that n ln 2 is exact.
    n = rounded(x * splat(f(1.4426950408889634)))
    rest = fma(n, splat(f(-0.693359375)), x)
    rest = fma(n, splat(f(2.12194440e-4)), rest)
    # Taylor coefficients 1 / k!.
    value = splat(f(1 / 5040))
    value = fma(value, rest, splat(f(1 / 720)))
    value = fma(value, rest, splat(f(1 / 120)))
    value = fma(value, rest, splat(f(1 / 24)))
    value = fma(value, rest, splat(f(1 / 6)))
    value = fma(value, rest, splat(f(0.5)))
    value = fma(value, rest, splat(f(1)))
    value = fma(value, rest, splat(f(1)))
    return splat(f(1)) / (splat(f(1)) + value * exp2_int(to_int(n)))


@njit(nogil=True, cache=True)
def _colours(hidden, weights, at, rgb):
    """rgb (3, 64) = sigmoid(W3 h + b3)."""
    for s in range(BLOCK):
        h = (
            load(hidden, s * WIDTH),
            load(hidden, s * WIDTH + 16),
            load(hidden, s * WIDTH + 32),
            load(hidden, s * WIDTH + 48),
        )
        for c in range(CHANNELS):
            row = at + c * WIDTH
            low = fma(h[0], load(weights, row), h[1] * load(weights, row + 16))
            high = fma(h[2], load(weights, row + 32), h[3] * load(weights, row + 48))
            rgb[c * BLOCK + s] = lane_sum(low + high) + weights[at + CHANNELS * WIDTH + c]
    for k in range(0, CHANNELS * BLOCK, LANES):
        store(rgb, k, _sigmoid(load(rgb, k)))


@njit(nogil=True, cache=True)
def _layers(features, block, rows, weights, first, second, rgb):
    """All layers for a block; ``weights`` as ``pack_weights`` lays them out."""
    b1 = rows * WIDTH
    w2 = b1 + WIDTH
    b2 = w2 + WIDTH * WIDTH
    _forward(first, features, block * rows * BLOCK, 1, BLOCK, weights, 0, rows, b1)
    _forward(second, first, 0, WIDTH, 1, weights, w2, WIDTH, b2)
    _colours(second, weights, b2 + WIDTH, rgb)


@njit(nogil=True, cache=True)
def mlp_forward(features, rows, weights, begin, end, count, out):
    """Colours of blocks [begin, end): features (blocks, rows, 64) -> out (count, 3), flat."""
    first = np.empty(_AREA, np.float32)
    second = np.empty(_AREA, np.float32)
    rgb = np.empty(CHANNELS * BLOCK, np.float32)
    for block in range(begin, end):
        _layers(features, block, rows, weights, first, second, rgb)
        for s in range(min(BLOCK, count - block * BLOCK)):
            for c in range(CHANNELS):
                out[(block * BLOCK + s) * CHANNELS + c] = rgb[c * BLOCK + s]


@njit(nogil=True, cache=True)
def _output_gradient(rgb, block, count, target, weight, scale, as_loss, slope):
    """slope (3, 64) = dL/d(before the sigmoid), zero past ``count``; returns the block's sum of
    weighted errors."""
    total = 0.0
    for k in range(CHANNELS * BLOCK):
        slope[k] = 0
    for s in range(min(BLOCK, count - block * BLOCK)):
        sample = block * BLOCK + s
        w = weight[sample] if len(weight) > 0 else np.float32(1)
        for c in range(CHANNELS):
            value = rgb[c * BLOCK + s]
            given = target[sample * CHANNELS + c]
            difference = value - given
            total += w * (difference * difference)
            # d (difference^2) = 2 difference; the sigmoid's slope is value (1 - value).
            outer = w * scale * (np.float32(2) * difference) if as_loss else given
            slope[c * BLOCK + s] = outer * value * (np.float32(1) - value)
    return total


@njit(nogil=True, cache=True)
def _add_row_sums(sums, at, rows):
    """sums += each channel of ``rows`` (3, 64) summed over the samples."""
    for c in range(CHANNELS):
        total = load(rows, c * BLOCK)
        for s in range(LANES, BLOCK, LANES):
            total = total + load(rows, c * BLOCK + s)
        sums[at + c] += lane_sum(total)


@njit(nogil=True, cache=True)
def mlp_backward(
    features, rows, weights, begin, end, count, target, weight, scale, as_loss, gradients, inward
):
    """Gradients of blocks [begin, end), the forward pass included.

    Args:
        target: (count, 3) flat; the wanted colours if ``as_loss``, else dL/drgb.
        weight: (count,) or empty: each sample's weight in the loss.
        scale: the loss is scale * the sum of weight * error, if ``as_loss``.
        gradients: += in the order W1^T b1 W2 b2 W3 b3.
        inward: (blocks, rows, 64) dL/dfeatures, written.

    Returns:
        The sum of weight * error.
    """
    b1 = rows * WIDTH
    w2 = b1 + WIDTH
    b2 = w2 + WIDTH * WIDTH
    w3 = b2 + WIDTH
    # W2 and W1 a second time, row by row, for the products of the backward pass.
    w2_rows = w3 + CHANNELS * (WIDTH + 1)
    w1_rows = w2_rows + WIDTH * WIDTH
    first = np.empty(_AREA, np.float32)
    second = np.empty(_AREA, np.float32)
    rgb = np.empty(CHANNELS * BLOCK, np.float32)
    slope = np.empty(CHANNELS * BLOCK, np.float32)
    wide = np.empty(BLOCK * _padded(rows), np.float32)
    ones = np.ones(1, np.float32)
    total = 0.0
    for block in range(begin, end):
        _layers(features, block, rows, weights, first, second, rgb)
        total += _output_gradient(rgb, block, count, target, weight, scale, as_loss, slope)
        _add_row_sums(gradients, w3 + CHANNELS * WIDTH, slope)
        for n in range(0, WIDTH, 2 * LANES):
            _colour_tile(
                gradients, w3 + n, WIDTH, slope, 0, BLOCK, 1, second, n, WIDTH, BLOCK, gradients, 0
            )
        # From here on each activation is overwritten by its gradient after its last use, so that
        # less memory must stay in the cache.
        _back(second, slope, 1, BLOCK, weights, w3, CHANNELS)
        _bias_tile(gradients, b2, WIDTH, ones, 0, 0, 0, second, 0, WIDTH, BLOCK, gradients, 0)
        _add_outer(gradients, w2, WIDTH, second, 0, 1, WIDTH, first)
        _back(first, second, WIDTH, 1, weights, w2_rows, WIDTH)
        _bias_tile(gradients, b1, WIDTH, ones, 0, 0, 0, first, 0, WIDTH, BLOCK, gradients, 0)
        _add_outer(gradients, 0, rows, features, block * rows * BLOCK, BLOCK, 1, first)
        _feature_gradient(first, weights, w1_rows, rows, wide, inward, block)
    return total


@njit(nogil=True, cache=True)
def _padded(rows):
    """Rows filled up to a multiple of the tile's columns."""
    return (rows + 31) // 32 * 32


@njit(nogil=True, cache=True)
def _feature_gradient(slope, weights, at, rows, wide, inward, block):
    """Features' gradient, (64, padded rows) in ``wide``, turned to (rows, 64) in ``inward``."""
    padded = _padded(rows)
    for r in range(0, BLOCK, _ROWS):
        for n in range(0, padded, _COLUMNS * LANES):
            to = r * padded + n
            _plain_tile(
                wide,
                to,
                padded,
                slope,
                r * WIDTH,
                WIDTH,
                1,
                weights,
                at + n,
                padded,
                WIDTH,
                wide,
                0,
            )
    # Features are (rows, 64): transposed here, as the tile writes (sample, row).
    for row in range(rows):
        to = (block * rows + row) * BLOCK
        for s in range(BLOCK):
            inward[to + s] = wide[s * padded + row]


# Partial sums of the weights' gradients: a fixed number, so that the result does not depend on the
# number of threads.
_PARTS = 16


def pack_weights(parameters: Sequence[Tensor], rows: int) -> np.ndarray:
    """The weights as the kernels read them: W1^T b1 W2^T b2 W3 b3, and for the backward pass W2 and
    padded W1."""
    w1, b1, w2, b2, w3, b3 = (parameter.detach().numpy() for parameter in parameters)
    w1_rows = np.zeros((WIDTH, _padded(rows)), np.float32)
    w1_rows[:, : w1.shape[1]] = w1
    order = (w1_rows[:, :rows].T, b1, w2.T, b2, w3, b3, w2, w1_rows)
    return np.concatenate([part.ravel() for part in order])


def mlp_colors(
    blocks: np.ndarray, parameters: Sequence[Tensor], count: int
) -> Float[Tensor, "S 3"]:
    """Colours in [0, 1] of the first ``count`` samples in feature blocks (blocks, rows, 64).

    Args:
        parameters: W1 (64, features), b1, W2 (64, 64), b2, W3 (3, 64), b3.
    """
    out = np.empty((count, CHANNELS), np.float32)
    rows = blocks.shape[1]
    features = blocks.reshape(-1)
    weights = pack_weights(parameters, rows)
    ranges = split_range(len(blocks), _PARTS)
    run_tasks(
        lambda i: mlp_forward(features, rows, weights, *ranges[i], count, out.reshape(-1)),
        len(ranges),
    )
    return torch.from_numpy(out)


def mlp_gradients(
    blocks: np.ndarray,
    parameters: Sequence[Tensor],
    target: Float[Tensor, "S 3"],
    inward: np.ndarray,
    weight: Float[Tensor, "S"] | None = None,
    as_loss: bool = True,
) -> tuple[float, list[Tensor]]:
    """The mean of weight * squared error over samples and channels, and its gradients by parameters
    and features.

    Args:
        target: the wanted colours; without ``as_loss``, dL/drgb of another loss, and the returned
            loss means nothing.
        inward: dL/dfeatures, filled; laid out as ``blocks``.

    Returns:
        The loss and the gradients in the order of ``parameters``.
    """
    rows = blocks.shape[1]
    count = len(target)
    features = blocks.reshape(-1)
    weights = pack_weights(parameters, rows)
    ranges = split_range(len(blocks), _PARTS)
    losses = np.zeros(len(ranges))
    sums = np.zeros((len(ranges), (rows + 1 + WIDTH + 1 + CHANNELS) * WIDTH + CHANNELS), np.float32)
    given = target.detach().contiguous().reshape(-1).numpy()
    share = (
        np.zeros(0, np.float32) if weight is None else weight.detach().float().contiguous().numpy()
    )
    mean = 1 / (CHANNELS * max(count, 1))
    f = np.float32

    def task(i: int) -> None:
        fixed = count, given, share, f(mean), as_loss, sums[i], inward.reshape(-1)
        losses[i] = mlp_backward(features, rows, weights, *ranges[i], *fixed)

    run_tasks(task, len(ranges))
    return losses.sum() * mean, _unpack_gradients(sums.sum(0), parameters, rows)


def _unpack_gradients(flat: np.ndarray, parameters: Sequence[Tensor], rows: int) -> list[Tensor]:
    """Gradients of the parameters in their own shapes; the rows of padding are cut off."""
    sizes = [rows * WIDTH, WIDTH, WIDTH * WIDTH, WIDTH, CHANNELS * WIDTH]
    first, *rest = np.split(flat, np.cumsum(sizes))
    w1 = first.reshape(rows, WIDTH)[: parameters[0].shape[1]].T
    shaped = [w1] + [
        part.reshape(tuple(p.shape)) for part, p in zip(rest, parameters[1:], strict=True)
    ]
    return [torch.from_numpy(np.ascontiguousarray(part)) for part in shaped]
