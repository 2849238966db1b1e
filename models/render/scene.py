"""The whole trained scene: its layers and the clip's cameras."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.cameras import Cameras
from models.clip import Exposure
from models.movers import MovingMeshPipeline
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.options import RenderOptions
from models.render.rendering import Rendering, render_view

# A mover with a larger alpha covers its pixel: depth is the mover's.
_OPAQUE = 0.5


@dataclass(frozen=True)
class Layer:
    """Meshes and the renderer that colours them."""

    meshes: TriangleMeshPipeline
    renderer: WorldSpaceTrianglePipeline


@dataclass(frozen=True)
class MovingLayer:
    """Meshes of the movers and the renderer that colours them."""

    meshes: MovingMeshPipeline
    renderer: WorldSpaceTrianglePipeline


@dataclass(frozen=True)
class LayerViews:
    """A view, whole and layer by layer."""

    merged: Rendering
    background: Rendering
    foreground: UInt8[np.ndarray, "H W 3"]
    """Movers over black."""


@dataclass(frozen=True)
class Scene:
    """A clip's cameras and its trained layers."""

    cameras: Cameras
    fps: float
    """Of the clip, frames per second."""
    exposure: Exposure
    """Of each frame of the clip."""
    background: Layer
    moving: MovingLayer | None = None
    """None if nothing moves."""
    options: RenderOptions = RenderOptions()
    """How views are drawn; a model file does not hold them."""
    thumbnails: UInt8[Tensor, "..."] | None = None
    """Of the track file that the scene was trained on."""

    def render(self, view: Cameras, time: float) -> Rendering:
        """The picture of a camera (``view`` of length 1) at ``time``.

        Args:
            time: in frames of the clip, may be fractional.
        """
        return self.views(view, time).merged

    def views(self, view: Cameras, time: float, in_front: bool = False) -> LayerViews:
        """The layers apart and merged by depth.

        Args:
            view: a camera, of length 1.
            time: in frames of the clip, may be fractional.
            in_front: movers hide the background at any depth.
        """
        layer = self.background
        background = render_view(layer.meshes, layer.renderer, view, self.options)
        mover = None
        if self.moving is not None:
            mover = self.moving.meshes.draw(self.moving.renderer, view, time)
        if mover is None:
            return LayerViews(background, background, np.zeros_like(background.rgb))
        # tolerance: the ground under a mover is at its depth
        hidden_from = (1 + self.options.mover_tolerance) * background.depth
        shown = mover.depth < (np.inf if in_front else hidden_from)
        alpha = (mover.alpha * shown)[..., None]
        # depth cannot be mixed
        opaque = alpha[..., 0] > _OPAQUE
        rgb = alpha * mover.rgb * 255 + (1 - alpha) * background.rgb
        depth = np.where(opaque, mover.depth, background.depth)
        merged = Rendering(_round_colors(rgb), depth, background.covered | opaque)
        return LayerViews(merged, background, _round_colors(alpha * mover.rgb * 255))

    def rebuild(self, t: int) -> LayerViews:
        """Frame t as the clip's own camera recorded it, with that frame's exposure.

        The frame's masks put movers in front of the background.
        """
        views = self.views(self.cameras[t], t, in_front=True)
        factor = self.exposure.factor(t)
        merged = replace(views.merged, rgb=_expose(views.merged.rgb, factor))
        background = replace(views.background, rgb=_expose(views.background.rgb, factor))
        return LayerViews(merged, background, _expose(views.foreground, factor))

    @property
    def depth(self) -> float:
        """Harmonic mean of the background's z-depth in the middle of the path, world units.

        Parallax is proportional to inverse depth, hence the harmonic mean.
        """
        meshes = self.background.meshes
        middle = meshes.nearest_frame(self.cameras[len(self.cameras) // 2])
        vertices = meshes.vertices[torch.unique(meshes.faces[middle]).long()]
        z = self.cameras[middle].to_camera(vertices.double())[0, :, 2]
        return float(1 / (1 / z[z > 0]).mean())


def _round_colors(rgb: Float[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    return (rgb + 0.5).clip(0, 255).astype(np.uint8)


def _expose(
    rgb: UInt8[np.ndarray, "H W 3"], factor: Float[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    return _round_colors(rgb * factor)
