"""Cameras from a mapper, and frames that were mapped together."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from models.cameras import Cameras
from models.sfm.triangulation import Points
from models.tracks import PointTracks


@dataclass(frozen=True)
class Mapped:
    """Cameras from a mapper, in the scene's own scale."""

    cameras: Cameras
    registered: Bool[np.ndarray, "F"]
    """False where a camera was interpolated from its neighbours in time."""
    method: str
    """"incremental", "global", "grown" or "windows"."""
    doubtful: bool = False
    """Near and far can hardly be told apart."""


@dataclass(frozen=True)
class Window:
    """Frames that were mapped together."""

    frames: Int[np.ndarray, "f"]
    """Their numbers, successive."""
    tracks: PointTracks
    """All tracks by which windows are joined, in these frames."""
    cameras: Cameras
    """In the window's own axes and units."""
    points: Points
    """Of all tracks, in the window's own axes and units."""
    scale: float = 1.0
    """World units to a unit of the window."""

    def measure_depth(self, frame: int) -> Float[np.ndarray, "N"]:
        """z-depth of the points that agree in a frame, in the window's units; NaN for others.

        Args:
            frame: number among the window's frames.
        """
        depth = self.cameras[frame].to_camera(torch.from_numpy(self.points.xyz))[0, :, 2].numpy()
        return np.where(self.points.agrees[frame], depth, np.nan)
