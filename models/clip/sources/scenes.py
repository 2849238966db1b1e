"""Scenes of a clip, in small pictures of its frames: cuts, and dissolves and wipes between scenes.

In a dissolve or a wipe every pixel goes straight from the first scene to the second, and the frames
between are mixtures of both. When a camera turns or something passes, pixels go to and fro, or the
pictures fit once they are shifted, or the frames between show something else.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy import ndimage

# Two frames belong to different scenes if their correlation is below the first, and by the second
# below the median of the clip.
_CUT_LIKENESS = 0.35
_CUT_DROP = 0.4
# A cut is sudden: its likeness is below the median of so many pairs to either side, by this.
_AROUND = 4
_SUDDEN_DROP = 0.3
# The frames at the ends of a dissolve are less alike, by this, than frames as far apart beside it.
_DROP = 0.25
# Way of all pixels through a dissolve, in units of the change; 1 is straight.
_STRAIGHT = 1.6
# Largest step of a dissolve, in units of the change; a cut is one step.
_LARGEST_STEP = 0.6
# Parts of a dissolve in which this way is measured: within a part the scenes move.
_PARTS = 4
# Share of the variance of each frame of a dissolve that a blend of its ends explains.
_BLENDED = 0.7
# Distance of the pixels of a wipe from the nearer of its ends, in units of the change.
_WIPED = 0.18
# Correlation above which shifted pictures show one scene, and the least part that must overlap.
_SHIFTED_LIKENESS = 0.65
_OVERLAP = 0.4
# Correlation above which a scene has come back: something has passed in front of the camera.
_SAME = 0.6
# Steps of the shortest dissolve: shorter ones are cuts.
_SHORTEST = 3
# Steps of a dissolve whose ends are found to the frame.
_EXACT = 4
# Loss of correlation at which one more frame belongs to a dissolve.
_PER_FRAME = 0.015

Pictures = Float[np.ndarray, "F 18 32"]


def split_scenes(pictures: Pictures, reach: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The frames of each scene, and those of dissolves and wipes, by index.

    Args:
        reach: frames that a dissolve may last.
    """
    mixed = np.zeros(len(pictures), bool)
    cuts = sorted({0, len(pictures), *find_cuts(pictures)})
    for begin, end in list(pairwise(cuts)):
        for first, last in find_dissolves(pictures[begin:end], reach):
            mixed[begin + first + 1 : begin + last] = True
            cuts.append(begin + last)
    cuts.sort()
    runs = [np.arange(a, b)[~mixed[a:b]] for a, b in pairwise(cuts)]
    return runs, np.flatnonzero(mixed)


def find_cuts(pictures: Pictures) -> list[int]:
    """The first frame after each cut."""
    flat = _normalise(pictures)
    likeness = (flat[1:] * flat[:-1]).sum(1)
    if not len(likeness):
        return []
    around = ndimage.median_filter(likeness, 2 * _AROUND + 1, mode="nearest")
    usual = np.minimum(np.median(likeness) - _CUT_DROP, around - _SUDDEN_DROP)
    unlike = np.flatnonzero((likeness < _CUT_LIKENESS) & (likeness < usual)) + 1
    # A fast camera shifts the picture within a frame.
    return [int(t) for t in unlike if not _fit_shifted(pictures[t - 1], pictures[t])]


def find_dissolves(pictures: Pictures, reach: int) -> list[tuple[int, int]]:
    """The last frame of the first scene and the first frame of the second, for each dissolve or
    wipe."""
    flat = _normalise(pictures)
    found: list[tuple[int, int]] = []
    # The steepest come first; others that overlap them are parts of the same.
    for _, first, last in sorted(_list_drops(flat, reach)):
        apart = all(last <= a or first >= b for a, b in found)
        own = pictures[first : last + 1]
        mixed = apart and _is_straight(own) and _is_mixed(own)
        if not mixed or _comes_back(flat, first, last, 2 * reach):
            continue
        if not _fit_shifted(pictures[first], pictures[last]):
            found.append((first, last))
    return [_widen(first, last, len(pictures)) for first, last in sorted(found)]


def _widen(first: int, last: int, count: int) -> tuple[int, int]:
    """The ends of a dissolve with a margin: the longer it is, the less its first frames show of the
    other scene."""
    margin = max(0, (last - first - _EXACT) // 3)
    return max(0, first - margin), min(count - 1, last + margin)


def _normalise(pictures: Pictures) -> Float[np.ndarray, "F N"]:
    """Pictures of mean 0 and length 1, whose products are correlations."""
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _list_drops(flat: Float[np.ndarray, "F N"], reach: int) -> Iterator[tuple[float, int, int]]:
    """Pairs of frames that are much less alike than others as far apart, with a score."""
    for steps in range(_SHORTEST, min(reach + 1, len(flat) - 1) + 1):
        likeness = (flat[steps:] * flat[:-steps]).sum(1)
        for first in np.flatnonzero(likeness < _CUT_LIKENESS):
            last = first + steps
            before = flat[max(0, first - steps)] @ flat[first]
            after = flat[last] @ flat[min(len(flat) - 1, last + steps)]
            if likeness[first] < min(before, after) - _DROP:
                yield float(likeness[first]) + _PER_FRAME * steps, int(first), int(last)


def _is_straight(pictures: Pictures) -> bool:
    """Whether the pixels go straight from the first picture to the last, in many steps."""
    parts = min(_PARTS, len(pictures) - 1)
    chosen = pictures[np.linspace(0, len(pictures) - 1, parts + 1).round().astype(int)]
    way = np.abs(np.diff(chosen, axis=0)).sum()
    change = np.abs(chosen[-1] - chosen[0]).sum()
    step = np.abs(np.diff(pictures, axis=0)).sum((1, 2)).max()
    return bool(way < _STRAIGHT * change and step < _LARGEST_STEP * change)


def _is_mixed(pictures: Pictures) -> bool:
    """Whether all pictures are blends of the first and the last, as in a dissolve, or show either in
    each pixel, as in a wipe. What a fast camera sees between two views is neither."""
    ends = pictures[[0, -1]]
    nearer = np.abs(pictures[None] - ends[:, None]).min(0).sum((1, 2))
    if nearer.max() < _WIPED * np.abs(ends[1] - ends[0]).sum():
        return True
    flat = pictures.reshape(len(pictures), -1)
    flat = (flat - flat.mean(1, keepdims=True)).T
    own = flat[:, [0, -1]]
    missed = flat - own @ np.linalg.lstsq(own, flat, rcond=None)[0]
    share = np.square(missed).sum(0) / np.maximum(np.square(flat).sum(0), 1e-6)
    return bool(share.max() < 1 - _BLENDED)


def _fit_shifted(a: Float[np.ndarray, "18 32"], b: Float[np.ndarray, "18 32"]) -> bool:
    """Whether two pictures show one scene, shifted as by a turn of the camera."""
    height, width = a.shape
    for dy in range(-height // 2, height // 2 + 1):
        for dx in range(-width * 2 // 3, width * 2 // 3 + 1):
            overlap = (height - abs(dy)) * (width - abs(dx))
            if overlap < _OVERLAP * height * width:
                continue
            own = a[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
            other = b[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
            pair = _normalise(np.stack([own, other]))
            if pair[0] @ pair[1] > _SHIFTED_LIKENESS:
                return True
    return False


def _comes_back(flat: Float[np.ndarray, "F N"], first: int, last: int, around: int) -> bool:
    """Whether the first scene is seen again soon after the frame ``last``."""
    before = flat[max(0, first - around) : first + 1]
    return bool((before @ flat[last : last + around + 1].T).max() > _SAME)
