"""Scene, camera and time -> picture; model.pt; picture metrics.

Files in reading order:

- ``options`` - options of drawing a view
- ``view_choice`` - frames whose meshes a view is drawn from
- ``rendering`` - the picture of the static scene
- ``tiles`` - the same by CPU kernels, a tile of rows to a thread
- ``view_kernels`` - the kernels of a tile
- ``seen`` - pixels whose surface some frame's image shows
- ``blending`` - meshes joined in plain torch, and holes filled
- ``scene`` - all layers and the clip's cameras
- ``model_file`` - model.pt
- ``metrics`` - PSNR, SSIM, distances of tracks
"""

from models.render.blending import fill_holes
from models.render.metrics import (
    average_scores,
    finite_psnr,
    score_frame,
    score_heldout,
    score_rebuilt,
    ssim,
)
from models.render.model_file import load_scene, save_scene
from models.render.options import RenderOptions
from models.render.rendering import render_view
from models.render.scene import Layer, LayerViews, MovingLayer, RebuiltFrame, Scene

__all__ = [
    "Layer",
    "LayerViews",
    "MovingLayer",
    "RebuiltFrame",
    "RenderOptions",
    "Scene",
    "average_scores",
    "fill_holes",
    "finite_psnr",
    "load_scene",
    "render_view",
    "save_scene",
    "score_frame",
    "score_heldout",
    "score_rebuilt",
    "ssim",
]
