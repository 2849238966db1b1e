"""The static surface behind a frame's movers, from the dense depth of frames that see it."""

import math
from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Bool, Float

from models.run import njit

# Frames with a known depth of a hidden pixel after which no more are asked.
_ENOUGH = 3


def find_hidden_surface(
    hidden: Bool[np.ndarray, "h w"],
    others: Iterable[
        tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"], np.ndarray, np.ndarray]
    ],
) -> Float[np.ndarray, "h w"]:
    """Inverse depth of the static surface at hidden pixels, the median over the frames that see it;
    NaN at all other pixels.

    Args:
        hidden: pixels that movers cover.
        others: of other frames, the best first: inverse depth, pixels that movers cover, and A and
            T such that a pixel p at inverse depth r projects to A p + T r, homogeneous.
    """
    count = np.zeros(hidden.shape, np.int32)
    found = []
    for inverse, covered, A, T in others:
        if not (count[hidden] < _ENOUGH).any():
            break
        seen = carry_depth(inverse, ~covered, A, T)
        seen[~hidden | (count >= _ENOUGH)] = np.nan
        known = np.isfinite(seen)
        if known.any():
            count += known
            found.append(seen)
    out = np.full(hidden.shape, np.nan, np.float32)
    known = count > 0
    if known.any():
        out[known] = np.nanmedian(np.stack(found)[:, known], 0)
    return out


def carry_depth(
    inverse: Float[np.ndarray, "h w"],
    usable: Bool[np.ndarray, "h w"],
    A: Float[np.ndarray, "3 3"],
    T: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "h w"]:
    """Inverse depth of a frame's surface in another frame, the nearest at each pixel; NaN where the
    frame shows no surface.

    Args:
        inverse: 1 / z-depth of the frame.
        usable: pixels of the frame that count.
        A: see ``find_hidden_surface``.
        T: see ``find_hidden_surface``.
    """
    out = np.zeros(inverse.shape, np.float32)
    _splat(inverse, usable, A, T, out)
    # a surface that is drawn larger than it was seen leaves gaps of a pixel
    gaps = (out == 0) & (cv2.blur((out > 0).astype(np.float32), (3, 3)) > 0.5)
    out[gaps] = cv2.dilate(out, np.ones((3, 3), np.uint8))[gaps]
    return np.where(out > 0, out, np.float32(np.nan))


@njit(cache=True)
def _splat(inverse, usable, A, T, out):
    """Writes the largest inverse depth that falls on each pixel of the other frame."""
    height, width = inverse.shape
    for row in range(height):
        for column in range(width):
            r = inverse[row, column]
            if not (usable[row, column] and r > 0):
                continue
            px = np.float32(column + 0.5)
            py = np.float32(row + 0.5)
            w = A[2, 0] * px + A[2, 1] * py + A[2, 2] + T[2] * r
            if not w > 1e-6:
                continue
            x = math.floor((A[0, 0] * px + A[0, 1] * py + A[0, 2] + T[0] * r) / w)
            y = math.floor((A[1, 0] * px + A[1, 1] * py + A[1, 2] + T[1] * r) / w)
            if 0 <= x < width and 0 <= y < height:
                out[y, x] = max(out[y, x], r / w)
