"""Pictures of a scene for a person: colour, depth, mesh, each layer alone."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from models.cameras import Cameras
from models.report.drawing import colorize_depth, draw_mesh, measure_depth_range

# A type alone: scripts that render nothing do not load the room behind it.
if TYPE_CHECKING:
    from models.render import Scene

MODES = ("colour", "depth", "mesh")
"""Kinds of pictures of a scene."""
# Pixels; width of the small view whose depths set the colours of depth pictures.
_PROBE_WIDTH = 96

RenderFunction = Callable[[Cameras, float, str, bool, bool], UInt8[ndarray, "H W 3"]]
"""Draws the picture of one camera: (camera, time in frames of the clip, member of MODES, with the
background, with the movers)."""


def make_render_function(scene: "Scene") -> RenderFunction:
    """The function that the live viewer draws with; all depth pictures share a range."""
    width = scene.cameras.width
    height = max(1, _PROBE_WIDTH * scene.cameras.height // width)
    probe = scene.cameras[len(scene.cameras) // 2].resized(_PROBE_WIDTH, height)
    # one range for all views: colours would flicker otherwise
    near_far = measure_depth_range([scene.render(probe, 0.0).depth])

    def draw(
        view: Cameras, time: float, mode: str, background: bool, movers: bool
    ) -> UInt8[ndarray, "H W 3"]:
        layers = scene.views(view, time)
        chosen = layers.merged if movers else layers.background
        if not background:
            # movers over black, or black
            return layers.foreground if movers else np.zeros_like(layers.foreground)
        if mode == "depth":
            return colorize_depth(chosen.depth, *near_far)
        return draw_mesh(chosen.rgb, *project_mesh(scene, view)) if mode == "mesh" else chosen.rgb

    return draw


def project_mesh(
    scene: "Scene", view: Cameras
) -> tuple[Float[ndarray, "V 2"], Int[ndarray, "T 3"]]:
    """Pixels (NaN behind the camera) and faces of the mesh whose own camera is nearest to the
    view."""
    meshes = scene.background.meshes
    source = meshes.nearest_frame(view)
    used, faces = torch.unique(meshes.faces[source], return_inverse=True)
    xy, depth = view.project(meshes.vertices[used.long()].double())
    return torch.where(depth[..., None] > 0, xy, torch.nan)[0].numpy(), faces.numpy()
