"""How large a clip is, without decoding it."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import cv2

from models.clip.sources.listing import list_images
from models.run import InputError, read_claimed_size

# OpenCV's reader: no lines of ffmpeg about damaged files; a script that reads them says why.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# Bytes of an image file that are read for its header.
_HEADER = 1 << 20


@dataclass(frozen=True)
class ClipSize:
    """The number of frames and their size."""

    frames: int
    width: int
    """In pixels."""
    height: int
    """In pixels."""

    @property
    def area(self) -> int:
        """Pixels of a frame."""
        return self.width * self.height


def measure_clip(
    path: Path, max_frames: int | None = None, stride: int = 1, max_size: int = 960
) -> ClipSize | None:
    """The size of the frames that ``read_video`` would take, as the headers state it.

    Args:
        path: a video file or a folder of images.
        max_frames, stride, max_size: see ``read_video``.

    Returns:
        None where the headers do not tell.
    """
    try:
        count, width, height = _measure_folder(path) if path.is_dir() else _measure_file(path)
    except (InputError, OSError):
        return None
    if min(count, width, height) < 1:
        return None
    scale = min(1.0, max_size / max(width, height))
    taken = min(math.ceil(count / stride), max_frames or count)
    return ClipSize(taken, max(1, round(scale * width)), max(1, round(scale * height)))


def halve_max_size(path: Path, max_size: int) -> int:
    """Longer side in pixels of frames of half the size that ``read_video`` would give."""
    size = measure_clip(path, max_size=max_size)
    longer = max_size if size is None else max(size.width, size.height)
    return max(1, longer // 2)


def _measure_folder(path: Path) -> tuple[int, int, int]:
    frames = list_images(path).frames
    # the first MiB holds the header, also behind an embedded thumbnail
    with frames[0].open("rb") as file:
        size = read_claimed_size(file.read(_HEADER))
    return len(frames), *(size or (0, 0))


def _measure_file(path: Path) -> tuple[int, int, int]:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # OpenCV ends the process on such names
        return 0, 0, 0
    reader = cv2.VideoCapture(str(path))
    try:
        stated = (
            cv2.CAP_PROP_FRAME_COUNT,
            cv2.CAP_PROP_FRAME_WIDTH,
            cv2.CAP_PROP_FRAME_HEIGHT,
        )
        count, width, height = (reader.get(name) for name in stated)
    finally:
        reader.release()
    return int(count), int(width), int(height)
