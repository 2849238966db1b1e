"""A mover's mask with a soft outline, to be asked between pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, from_numpy, uint8

EDGE_SOFTNESS = 0.7
"""Standard deviation in pixels of the outline's blur."""
_ROWS = 32000
"""OpenCV's remap takes maps of at most 32767 rows."""


@dataclass(frozen=True)
class SoftMask:
    """The part of an image in which a mask is, its outline blurred; a clip's whole masks would fill
    memory."""

    values: UInt8[Tensor, "h w"]
    """255 = inside."""
    left: int
    top: int
    """Where in the image they begin."""

    def __post_init__(self) -> None:
        """Raises: ValueError: there are no values, or they are no 8-bit picture."""
        if self.values.ndim != 2 or self.values.dtype != uint8 or not self.values.numel():
            raise ValueError("a soft mask is no 8-bit picture")

    @staticmethod
    def of(mask: Bool[np.ndarray, "H W"]) -> "SoftMask":
        """Of a mask that is not empty."""
        soft = (
            cv2.GaussianBlur(mask.astype(np.float32), (0, 0), EDGE_SOFTNESS) * 255 + 0.5
        ).astype(np.uint8)
        rows, columns = (np.flatnonzero(soft.any(axis)) for axis in (1, 0))
        # With a border of zeros, but where the image ends first: there the mask may go on.
        top = max(0, rows[0] - 1)
        left = max(0, columns[0] - 1)
        return SoftMask(
            from_numpy(soft[top : rows[-1] + 2, left : columns[-1] + 2].copy()), int(left), int(top)
        )

    def at(self, xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
        """0 (outside) to 1 at points of the image, in pixels; bilinear."""
        x, y = (
            xy.astype(np.float32) - np.float32(0.5)
        ).T  # OpenCV puts (0, 0) at the centre of the top-left pixel
        x, y = x - np.float32(self.left), y - np.float32(self.top)
        out = np.zeros(len(xy), np.float32)
        for i in range(0, len(xy), _ROWS):
            maps = x[i : i + _ROWS, None].copy(), y[i : i + _ROWS, None].copy()
            image = cv2.remap(
                self.values.numpy(), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            out[i : i + _ROWS] = image[:, 0] / 255
        return out
