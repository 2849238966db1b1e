"""The whole trained scene: its layers and the clip's cameras."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.cameras import Cameras
from models.clip import Exposure
from models.detail import ChosenMovers, ClipDetail
from models.movers import MoverPicture, MovingMeshPipeline
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
class Drawn:
    """The layers of a view before they are merged."""

    background: Rendering
    movers: MoverPicture | None
    """None if no mover is in view."""
    light: Float[np.ndarray, "H W 3"] | None = None
    """Share of its light that the background keeps in the movers' shadows; None without
    shadows."""

    @property
    def movers_rgb(self) -> UInt8[np.ndarray, "H W 3"]:
        """Colours of the movers, whole up to the end of their soft outline, over black."""
        assert self.movers is not None
        return _round_colors(self.movers.rgb * 255)


@dataclass(frozen=True)
class LayerViews:
    """A view, whole and layer by layer."""

    merged: Rendering
    background: Rendering
    foreground: UInt8[np.ndarray, "H W 3"]
    """Movers over black."""


@dataclass(frozen=True)
class RebuiltFrame:
    """A frame of the clip, as its own camera recorded it."""

    field: LayerViews
    """By the colour field alone, which training frames have taught."""
    detailed: LayerViews
    """With detail of other frames; the same as ``field`` for a scene without detail."""


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
    detail: ClipDetail | None = None
    """Detail of the clip's frames; None draws the colour field alone."""

    def keep_movers(self, numbers: Collection[int]) -> "Scene":
        """The scene with some of its movers and their shadows alone.

        Args:
            numbers: of the movers to keep, as in ``labels/``, from 1.
        """
        if self.moving is None:
            return self
        meshes = self.moving.meshes
        removed = meshes.keep(set(meshes.numbers) - set(numbers))
        if not removed.meshes:
            return self
        kept = meshes.keep(numbers)
        moving = replace(self.moving, meshes=kept)
        detail = self.detail
        if detail is not None:
            detail = ClipDetail(detail.frames, detail.options, ChosenMovers(kept, removed))
        return replace(self, moving=moving if moving.meshes.meshes else None, detail=detail)

    def render(self, view: Cameras, time: float) -> Rendering:
        """The picture of a camera (``view`` of length 1) at ``time``.

        Args:
            time: in frames of the clip, may be fractional.
        """
        return self.views(view, time).merged

    def views(self, view: Cameras, time: float) -> LayerViews:
        """The layers apart and merged by depth, with detail.

        Args:
            view: a camera, of length 1.
            time: in frames of the clip, may be fractional.
        """
        drawn = self._add_detail(self._draw(view, time), view, time)
        return self._merge(drawn, in_front=False)

    def rebuild(self, t: int) -> RebuiltFrame:
        """Frame t as the clip's own camera recorded it, with that frame's exposure.

        The frame's masks put movers in front of the background. Frame t's own detail is not used.
        """
        view = self.cameras[t]
        drawn = self._draw(view, t)
        field = self._expose(self._merge(drawn, in_front=True), t)
        if self.detail is None:
            return RebuiltFrame(field, field)
        drawn = self._add_detail(drawn, view, t, without=(t,))
        return RebuiltFrame(field, self._expose(self._merge(drawn, in_front=True), t))

    def _draw(self, view: Cameras, time: float) -> Drawn:
        """The layers by the colour fields alone."""
        layer = self.background
        background = render_view(layer.meshes, layer.renderer, view, self.options)
        movers = None
        if self.moving is not None:
            movers = self.moving.meshes.draw(self.moving.renderer, view, time)
        return Drawn(background, movers)

    def _add_detail(
        self, drawn: Drawn, view: Cameras, time: float, without: Collection[int] = ()
    ) -> Drawn:
        """The layers with detail of the frames nearest to the view.

        Args:
            without: frames whose detail is not used.
        """
        if self.detail is None:
            return drawn
        background = drawn.background
        meshes = self.background.meshes
        given = meshes, view, background.rgb, background.depth
        surfaces = self.detail.of_background(*given, without=without)
        rgb = _round_colors(surfaces.rgb)
        background = replace(background, rgb=rgb, depth=surfaces.depth)
        movers = drawn.movers
        if self.moving is not None and movers is not None:
            given = self.moving.meshes, view, time, drawn.movers_rgb
            rgb = self.detail.of_movers(*given, without=without)
            movers = replace(movers, rgb=(rgb / 255).clip(0, 1))
        light = self.detail.find_light(meshes, view, time, background.depth, without)
        return Drawn(background, movers, light)

    def _merge(self, drawn: Drawn, in_front: bool) -> LayerViews:
        """The layers merged by depth, with the movers' shadows.

        Args:
            in_front: movers hide the background at any depth.
        """
        background, mover = drawn.background, drawn.movers
        shaded = background
        if drawn.light is not None:
            shaded = replace(background, rgb=_round_colors(background.rgb * drawn.light))
        if mover is None:
            return LayerViews(shaded, background, np.zeros_like(background.rgb))
        # tolerance: the ground under a mover is at its depth
        hidden_from = (1 + self.options.mover_tolerance) * background.depth
        shown = mover.depth < (np.inf if in_front else hidden_from)
        alpha = (mover.alpha * shown)[..., None]
        # depth cannot be mixed
        opaque = alpha[..., 0] > _OPAQUE
        rgb = alpha * mover.rgb * 255 + (1 - alpha) * shaded.rgb
        depth = np.where(opaque, mover.depth, background.depth)
        merged = Rendering(_round_colors(rgb), depth, background.covered | opaque)
        return LayerViews(merged, background, _round_colors(alpha * mover.rgb * 255))

    def _expose(self, views: LayerViews, t: int) -> LayerViews:
        """The layers as frame t's exposure shows them."""
        factor = self.exposure.factor(t)
        merged = replace(views.merged, rgb=_round_colors(views.merged.rgb * factor))
        background = replace(views.background, rgb=_round_colors(views.background.rgb * factor))
        return LayerViews(merged, background, _round_colors(views.foreground * factor))

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
