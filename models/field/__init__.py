"""3D points -> colours: hash grids, MLP, their kernels, the box and the view code."""

from models.field.color_field import ColorField
from models.field.grid_kernels import BLOCK
from models.field.hash_grid import HashGrid
from models.field.optimizer import FieldOptimizer
from models.field.reader import FieldReader
from models.field.viewpoints import ViewCode, Viewpoints
from models.field.world_box import ChangeOptions, FieldOptions, normalization, transform_points

__all__ = [
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
