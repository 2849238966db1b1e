"""numba kernel of the Adam step: one pass over values, gradients and moments, which leaves the
gradients zero."""

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from models.field.grid_kernels import flat_view
from models.field.reference import AdamRule
from models.field.vectors import LANES, any_nonzero, fma, load, root, splat, store, where_nonzero
from models.run import run_tasks

_CHUNK = 1 << 18


@njit(nogil=True, cache=True)
def adam(values, gradients, first, second, begin, end, rate, correction, betas, eps, sparse):
    """One Adam step on elements [begin, end) of flat arrays; leaves the gradients zero.

    Args:
        rate: learning rate / (1 - beta1^t).
        correction: sqrt(1 - beta2^t).
        sparse: leave an element whose gradient is zero as it is, its moments too.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015, in the form
    torch.optim.Adam uses.
    """
    one = np.float32(1)
    zero = splat(np.float32(0))
    beta1 = splat(betas[0])
    beta2 = splat(betas[1])
    rest1 = splat(one - betas[0])
    rest2 = splat(one - betas[1])
    vector_end = begin + (end - begin) // LANES * LANES
    for at in range(begin, vector_end, LANES):
        g = load(gradients, at)
        if sparse and not any_nonzero(g):
            continue
        old_value = load(values, at)
        old_m = load(first, at)
        old_v = load(second, at)
        m = fma(beta1, old_m, rest1 * g)
        v = fma(beta2, old_v, rest2 * g * g)
        value = old_value - splat(rate) * m / (root(v) / splat(correction) + splat(eps))
        if sparse:
            m = where_nonzero(g, m, old_m)
            v = where_nonzero(g, v, old_v)
            value = where_nonzero(g, value, old_value)
        store(first, at, m)
        store(second, at, v)
        store(values, at, value)
        store(gradients, at, zero)
    for at in range(vector_end, end):
        g = gradients[at]
        if g != 0 or not sparse:
            first[at] = betas[0] * first[at] + (one - betas[0]) * g
            second[at] = betas[1] * second[at] + (one - betas[1]) * g * g
            values[at] -= rate * first[at] / (np.float32(math.sqrt(second[at])) / correction + eps)
            gradients[at] = 0


def adam_step(
    value: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    step: int,
    rate: float,
    rule: AdamRule,
) -> None:
    """One Adam step in place, on contiguous float32 CPU tensors of one shape; zeroes the gradient.

    Equals ``kernels_reference.adam_reference``.
    """
    arrays = [flat_view(tensor) for tensor in (value, gradient, *moments)]
    f, (beta1, beta2) = np.float32, rule.betas
    scaled = f(rate / (1 - beta1**step))
    correction = f(math.sqrt(1 - beta2**step))
    fixed = scaled, correction, np.array(rule.betas, f), f(rule.eps), rule.sparse
    size = value.numel()
    run_tasks(
        lambda i: adam(*arrays, i * _CHUNK, min(size, (i + 1) * _CHUNK), *fixed), -(-size // _CHUNK)
    )
    # Autograd must see that its tensors have changed.
    torch.autograd.graph.increment_version((value, gradient, *moments))
