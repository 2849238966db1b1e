"""3D points -> colours: hash grids, MLP, their kernels, the box and the view code."""

from models.field.encoding import ColorField, FieldOptimizer, HashGrid
from models.field.viewpoints import Viewpoints
from models.field.world_box import normalization, transform_points

__all__ = [
    "ColorField",
    "FieldOptimizer",
    "HashGrid",
    "Viewpoints",
    "normalization",
    "transform_points",
]
