"""The colour field: a multiresolution hash grid over world points and a small MLP, with
interchangeable backends.

Backends: "torch" is the plain reference; "numba" is for the CPU; "triton" for CUDA. "auto" takes
the fast one of the tensor's device, or the reference where there is none. All give the same values
and gradients.

Source: Müller et al., "Instant neural graphics primitives with a multiresolution hash encoding",
2022.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.field import adam_kernels, grid_kernels, mlp_kernels
from models.field.reference import AdamRule, adam_reference, encode_reference
from models.run import scratch

Backend = Literal["auto", "torch", "numba", "triton"]
HIDDEN = mlp_kernels.WIDTH
CHANGE_RATE = 0.5
"""Learning rate of the grid of changes, as a share of that of the grid of space."""
_INFERENCE_CHUNK = 1 << 16
_HALF_SCALE = 256
"""Under autocast a sample's gradient is that of its own error over this: far from both ends of half
precision."""


class HashGrid(nn.Module):
    """Features of world points in [-1, 1]^3, interpolated in L lattices whose resolutions grow
    geometrically.

    A point outside the box has the features of the nearest point on its border.
    """

    def __init__(
        self,
        levels: int = 12,
        features: int = 2,
        log2_entries: int = 17,
        base_resolution: int = 16,
        finest_resolution: int = 2048,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        growth = (finest_resolution / base_resolution) ** (1 / max(levels - 1, 1))
        # The small addition keeps the finest level from being rounded down to one less.
        self.resolutions = [int(base_resolution * growth**level + 1e-6) for level in range(levels)]
        self.entries = 2**log2_entries
        self.dense = [(resolution + 1) ** 3 <= self.entries for resolution in self.resolutions]
        tables = torch.empty(levels, self.entries, features)
        self.tables = nn.Parameter(tables.uniform_(-1e-4, 1e-4, generator=generator))
        self.backend: Backend = "auto"
        self.kernel_levels = grid_kernels.Levels(
            np.array(self.resolutions), np.array(self.dense), self.entries
        )

    @property
    def width(self) -> int:
        """Number of features of a point: L * features."""
        return self.tables.shape[0] * self.tables.shape[2]

    def forward(
        self, points: Float[Tensor, "S 3"], level_weights: Float[Tensor, "L"] | None = None
    ) -> Float[Tensor, "S C"]:
        """Features, level by level, each level times its weight (not differentiable in
        ``level_weights``)."""
        backend = self.chosen_backend(points)
        if backend == "numba":
            blocks = self.blocks(points, level_weights)
            return blocks.transpose(1, 2).reshape(-1, blocks.shape[1])[: len(points), : self.width]
        if backend == "triton":
            from models.field import cuda_kernels

            return cuda_kernels.encode(
                points, self.tables, self.resolutions, self.dense, level_weights
            )
        features = encode_reference(points, self.tables, self.resolutions, self.dense)
        weights = _level_weights(level_weights, self.tables)
        return (features * weights.to(features)[:, None]).flatten(1)

    def blocks(
        self, points: Float[Tensor, "S 3"], level_weights: Float[Tensor, "L"] | None = None
    ) -> Tensor:
        """Features in the layout of the CPU kernels, (blocks, rows, 64): sample 64 b + s is [b, :,
        s]."""
        weights = _level_weights(level_weights, self.tables).numpy()
        return grid_kernels.EncodeBlocks.apply(points, self.tables, self.kernel_levels, weights)

    def chosen_backend(self, points: Tensor) -> Backend:
        """The backend that serves points of this device."""
        if self.backend != "auto":
            return self.backend
        if (
            points.device.type == "cpu"
            and self.tables.shape[2] == 2
            and self.tables.dtype == torch.float32
        ):
            return "numba"
        if points.device.type == "cuda" and self.tables.shape[2] == 2 and _has_triton():
            return "triton"
        return "torch"


class _ColorBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, blocks, count, *parameters):
        ctx.save_for_backward(blocks, *parameters)
        return mlp_kernels.mlp_colors(blocks.detach().numpy(), parameters, count)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        blocks, *parameters = ctx.saved_tensors
        inward = torch.empty_like(blocks)
        _, slopes = mlp_kernels.mlp_gradients(
            blocks.numpy(), parameters, gradient, inward.numpy(), as_loss=False
        )
        return inward, None, *slopes


class ColorField(nn.Module):
    """rgb in [0, 1] of world points in [-1, 1]^3: hash grid, two hidden layers of 64 (ReLU),
    sigmoid.

    The network may read more of a sample than the features of its point. A code: what else its
    colour depends on; one code for all is no more than another bias of the first layer, see
    ``under``. And the features of a second grid, ``changes``, over (x, y, time): what does not look
    the same for the whole clip. Two numbers then stand behind each sample's code: the time, -1 to
    1, and how much the changes count, 0 to 1, which their features are multiplied by.
    """

    def __init__(
        self,
        grid: HashGrid | None = None,
        backend: Backend = "auto",
        generator: torch.Generator | None = None,
        code_width: int = 0,
        changes: HashGrid | None = None,
    ):
        super().__init__()
        self.grid = HashGrid(generator=generator) if grid is None else grid
        self.changes = changes
        self.code_width = code_width
        self.moment = 0.0, 0.0
        """Time, and how much changes count, of samples that come without a code."""
        more = code_width + (0 if changes is None else changes.width)
        self.levels = replace(self.grid.kernel_levels, code_width=more)
        widths = (self.grid.width + more, HIDDEN, HIDDEN, 3)
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, *pair) for pair in itertools.pairwise(widths)
        )
        for layer in self.layers:
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        self.backend = backend

    @property
    def backend(self) -> Backend:
        """What computes: "auto" takes the fast backend of the points' device."""
        return self.grid.backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        for grid in self.grids:
            grid.backend = backend

    @property
    def grids(self) -> list[HashGrid]:
        """The grid of space, and that of changes where there is one."""
        return [self.grid] if self.changes is None else [self.grid, self.changes]

    @property
    def mlp_parameters(self) -> list[nn.Parameter]:
        """W1 (64, all that is read), b1, W2 (64, 64), b2, W3 (3, 64), b3."""
        return list(self.layers.parameters())

    def forward(
        self,
        points: Float[Tensor, "S 3"],
        level_weights: Float[Tensor, "L"] | None = None,
        code: Float[Tensor, "S E"] | None = None,
    ) -> Float[Tensor, "S 3"]:
        """Colours of points (under a code of zeros if none is given); differentiable in points and
        parameters."""
        if self.grid.chosen_backend(points) != "numba":
            moments, code = self._moments_and_code(code, len(points))
            features = [self.grid(points, level_weights)]
            moments = moments.to(points)
            if self.changes is not None:
                features.append(
                    self.changes(torch.cat([points[:, :2], moments[:, :1]], 1)) * moments[:, 1:]
                )
            code = (
                features[0].new_zeros((len(points), self.code_width))
                if code is None
                else code.to(features[0])
            )
            return self._mlp(torch.cat([*features, code], 1))
        if torch.is_grad_enabled() and (
            points.requires_grad or any(p.requires_grad for p in self.parameters())
        ):
            return _ColorBlocks.apply(
                self._blocks(points, level_weights, code), len(points), *self.mlp_parameters
            )
        # Parts bound the memory; the second-level cache holds a level's table, not the features.
        codes = itertools.repeat(None) if code is None else code.split(_INFERENCE_CHUNK)
        given = zip(points.split(_INFERENCE_CHUNK), codes, strict=False)
        parts = [self._colors(part, level_weights, own) for part, own in given]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.no_grad()
    def under(self, code: Float[Tensor, "E"]) -> "ColorField":
        """This field as it looks under one code: it needs none, and shares all that the code does
        not change."""
        field = ColorField(self.grid, self.backend, torch.Generator(), changes=self.changes)
        if self.changes is not None:
            field.moment, code = (float(code[-2]), float(code[-1])), code[:-2]
        width = field.layers[0].in_features
        first = nn.utils.skip_init(nn.Linear, width, HIDDEN, device=self.layers[0].weight.device)
        weight = self.layers[0].weight
        first.weight.copy_(weight[:, :width])
        first.bias.copy_(self.layers[0].bias + weight[:, width:] @ code.to(weight))
        field.layers = nn.ModuleList([first, *self.layers[1:]])
        return field

    def _moments_and_code(
        self, code: Float[Tensor, "S E"] | None, count: int
    ) -> tuple[Float[Tensor, "S 2"], Float[Tensor, "S C"] | None]:
        """Time of each sample and how much changes count there, and what of its code the network
        reads as it is."""
        if self.changes is None or code is None:
            return torch.tensor(self.moment).expand(count, 2), code
        return code[:, -2:], code[:, :-2]

    def _blocks(
        self,
        points: Float[Tensor, "S 3"],
        level_weights: Tensor | None,
        code: Float[Tensor, "S E"] | None,
    ) -> Float[Tensor, "B R 64"]:
        """All that the network reads, in blocks, differentiable in points and tables."""
        moments, code = self._moments_and_code(code, len(points))
        parts = [self.grid.blocks(points, level_weights)[:, : self.grid.width]]
        if self.changes is not None:
            timed = torch.cat([points[:, :2], moments[:, :1]], 1)
            share = torch.from_numpy(_as_row(moments[:, 1], len(parts[0])))
            parts.append(self.changes.blocks(timed)[:, : self.changes.width] * share)
        rest = self.levels.rows - sum(part.shape[1] for part in parts)
        last = parts[0].new_zeros((len(parts[0]), rest, grid_kernels.BLOCK))
        self.levels.write_code(last.numpy(), 0, code)
        return torch.cat([*parts, last], 1)

    def _fill(
        self,
        points: Float[Tensor, "S 3"],
        scales: np.ndarray,
        code: Float[Tensor, "S E"] | None,
        blocks: np.ndarray,
    ) -> list["_GridTask"]:
        """Fills blocks with all that the network reads; returns what the kernels of the gradients
        need of each grid."""
        moments, code = self._moments_and_code(code, len(points))
        tasks = [_GridTask(self.grid, grid_kernels.coordinate_planes(points), scales, 0)]
        if self.changes is not None:
            planes = tasks[0].planes.copy()
            planes[2, : len(points)] = moments[:, 0].numpy()
            even = _level_weights(None, self.changes.tables).numpy()
            share = _as_row(moments[:, 1], len(blocks))
            tasks.append(_GridTask(self.changes, planes, even, self.grid.width, share))
        for task in tasks:
            task.fill(blocks)
        self.levels.write_code(blocks, sum(task.grid.width for task in tasks), code)
        return tasks

    def loss_and_grad(
        self,
        points: Float[Tensor, "S 3"],
        target: Tensor,
        weight: Float[Tensor, "S"] | None = None,
        level_weights: Float[Tensor, "L"] | None = None,
        want_point_grad: bool = False,
        charbonnier: float = 0.0,
        code: Float[Tensor, "S E"] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "S 3"] | None]:
        """A training step's loss, with its gradient added to each parameter's ``.grad``.

        The loss is the mean over samples and channels of weight * (rgb - target)^2 (0 for no
        samples). It equals ``loss.backward()`` on forward's result, without the cost of autograd
        where the backend is "numba".

        Args:
            target: (S, 3) colours, float in [0, 1] or uint8.
            want_point_grad: also return dL/dpoints.
            charbonnier: above 0, the error is sqrt(d^2 + charbonnier^2) - charbonnier in place of
                d^2, which outliers pull less.
            code: of each sample, and behind it what changes need; zeros if not given.

        Raises:
            ValueError: the shapes do not belong together.
        """
        if target.shape != points.shape or (
            weight is not None and weight.shape != points.shape[:1]
        ):
            raise ValueError(
                "loss_and_grad: points and target must be (S, 3), weight (S,), with one S"
            )
        target = target.float() / 255 if target.dtype == torch.uint8 else target.float()
        if self.grid.chosen_backend(points) != "numba":
            return self._loss_by_autograd(
                points, target, weight, level_weights, want_point_grad, charbonnier, code
            )
        scales = _level_weights(level_weights, self.grid.tables).numpy()
        count = len(points)
        blocks, inward = (
            scratch(name, *self.levels.block_shape(count)) for name in ("blocks", "inward")
        )
        tasks = self._fill(points, scales, code, blocks)
        loss, gradients = mlp_kernels.mlp_gradients(
            blocks, self.mlp_parameters, target, inward, weight, charbonnier=charbonnier
        )
        for parameter, gradient in zip(self.mlp_parameters, gradients, strict=True):
            _grad_buffer(parameter).add_(gradient)
        for task in tasks:
            task.add_table_gradient(count, inward)
        slope = None
        if want_point_grad:
            slope = tasks[0].point_gradient(count, inward)
            for task in tasks[1:]:  # its third axis is time
                slope[:, :2] += task.point_gradient(count, inward)[:, :2]
        return torch.tensor(loss, dtype=torch.float32), slope

    def _loss_by_autograd(
        self, points, target, weight, level_weights, want_point_grad, charbonnier, code
    ):
        points = points.detach().requires_grad_(want_point_grad)
        with torch.enable_grad():
            error = (self(points, level_weights, code) - target).square()
            error = (error + charbonnier**2).sqrt() - charbonnier if charbonnier > 0 else error
            error = error if weight is None else error * weight[:, None]
            # Under autocast gradients are half precision on their way: those of a mean would vanish there.
            scale = (
                max(error.numel() / _HALF_SCALE, 1)
                if torch.is_autocast_enabled(points.device.type)
                else 1.0
            )
            loss = error.sum() * (scale / max(error.numel(), 1))
        moved = [*self.parameters(), *([points] if want_point_grad else [])]
        for tensor, gradient in zip(moved, torch.autograd.grad(loss, moved), strict=True):
            _grad_buffer(tensor).add_(gradient, alpha=1 / scale)
        return loss.detach() / scale, points.grad

    def _colors(
        self, points: Tensor, level_weights: Tensor | None, code: Tensor | None
    ) -> Float[Tensor, "S 3"]:
        """Colours by the CPU kernels, without a graph."""
        blocks = scratch("blocks", *self.levels.block_shape(len(points)))
        self._fill(points, _level_weights(level_weights, self.grid.tables).numpy(), code, blocks)
        return mlp_kernels.mlp_colors(blocks, self.mlp_parameters, len(points))

    def _mlp(self, features: Float[Tensor, "S C"]) -> Float[Tensor, "S 3"]:
        """Under autocast the products are in half precision; the colours never are, as they would
        show steps."""
        first, second, output = self.layers
        return torch.sigmoid(
            output(torch.relu(second(torch.relu(first(features))))).to(features.dtype)
        )


