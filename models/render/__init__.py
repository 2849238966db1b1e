"""Scene, camera and time -> picture; model.pt; picture metrics."""

from models.render.blending import fill_holes
from models.render.metrics import average_scores, finite_psnr, score_frame, score_heldout, ssim
from models.render.rendering import render_view
from models.render.scene import (
    DEPTH_TOLERANCE,
    Layer,
    LayerViews,
    MovingLayer,
    Scene,
    load_scene,
    save_scene,
)
from models.render.view_choice import ViewOptions

__all__ = [
    "DEPTH_TOLERANCE",
    "Layer",
    "LayerViews",
    "MovingLayer",
    "Scene",
    "ViewOptions",
    "average_scores",
    "fill_holes",
    "finite_psnr",
    "load_scene",
    "render_view",
    "save_scene",
    "score_frame",
    "score_heldout",
    "ssim",
]
