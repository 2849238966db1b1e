"""A clip's frames in the scene's own colours, with their cameras and masks: what an exported mesh
is fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.clip import Exposure, dilate


@dataclass(frozen=True)
class Footage:
    """Frames whose exposure is known."""

    cameras: Cameras
    frames: UInt8[np.ndarray, "F H W 3"]
    masks: Bool[np.ndarray, "F H W"] | None
    """Where something moves, or may."""
    exposure: Exposure
    times: list[int]
    """The frames that may be looked at; held-out ones are not among them."""
    margin: int = 0
    """Pixels by which masks are grown: frame by frame, as those of a long clip take much memory."""

    def colors(self, t: int) -> Float[np.ndarray, "H W 3"]:
        """Frame t without its exposure, about 0 to 1."""
        return (self.frames[t] / (255 * self.exposure.factor(t))).astype(np.float32)

    def still(self, t: int) -> Bool[np.ndarray, "H W"]:
        """Where frame t shows what stands still."""
        if self.masks is None:
            return np.ones(self.frames.shape[1:3], bool)
        return ~dilate(self.masks[t][None], self.margin)[0]


def spread(frames: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the frames, in order, evenly spread."""
    count = min(count, len(frames))
    return [frames[round(i)] for i in np.linspace(0, len(frames) - 1, count)]
