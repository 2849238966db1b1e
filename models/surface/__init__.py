"""Points of a frame -> triangle mesh, dense depth, fragments.

Files, in reading order:

- ``options`` - settings of meshes and of stereo
- ``meshing`` - projected points -> mesh of one frame
- ``dense`` - frames + meshes -> dense depth of each frame
- ``fragments`` - face, barycentrics and depth at each pixel; attributes read there
- ``rasterizer`` - mesh + camera -> fragments
- ``raster_kernels`` - the rasteriser's scanlines on the CPU
- ``plain_rasterizer`` - the rasteriser in torch, for any device
- ``ray_kernels`` - rays of training pixels and the planes that they meet
"""

from models.surface.dense import StereoFrames, Surface, Surfaces, choose_matched_size
from models.surface.fragments import Fragments, find_used_vertices, interpolate
from models.surface.meshing import (
    BORDER_TRUST,
    JUMP_TRUST,
    FrameMesh,
    FramePoints,
    build_mesh,
    find_hidden_points,
)
from models.surface.options import MeshOptions, StereoOptions
from models.surface.raster_kernels import draw_band, evaluate_depth, setup_mesh
from models.surface.rasterizer import rasterize, rasterize_world
from models.surface.ray_kernels import (
    GATHERED,
    compute_normal,
    compute_ray,
    draw_samples,
    gather_corners,
)

__all__ = [
    "BORDER_TRUST",
    "GATHERED",
    "JUMP_TRUST",
    "Fragments",
    "FrameMesh",
    "FramePoints",
    "MeshOptions",
    "StereoFrames",
    "StereoOptions",
    "Surface",
    "Surfaces",
    "build_mesh",
    "choose_matched_size",
    "compute_normal",
    "compute_ray",
    "draw_band",
    "draw_samples",
    "evaluate_depth",
    "find_hidden_points",
    "find_used_vertices",
    "gather_corners",
    "interpolate",
    "rasterize",
    "rasterize_world",
    "setup_mesh",
]
