"""A colour field read by a single thread, without torch: for tasks that draw parts of a view."""

import numpy as np
from jaxtyping import Float

from models.field.color_field import ColorField
from models.field.hash_grid import count_blocks
from models.field.kernels import grid_kernels, mlp_kernels
from models.run import take_scratch

BLOCK = grid_kernels.BLOCK


class FieldReader:
    """Colours of a field by the CPU kernels on the calling thread, for tasks of ``run_tasks``.

    Reads the weights that the field had when the reader was made, under the field's ``moment``.
    """

    def __init__(self, field: ColorField):
        self.shape = field.levels.block_shape
        self.moment = np.float32(field.moment)
        self.grids = [
            (grid.kernel_levels, grid_kernels.flat_view(grid.tables)) for grid in field.grids
        ]
        self.weights = mlp_kernels.pack_weights(field.mlp_parameters, field.levels.rows)
        self.cell = 2.0 / max(field.grid.resolutions)
        """Side of the smallest cell of the hash grid."""

    def read_colors(
        self, planes: Float[np.ndarray, "3*padded"], padded: int, count: int
    ) -> Float[np.ndarray, "count 3"]:
        """Colours of points given axis by axis; the result is valid until the next call.

        Args:
            planes: three axes of ``padded`` coordinates, a multiple of 64; overwritten.
            count: points.
        """
        time, weight = self.moment
        # Scratch memory holds values of earlier calls past the last point.
        end = count_blocks(count) * BLOCK
        for axis in range(3):
            planes[axis * padded + count : axis * padded + end] = 0
        features = take_scratch("features", *self.shape(count))
        blocks, rows, _ = features.shape
        flat = features.reshape(-1)
        row = 0
        factor = np.float32(1)
        for levels, table in self.grids:
            own = flat[row * BLOCK :]
            for level in range(len(levels.resolutions)):
                fixed = table, level, *levels.sizes_of(level), factor, rows, own
                grid_kernels.encode_level(planes, padded, 0, end, *fixed)
            row += 2 * len(levels.resolutions)
            # The third axis of a second grid is time.
            planes[2 * padded : 2 * padded + end] = time
            factor = weight
        features[:, row:] = 0
        out = take_scratch("colors", count, 3)
        mlp_kernels.mlp_forward(flat, rows, self.weights, 0, blocks, count, out.reshape(-1))
        return out
