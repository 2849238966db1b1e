"""Frames that would mislead: blank ones, flashes, other scenes; found by small pictures of each,
and named."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SIZE = (32, 18)
"""Width and height of the small pictures."""
BLANK = 2.0
"""Contrast (standard deviation in grey levels) under which a frame shows nothing."""
FLASH = 40.0
"""Grey levels by which a frame's mean differs from its neighbours' in a flash."""
REACH = 3
"""Neighbours on either side by which a flash is judged; it lasts fewer frames."""
CUT_LIKENESS = 0.35
CUT_DROP = 0.4
"""Two frames less alike than the first, and by the second less than is usual in the clip, are of
two scenes."""


def small_picture(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "18 32"]:
    """A frame's grey values, averaged."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)


def misleading(
    pictures: Float[np.ndarray, "F 18 32"], damaged: set[int] = frozenset()
) -> dict[int, str]:
    """What is wrong with each frame that should be left out, by its number; nothing where fewer
    than 2 would be left.

    Args:
        damaged: frames that the decoder could not read whole.
    """
    wrong = {t: "damaged" for t in sorted(damaged) if t < len(pictures)}
    contrast = pictures.std((1, 2))
    mean = pictures.mean((1, 2))
    for t in range(len(pictures)):
        if t not in wrong and contrast[t] < BLANK:
            wrong[t] = "blank"
    for t in _flashes(mean, [t for t in range(len(pictures)) if t not in wrong]):
        wrong[t] = "a flash"
    sound = [t for t in range(len(pictures)) if t not in wrong]
    if len(sound) < 2:
        return {}
    scenes = _scenes(pictures, sound)
    longest = max(scenes, key=len)
    wrong |= {t: "another scene" for scene in scenes if scene is not longest for t in scene}
    return wrong if len(longest) >= 2 else {}


def _flashes(mean: Float[np.ndarray, "F"], sound: list[int]) -> list[int]:
    """Frames much brighter or darker than the middle of those around them, on both sides."""
    found = []
    for k, t in enumerate(sound):
        before = sound[max(0, k - REACH) : k]
        after = sound[k + 1 : k + 1 + REACH]
        if len(before) < 2 or len(after) < 2:
            continue
        step = [mean[t] - np.median(mean[side]) for side in (before, after)]
        if min(abs(step[0]), abs(step[1])) > FLASH and step[0] * step[1] > 0:
            found.append(t)
    return found


def _scenes(pictures: np.ndarray, sound: list[int]) -> list[list[int]]:
    """Runs of frames between cuts."""
    flat = pictures[sound].reshape(len(sound), -1)
    flat = flat - flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    likeness = (flat[1:] * flat[:-1]).sum(1)
    cuts = (
        np.flatnonzero((likeness < CUT_LIKENESS) & (likeness < np.median(likeness) - CUT_DROP)) + 1
    )
    return [sound[a:b] for a, b in zip([0, *cuts], [*cuts, len(sound)], strict=True)]


def named(wrong: dict[int, str]) -> str:
    """The frames in words, such as "3, 7 to 9 (blank); 12 (damaged)"."""
    parts = []
    for reason in dict.fromkeys(wrong.values()):
        numbers = sorted(t for t, why in wrong.items() if why == reason)
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
        texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
        parts.append(f"{', '.join(texts)} ({reason})")
    return "; ".join(parts)
