"""Parts of images: the nonzero part, the box and the surroundings of a mask, and values filled in
from around."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float

# Smallest reach in pixels.
_MIN_REACH = 3
# Pixels around a mask's box, at least.
_MIN_MARGIN = 8
# Images whose smaller side is below this many pixels are filled with a mean.
_MIN_SIDE = 4
# Share of known pixels from which a pixel of the next coarser image counts as known.
_MIN_KNOWN = 0.05


@dataclass(frozen=True)
class Patch:
    """The nonzero part of an image."""

    values: Float[np.ndarray, "h2 w2"]
    """The part, empty for an image of zeros."""
    top: int
    """Row of the image at which the part begins."""
    left: int
    """Column of the image at which the part begins."""
    shape: tuple[int, int]
    """Height and width of the image."""

    @staticmethod
    def of(image: Float[np.ndarray, "h w"]) -> "Patch":
        """A copy of the nonzero part of an image."""
        rows, columns = (np.flatnonzero(image.any(axis)) for axis in (1, 0))
        if not len(rows):
            return Patch(image[:0, :0], 0, 0, image.shape)
        own = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Patch(own.copy(), rows[0], columns[0], image.shape)

    def to_image(self) -> Float[np.ndarray, "h w"]:
        """The whole image."""
        height, width = self.values.shape
        image = np.zeros(self.shape, self.values.dtype)
        image[self.top : self.top + height, self.left : self.left + width] = self.values
        return image


def find_box(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice] | None:
    """Rows and columns that a mask spans, and half as much around it for a comparison with static
    pixels; None for an empty mask."""
    if not mask.any():
        return None
    spans = []
    for axis in (1, 0):
        there = np.flatnonzero(mask.any(axis))
        margin = max(_MIN_MARGIN, (there[-1] - there[0]) // 4)
        spans.append(slice(max(0, there[0] - margin), there[-1] + margin + 1))
    return spans[0], spans[1]


def grow(masks: Bool[np.ndarray, "F h w"], reach: float) -> Bool[np.ndarray, "F h w"]:
    """Pixels within reach (a share of the longer side) of a mask."""
    radius = max(_MIN_REACH, round(reach * max(masks.shape[1:])))
    return np.stack([_measure_distance(mask) <= radius for mask in masks])


def _measure_distance(mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Pixels to the nearest pixel of a mask; far for an empty mask."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def fill_unknown(
    values: Float[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Unknown values from the known values around them, coarse to fine (normalised convolution in a
    pyramid)."""
    if min(values.shape) < _MIN_SIDE or known.all():
        mean = values[known].mean() if known.any() else 1.0
        return np.where(known, values, mean).astype(np.float32)
    weight = known.astype(np.float32)
    size = -(-values.shape[1] // 2), -(-values.shape[0] // 2)
    small_weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(values.astype(np.float32) * weight, size, interpolation=cv2.INTER_AREA)
    small = fill_unknown(small / np.maximum(small_weight, 1e-6), small_weight > _MIN_KNOWN)
    coarse = cv2.resize(small, values.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(known, values, coarse)
