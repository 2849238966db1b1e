"""Image files and folders of images: read as 8-bit RGB in natural order, written as PNG."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from models.run import (
    HEADROOM,
    MAX_PIXELS,
    MAX_SIDE,
    InputError,
    bound_memory,
    check_output_dir,
    read_claimed_size,
    read_limited,
    write_bytes,
)

# A corrupt image raises InputError; OpenCV's own log lines would bury that sentence.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""Suffixes of the image files of a folder, in lower case."""
# Bytes that OpenCV takes at most for a pixel while it decodes an image.
_DECODED_PIXEL = 16
# First bytes of JPEG and PNG files, and the markers that end them.
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG"
_PNG_END = b"IEND"
# Names of images that write_images writes.
_NUMBERED = r"\d{5}\.png"


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorting key under which frame2 comes before frame10."""
    return [
        (0, int(part)) if part.isdecimal() else (1, part)
        for part in re.split(r"(\d+)", name.lower())
        if part
    ]


def image_paths(folder: Path) -> list[Path]:
    """Image files of a folder in natural name order, without hidden files.

    Raises:
        InputError: the folder cannot be listed or holds no image.
    """
    try:
        files = [p for p in folder.iterdir() if not p.name.startswith(".")]
        paths = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise InputError(
            f"{folder}: the folder cannot be read ({error.strerror}); check its permissions"
        ) from error
    if not paths:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(
            f"{folder}: the folder holds no images; put the frames there as {suffixes}"
        )
    return sorted(paths, key=lambda p: (natural_key(p.name), p.name))


def read_image(path: Path) -> UInt8[ndarray, "H W 3"]:
    """An image as 8-bit RGB: grey is repeated, alpha dropped, 16 bits rounded to 8, EXIF rotation
    applied.

    Raises:
        InputError: the file cannot be read or decoded, or is cut short.
    """
    try:
        data = read_limited(path)
    except OSError as error:
        raise InputError(
            f"{path}: the image cannot be read ({error.strerror}); check the file"
        ) from error
    width, height = read_claimed_size(data) or (0, 0)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(
            f"{path}: claims {width}x{height} pixels, more than can be worked on; reduce or remove it"
        )
    image = None
    if width and height and not _is_cut_short(data):
        with (
            suppress(cv2.error, MemoryError),
            bound_memory(_DECODED_PIXEL * width * height + HEADROOM),
        ):
            image = cv2.imdecode(
                np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
            )
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: the image is corrupt or cut short; replace or remove it")
    if image.dtype == np.uint16:
        # 65535 / 255 = 257; half of it rounds.
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker; OpenCV decodes such a file to a half-grey image
    without an error."""
    if data.startswith(_JPEG_START):
        return _JPEG_END not in data
    return data.startswith(_PNG_START) and _PNG_END not in data


def write_image(path: Path, image: UInt8[ndarray, "H W *C"]) -> None:
    """Writes an RGB (H, W, 3) or grey (H, W) image as PNG, under a temporary name until the file is
    whole.

    Raises:
        InputError: the folder is missing or cannot be written, or the disk is full.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    encoded = cv2.imencode(".png", bgr)[1]
    write_bytes(path, encoded.tobytes())


def write_images(
    folder: str | Path, frames: Iterable[UInt8[ndarray, "H W *C"]], indices: Iterable[int]
) -> None:
    """Writes each frame to ``folder/%05d.png``, numbered by ``indices``; creates the folder.

    Numbered PNGs of an earlier run are removed, so that the folder holds this set alone.

    Raises:
        InputError: the folder cannot be made or written.
    """
    folder = check_output_dir(folder)
    written = set()
    for frame, index in zip(frames, indices, strict=True):
        written.add(f"{int(index):05d}.png")
        write_image(folder / f"{int(index):05d}.png", frame)
    for stale in folder.iterdir():
        if re.fullmatch(_NUMBERED, stale.name) and stale.name not in written:
            stale.unlink()