@dataclass(frozen=True)
class _GridTask:
    """One grid of a field at some points, for the CPU kernels."""

    grid: HashGrid
    planes: Float[np.ndarray, "3 padded"]
    scales: Float[np.ndarray, "L"]
    row: int
    """Of the blocks, where its features begin."""
    share: Float[np.ndarray, "B 1 64"] | None = None
    """What each sample's features are multiplied by."""

    def fill(self, blocks: np.ndarray) -> None:
        """Writes its features."""
        grid_kernels.grid_forward(
            self.planes, self.grid.tables, self.grid.kernel_levels, self.scales, blocks, self.row
        )
        self._take_share(blocks)

    def _take_share(self, blocks: np.ndarray) -> None:
        if self.share is not None:
            blocks[:, self.row : self.row + self.grid.width] *= self.share

    def add_table_gradient(self, count: int, inward: np.ndarray) -> None:
        """Adds dL/dtables, given dL/dfeatures as blocks (of which its own are changed), to the
        tables' ``.grad``."""
        self._take_share(inward)
        gradient = _grad_buffer(self.grid.tables)
        grid_kernels.grid_backward(
            self.planes, count, inward, gradient, self.grid.kernel_levels, self.scales, self.row
        )

    def point_gradient(self, count: int, inward: np.ndarray) -> Float[Tensor, "S 3"]:
        """dL by its three coordinates, after the gradient by the tables."""
        grid = self.grid
        return grid_kernels.grid_point_gradient(
            self.planes, count, inward, grid.tables, grid.kernel_levels, self.scales, self.row
        )


