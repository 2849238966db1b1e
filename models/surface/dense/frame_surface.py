"""Dense depth of a frame, and the mesh vertices that describe its outlines."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, Float

from models.surface.meshing import FINE, FramePoints
from models.surface.options import StereoOptions


@dataclass(frozen=True)
class Surface:
    """Dense depth of a frame, on a pixel grid of h x w that spans the frame."""

    inverse_depth: Float[np.ndarray, "h w"]
    """1 / z-depth in the frame's camera, in world units; out of doubt, the depth of the points'
    mesh."""
    doubt: Bool[np.ndarray, "h w"]
    """Pixels that stereo has measured: the points' mesh bends or fits the frames badly there, or
    other frames see the surface behind a mover."""
    options: StereoOptions = StereoOptions()

    def place_vertices(self, width: int, height: int) -> FramePoints:
        """Vertices of the surface in doubt, denser along outlines.

        Args:
            width: of the frame, in pixels.
            height: of the frame, in pixels.
        """
        rows, columns = np.mgrid[: self.doubt.shape[0], : self.doubt.shape[1]]
        spacing = self.options.edge_spacing
        fine = self._near_outlines & (rows % spacing == 0) & (columns % spacing == 0)
        spacing = self.options.inner_spacing
        on_grid = (rows % spacing == spacing // 2) & (columns % spacing == spacing // 2)
        coarse = on_grid & self.doubt & ~self._near_outlines
        rows, columns = np.nonzero(fine | coarse)
        # from pixels of the small image to pixels of the frame
        scale = np.array([width, height]) / self.doubt.shape[::-1]
        xy = (np.stack([columns, rows], 1) + 0.5) * scale
        depth = 1.0 / self.inverse_depth[rows, columns]
        return FramePoints(xy, depth, np.full(len(xy), FINE), width, height)

    def confirms(self, points: FramePoints) -> Bool[np.ndarray, "N"]:
        """Points that may stay vertices: out of doubt or of the image, or on the surface and off its
        outlines."""
        size = np.array(self.doubt.shape[::-1])
        pixel = np.floor(points.xy / [points.width, points.height] * size).astype(np.int64)
        inside = ((pixel >= 0) & (pixel < size)).all(1)
        column, row = np.clip(pixel, 0, size - 1).T
        apart = np.abs(points.depth * self.inverse_depth[row, column] - 1)
        on_surface = (apart < self.options.tolerance) & ~self._near_outlines[row, column]
        return ~inside | ~self.doubt[row, column] | on_surface

    @cached_property
    def _near_outlines(self) -> Bool[np.ndarray, "h w"]:
        """Pixels within ``edge_reach`` of a depth jump in the region in doubt."""
        # farthest and nearest in inverse depth among a pixel and its neighbours
        beside = np.ones((3, 3), np.uint8)
        farthest = cv2.dilate(self.inverse_depth, beside)
        nearest = cv2.erode(self.inverse_depth, beside)
        jump = (farthest > self.options.edge_ratio * nearest) & self.doubt
        side = 2 * self.options.edge_reach + 1
        return cv2.dilate(jump.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
