"""The frames of a clip, read from a video file or a folder of images."""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt16
from numpy import ndarray

from models.clip.decoding import Pixels, decode, find_ffmpeg, inspect_file, open_stream, read_log
from models.clip.frame_checks import (
    SIZE,
    Integrity,
    describe_frames,
    find_misleading,
    reduce_frame,
)
from models.clip.frame_store import FrameStore
from models.clip.frames_of import ClipFrames
from models.clip.images import (
    MAX_VALUE,
    decode_image,
    describe_alpha,
    describe_depth,
    describe_pages,
    find_largest,
    reduce_depth,
)
from models.clip.lens import Lens
from models.clip.sources.clip_size import ClipSize
from models.clip.sources.listing import list_images
from models.clip.sources.repeats import find_copies, find_pattern
from models.clip.sources.streams import DEFAULT_FPS, read_frame_rate
from models.run import InputError, is_file

# Share of the memory of a run that frames may take before they are kept in a file.
_FRAMES_SHARE = 0.25
# Most frames that a dissolve may last, at high frame rates.
_MOST_REACH = 60
# Shortest longer side in pixels to which frames may be reduced.
_MIN_SIDE = 16


@dataclass(frozen=True)
class Video:
    """The frames taken from a clip, all of the same size, in memory or in a file that the system
    pages in."""

    frames: UInt8[ndarray, "F H W 3"]
    """RGB, upright, reduced to ``max_size``."""
    fps: float
    """Frames per second of ``frames``: the rate of the clip divided by the stride."""
    path: Path
    """The video file or image folder."""
    frame_indices: Int[ndarray, "F"]
    """Number of each frame in the original clip, from 0; in a folder, its place in name order."""
    original_size: tuple[int, int]
    """Width and height in pixels before reduction."""
    original_frames: int | None = None
    """Number of frames of the whole clip; None if the rest was not decoded."""
    notes: tuple[str, ...] = ()
    """Sentences for the user: frames left out, and why."""
    masks_beside: bool = False
    """Whether a mask of each frame lies beside the frames in their folder."""
    lens: Lens | None = None
    """The lens that bent the frames, which are straightened; None for frames as they are."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def width(self) -> int:
        """Width of ``frames`` in pixels."""
        return self.frames.shape[2]

    @property
    def height(self) -> int:
        """Height of ``frames`` in pixels."""
        return self.frames.shape[1]

    def describe(self) -> list[str]:
        """Sentences that name the clip, its size and rate, a reduction, and frames left out."""
        width, height = self.original_size
        reduced = f" (reduced from {width}x{height})"
        if (width, height) == (self.width, self.height):
            reduced = ""
        size = f"{len(self)} frames {self.width}x{self.height}{reduced}"
        first = f"{self.path}: {size}, {self.fps:.2f} per second"
        return [first, *(f"{self.path}: {note}" for note in self.notes)]

    @property
    def size(self) -> ClipSize:
        """Number and size of ``frames``."""
        return ClipSize(len(self), self.width, self.height)

    @property
    def clip_frames(self) -> ClipFrames:
        """Which frames of the clip these are, and their size."""
        size = self.width, self.height
        return ClipFrames(self.frame_indices, size, self.original_size, self.original_frames)


def name_clip(path: Path) -> str:
    """Name of a clip: the stem of its file; for a folder called frames, images or rgb the name of
    the folder above."""
    path = path.resolve()
    if path.is_dir() and path.name.lower() in ("frames", "images", "rgb"):
        return path.parent.name
    return path.name if path.is_dir() else path.stem


def read_video(
    path: str | Path,
    max_frames: int | None = None,
    stride: int = 1,
    max_size: int = 960,
    keep: Sequence[int] | None = None,
    memory: int | None = None,
) -> Video:
    """Reads every ``stride``-th frame of a video file or a folder of images, at most ``max_frames``
    of them.

    Frames are reduced to a longer side of at most ``max_size`` pixels. Rotation and pixel-aspect
    tags are applied. Misleading frames (damaged, blank, of another scene; see ``frame_checks``) are
    left out and named.

    Args:
        keep: numbers of the frames to be kept; all other frames are left out, and no frame is
            checked.
        memory: bytes that a run may take; frames that need a large share of the memory are kept in
            a temporary file.

    Raises:
        InputError: the path is missing, no video, corrupt, holds fewer than 2 frames or images of
            unlike sizes.
    """
    path = Path(path)
    _check_settings(max_frames, stride, max_size)
    check_exists(path)
    find_ffmpeg()  # a run on images writes videos in the end
    read = _read_folder if path.is_dir() else _read_file
    share = None if memory is None else int(_FRAMES_SHARE * memory)
    video, state = read(path, max_frames, stride, max_size, share)
    if len(video) < 2:
        raise InputError(
            f"{path}: gave one frame at stride {stride}, needs at least 2; "
            "give a longer clip, a smaller stride or a larger max_frames"
        )
    if keep is not None:
        return _select_frames(video, np.isin(video.frame_indices, keep), (), share)
    return _leave_out_misleading(video, state, share)


def _leave_out_misleading(video: Video, state: Integrity, share: int | None) -> Video:
    """The video without misleading frames, with notes of them and of repeated frames.

    Args:
        state: damage found in the file.
        share: bytes of frames to hold in memory; all of them if None.
    """
    pictures = None
    if video.width >= SIZE[0] and video.height >= SIZE[1]:
        pictures = np.stack([reduce_frame(frame) for frame in video.frames])
    places = {int(index): place for place, index in enumerate(video.frame_indices)}
    suspects = [
        {places[t] for t in kind if t in places} for kind in (state.damaged, state.doubtful)
    ]
    wrong = (
        find_misleading(pictures, *suspects, _count_reach(video.fps))
        if pictures is not None
        else {}
    )
    # Frames lost behind the last frame taken belong to the clip only if all of it was read.
    end = video.frame_indices[-1]
    lost = [t for t in sorted(state.lost) if video.original_frames or t < end]
    numbers = dict.fromkeys(lost, "damaged")
    numbers |= {int(video.frame_indices[place]): reason for place, reason in wrong.items()}
    notes = list(video.notes)
    notes += [f"frames left out: {describe_frames(numbers)}"] if numbers else []
    if copies := find_copies(video.frames):
        repeats = describe_frames({int(video.frame_indices[k]): "kept" for k in copies})
        notes.append(f"frames that repeat the one before: {repeats}")
    elif pattern := find_pattern(video.frames):
        period, first = pattern
        number = int(video.frame_indices[first])
        notes.append(f"every {period}th frame nearly repeats the one before, first {number} (kept)")
    kept = np.array([place not in wrong for place in range(len(video))])
    return _select_frames(video, kept, tuple(notes), share)


def _count_reach(fps: float) -> int:
    """Frames that a dissolve of a second lasts."""
    return max(1, min(math.ceil(fps), _MOST_REACH))


def _select_frames(
    video: Video, kept: Bool[ndarray, "F"], notes: tuple[str, ...], share: int | None
) -> Video:
    """Some of the frames, copied only if others are left out."""
    if kept.all():
        return replace(video, notes=notes)
    store = FrameStore(share)
    for place in np.flatnonzero(kept):
        store.add(video.frames[place])
    return replace(
        video, frames=store.array(), frame_indices=video.frame_indices[kept], notes=notes
    )


def straighten_video(video: Video, lens: Lens, memory: int | None = None) -> Video:
    """The video with the frames of a pinhole camera in place of those of a lens that distorts.

    Args:
        lens: for frames of this size.
        memory: see ``read_video``.
    """
    store = FrameStore(None if memory is None else int(_FRAMES_SHARE * memory))
    for frame in video.frames:
        store.add(lens.remap(frame))
    return replace(video, frames=store.array(), lens=lens)


def straighten_masks(masks: Bool[ndarray, "F H W"], lens: Lens) -> Bool[ndarray, "F H W"]:
    """Masks of frames of a lens that distorts -> masks of the straightened frames."""
    return np.stack([lens.remap(mask.astype(np.uint8), nearest=True) > 0 for mask in masks])


def iterate_frames(
    path: str | Path, pixels: Pixels = "8 bits"
) -> Iterator[UInt8[ndarray, "H W 3"] | UInt16[ndarray, "H W 3"]]:
    """Yields every frame of a video file at its own size, so that a long clip need not be held in
    memory.

    Args:
        pixels: yield colours of 8 bits, of 16 bits where the file holds more than 8, or alpha as
            grey; nothing if there is no alpha.

    Raises:
        InputError: the path is missing, no video or corrupt.
    """
    check_exists(Path(path))
    stream = open_stream(Path(path))
    if pixels == "alpha" and not stream.has_alpha:
        return
    if pixels == "16 bits" and not stream.is_deep:
        pixels = "8 bits"
    with tempfile.TemporaryFile() as log:
        yield from decode(Path(path), stream, None, 1, log, pixels)


def check_exists(path: Path) -> None:
    """Refuses a path without a file or folder.

    Raises:
        InputError: nothing, or something else, is at ``path``.
    """
    if not os.path.exists(path):
        raise InputError(
            f"{path}: there is no such file or folder; give a video file or a folder of images"
        )
    if not is_file(path) and not path.is_dir():
        raise InputError(
            f"{path}: is neither a file nor a folder; give a video file or a folder of images"
        )


def _check_settings(max_frames: int | None, stride: int, max_size: int) -> None:
    if stride < 1:
        raise InputError(f"stride is {stride}; give 1 for every frame, 2 for every other")
    if max_frames is not None and max_frames < 1:
        raise InputError(
            f"max_frames is {max_frames}; give a positive number, or leave it out for the whole clip"
        )
    if max_size < _MIN_SIDE:
        raise InputError(
            f"max_size is {max_size}; give the longer side in pixels, {_MIN_SIDE} or more"
        )


def _reduce(image: UInt8[ndarray, "H W 3"], max_size: int) -> UInt8[ndarray, "h w 3"]:
    """The image with a longer side of at most ``max_size`` pixels."""
    height, width = image.shape[:2]
    if max(height, width) <= max_size:
        return image
    scale = max_size / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _read_folder(
    path: Path, max_frames: int | None, stride: int, max_size: int, share: int | None
) -> tuple[Video, Integrity]:
    """The images taken of a folder; see ``read_video``."""
    listing = list_images(path)
    paths = listing.frames
    indices = np.arange(len(paths))[::stride][:max_frames]
    taken = [paths[i] for i in indices]
    frames = FrameStore(share)
    first = None
    largest = None
    for own in taken:
        image = decode_image(own)
        height, width = image.shape[:2]
        first = first or (width, height)
        if (width, height) != first:
            raise InputError(
                f"{own}: is {width}x{height} but {taken[0].name} is {first[0]}x{first[1]}; "
                "give images of one size"
            )
        if image.dtype != np.uint8 and largest is None:
            # Of all files, so that every script and stride finds the same.
            largest = find_largest(paths)
        frames.add(_reduce(reduce_depth(image, largest or MAX_VALUE), max_size))
    notes = [*describe_depth(largest), *describe_alpha(taken), *describe_pages(taken)]
    notes = (*listing.notes, *notes)
    video = Video(frames.array(), DEFAULT_FPS / stride, path, indices, first, len(paths), notes)
    return replace(video, masks_beside=bool(listing.masks)), Integrity()


def _read_file(
    path: Path, max_frames: int | None, stride: int, max_size: int, share: int | None
) -> tuple[Video, Integrity]:
    """The frames taken of a video file, and the damage found in it; see ``read_video``."""
    frames = FrameStore(share)
    size = (0, 0)
    stream = open_stream(path)
    with tempfile.TemporaryFile() as log:
        for image in decode(path, stream, max_frames, stride, log):
            size = image.shape[1], image.shape[0]
            frames.add(_reduce(image, max_size))
        said = read_log(log)
    state = inspect_file(path, stream, said, max_frames and max_frames * stride)
    indices = np.array(state.number_taken(frames.count, stride), int)
    whole = stride == 1 and frames.count != max_frames
    known = frames.count + len(state.lost) if whole else None
    video = Video(
        frames.array(), read_frame_rate(stream.header) / stride, path, indices, size, known
    )
    return video, state