class FieldOptimizer:
    """Adam for a ColorField: sparse on the tables, dense on the MLP.

    Sparse (as in Instant NGP) means: a table value whose gradient is exactly zero keeps its value
    and its moments; the bias correction counts all steps. A step consumes ``.grad`` and leaves it
    zero.

    Attributes:
        lr: a factor on both learning rates, to be set by the caller's schedule.
    """

    def __init__(
        self,
        field: ColorField,
        table_rate: float = 2e-2,
        mlp_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-15,
    ):
        self.lr = 1.0
        self.count = 0
        tables = [grid.tables for grid in field.grids]
        layers = field.mlp_parameters
        self.parameters = [*tables, *layers]
        self.rates = (
            [table_rate] + [CHANGE_RATE * table_rate] * (len(tables) - 1) + [mlp_rate] * len(layers)
        )
        self.rules = [AdamRule(betas, eps, sparse=True)] * len(tables) + [
            AdamRule(betas, eps)
        ] * len(layers)
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
        """The Adam step of the parameter's device, or the reference where there is none."""
        device = parameter.device.type
        backend = self.field.backend
        if device == "cpu" and parameter.dtype == torch.float32 and backend in ("auto", "numba"):
            return adam_kernels.adam_step
        if backend == "triton" or (backend == "auto" and device == "cuda" and _has_triton()):
            from models.field import cuda_kernels

            return cuda_kernels.adam_step
        return adam_reference

    def state_dict(self) -> dict:
        """Everything a resumed run needs to go on bit-identically; the tensors are the optimizer's
        own, not copies."""
        return {
            "count": self.count,
            "lr": self.lr,
            "moments": [list(pair) for pair in self.moments],
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes over what state_dict gave, for a field of the same shape."""
        self.count = state["count"]
        self.lr = state["lr"]
        for own, saved in zip(self.moments, state["moments"], strict=True):
            for mine, other in zip(own, saved, strict=True):
                mine.copy_(other)


def _as_row(values: Float[Tensor, "S"], blocks: int) -> Float[np.ndarray, "B 1 64"]:
    """A number of each sample as a row of as many blocks, zero past the last sample."""
    row = np.zeros(blocks * grid_kernels.BLOCK, np.float32)
    row[: len(values)] = values.numpy()
    return row.reshape(blocks, 1, grid_kernels.BLOCK)


def _grad_buffer(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _level_weights(level_weights: Tensor | None, tables: Tensor) -> Float[Tensor, "L"]:
    if level_weights is None:
        return torch.ones(len(tables), dtype=torch.float32)
    return level_weights.detach().float().cpu()


@cache
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
