"""A multiresolution hash grid over world points, and the calls of its CPU kernels.

Backends: "torch" is the plain reference; "numba" runs on the CPU; "triton" on CUDA. "auto" takes
the fast backend of the tensor's device, or the reference if there is none. All backends give the
same values and gradients.

Source: Müller et al., "Instant neural graphics primitives with a multiresolution hash encoding",
2022.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.field.kernels import grid_kernels
from models.field.kernels.grid_kernels import BLOCK, flat_view
from models.field.reference import encode_reference
from models.run import run_tasks, take_scratch

Backend = Literal["auto", "torch", "numba", "triton"]


@dataclass(frozen=True)
class Levels:
    """Sizes of a hash grid and of its feature blocks, for the CPU kernels."""

    resolutions: np.ndarray
    """(L,) int64 cells along an axis."""
    dense: np.ndarray
    """(L,) bool: True if every lattice point has an entry of its own (x fastest); False if entries
    are found by the spatial hash."""
    entries: int
    """Entries of each level's table, a power of two."""
    code_width: int = 0
    """Further numbers of a sample, in the rows below its features."""

    def block_shape(self, samples: int) -> tuple[int, int, int]:
        """(blocks, rows, 64) of the features of ``samples`` samples."""
        return count_blocks(samples), self.rows, BLOCK

    @property
    def rows(self) -> int:
        """Rows of a feature block: two for each level and the code, padded with zeros to a multiple
        of 8."""
        return -(-(2 * len(self.resolutions) + self.code_width) // 8) * 8

    def sizes_of(self, level: int) -> tuple[int, int, bool]:
        """Entries, resolution and density of a level, as the kernels take them."""
        return self.entries, self.resolutions[level], self.dense[level]

    def write_code(self, blocks: np.ndarray, row: int, code: Float[Tensor, "S E"] | None) -> None:
        """Writes the code of each sample into the rows from ``row`` on of blocks that are zero."""
        if code is None:
            return
        # Whole blocks at once, the rest of the samples into the last block.
        whole = len(code) // BLOCK
        for k, column in enumerate(code.numpy().T):
            blocks[:whole, row + k] = column[: whole * BLOCK].reshape(whole, BLOCK)
            if rest := len(column) - whole * BLOCK:
                blocks[whole, row + k, :rest] = column[whole * BLOCK :]


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
        # The small addition keeps the finest level from being rounded down to one cell less.
        self.resolutions = [int(base_resolution * growth**level + 1e-6) for level in range(levels)]
        self.entries = 2**log2_entries
        self.dense = [(resolution + 1) ** 3 <= self.entries for resolution in self.resolutions]
        tables = torch.empty(levels, self.entries, features)
        # Small start values, as in Instant NGP.
        self.tables = nn.Parameter(tables.uniform_(-1e-4, 1e-4, generator=generator))
        self.backend: Backend = "auto"
        self.kernel_levels = Levels(np.array(self.resolutions), np.array(self.dense), self.entries)

    @property
    def width(self) -> int:
        """Number of features of a point: L * features."""
        return self.tables.shape[0] * self.tables.shape[2]

    def forward(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S C"]:
        """Features, level by level."""
        backend = self.choose_backend(points)
        if backend == "numba":
            blocks = self.encode_blocks(points)
            return blocks.transpose(1, 2).reshape(-1, blocks.shape[1])[: len(points), : self.width]
        if backend == "triton":
            # Imported late: triton is only installed beside CUDA.
            from models.field.kernels import cuda_kernels

            return cuda_kernels.encode(points, self.tables, self.resolutions, self.dense)
        return encode_reference(points, self.tables, self.resolutions, self.dense).flatten(1)

    def encode_blocks(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "B R 64"]:
        """Features in the layout of the CPU kernels: sample 64 b + s is [b, :, s]."""
        return EncodeBlocks.apply(points, self.tables, self.kernel_levels)

    def prepare_task(
        self,
        planes: Float[np.ndarray, "3 padded"],
        row: int = 0,
        share: Float[np.ndarray, "B 1 64"] | None = None,
    ) -> "GridTask":
        """The arguments of the CPU kernels for this grid, see ``GridTask``."""
        return GridTask(self.tables, self.kernel_levels, planes, row, share)

    def choose_backend(self, points: Tensor) -> Backend:
        """The backend that serves points of this device."""
        if self.backend != "auto":
            return self.backend
        device = points.device.type
        # The kernels are written for two features of float32.
        pairs = self.tables.shape[2] == 2
        if device == "cpu" and pairs and self.tables.dtype == torch.float32:
            return "numba"
        return "triton" if device == "cuda" and pairs and has_triton() else "torch"


@cache
def has_triton() -> bool:
    """Whether triton can be imported."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def count_blocks(samples: int) -> int:
    """Blocks of 64 samples, the last padded."""
    return -(-samples // BLOCK)


def coordinate_planes(points: Float[Tensor, "S 3"]) -> Float[np.ndarray, "3 padded"]:
    """Points axis by axis, float32, each axis padded with zeros to whole blocks."""
    count = len(points)
    planes = np.zeros((3, count_blocks(count) * BLOCK), np.float32)
    planes[:, :count] = points.detach().numpy().T
    return planes


@dataclass(frozen=True)
class GridTask:
    """A grid at S points, and its place in the feature blocks of the CPU kernels."""

    tables: Float[Tensor, "L T 2"]
    levels: Levels
    planes: Float[np.ndarray, "3 padded"]
    """Coordinates of the points, see ``coordinate_planes``."""
    row: int = 0
    """First row of the grid's features in the blocks."""
    share: Float[np.ndarray, "B 1 64"] | None = None
    """Factor of each sample's features; None for 1."""

    @property
    def width(self) -> int:
        """Rows of the grid's features."""
        return 2 * len(self.levels.resolutions)

    def fill_features(self, blocks: Float[np.ndarray, "B R 64"]) -> None:
        """Writes the features; all rows below them become zero."""
        padded = self.planes.shape[1]
        rows = blocks.shape[1]
        blocks[:, self.row + self.width :] = 0
        flat = self._view_from_row(blocks)
        planes = self.planes.reshape(-1)
        table = flat_view(self.tables)
        # Two tasks a level: more threads than levels are busy, and a level's table stays in the
        # second-level cache.
        middle = padded // 2 // BLOCK * BLOCK

        def encode(index: int) -> None:
            level, upper = divmod(index, 2)
            begin, end = (middle, padded) if upper else (0, middle)
            fixed = table, level, *self.levels.sizes_of(level), np.float32(1), rows, flat
            grid_kernels.encode_level(planes, padded, begin, end, *fixed)

        run_tasks(encode, self.width)
        self._multiply_share(blocks)

    def add_table_gradient(
        self, count: int, inward: Float[np.ndarray, "B R 64"], gradient: Float[Tensor, "L T 2"]
    ) -> None:
        """Adds dL/dtables to ``gradient``.

        Args:
            count: samples; the rest of the planes is padding.
            inward: dL/dfeatures; the grid's own rows are multiplied by ``share``.
        """
        self._multiply_share(inward)
        flat = self._view_from_row(inward)
        planes = self.planes.reshape(-1)
        padded = self.planes.shape[1]
        table = flat_view(gradient)

        def scatter(level: int) -> None:
            fixed = table, level, *self.levels.sizes_of(level), inward.shape[1], flat
            grid_kernels.scatter_level(planes, padded, count, *fixed)

        # The finest levels miss the cache most: they start first.
        last = len(self.levels.resolutions) - 1
        run_tasks(lambda index: scatter(last - index), last + 1)

    def point_gradient(
        self, count: int, inward: Float[np.ndarray, "B R 64"]
    ) -> Float[Tensor, "S 3"]:
        """dL by the coordinates, 0 along an axis on which the point lies outside [-1, 1]; to be
        called after ``add_table_gradient``."""
        # A thread takes all its samples through a level before the next: a level's table stays in
        # the second-level cache.
        padded = self.planes.shape[1]
        parts = torch.get_num_threads()
        out = take_scratch("point slopes", 3, padded)
        out[:] = 0
        levels = self.levels
        sizes = levels.entries, levels.resolutions, levels.dense, inward.shape[1]
        arrays = self._view_from_row(inward), out.reshape(-1)
        planes = self.planes.reshape(-1)
        table = flat_view(self.tables)

        def add_part(part: int) -> None:
            begin, end = (padded // BLOCK * i // parts * BLOCK for i in (part, part + 1))
            grid_kernels.point_gradient(planes, padded, begin, end, table, *sizes, *arrays)

        run_tasks(add_part, parts)
        # In numpy: torch would wake its threads for this little work.
        out[~(np.abs(self.planes) <= 1)] = 0
        return torch.from_numpy(out[:, :count].T.copy())

    def _multiply_share(self, blocks: Float[np.ndarray, "B R 64"]) -> None:
        if self.share is not None:
            blocks[:, self.row : self.row + self.width] *= self.share

    def _view_from_row(self, blocks: Float[np.ndarray, "B R 64"]) -> np.ndarray:
        """The blocks as a flat array that begins at the grid's first row."""
        return blocks.reshape(-1)[self.row * BLOCK :]


class EncodeBlocks(torch.autograd.Function):
    """Feature blocks of points, differentiable: apply(points, tables, levels)."""

    @staticmethod
    def forward(ctx, points, tables, levels):
        ctx.save_for_backward(points, tables)
        ctx.planes = coordinate_planes(points)
        ctx.levels = levels
        blocks = np.empty(levels.block_shape(len(points)), np.float32)
        GridTask(tables, levels, ctx.planes).fill_features(blocks)
        return torch.from_numpy(blocks)

    @staticmethod
    @once_differentiable
    def backward(ctx, inward):
        points, tables = ctx.saved_tensors
        task = GridTask(tables, ctx.levels, ctx.planes)
        inward = inward.contiguous().numpy()
        by_points = by_tables = None
        if ctx.needs_input_grad[0]:
            by_points = task.point_gradient(len(points), inward)
        if ctx.needs_input_grad[1]:
            by_tables = torch.zeros_like(tables)
            task.add_table_gradient(len(points), inward, by_tables)
        return by_points, by_tables, None
