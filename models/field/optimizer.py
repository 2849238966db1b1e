"""Adam for the colour field, with a numba kernel for the CPU: a single pass over values, gradients and
moments, which leaves the gradients zero."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.field.color_field import ColorField
from models.field.hash_grid import has_triton
from models.field.kernels.grid_kernels import flat_view
from models.field.kernels.vectors import (
    LANES,
    any_nonzero,
    fma,
    load,
    root,
    splat,
    store,
    where_nonzero,
)
from models.field.reference import AdamRule, adam_reference
from models.run import njit, run_tasks

BETAS = 0.9, 0.99
"""Decay of the moments in a step."""
# Elements of a task: large enough that starting it costs nothing beside its memory traffic.
_CHUNK = 1 << 18


@njit(nogil=True, cache=True)
def adam(values, gradients, first, second, begin, end, rate, correction, betas, eps, sparse):
    """An Adam step on elements [begin, end) of flat arrays; leaves the gradients zero.

    Args:
        rate: learning rate / (1 - beta1^t).
        correction: sqrt(1 - beta2^t).
        sparse: elements whose gradient is zero keep value and moments.

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
        # Most of a large table has no gradient: its values and moments are not even read.
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
    # The last elements, fewer than a vector.
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
    """An Adam step in place, on contiguous float32 CPU tensors of equal shape; zeroes the gradient.

    Equals ``reference.adam_reference``.
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


class FieldOptimizer:
    """Adam for a ColorField: sparse on the tables, dense on the MLP.

    Sparse (as in Instant NGP) means: a table element whose gradient is exactly zero keeps its value
    and its moments; the bias correction counts all steps. A step consumes ``.grad`` and leaves
    zeros.

    Attributes:
        lr: factor of all learning rates, set by the caller's schedule.
    """

    def __init__(
        self,
        field: ColorField,
        table_rate: float = 2e-2,
        mlp_rate: float = 1e-3,
        betas: tuple[float, float] = BETAS,
        eps: float = 1e-15,
        change_rate: float = 0.5,
    ):
        """
        Args:
            table_rate: learning rate of the grid of space.
            mlp_rate: learning rate of the MLP.
            betas: decay of the moments.
            eps: added to the root of the second moment.
            change_rate: learning rate of the grid of changes, as a share of ``table_rate``.
        """
        self.lr = 1.0
        self.count = 0
        tables = [grid.tables for grid in field.grids]
        layers = field.mlp_parameters
        self.parameters = [*tables, *layers]
        change_rates = [change_rate * table_rate] * (len(tables) - 1)
        self.rates = [table_rate, *change_rates] + [mlp_rate] * len(layers)
        sparse, dense = AdamRule(betas, eps, sparse=True), AdamRule(betas, eps)
        self.rules = [sparse] * len(tables) + [dense] * len(layers)
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        self.field = field

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient, and zeroes the gradient."""
        self.count += 1
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.contiguous()
            rate = self.rates[index] * self.lr
            self._kernel_for(parameter)(
                parameter, gradient, self.moments[index], self.count, rate, self.rules[index]
            )
            parameter.grad = gradient

    def _kernel_for(self, parameter: Tensor) -> Callable[..., None]:
        """The Adam step of the parameter's device, or the reference if there is none."""
        device = parameter.device.type
        backend = self.field.backend
        if device == "cpu" and parameter.dtype == torch.float32 and backend in ("auto", "numba"):
            return adam_step
        if backend == "triton" or (backend == "auto" and device == "cuda" and has_triton()):
            # Imported late: triton is only installed beside CUDA.
            from models.field.kernels import cuda_kernels

            return cuda_kernels.adam_step
        return adam_reference

    def state_dict(self) -> dict:
        """State from which a resumed run goes on to the bit; the tensors are shared, not copied."""
        return {
            "count": self.count,
            "lr": self.lr,
            "moments": [list(pair) for pair in self.moments],
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes over the result of ``state_dict``, for a field of the same shape."""
        self.count = state["count"]
        self.lr = state["lr"]
        for own, saved in zip(self.moments, state["moments"], strict=True):
            for mine, other in zip(own, saved, strict=True):
                mine.copy_(other)
