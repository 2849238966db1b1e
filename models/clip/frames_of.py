"""Frames of a clip: rows of a file that belong to them, stretches, even choices, smoothing over
time."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d, median_filter

from models.run import InputError

# Relative difference of two aspect ratios up to which one image is the other at another size:
# rounding both sides of a reduced image changes its ratio by less.
_ASPECT_TOLERANCE = 0.03
# Frames of the median filter that removes outliers before smoothing over time.
_MEDIAN_FRAMES = 5


@dataclass(frozen=True)
class ClipFrames:
    """The F frames taken from a clip: their numbers in the clip and their size.

    Files that belong to a clip (masks, depth maps, cameras, imported tracks) hold an entry for each
    frame taken, or for each frame of the clip. ``choose_rows`` tells which entries belong to the
    frames taken.
    """

    indices: Int[ndarray, "F"]
    """Number of each frame in the original clip, from 0, rising."""
    size: tuple[int, int]
    """Width and height in pixels of the frames worked on."""
    original_size: tuple[int, int] | None = None
    """Width and height in pixels of the clip; None if the frames were not reduced."""
    original_count: int | None = None
    """Number of frames of the whole clip; None if the clip was not read to its end."""

    @staticmethod
    def in_order(count: int, size: tuple[int, int]) -> "ClipFrames":
        """Frames 0 to count - 1, for files that were made from the frames taken."""
        return ClipFrames(np.arange(count), size)

    def __len__(self) -> int:
        return len(self.indices)

    def choose_rows(
        self, path: Path, count: int, entries: str, advice: str
    ) -> Int[np.ndarray, "F"]:
        """Index of the entry of each frame in a file of ``count`` entries.

        Args:
            entries: plural name of the entries, for the error message.
            advice: clause of the error message that says what to do.

        Raises:
            InputError: the number fits neither the frames taken nor the whole clip.
        """
        if count == len(self):
            return np.arange(count)
        whole = self.original_count
        if count == whole or (whole is None and count > self.indices[-1]):
            return np.asarray(self.indices)
        clip = f"the {whole} of the clip" if whole else "every frame of the clip"
        raise InputError(
            f"{path}: holds {count} {entries}, expected {len(self)} (one for each frame taken) or "
            f"{clip}; {advice}"
        )

    def check_aspect(self, path: Path, size: tuple[int, int], subject: str, advice: str) -> None:
        """Refuses images of another aspect ratio than the frames.

        Args:
            size: width and height of the images in pixels.
            subject: beginning of the error message, before the size.
            advice: clause of the error message that says what to do.

        Raises:
            InputError: the aspect ratios differ by more than rounding.
        """
        width, height = self.size
        if abs(size[0] / size[1] / (width / height) - 1) > _ASPECT_TOLERANCE:
            raise InputError(
                f"{path}: {subject} {size[0]}x{size[1]}, the frames are {width}x{height}; {advice}"
            )


def choose_evenly(count: int, most: int) -> Int[ndarray, "n"]:
    """At most ``most`` of the indices 0 to count - 1, evenly spaced, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def split_into_stretches(begin: int, end: int, longest: int) -> list[range]:
    """Frames [begin, end) in consecutive stretches of about equal length, at most about ``longest``
    frames each; a single empty stretch if ``end`` is not above ``begin``."""
    count = max(1, -(-(end - begin) // longest))
    edges = np.linspace(begin, end, count + 1).round().astype(int).tolist()
    return [range(a, b) for a, b in pairwise(edges)]


def smooth_over_time(values: Float[ndarray, "F"], sigma: float) -> Float[ndarray, "F"]:
    """Values of the frames without outliers (median filter) and smoothed (Gaussian filter).

    Gaps (NaN) are bridged linearly; the result is all NaN if no value is known.

    Args:
        sigma: standard deviation of the Gaussian filter in frames.
    """
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return np.full(len(values), np.nan)
    if len(known) < len(values):
        values = np.interp(np.arange(len(values)), known, values[known])
    values = median_filter(values, size=_MEDIAN_FRAMES, mode="nearest")
    return gaussian_filter1d(values, sigma, mode="nearest")
