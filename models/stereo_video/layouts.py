"""The pictures of both eyes as one picture."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from models.run import InputError

Picture = UInt8[np.ndarray, "H W 3"]

# Dubois, "A projection method to generate anaglyph stereo images", ICASSP 2001: red (left eye) and
# cyan (right eye) glasses; the published matrices for a common screen.
_LEFT_RED = np.array(
    [[0.437, 0.449, 0.164], [-0.062, -0.062, -0.024], [-0.048, -0.050, -0.017]], np.float32
)
_RIGHT_CYAN = np.array(
    [[-0.011, -0.032, -0.007], [0.377, 0.761, 0.009], [-0.026, -0.093, 1.234]], np.float32
)


@dataclass(frozen=True)
class Layout:
    """How two pictures make a frame of a video."""

    suffix: str
    """End of the file's name, by which players know the layout."""
    join: Callable[[Picture, Picture], Picture]
    """Left and right picture -> frame."""
    mode: int = 0
    """``stereo_mode`` of the st3d box: 0 not tagged, 1 top-bottom, 2 left-right."""
    is_half_sphere: bool = False
    """The pictures are equirectangular half spheres."""


def _side_by_side(left: Picture, right: Picture) -> Picture:
    return np.concatenate([left, right], 1)


def _half_side_by_side(left: Picture, right: Picture) -> Picture:
    """Both squeezed to half their width."""
    height, width = left.shape[:2]
    sizes = (width // 2, height), (width - width // 2, height)
    pair = zip((left, right), sizes, strict=True)
    return np.concatenate(
        [cv2.resize(own, size, interpolation=cv2.INTER_AREA) for own, size in pair], 1
    )


def _top_bottom(left: Picture, right: Picture) -> Picture:
    return np.concatenate([left, right], 0)


def _anaglyph(left: Picture, right: Picture) -> Picture:
    """One picture for red and cyan glasses."""
    mixed = cv2.transform(left.astype(np.float32), _LEFT_RED)
    mixed += cv2.transform(right.astype(np.float32), _RIGHT_CYAN)
    return (mixed + 0.5).clip(0, 255).astype(np.uint8)


LAYOUTS: dict[str, Layout] = {
    "sbs": Layout("FSBS", _side_by_side, mode=2),
    "half_sbs": Layout("HSBS", _half_side_by_side, mode=2),
    "top_bottom": Layout("TB", _top_bottom, mode=1),
    "anaglyph": Layout("anaglyph", _anaglyph),
    "vr180": Layout("LR_180_SBS", _side_by_side, mode=2, is_half_sphere=True),
}
"""Layouts by their names on the command line."""


def parse_layouts(text: str) -> tuple[str, ...]:
    """Names of layouts with commas between; none for an empty text.

    Raises:
        InputError: there is no such layout.
    """
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for name in names:
        if name not in LAYOUTS:
            raise InputError(f"--stereo {name}: give {', '.join(LAYOUTS)}, with commas between")
    return names
