"""Image files: read as RGB, written as PNG."""

import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16
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

MAX_VALUE = 65535
"""White of 16-bit images."""
# White of 8, 10, 12, 14 and 16 bits.
_LARGEST = (255, 1023, 4095, 16383, MAX_VALUE)
# Bytes that OpenCV takes at most for a pixel while it decodes an image.
_DECODED_PIXEL = 16
# First bytes of JPEG and PNG files, and the markers that end them.
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG"
_PNG_END = b"IEND"
# Bit of the extended and of the lossless header of WebP that tells of alpha.
_WEBP_ALPHA = 0x10
# Suffixes of TIFF files, and bytes of an entry in the list of a page.
_TIFF = frozenset({".tif", ".tiff"})
_TIFF_ENTRY = 12
# Names of images that write_images writes.
_NUMBERED = r"\d{5}\.png"


def read_image(path: Path) -> UInt8[ndarray, "H W 3"]:
    """An image as 8-bit RGB: grey is repeated, alpha dropped, 16 bits rounded to 8, EXIF rotation
    applied.

    Raises:
        InputError: the file cannot be read or decoded, or is cut short.
    """
    return reduce_depth(decode_image(path))


def decode_image(path: Path) -> UInt8[ndarray, "H W 3"] | UInt16[ndarray, "H W 3"]:
    """An image as RGB of 8 or 16 bits as stored: grey is repeated, alpha dropped, EXIF rotation
    applied.

    Raises:
        InputError: the file cannot be read or decoded, or is cut short.
    """
    image = _decode(path, _read_bytes(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_alpha(path: Path) -> UInt8[ndarray, "H W"] | UInt16[ndarray, "H W"] | None:
    """The alpha channel of an image, of 8 or 16 bits as stored; None if it has none.

    Raises:
        InputError: the file cannot be read or decoded, or is cut short.
    """
    data = _read_bytes(path)
    if not _may_have_alpha(data):
        return None
    image = _decode(path, data, cv2.IMREAD_UNCHANGED)
    return image[..., 3] if image.ndim == 3 and image.shape[2] == 4 else None


def reduce_depth(
    image: UInt8[ndarray, "H W 3"] | UInt16[ndarray, "H W 3"], largest: int = MAX_VALUE
) -> UInt8[ndarray, "H W 3"]:
    """The image in 8 bits.

    Args:
        largest: value of 16-bit images that becomes 255.
    """
    if image.dtype == np.uint8:
        return image
    # Half of the divisor rounds.
    scaled = (image.astype(np.uint32) * 510 + largest) // (2 * largest)
    return np.minimum(scaled, 255).astype(np.uint8)


def find_largest(paths: Iterable[Path]) -> int:
    """The value of 16-bit images that is white: cameras store 10, 12 or 14 bits in them.

    Files that cannot be decoded, and 8-bit files, are passed over.
    """
    largest = 0
    for path in paths:
        with suppress(InputError):
            image = decode_image(path)
            # 8 bits repeated in both bytes, or all 16 bits in use.
            if image.dtype == np.uint16 and image.any():
                largest = max(largest, MAX_VALUE if not (image % 257).any() else int(image.max()))
    return next((limit for limit in _LARGEST if 0 < largest <= limit), MAX_VALUE)


def describe_depth(largest: int | None) -> list[str]:
    """A sentence on 16-bit files whose white is not 65535."""
    if largest in (None, MAX_VALUE):
        return []
    bits = largest.bit_length()
    return [f"its 16-bit images hold values up to {bits} bits, so {largest} is taken as white"]


def describe_alpha(paths: list[Path]) -> list[str]:
    """A sentence on alpha of frames, if it is not full everywhere."""
    for path in paths:
        alpha = read_alpha(path)
        if alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max:
            return [
                f"alpha of the frames is not used ({path.name} has some); "
                "give the folder as --mask_path to take it as masks"
            ]
    return []


def describe_pages(paths: list[Path]) -> list[str]:
    """A sentence on TIFF files of several pages, of which the first is read."""
    stacks = [path for path in paths if path.suffix.lower() in _TIFF and _has_pages(path)]
    if not stacks:
        return []
    count = f"{len(stacks)} TIFF file{'s hold' if len(stacks) > 1 else ' holds'}"
    return [
        f"{count} several pages (first {stacks[0].name}), of which only the first is read; "
        "write each page into a file of its own if it is a frame"
    ]


def _has_pages(path: Path) -> bool:
    """Whether a TIFF file names a second page behind the entries of the first."""
    data = _read_bytes(path)
    order = "<" if data.startswith(b"II") else ">"
    with suppress(struct.error):
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, first)
        return any(struct.unpack_from(f"{order}I", data, first + 2 + _TIFF_ENTRY * entries))
    return False


def _read_bytes(path: Path) -> bytes:
    try:
        return read_limited(path)
    except OSError as error:
        raise InputError(
            f"{path}: the image cannot be read ({error.strerror}); check the file"
        ) from error


def _decode(path: Path, data: bytes, flags: int) -> ndarray:
    """Pixels as OpenCV decodes them."""
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
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        other = ", or of values other than 8 or 16 bits" if data[:2] in (b"II", b"MM") else ""
        raise InputError(f"{path}: the image is corrupt or cut short{other}; replace or remove it")
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: holds {image.dtype} values; save it with 8 or 16 bits")
    return image


def _may_have_alpha(data: bytes) -> bool:
    """Whether an image may have an alpha channel, by its header."""
    if data.startswith(_PNG_START):
        # Colour types 4 and 6 have alpha; other types may name a transparent colour.
        return data[25:26] in (b"\4", b"\6") or b"tRNS" in data
    if data.startswith(b"RIFF"):
        at = {b"VP8X": 20, b"VP8L": 24}.get(data[12:16], len(data))
        return any(byte & _WEBP_ALPHA for byte in data[at : at + 1])
    return data.startswith((b"II", b"MM"))


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
