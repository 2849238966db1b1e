"""Hash grid and Adam in plain torch operations, on any device: the standard that the fast kernels
are tested against."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Multipliers of y and z in the spatial hash; x is not multiplied. Source: Müller et al., 2022.
PRIME_Y = 2654435761
PRIME_Z = 805459861


def encode_reference(
    points: Float[Tensor, "S 3"],
    tables: Float[Tensor, "L T C"],
    resolutions: list[int],
    dense: list[bool],
) -> Float[Tensor, "S L C"]:
    """Features of each point in each level, see ``HashGrid``."""
    return torch.stack(
        [
            _interpolate(points, table, resolution, is_dense)
            for table, resolution, is_dense in zip(tables, resolutions, dense, strict=True)
        ],
        1,
    )


def _interpolate(
    points: Tensor, table: Tensor, resolution: int, dense: bool
) -> Float[Tensor, "S C"]:
    """Trilinear interpolation between the entries of the eight corners of each point's cell."""
    position = (points.clamp(-1, 1) + 1) * (resolution * 0.5)
    # A NaN coordinate keeps its NaN in the fraction, while the index stays inside the table.
    cell = position.detach().nan_to_num(0).floor().clamp(0, resolution - 1)
    fraction = position - cell
    total = torch.zeros(len(points), table.shape[1], dtype=table.dtype, device=table.device)
    for corner in range(8):
        bits = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=points.device)
        x, y, z = torch.where(bits.bool(), fraction, 1 - fraction).split(1, 1)
        total = total + x * y * z * table[_entry(cell.long() + bits, resolution, len(table), dense)]
    return total


def _entry(
    lattice: Int[Tensor, "S 3"], resolution: int, entries: int, dense: bool
) -> Int[Tensor, "S"]:
    """Index of a lattice point in its level's table: in order (x fastest), or by the spatial
    hash."""
    x, y, z = lattice.unbind(1)
    if dense:
        return x + (resolution + 1) * (y + (resolution + 1) * z)
    return (x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) & (entries - 1)


@dataclass(frozen=True)
class AdamRule:
    """How Adam updates a tensor. Source: Kingma and Ba, "Adam: a method for stochastic
    optimization", 2015."""

    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the first and second moment."""
    eps: float = 1e-15
    """Added to the root of the second moment."""
    sparse: bool = False
    """Elements whose gradient is exactly zero keep value and moments; the bias correction counts
    all steps."""


def adam_reference(
    value: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    step: int,
    rate: float,
    rule: AdamRule,
) -> None:
    """An Adam step in place; ``step`` counts from 1. Zeroes the gradient."""
    (first, second), (beta1, beta2) = moments, rule.betas
    m = beta1 * first + (1 - beta1) * gradient
    v = beta2 * second + (1 - beta2) * gradient.square()
    scale = rate / (1 - beta1**step)
    new = value - scale * m / (v.sqrt() / math.sqrt(1 - beta2**step) + rule.eps)
    keep = (gradient == 0) & rule.sparse
    for old, fresh in ((value, new), (first, m), (second, v)):
        old.copy_(torch.where(keep, old, fresh))
    gradient.zero_()
