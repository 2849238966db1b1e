"""The track file of a long clip: an index, and a folder of parts that hold a stretch of frames each.

A part has the format of a track file, of the tracks of its frames alone, so that all parts together
grow with the length of the clip. One file would grow with its square. The index is the track file
without the values of tracks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from models.run import InputError, allocate
from models.tracks.checks import MAX_VALUES
from models.tracks.content import TENSORS, Tracks
from models.tracks.points import find_lifetimes

WHOLE_FRAMES = 200
"""Frames up to which a clip has a single track file. More frames make larger single files."""
PART_FRAMES = 90
"""Frames of a part. More frames make fewer and larger files."""
NUMBERS = "track"
"""Key of a part that numbers its tracks in the whole clip."""
PARTS = "parts"
"""Key of the index: SHA-256 of each part by its file name, in the order of the frames."""
STILL = "still"
"""Key of the index: whether the points stand still."""

_OF_TRACKS = [own.name for own in TENSORS if "N" in own.metadata["shape"]]
# Names that every index has.
_INDEX = {own.name for own in fields(Tracks) if own.default is not None} - set(_OF_TRACKS)


@dataclass(frozen=True)
class Part:
    """The tracks of a stretch of frames."""

    tracks: Tracks
    numbers: Int[Tensor, "n"]
    """Number of each track in the whole clip."""


def name_folder(path: Path) -> Path:
    """The folder of the parts of a track file, beside its index."""
    return path.with_suffix("") if path.suffix else path.with_name(f"{path.name}_parts")


def split_tracks(tracks: Tracks) -> Iterator[Part]:
    """The parts of a clip, in the order of its frames. A track is in each part between the first and
    the last frame in which it is visible; tracks that never are, are in the first part."""
    first, last = find_lifetimes(tracks.visible.numpy())
    first[last < 0] = 0
    last[last < 0] = 0
    for begin in range(0, len(tracks), PART_FRAMES):
        frames = slice(begin, min(begin + PART_FRAMES, len(tracks)))
        numbers = torch.from_numpy(np.flatnonzero((first < frames.stop) & (last >= begin)))
        if not len(numbers) and tracks.num_tracks:
            numbers = torch.zeros(1, dtype=torch.int64)  # the format asks for a track
        yield Part(_cut(tracks, frames, numbers), numbers)


def _cut(tracks: Tracks, frames: slice, numbers: Int[Tensor, "n"]) -> Tracks:
    """Some of the tracks in some of the frames."""
    values = {}
    for own in TENSORS:
        value = getattr(tracks, own.name)
        if value is None:
            continue
        shape = own.metadata["shape"]
        if "F" in shape:
            value = value[frames]
        if "N" in shape:
            value = value.index_select(shape.index("N"), numbers)
        values[own.name] = value
    return replace(tracks, **values)


def describe_index(data: Mapping[str, object], is_still: bool, parts: Mapping[str, str]) -> dict:
    """The content of the index, without the version of the format.

    Args:
        data: the fields of the track file of the whole clip.
        is_still: whether ``xyz`` is the same in all frames.
        parts: SHA-256 of each part by its file name.
    """
    kept = {name: value for name, value in data.items() if name not in _OF_TRACKS}
    return {**kept, STILL: is_still, PARTS: dict(parts)}


def check_index(index: dict, path: Path) -> None:
    """Refuses an index that names no parts, or files outside its folder.

    Raises:
        InputError: it does.
    """
    parts = index[PARTS]
    is_named = (
        isinstance(parts, dict)
        and bool(parts)
        and all(isinstance(name, str) and Path(name).name == name for name in parts)
    )
    is_whole = set(index) >= _INDEX and isinstance(index["frame_indices"], Tensor)
    if not is_named or not is_whole:
        raise InputError(f"{path}: is a damaged index of parts; make the track file again")


def join_parts(index: dict, parts: list[Callable[[], Part]], path: Path) -> dict:
    """The fields of the track file of the whole clip, unchecked. Values are zero where no part has
    them; large ones lie in temporary files, see ``allocate``.

    Args:
        parts: each opens a part anew, so that memory holds the values of one alone.

    Raises:
        InputError: the parts do not fit each other or the index.
    """
    layouts = [_Layout.of(open_part()) for open_part in parts]
    frames = sum(own.frames for own in layouts)
    names = layouts[0].names
    if frames != len(index["frame_indices"]) or any(own.names != names for own in layouts):
        raise InputError(
            f"{path}: its parts hold other frames or fields than the index; make the file again"
        )
    is_still = index.get(STILL) is True
    sides = {"F": frames, "N": _count_tracks(layouts, path)}
    if 3 * sides["F"] * sides["N"] > MAX_VALUES:
        raise InputError(
            f"{path}: holds {sides['N']} tracks of {frames} frames, more than can be worked on; "
            "track fewer frames (--max_frames, --stride) or fewer points (--spacing)"
        )
    columns = {
        own.name: _Column.empty(own, sides, is_still) for own in TENSORS if own.name in names
    }
    begin = 0
    for layout, open_part in zip(layouts, parts, strict=True):
        part = open_part()
        for name, column in columns.items():
            column.place(getattr(part.tracks, name).numpy(), begin, layout.numbers)
        begin += layout.frames
    own = {name: value for name, value in index.items() if name not in (PARTS, STILL)}
    return own | {name: column.expand(frames) for name, column in columns.items()}


@dataclass(frozen=True)
class _Layout:
    """Size, tracks and fields of a part."""

    frames: int
    numbers: Int[np.ndarray, "n"]
    """Number of each track in the whole clip."""
    names: tuple[str, ...]
    """Fields of tracks that have a value."""

    @staticmethod
    def of(part: Part) -> "_Layout":
        """The layout of a part, without its memory."""
        names = tuple(name for name in _OF_TRACKS if getattr(part.tracks, name) is not None)
        return _Layout(len(part.tracks), part.numbers.numpy().copy(), names)


def _count_tracks(layouts: list[_Layout], path: Path) -> int:
    """N: the parts number their tracks from 0 to N - 1, each track once in a part."""
    every = np.unique(np.concatenate([own.numbers for own in layouts]))
    is_once = all(len(np.unique(own.numbers)) == len(own.numbers) for own in layouts)
    if not is_once or not np.array_equal(every, np.arange(len(every))):
        raise InputError(f"{path}: its parts number their tracks wrongly; make the file again")
    return len(every)


@dataclass(frozen=True)
class _Column:
    """A field of the tracks of the whole clip."""

    values: Shaped[np.ndarray, "..."]
    """(F, N, ...), (1, N, ...) for points that stand still, or (N, ...)."""
    by_frame: bool
    """Whether its first side is F or 1."""
    is_still: bool
    """Whether a frame stands for all."""

    @staticmethod
    def empty(own: Field, sides: Mapping[str, int], is_still: bool) -> "_Column":
        """A field of zeros.

        Args:
            sides: F and N.
            is_still: whether the points stand still.
        """
        names = own.metadata["shape"]
        is_still = is_still and own.metadata["expands"]
        shape = [sides[side] if side in sides else int(side) for side in names]
        if is_still:
            shape[0] = 1
        kind = torch.empty(0, dtype=own.metadata["dtype"]).numpy().dtype
        return _Column(allocate(shape, kind), "F" in names, is_still)

    def place(
        self, values: Shaped[np.ndarray, "..."], begin: int, numbers: Int[np.ndarray, "n"]
    ) -> None:
        """Writes the values of a part.

        Args:
            begin: the part's first frame.
            numbers: of its tracks.
        """
        if not self.by_frame:
            self.values[numbers] = values
        elif self.is_still:
            self.values[0, numbers] = values[0]
        else:
            for t, own in enumerate(values):
                self.values[begin + t, numbers] = own

    def expand(self, frames: int) -> Tensor:
        """The field of all frames."""
        tensor = torch.from_numpy(self.values)
        return tensor.expand(frames, *tensor.shape[1:]) if self.is_still else tensor
