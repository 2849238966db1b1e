"""Files from strangers: read in bounded memory, regular files only, and nothing in them is ever
run."""

import json
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from models.run.errors import InputError
from models.run.memory import bounded_memory

MAX_SIDE = 16384
"""Largest side of an image in pixels."""
MAX_PIXELS = 1 << 26
"""Most pixels of an image: 8192 x 8192."""
MAX_FILE = 1 << 28
"""Most bytes of an image file."""
MAX_JSON = 1 << 24
"""Most bytes of a JSON file: some 25,000 cameras."""
HEADROOM = 1 << 28
"""Bytes that a decoder may take beside what the file's size explains."""


def is_file(path: str | Path) -> bool:
    """True for a regular file; devices and pipes, which never end, are none, and no name makes it
    fail."""
    return os.path.isfile(path)


def load_tensors(path: Path, mapped: bool = False) -> object:
    """What torch.save wrote to a file, without running code in it and without unpacking more than
    the file holds.

    Args:
        mapped: leave values in the file until they are looked at; the system can take back the
            memory of those that were. Writing to them does not change the file.

    Raises:
        pickle.UnpicklingError: it holds something else than tensors, numbers, strings and plain
        containers. Exception: whatever a decoder raises on a damaged file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(4)
    if not zipfile.is_zipfile(path):
        if start in (b"", b"PK\3\4"):
            raise ValueError("cut short")
        raise pickle.UnpicklingError("not an archive of torch.save")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise pickle.UnpicklingError("torch.save never compresses")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("the archive claims more than it holds")
    with (
        warnings.catch_warnings(),
        bounded_memory(2 * size + HEADROOM),
    ):  # warnings about a foreign pickle
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def check_storage(content: object, name: str = "it") -> None:
    """Refuses tensors, in nested dicts and lists, that claim more values than are stored.

    Raises:
        ValueError: one does, or is sparse, quantised or without values.
    """
    if isinstance(content, Tensor):
        if content.layout != torch.strided or content.device.type != "cpu" or content.is_quantized:
            raise ValueError(f"{name} is no plain tensor")
        if content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise ValueError(f"{name} claims {content.numel()} values, more than are stored")
    elif isinstance(content, dict):
        for key, value in content.items():
            check_storage(value, f"{key}"[:40])
    elif isinstance(content, (list, tuple)):
        for value in content:
            check_storage(value, name)


def read_json(path: str | Path, what: str) -> object:
    """JSON without NaN and infinity, of bounded size.

    Args:
        what: the kind of file, for the error.

    Raises:
        InputError: no such file, or not JSON.
    """
    if not is_file(path):
        raise InputError(f"{path}: not a readable {what} (there is no such file)")
    try:
        if os.path.getsize(path) > MAX_JSON:
            raise ValueError(f"it is larger than {MAX_JSON >> 20} MiB")
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"{path}: not a readable {what} ({type(error).__name__}: {reason})"
        ) from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


def read_limited(path: str | Path) -> bytes:
    """A regular file of at most MAX_FILE bytes.

    Raises:
        OSError: it is none, larger, or cannot be read.
    """
    if not is_file(path):
        raise FileNotFoundError(None, "no such regular file")
    if os.path.getsize(path) > MAX_FILE:
        raise OSError(None, f"larger than {MAX_FILE >> 20} MiB")
    return Path(path).read_bytes()


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of a PNG, JPEG, WebP or BMP states; None for any other
    content."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack(">II", data[16:24]) if _chunks_fit(data) else None
        if data.startswith(b"BM"):
            width, height = struct.unpack("<ii", data[18:26])
            return abs(width), abs(height)
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
    except (struct.error, IndexError):
        pass
    return None


def _chunks_fit(png: bytes) -> bool:
    """False where a chunk claims to go on past the end: a decoder would ask for that much
    memory."""
    at = 8
    while at + 12 <= len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        at += 12 + length
        if kind == b"IEND":
            break
    return at <= len(png)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the start-of-frame segment (ITU T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if (
            marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8
        ):  # padding, or a marker without length
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Lossy, lossless or extended (RFC 9649, 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None
