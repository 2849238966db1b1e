"""3D points -> colours: hash grids, MLP, their kernels, the box and the view code.

Files, in reading order:

- ``world_box`` - the cube that a field lives in, and the sizes of its grids
- ``viewpoints`` - position on the camera path and time as inputs of the field
- ``hash_grid`` - features of points; calls of the grid's CPU kernels
- ``color_field`` - hash grids and MLP -> colours, loss and gradients
- ``optimizer`` - Adam, with its CPU kernel
- ``reader`` - a field read by a single thread, for views drawn in tiles
- ``reference`` - the standard in plain torch that the kernels are tested against
- ``kernels`` - the compiled loops of grid, MLP and Adam, for CPU and CUDA
"""

from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.kernels.grid_kernels import BLOCK
from models.field.optimizer import BETAS, FieldOptimizer
from models.field.reader import FieldReader
from models.field.viewpoints import ViewCode, Viewpoints
from models.field.world_box import ChangeOptions, FieldOptions, normalization, transform_points

__all__ = [
    "BETAS",
    "BLOCK",
    "ChangeOptions",
    "ColorField",
    "FieldOptimizer",
    "FieldOptions",
    "FieldReader",
    "HashGrid",
    "ViewCode",
    "Viewpoints",
    "normalization",
    "transform_points",
]
