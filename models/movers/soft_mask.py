"""A mover's mask with a soft outline, read between pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, from_numpy, uint8

# OpenCV's remap takes maps of at most 32767 rows.
_MAX_ROWS = 32000


@dataclass(frozen=True)
class SoftMask:
    """The part of an image that holds a mask, its outline blurred; whole images of a clip would
    fill the memory."""

    values: UInt8[Tensor, "h w"]
    """255 = inside."""
    left: int
    """Column of the image at which the values begin."""
    top: int
    """Row of the image at which the values begin."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: there are no values, or they are no 8-bit picture.
        """
        if self.values.ndim != 2 or self.values.dtype != uint8 or not self.values.numel():
            raise ValueError("a soft mask is no 8-bit picture")

    @staticmethod
    def of(mask: Bool[np.ndarray, "H W"], softness: float) -> "SoftMask":
        """The soft form of a mask.

        Args:
            mask: not empty.
            softness: standard deviation in pixels of the blur.
        """
        blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), softness)
        soft = (blurred * 255 + 0.5).astype(np.uint8)
        rows, columns = (np.flatnonzero(soft.any(axis)) for axis in (1, 0))
        # A border of zeros, but not where the image ends first: there the mask may continue.
        top = max(0, rows[0] - 1)
        left = max(0, columns[0] - 1)
        part = soft[top : rows[-1] + 2, left : columns[-1] + 2].copy()
        return SoftMask(from_numpy(part), int(left), int(top))

    def at(self, xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
        """Opacity at points of the image in pixels, bilinear: 0 (outside) to 1."""
        # OpenCV puts (0, 0) at the centre of the top-left pixel.
        x, y = (xy.astype(np.float32) - np.float32(0.5)).T
        x = x - np.float32(self.left)
        y = y - np.float32(self.top)
        out = np.zeros(len(xy), np.float32)
        for i in range(0, len(xy), _MAX_ROWS):
            maps = x[i : i + _MAX_ROWS, None].copy(), y[i : i + _MAX_ROWS, None].copy()
            image = cv2.remap(
                self.values.numpy(), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            out[i : i + _MAX_ROWS] = image[:, 0] / 255
        return out
