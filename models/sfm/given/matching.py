"""Which camera of a file belongs to which frame: by file name, by the number in the name, or in
order where names hold no numbers."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from models.clip import ClipFrames
from models.run import InputError, Progress

# Share of the frames without a camera from which a file is refused.
_MANY = 0.5
# Names listed in a sentence.
_LISTED = 5


@dataclass(frozen=True)
class Images:
    """The images that cameras are matched to, by name."""

    taken: list[str]
    """Of the frames taken."""
    clip: list[str]
    """Of all frames of the clip, as far as they are known."""
    frames: ClipFrames
    """The frames taken."""

    @property
    def from_video(self) -> bool:
        """The names are bare frame numbers."""
        return self.taken == [str(i) for i in self.frames.indices]


def match_frames(
    path: Path, known: list[str], images: Images, progress: Progress
) -> Int[np.ndarray, "F"]:
    """Index of the camera of each frame; -1 for a frame without one.

    Args:
        known: names of the cameras' images.
        progress: hears of matches that are not plain, and of frames without a camera.

    Raises:
        InputError: names or numbers do not fit, or half of the frames have no camera.
    """
    by_stem = _index(path, known, [Path(name).stem for name in known])
    rows = [by_stem.get(Path(name).stem, -1) for name in images.taken]
    # A video has no file names, and the image 1 may be its first frame.
    if images.from_video or max(rows) < 0:
        rows = _match_numbers(path, known, images, progress)
    lacking = [name for name, row in zip(images.taken, rows, strict=True) if row < 0]
    if len(lacking) >= _MANY * len(rows):
        raise InputError(
            f"{path}: has no camera for {len(lacking)} of the {len(rows)} frames, first {lacking[0]}; "
            "give one camera for each frame, or leave those frames out"
        )
    if lacking:
        progress.say(f"{path}: has no camera for {list_names(lacking)}")
    return np.array(rows)


def list_names(names: list[str]) -> str:
    """``frame a``, or ``frames a, b and 3 more``."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"frame{'s' * (len(names) > 1)} {', '.join(names[:_LISTED])}{more}"


def _index(path: Path, names: list[str], keys: list) -> dict:
    """Key -> index of its name.

    Raises:
        InputError: two names have the same key.
    """
    index = {}
    for i, key in enumerate(keys):
        if key in index:
            raise InputError(
                f"{path}: holds two cameras for one frame ({names[index[key]]} and {names[i]}); "
                "give one camera for each frame"
            )
        index[key] = i
    return index


def read_numbers(names: list[str]) -> list[int] | None:
    """The number in each name that tells the names apart, the last if several do; None if none
    does."""
    groups = [re.findall(r"\d+", Path(name).stem) for name in names]
    for place in range(-1, -1 - min(map(len, groups)), -1):
        numbers = [int(group[place]) for group in groups]
        if len(set(numbers)) == len(names):
            return numbers
    return None


def _match_numbers(path: Path, known: list[str], images: Images, progress: Progress) -> list[int]:
    """Index of the camera of each frame by the number in its name, -1 for none; in order where
    names hold no numbers."""
    frames = images.frames
    entries = f"cameras, none under a frame's name ({Path(known[0]).name}, but {images.taken[0]})"
    advice = "give one camera for each frame"
    numbers = read_numbers(known)
    clip = read_numbers(images.clip)
    if numbers is None or clip is None:
        return frames.choose_rows(path, len(known), entries, advice).tolist()
    of_name = dict(zip(images.clip, clip, strict=True))
    taken = [of_name[name] for name in images.taken]
    fit = _choose_shift(path, numbers, taken, clip, images)
    if fit.lacking and _are_consecutive(numbers) and len(numbers) == len(taken):
        progress.say(
            f"{path}: holds {len(known)} cameras, one for each frame taken: matched in order "
            f"({Path(known[0]).name} is frame {images.taken[0]})"
        )
        return np.argsort(numbers).tolist()
    if fit.strange or fit.lacking >= _MANY * len(taken):
        frames.choose_rows(path, len(known), entries, advice)
        raise InputError(
            f"{path}: the numbers of its images ({min(numbers)} to {max(numbers)}) are not those of the "
            f"frames ({min(taken)} to {max(taken)}); name its images as the frames"
        )
    row = {number: i for i, number in enumerate(numbers)}
    if fit.shift:
        name = Path(known[row.get(taken[0] + fit.shift, 0)]).name
        progress.say(
            f"{path}: its numbers are those of the frames {fit.shift:+d} (first camera: {name})"
        )
    return [row.get(number + fit.shift, -1) for number in taken]


def _are_consecutive(numbers: list[int]) -> bool:
    """True for 0, 1, 2, ... and 1, 2, 3, ... in any order."""
    return min(numbers) in (0, 1) and max(numbers) - min(numbers) == len(numbers) - 1


@dataclass(frozen=True, order=True)
class _Fit:
    """How well numbers of cameras fit the numbers of frames; less is better."""

    misfit: int
    """Frames without a camera and cameras without a frame of the clip."""
    uneven: int
    """Numbers of the clip or of the file that the other lacks."""
    distance: int
    shift: int
    """Number of a camera less the number of its frame."""
    lacking: int
    """Frames taken without a camera."""
    strange: int
    """Cameras of no frame of the clip."""


def _choose_shift(
    path: Path, numbers: list[int], taken: list[int], clip: list[int], images: Images
) -> _Fit:
    """The best of the usual ways to number: as the frames are, from 1 (a video's frames count from
    0), or from any number where the file then fits whole.

    Raises:
        InputError: numbers from 0 and numbers from 1 fit a video equally well.
    """
    fits = [_try_shift(numbers, taken, clip, 0, images)]
    first = min(numbers) - min(clip)
    for shift in {1, first} - {0}:
        fit = _try_shift(numbers, taken, clip, shift, images)
        whole = {number - shift for number in numbers} == set(clip)
        if whole or (shift == 1 and images.from_video):
            fits.append(fit)
    best, *others = sorted(fits)
    for other in others:
        if (other.misfit, other.uneven) == (best.misfit, best.uneven) and best.uneven:
            raise InputError(
                f"{path}: its images are numbered {min(numbers)} to {max(numbers)}, and it cannot be told "
                "whether the first frame of the video is 0 or 1; give a camera for each frame"
            )
    return best


def _try_shift(
    numbers: list[int], taken: list[int], clip: list[int], shift: int, images: Images
) -> _Fit:
    known = set(numbers)
    frames = {number + shift for number in clip}
    beyond = known - frames
    if images.frames.original_count is None:
        # The clip goes on after the frames that were read.
        beyond = {number for number in beyond if number < shift}
    lacking = sum(number + shift not in known for number in taken)
    strange = len(beyond)
    uneven = strange + len(frames - known)
    return _Fit(lacking + strange, uneven, abs(shift), shift, lacking, strange)
