"""Points of a frame -> triangle mesh, dense depth, fragments."""

from models.surface.drawing import rasterize_world
from models.surface.meshing import BORDER_TRUST, JUMP_TRUST, build_mesh, hidden_points
from models.surface.raster_kernels import depth_of, draw_band, setup_mesh
from models.surface.rasterizer import Fragments, interpolate, rasterize, used_vertices
from models.surface.stereo import Surface, Surfaces, matched_size

__all__ = [
    "BORDER_TRUST",
    "JUMP_TRUST",
    "Fragments",
    "Surface",
    "Surfaces",
    "build_mesh",
    "depth_of",
    "draw_band",
    "hidden_points",
    "interpolate",
    "matched_size",
    "rasterize",
    "rasterize_world",
    "setup_mesh",
    "used_vertices",
]
