"""Which values of mask images move: white, labels of objects, or alpha."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Int, UInt8, UInt16
from numpy import ndarray

WHITE = 65535
"""The largest value of a mask; 8-bit masks are widened to it."""
HALF = WHITE // 2
"""A value of black and white masks moves if it is larger."""
# White of masks that lossy coding changed a little.
_NEARLY_WHITE = 252 * 257
# Values up to which lossy coding changes black.
_NOISE = 16 * 257
# Most values of masks that hold labels. Soft and lossy masks hold more.
_MOST_LABELS = 64


def widen(image: UInt8[ndarray, "H W *C"] | UInt16[ndarray, "H W *C"]) -> UInt16[ndarray, "H W"]:
    """The largest channel of each pixel in 16 bits."""
    brightest = image.max(2) if image.ndim == 3 else image
    return brightest if image.dtype == np.uint16 else brightest.astype(np.uint16) * np.uint16(257)


@dataclass
class MaskValues:
    """The values of a channel over all masks of a clip."""

    counts: Int[ndarray, "65536"] = field(default_factory=lambda: np.zeros(WHITE + 1, np.int64))
    """Number of pixels with each value."""
    darkest_area: int = WHITE
    """Smallest value other than black, and than noise of lossy coding, that fills a square of 3
    pixels. Soft borders fill none."""

    is_lossy: bool = False
    """Whether lossy coding may have changed some values."""

    def add(self, image: UInt16[ndarray, "H W"], lossy: bool) -> None:
        """Counts the values of a mask."""
        self.is_lossy |= lossy
        self.counts += np.bincount(image.reshape(-1), minlength=WHITE + 1)
        square = np.ones((3, 3), np.uint8)
        flat = cv2.erode(image, square) == cv2.dilate(image, square)
        areas = image[flat & (image > (_NOISE if lossy else 0))]
        self.darkest_area = min(self.darkest_area, int(areas.min(initial=WHITE)))

    @property
    def levels(self) -> Int[ndarray, "n"]:
        """All values that occur, rising."""
        return np.flatnonzero(self.counts)

    def find_threshold(self) -> int:
        """The value above which a pixel moves.

        It is half of white for black and white masks, 0 for labels of objects, and half of the
        brightest value for soft masks without white.
        """
        brightest = int(self.levels[-1]) if len(self.levels) else 0
        has_white = brightest >= _NEARLY_WHITE
        if brightest and len(self.levels) <= _MOST_LABELS:
            holds_labels = not has_white or self.darkest_area <= HALF
            least = _NOISE if self.is_lossy and brightest > 2 * _NOISE else 0
            return least if holds_labels else HALF
        return HALF if has_white or not brightest else brightest // 2


def is_alpha_mask(color: MaskValues, alpha: MaskValues) -> bool:
    """Whether alpha holds the masks: it varies, and the colours are not black and white."""
    return len(alpha.levels) > 1 and color.levels.tolist() != [0, WHITE]
