"""A saliency network as a cue: motion says which thing moves, the network how far it reaches.

The network sees crops around all that moves, at the frames' full size. Its answer counts where it
overlaps motion: a salient object that stands still is no mover, and a mover that the network does
not see keeps its mask.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from models.motion.evidence import Evidence
from models.run import SILENT, Progress

Saliency = Callable[[UInt8[np.ndarray, "H W 3"]], Float[np.ndarray, "H W"]]
"""An RGB picture -> probability that each pixel belongs to its salient object."""

# Margin around a part that moves, as a share of its size, and the smallest side of a crop, as a
# share of the picture's.
_MARGIN = 0.35
_LEAST_SIDE = 0.25
# Smallest and largest ratio of a crop's width to its height.
_NARROW = 0.75
_WIDE = 1.67
# Distance up to which parts share a crop, and the smallest part, as shares of the picture's width
# and area.
_NEAR = 0.02
_SMALLEST = 0.0005
# Overlap of saliency and motion at which saliency begins to count, and at which it counts in full.
_OVERLAP = (0.2, 0.5)
# Largest saliency of a crop, from which the crop's saliency is scaled to 1.
_FAINTEST = 0.2
# Saliency at 0 and 1 is uncertain by this much.
_DOUBT = 0.03
# Bound of the log-odds.
_CERTAIN = 8.0
# Log-odds for each unit of the logarithm of the network's odds.
_GAIN = 3.0


@dataclass(frozen=True)
class Appearance:
    """Frames at full size and the network that looks at them."""

    frames: UInt8[np.ndarray, "F H W 3"]
    """RGB."""
    saliency: Saliency
    """The network."""


def estimate_saliency_odds(
    appearance: Appearance,
    evidence: Evidence,
    probability: Float[np.ndarray, "F h w"],
    progress: Progress = SILENT,
) -> Float[np.ndarray, "F h w"]:
    """Log-odds that each pixel belongs to a salient object that moves; 0 where the network saw
    nothing that moves.

    Args:
        probability: of motion, at the evidence's size.
        progress: hears the frames of the stage "motion".
    """
    odds, known = np.zeros((2, *probability.shape), np.float32)
    for t in progress.over(range(len(probability)), "motion"):
        for box in _find_crops(probability[t] > 0.5):
            salient = _look(appearance, t, box, probability.shape[1:])
            own = _judge(salient, probability[t][box])
            stronger = np.abs(own) > np.abs(odds[t][box])
            odds[t][box][stronger] = own[stronger]
            known[t][box] = 1
    return evidence.average_along_flow(odds, known)


def _find_crops(mask: Bool[np.ndarray, "h w"]) -> Iterator[tuple[slice, slice]]:
    """Boxes of rows and columns around the parts of a mask; near parts share a box."""
    height, width = mask.shape
    reach = 2 * max(3, round(_NEAR * width)) + 1
    near = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8))
    labels, _ = ndimage.label(near)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if (mask[box] & (labels[box] == number)).sum() < _SMALLEST * mask.size:
            continue
        rows, columns = (part.stop - part.start for part in box)
        rows = max(rows * (1 + 2 * _MARGIN), _LEAST_SIDE * height)
        columns = max(columns * (1 + 2 * _MARGIN), _LEAST_SIDE * width, rows * _NARROW)
        rows = max(rows, columns / _WIDE)
        yield _centre(box[0], rows, height), _centre(box[1], columns, width)


def _centre(part: slice, length: float, limit: int) -> slice:
    """A slice of some length around the middle of another, within 0 and a limit."""
    middle = (part.start + part.stop) / 2
    return slice(max(0, int(middle - length / 2)), min(limit, int(middle + length / 2) + 1))


def _look(
    appearance: Appearance, t: int, box: tuple[slice, slice], size: tuple[int, int]
) -> Float[np.ndarray, "h2 w2"]:
    """Saliency in a box of frame t, at the box's size.

    Args:
        size: height and width of the picture that the box is of.
    """
    frame = appearance.frames[t]
    scale = frame.shape[0] / size[0], frame.shape[1] / size[1]
    large = [
        slice(round(part.start * k), round(part.stop * k))
        for part, k in zip(box, scale, strict=True)
    ]
    found = appearance.saliency(frame[large[0], large[1]])
    # A faint object is the salient one all the same; noise stays noise.
    found = np.clip(found / max(float(found.max()), _FAINTEST), 0, 1)
    shape = box[1].stop - box[1].start, box[0].stop - box[0].start
    return cv2.resize(found, shape, interpolation=cv2.INTER_AREA)


def _judge(
    salient: Float[np.ndarray, "h w"], moving: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Log-odds of a crop: salient objects count as much as motion fills them, and what is not
    salient counts as much as salient objects hold the motion.

    Args:
        salient: probability of a salient object.
        moving: probability of motion.
    """
    odds = _GAIN * np.log((salient + _DOUBT) / (1 + _DOUBT - salient))
    odds = np.clip(odds, -_CERTAIN, _CERTAIN)
    held = (salient * moving).sum() / max(float(moving.sum()), 1e-6)
    labels, count = ndimage.label(salient > 0.5)
    numbers = np.arange(1, count + 1)
    filled = np.concatenate([[0.0], ndimage.mean(moving, labels, numbers)]) if count else [0.0]
    return np.where(odds > 0, odds * _ramp(np.asarray(filled))[labels], odds * _ramp(held))


def _ramp(overlap: np.ndarray | float) -> np.ndarray:
    """Weight, 0 to 1, of saliency by its overlap with motion."""
    return np.clip((overlap - _OVERLAP[0]) / (_OVERLAP[1] - _OVERLAP[0]), 0, 1)
