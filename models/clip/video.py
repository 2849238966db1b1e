"""Frames in and out: video files through ffmpeg, image folders through models.clip.images."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from models.clip.decoding import DEFAULT_FPS, decode, frame_rate, inspect_file, text_of
from models.clip.frame_checks import (
    SIZE,
    Integrity,
    describe_frames,
    find_misleading,
    reduce_frame,
)
from models.clip.frame_store import FrameStore
from models.clip.frames_of import ClipFrames
from models.clip.images import image_paths, read_image, write_image, write_images
from models.clip.video_writer import VideoWriter, write_video
from models.run import InputError, is_file

__all__ = [
    "Video",
    "VideoWriter",
    "check_exists",
    "iterate_frames",
    "read_video",
    "write_image",
    "write_images",
    "write_video",
]


FRAMES_SHARE = 0.25
"""Share of the memory that frames may take before they are kept in a file."""


@dataclass(frozen=True)
class Video:
    """The frames taken from a clip, of one size; in memory, or in a file that the system pages
    in."""

    frames: UInt8[ndarray, "F H W 3"]
    """RGB, upright, reduced to ``max_size``."""
    fps: float
    """Frames per second of ``frames``: the clip's own rate divided by the stride."""
    path: Path
    """The video file or image folder."""
    frame_indices: Int[ndarray, "F"]
    """Number of each frame in the original clip, from 0 (for a folder: its place in name order)."""
    original_size: tuple[int, int]
    """Width and height before reduction."""
    original_frames: int | None = None
    """Number of frames of the whole clip, or None where the rest was not decoded."""
    notes: tuple[str, ...] = ()
    """What a user should know: frames left out, and why."""

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

    A frame whose longer side exceeds ``max_size`` pixels is reduced to it. Rotation and
    pixel-aspect tags are applied. Frames that would mislead (damaged, blank, of another scene; see
    ``frame_checks``) are left out and named.

    Args:
        keep: leave out all frames but those of these numbers, and none of them.
        memory: bytes that a run may take; where the frames need much of them they are kept in a
            temporary file.

    Raises:
        InputError: the path is missing, no video, corrupt, holds fewer than 2 frames or images of
            unlike sizes.
    """
    path = Path(path)
    _check_settings(max_frames, stride, max_size)
    check_exists(path)
    read = _read_folder if path.is_dir() else _read_file
    share = None if memory is None else int(FRAMES_SHARE * memory)
    video, state = read(path, max_frames, stride, max_size, share)
    if len(video) < 2:
        raise InputError(
            f"{path}: gave one frame at stride {stride}, needs at least 2; "
            "give a longer clip, a smaller stride or a larger max_frames"
        )
    if keep is not None:
        return _taken(video, np.isin(video.frame_indices, keep), (), share)
    return _sound(video, state, share)


def _sound(video: Video, state: Integrity, share: int | None) -> Video:
    """The video without frames that would mislead."""
    pictures = None
    if video.width >= SIZE[0] and video.height >= SIZE[1]:
        pictures = np.stack([reduce_frame(frame) for frame in video.frames])
    places = {int(index): place for place, index in enumerate(video.frame_indices)}
    suspects = [
        {places[t] for t in kind if t in places} for kind in (state.damaged, state.doubtful)
    ]
    wrong = find_misleading(pictures, *suspects) if pictures is not None else {}
    # Frames lost behind the last frame taken belong to the clip only if all of it was read.
    end = video.frame_indices[-1]
    lost = [t for t in sorted(state.lost) if video.original_frames or t < end]
    numbers = dict.fromkeys(lost, "damaged")
    numbers |= {int(video.frame_indices[place]): reason for place, reason in wrong.items()}
    notes = [f"frames left out: {describe_frames(numbers)}"] if numbers else []
    same = [k for k in range(1, len(video)) if np.array_equal(video.frames[k - 1], video.frames[k])]
    if 0 < len(same) <= len(video) / 2:
        notes.append(
            f"frames that repeat the one before: {describe_frames({int(video.frame_indices[k]): 'kept' for k in same})}"
        )
    kept = np.array([place not in wrong for place in range(len(video))])
    return _taken(video, kept, tuple(notes), share)


def _taken(
    video: Video, kept: Bool[ndarray, "F"], notes: tuple[str, ...], share: int | None
) -> Video:
    if kept.all():
        return replace(video, notes=notes)
    store = FrameStore(share)
    for place in np.flatnonzero(kept):
        store.add(video.frames[place])
    return replace(
        video, frames=store.array(), frame_indices=video.frame_indices[kept], notes=notes
    )


def iterate_frames(path: str | Path) -> Iterator[UInt8[ndarray, "H W 3"]]:
    """Every frame of a video file at its own size, one by one, so that a long clip need not be held
    in memory.

    Raises:
        InputError: the path is missing, no video or corrupt.
    """
    check_exists(Path(path))
    with tempfile.TemporaryFile() as log:
        yield from decode(Path(path), None, 1, log)


def check_exists(path: Path) -> None:
    """Raises InputError where nothing is at ``path``."""
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
    if max_size < 16:
        raise InputError(f"max_size is {max_size}; give the longer side in pixels, 16 or more")


def _reduced(image: ndarray, max_size: int) -> ndarray:
    height, width = image.shape[:2]
    if max(height, width) <= max_size:
        return image
    scale = max_size / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _read_folder(
    path: Path, max_frames: int | None, stride: int, max_size: int, share: int | None
) -> tuple[Video, Integrity]:
    paths = image_paths(path)
    indices = np.arange(len(paths))[::stride][:max_frames]
    frames = FrameStore(share)
    first = None
    for i in indices:
        image = read_image(paths[i])
        height, width = image.shape[:2]
        first = first or (width, height)
        if (width, height) != first:
            raise InputError(
                f"{paths[i]}: is {width}x{height} but {paths[indices[0]].name} is {first[0]}x{first[1]}; "
                "give images of one size"
            )
        frames.add(_reduced(image, max_size))
    return Video(
        frames.array(), DEFAULT_FPS / stride, path, indices, first, len(paths)
    ), Integrity()


def _read_file(
    path: Path, max_frames: int | None, stride: int, max_size: int, share: int | None
) -> tuple[Video, Integrity]:
    frames, size = FrameStore(share), (0, 0)
    with tempfile.TemporaryFile() as log:
        for image in decode(path, max_frames, stride, log):
            size = image.shape[1], image.shape[0]
            frames.add(_reduced(image, max_size))
        said = text_of(log)
    state = inspect_file(path, said, max_frames and max_frames * stride)
    indices = np.array(state.number_taken(frames.count, stride), int)
    whole = stride == 1 and frames.count != max_frames
    known = frames.count + len(state.lost) if whole else None
    video = Video(frames.array(), frame_rate(said) / stride, path, indices, size, known)
    return video, state
