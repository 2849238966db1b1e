"""Detail of a clip's frames in any view of its scene: which frames give it, and how much."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from models.cameras import Cameras
from models.detail.carry import carry_details
from models.detail.frame_details import FrameDetail, FrameDetails
from models.detail.options import DetailOptions
from models.detail.source_maps import SourceMap, map_mover, map_static
from models.movers import MovingMeshPipeline
from models.pipeline import TriangleMeshPipeline

# Depth images that are held: the nearest frames of successive views are nearly the same.
_HELD = 12
# Pixels around a mover that its part of the view holds.
_MARGIN = 16


class ClipDetail:
    """Detail of the frames of a clip, for the views of its scene."""

    def __init__(self, frames: FrameDetails, options: DetailOptions = DetailOptions()):
        self.frames = frames
        self.options = options
        self._depths: OrderedDict[int, Float[np.ndarray, "H W"]] = OrderedDict()

    def of_background(
        self,
        meshes: TriangleMeshPipeline,
        view: Cameras,
        rgb: UInt8[np.ndarray, "H W 3"],
        depth: Float[np.ndarray, "H W"],
        without: Collection[int] = (),
    ) -> Float[np.ndarray, "H W 3"]:
        """Detail of the static scene in a view, in grey levels.

        Args:
            view: a single camera.
            rgb: the rendering of the static scene, without exposure.
            depth: its z-depth; inf without a surface.
            without: frames whose own detail must not be used.
        """
        frames = list(meshes.faces)
        nearness = self._measure_nearness(meshes, view)
        order = torch.argsort(meshes.view_costs(view), stable=True).tolist()
        usable = [k for k in order if frames[k] in self.frames and frames[k] not in without]
        sources = []
        for k in usable[: self.options.frames]:
            if nearness[k] > 0:
                t = frames[k]
                pixels = map_static(
                    meshes.cameras[t], view, depth, self._draw_depth(meshes, t), self.options
                )
                sources.append(self._select(t, pixels, nearness[k], of_movers=False))
        return carry_details(rgb, sources, self.options)

    def of_movers(
        self,
        meshes: MovingMeshPipeline,
        view: Cameras,
        time: float,
        rgb: UInt8[np.ndarray, "H W 3"],
        without: Collection[int] = (),
    ) -> Float[np.ndarray, "H W 3"]:
        """Detail of the movers in a view at a time, in grey levels; see ``of_background``.

        Args:
            time: in frames of the clip, may be fractional.
            rgb: the movers over black.
        """
        detail = np.zeros(rgb.shape, np.float32)
        rows, columns = (np.flatnonzero(rgb.any((axis, 2))) for axis in (1, 0))
        if not len(rows):
            return detail
        part = tuple(slice(max(0, i[0] - _MARGIN), i[-1] + _MARGIN + 1) for i in (rows, columns))
        sources = []
        for t in self._choose_mover_frames(meshes, time, without):
            pixels = map_mover(meshes, view, time, t)
            pixels = SourceMap(pixels.x[part], pixels.y[part], pixels.weight[part])
            sources.append(self._select(t, pixels, 1.0, of_movers=True))
        detail[part] = carry_details(np.ascontiguousarray(rgb[part]), sources, self.options)
        return detail

    def _choose_mover_frames(
        self, meshes: MovingMeshPipeline, time: float, without: Collection[int]
    ) -> list[int]:
        """Frames nearest in time whose movers have a known place at a time."""
        near = [
            t
            for t, mesh in meshes.meshes.items()
            if t in self.frames and t not in without and mesh.times[0] <= time <= mesh.times[-1]
        ]
        return sorted(near, key=lambda t: abs(t - time))[: self.options.frames]

    def _measure_nearness(self, meshes: TriangleMeshPipeline, view: Cameras) -> list[float]:
        """1 for each frame near the view to 0 for each far from it."""
        options = self.options
        away = meshes.view_distances(view)
        return ((options.far - away) / (options.far - options.whole)).clamp(0, 1).tolist()

    def _select(
        self, t: int, pixels: SourceMap, nearness: float, *, of_movers: bool
    ) -> tuple[FrameDetail, SourceMap]:
        """Frame t's detail, and its pixels that show movers or the static scene."""
        frame = self.frames[t]
        movers = cv2.remap(frame.movers.astype(np.uint8), pixels.x, pixels.y, cv2.INTER_NEAREST)
        weight = pixels.weight * np.float32(nearness) * ((movers > 0) == of_movers)
        return frame, replace(pixels, weight=weight)

    def _draw_depth(self, meshes: TriangleMeshPipeline, t: int) -> Float[np.ndarray, "H W"]:
        """z-depth of frame t's own mesh in frame t."""
        if t not in self._depths:
            self._depths[t] = meshes.fragments(t, meshes.cameras[t]).depth.numpy()
        self._depths.move_to_end(t)
        while len(self._depths) > _HELD:
            self._depths.popitem(last=False)
        return self._depths[t]
