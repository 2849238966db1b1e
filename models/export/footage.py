"""A clip's frames in the scene's own colours, with their cameras and masks: the data that an
exported mesh is fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.clip import Exposure, dilate
from models.render import Scene


@dataclass(frozen=True)
class Footage:
    """Frames whose exposure is known."""

    cameras: Cameras
    frames: UInt8[np.ndarray, "F H W 3"]
    masks: Bool[np.ndarray, "F H W"] | None
    """True on movers; None if nothing moves."""
    exposure: Exposure
    times: list[int]
    """The frames that may be used; held-out frames are not among them."""
    margin: int = 0
    """Pixels by which masks are grown: frame by frame, as grown masks of a long clip take much
    memory."""

    def colors(self, t: int) -> Float[np.ndarray, "H W 3"]:
        """Frame t without its exposure, about 0 to 1."""
        return (self.frames[t] / (255 * self.exposure.factor(t))).astype(np.float32)

    def still(self, t: int) -> Bool[np.ndarray, "H W"]:
        """True where frame t shows the static background."""
        if self.masks is None:
            return np.ones(self.frames.shape[1:3], bool)
        return ~dilate(self.masks[t][None], self.margin)[0]


def gather_footage(
    scene: Scene,
    frames: UInt8[np.ndarray, "F H W 3"],
    masks: Bool[np.ndarray, "F H W"] | None,
    margin: int = 0,
) -> Footage:
    """The frames that a scene was trained on: all frames that have a mesh.

    Args:
        masks: True on movers.
        margin: pixels by which masks are grown.
    """
    times = sorted(scene.background.meshes.faces)
    return Footage(scene.cameras, frames, masks, scene.exposure, times, margin)


def spread(frames: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the frames, in order, evenly spread."""
    count = min(count, len(frames))
    # the frames nearest to even steps
    return [frames[round(i)] for i in np.linspace(0, len(frames) - 1, count)]


def find_pixels(camera: Cameras, points: Float[np.ndarray, "S 3"]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that world points fall on; pixels may lie outside the
    image."""
    xy = camera.project(torch.from_numpy(points).double())[0][0].numpy()
    column, row = np.floor(xy).astype(np.int64).T
    return row, column


def read_pixels(
    image: Float[np.ndarray, "H W 3"], camera: Cameras, points: Float[np.ndarray, "S 3"]
) -> Float[np.ndarray, "S 3"]:
    """Colours of the pixels that world points fall on; the nearest pixel for points outside the
    image.

    Args:
        image: of the camera.
    """
    row, column = find_pixels(camera, points)
    return image[row.clip(0, len(image) - 1), column.clip(0, image.shape[1] - 1)]
