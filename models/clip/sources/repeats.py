"""Frames that repeat the one before: copies, and the pattern of film shown as television."""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# Frames of a pattern, of which one repeats: 24 frames shown as 30 or 25, and other conversions.
_PERIODS = (5, 4, 3, 6, 25)
# Repeats that make a pattern, and their change over that of all other frames.
_LEAST_REPEATS = 3
_STILL = 0.25
# Change in grey levels below which all frames are at rest.
_LEAST_CHANGE = 0.5


def find_copies(frames: UInt8[np.ndarray, "F H W 3"]) -> list[int]:
    """Frames equal to the one before, unless most frames are."""
    same = [k for k in range(1, len(frames)) if np.array_equal(frames[k - 1], frames[k])]
    return same if len(same) <= len(frames) / 2 else []


def find_pattern(frames: UInt8[np.ndarray, "F H W 3"]) -> tuple[int, int] | None:
    """Period and first frame of a pattern in which each period shows a frame nearly twice; None
    without such a pattern."""
    changes = measure_changes(frames)
    for period in _PERIODS:
        for first in range(1, period + 1):
            repeats = changes[first::period]
            others = np.delete(changes, np.s_[first::period])[1:]
            if len(repeats) < _LEAST_REPEATS or np.median(others) < _LEAST_CHANGE:
                continue
            if repeats.max() < _STILL * others.min():
                return period, first
    return None


def measure_changes(frames: Sequence[UInt8[np.ndarray, "H W 3"]]) -> Float[np.ndarray, "F"]:
    """Mean difference of each frame from the one before, in grey levels; infinite for the first."""
    pairs = pairwise(frames)
    return np.array([np.inf, *(float(np.mean(cv2.absdiff(*pair))) for pair in pairs)])
