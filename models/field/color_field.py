"""The colour field: hash grids over world points and a small MLP."""

import itertools
import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.field.hash_grid import Backend, GridTask, HashGrid, coordinate_planes
from models.field.kernels import mlp_kernels
from models.field.kernels.grid_kernels import BLOCK
from models.field.viewpoints import ViewCode
from models.run import take_scratch

_HIDDEN = mlp_kernels.WIDTH
# Samples coloured at a time: features of more would leave the second-level cache.
_INFERENCE_CHUNK = 1 << 16
# Under autocast a sample's gradient is that of its own error over this: far from both ends of half
# precision.
_HALF_SCALE = 256


class _ColorBlocks(torch.autograd.Function):
    """Colours of feature blocks by the CPU kernels, differentiable in blocks and parameters."""

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

    The MLP may read more than the features of a sample's point, both from its ``ViewCode``: the
    position on the camera path, and the features of a second grid, ``changes``, over (x, y, time),
    times the code's weight: appearance that changes during the clip. If all samples share a code,
    its position folds into the bias of the first layer, see ``specialize``.
    """

    def __init__(
        self,
        grid: HashGrid | None = None,
        backend: Backend = "auto",
        generator: torch.Generator | None = None,
        code_width: int = 0,
        changes: HashGrid | None = None,
    ):
        """
        Args:
            code_width: numbers of ``ViewCode.place``.
        """
        super().__init__()
        self.grid = HashGrid(generator=generator) if grid is None else grid
        self.changes = changes
        self.code_width = code_width
        self.moment = 0.0, 0.0
        """Time, and weight of ``changes``, of samples without a code."""
        more = code_width + (0 if changes is None else changes.width)
        self.levels = replace(self.grid.kernel_levels, code_width=more)
        widths = (self.grid.width + more, _HIDDEN, _HIDDEN, 3)
        # nn.utils.skip_init() would import for a second.
        with torch.random.fork_rng(devices=[]):
            self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))
        # torch's own initialisation of nn.Linear, with He's for the weights, from one generator.
        for layer in self.layers:
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        self.backend = backend

    @property
    def backend(self) -> Backend:
        """The backend of grids and MLP; "auto" takes the fast backend of the points' device."""
        return self.grid.backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        for grid in self.grids:
            grid.backend = backend

    @property
    def grids(self) -> list[HashGrid]:
        """The grid of space, and, if given, the grid of changes."""
        return [self.grid] if self.changes is None else [self.grid, self.changes]

    @property
    def mlp_parameters(self) -> list[nn.Parameter]:
        """W1 (64, features and code), b1, W2 (64, 64), b2, W3 (3, 64), b3."""
        return list(self.layers.parameters())

    def forward(
        self, points: Float[Tensor, "S 3"], code: ViewCode | None = None
    ) -> Float[Tensor, "S 3"]:
        """Colours of points; differentiable in points and parameters.

        Args:
            code: of each sample; None for position 0 and ``moment``.
        """
        if self.grid.choose_backend(points) != "numba":
            return self._color_plainly(points, code)
        moved = points.requires_grad or any(p.requires_grad for p in self.parameters())
        if torch.is_grad_enabled() and moved:
            blocks = self._encode_blocks(points, code)
            return _ColorBlocks.apply(blocks, len(points), *self.mlp_parameters)
        # Chunks bound the memory; the second-level cache holds a level's table, not the features.
        codes = itertools.repeat(None) if code is None else code.split(_INFERENCE_CHUNK)
        given = zip(points.split(_INFERENCE_CHUNK), codes, strict=False)
        parts = [self._color_by_kernels(part, own) for part, own in given]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.no_grad()
    def specialize(self, code: ViewCode) -> "ColorField":
        """The field specialised to a code of length 1: reads no codes, and shares all tensors except
        the first layer's."""
        field = ColorField(self.grid, self.backend, torch.Generator(), changes=self.changes)
        field.moment = float(code.time[0]), float(code.weight[0])
        width = field.layers[0].in_features
        first = nn.utils.skip_init(nn.Linear, width, _HIDDEN, device=self.layers[0].weight.device)
        weight = self.layers[0].weight
        first.weight.copy_(weight[:, :width])
        # Inputs that all samples share fold into the bias.
        first.bias.copy_(self.layers[0].bias + weight[:, width:] @ code.place[0].to(weight))
        field.layers = nn.ModuleList([first, *self.layers[1:]])
        return field

    def loss_and_grad(
        self,
        points: Float[Tensor, "S 3"],
        target: Tensor,
        weight: Float[Tensor, "S"] | None = None,
        want_point_grad: bool = False,
        code: ViewCode | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "S 3"] | None]:
        """A training step's loss, with its gradient added to each parameter's ``.grad``.

        The loss is the mean over samples and channels of weight * (rgb - target)^2 (0 for no
        samples), and equals ``loss.backward()`` on forward's result, without the cost of autograd
        if the backend is "numba".

        Args:
            target: (S, 3) colours, float in [0, 1] or uint8.
            want_point_grad: also return dL/dpoints.
            code: of each sample; see ``forward``.

        Raises:
            ValueError: the lengths of points, target and weight differ.
        """
        if target.shape != points.shape or (
            weight is not None and weight.shape != points.shape[:1]
        ):
            raise ValueError(
                "loss_and_grad: points and target must be (S, 3), weight (S,), with one S"
            )
        target = target.float() / 255 if target.dtype == torch.uint8 else target.float()
        by_kernels = self.grid.choose_backend(points) == "numba"
        compute = self._loss_by_kernels if by_kernels else self._loss_by_autograd
        return compute(points, target, weight, want_point_grad, code)

    def _loss_by_kernels(
        self,
        points: Float[Tensor, "S 3"],
        target: Float[Tensor, "S 3"],
        weight: Float[Tensor, "S"] | None,
        want_point_grad: bool,
        code: ViewCode | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "S 3"] | None]:
        """``loss_and_grad`` by the CPU kernels."""
        count = len(points)
        shape = self.levels.block_shape(count)
        blocks = take_scratch("blocks", *shape)
        inward = take_scratch("inward", *shape)
        tasks = self._fill_blocks(points, code, blocks)
        loss, gradients = mlp_kernels.mlp_gradients(
            blocks, self.mlp_parameters, target, inward, weight
        )
        for parameter, gradient in zip(self.mlp_parameters, gradients, strict=True):
            _grad_buffer(parameter).add_(gradient)
        for task, grid in zip(tasks, self.grids, strict=True):
            task.add_table_gradient(count, inward, _grad_buffer(grid.tables))
        slope = None
        if want_point_grad:
            slope = tasks[0].point_gradient(count, inward)
            # The third axis of the grid of changes is time.
            for task in tasks[1:]:
                slope[:, :2] += task.point_gradient(count, inward)[:, :2]
        return torch.tensor(loss, dtype=torch.float32), slope

    def _loss_by_autograd(
        self,
        points: Float[Tensor, "S 3"],
        target: Float[Tensor, "S 3"],
        weight: Float[Tensor, "S"] | None,
        want_point_grad: bool,
        code: ViewCode | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "S 3"] | None]:
        """``loss_and_grad`` by torch, on any device."""
        points = points.detach().requires_grad_(want_point_grad)
        half = torch.is_autocast_enabled(points.device.type)
        with torch.enable_grad():
            error = (self(points, code) - target).square()
            error = error if weight is None else error * weight[:, None]
            # Gradients of a mean would vanish in half precision on their way back.
            scale = max(error.numel() / _HALF_SCALE, 1) if half else 1.0
            loss = error.sum() * (scale / max(error.numel(), 1))
        moved = [*self.parameters(), *([points] if want_point_grad else [])]
        for tensor, gradient in zip(moved, torch.autograd.grad(loss, moved), strict=True):
            _grad_buffer(tensor).add_(gradient, alpha=1 / scale)
        return loss.detach() / scale, points.grad

    def _moments(
        self, code: ViewCode | None, count: int
    ) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"]]:
        """Time of each sample, and its weight of the grid of changes."""
        if code is None:
            time, weight = self.moment
            return torch.tensor(time).expand(count), torch.tensor(weight).expand(count)
        return code.time, code.weight

    def _encode_blocks(
        self, points: Float[Tensor, "S 3"], code: ViewCode | None
    ) -> Float[Tensor, "B R 64"]:
        """All inputs of the MLP in blocks, differentiable in points and tables."""
        parts = [self.grid.encode_blocks(points)[:, : self.grid.width]]
        if self.changes is not None:
            time, weight = self._moments(code, len(points))
            timed = torch.cat([points[:, :2], time[:, None]], 1)
            share = torch.from_numpy(_as_row(weight, len(parts[0])))
            parts.append(self.changes.encode_blocks(timed)[:, : self.changes.width] * share)
        rest = self.levels.rows - sum(part.shape[1] for part in parts)
        # Rows of the code and of the padding need no gradient.
        last = parts[0].new_zeros((len(parts[0]), rest, BLOCK))
        self.levels.write_code(last.numpy(), 0, self._place(code))
        return torch.cat([*parts, last], 1)

    def _fill_blocks(
        self, points: Float[Tensor, "S 3"], code: ViewCode | None, blocks: np.ndarray
    ) -> list[GridTask]:
        """Fills blocks with all inputs of the MLP; returns the arguments of the gradients'
        kernels, grid by grid."""
        tasks = [self.grid.prepare_task(coordinate_planes(points))]
        if self.changes is not None:
            time, weight = self._moments(code, len(points))
            # (x, y, time): the third axis of the grid of changes is time.
            planes = tasks[0].planes.copy()
            planes[2, : len(points)] = time.numpy()
            share = _as_row(weight, len(blocks))
            tasks.append(self.changes.prepare_task(planes, self.grid.width, share))
        for task in tasks:
            task.fill_features(blocks)
        width = sum(task.width for task in tasks)
        self.levels.write_code(blocks, width, self._place(code))
        return tasks

    def _place(self, code: ViewCode | None) -> Float[Tensor, "S E"] | None:
        """The part of the code that the MLP reads."""
        return None if code is None or not self.code_width else code.place

    def _color_by_kernels(
        self, points: Float[Tensor, "S 3"], code: ViewCode | None
    ) -> Float[Tensor, "S 3"]:
        """Colours by the CPU kernels, without a graph."""
        blocks = take_scratch("blocks", *self.levels.block_shape(len(points)))
        self._fill_blocks(points, code, blocks)
        return mlp_kernels.mlp_colors(blocks, self.mlp_parameters, len(points))

    def _color_plainly(
        self, points: Float[Tensor, "S 3"], code: ViewCode | None
    ) -> Float[Tensor, "S 3"]:
        """Colours in torch; under autocast the products are half precision, the colours never, as
        they would show steps."""
        features = [self.grid(points)]
        if self.changes is not None:
            time, weight = (value.to(points) for value in self._moments(code, len(points)))
            timed = torch.cat([points[:, :2], time[:, None]], 1)
            features.append(self.changes(timed) * weight[:, None])
        place = self._place(code)
        empty = features[0].new_zeros((len(points), self.code_width))
        features.append(empty if place is None else place.to(features[0]))
        inputs = torch.cat(features, 1)
        first, second, output = self.layers
        hidden = torch.relu(second(torch.relu(first(inputs))))
        return torch.sigmoid(output(hidden).to(inputs.dtype))


def _as_row(values: Float[Tensor, "S"], blocks: int) -> Float[np.ndarray, "B 1 64"]:
    """A number of each sample as a row of blocks, zero past the last sample."""
    row = np.zeros(blocks * BLOCK, np.float32)
    row[: len(values)] = values.numpy()
    return row.reshape(blocks, 1, BLOCK)


def _grad_buffer(parameter: Tensor) -> Tensor:
    """The parameter's ``.grad``, made of zeros if there is none."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
