"""Reading of untrusted files: regular files only, in bounded memory, and never as code."""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from models.run.errors import InputError
from models.run.memory import bound_memory

MAX_SIDE = 16384
"""Largest side of an image in pixels."""
MAX_PIXELS = 1 << 26
"""Most pixels of an image: 8192 x 8192."""
# Most bytes of an image file.
_MAX_FILE = 1 << 28
# Most bytes of a JSON file: some 25,000 cameras.
_MAX_JSON = 1 << 24
HEADROOM = 1 << 28
"""Bytes that a decoder may take beside the memory that the size of the file explains."""


def is_file(path: str | Path) -> bool:
    """True for a regular file. Devices and pipes, which never end, are no regular files; odd names
    raise no error."""
    return os.path.isfile(path)


def load_tensors(path: Path, mapped: bool = False) -> object:
    """The content of a file of torch.save, without running code in it and without unpacking more
    bytes than the file has.

    Args:
        mapped: read values from the file when they are used; the system can reclaim their memory.
            Writing to them does not change the file.

    Raises:
        pickle.UnpicklingError: the file holds other things than tensors, numbers, strings and plain
            containers.
        Exception: any error that a decoder raises on a damaged file.
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
    # A compressed entry could unpack to any size.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise pickle.UnpicklingError("torch.save never compresses")
    # Entries may overlap, so that together they claim more than the file.
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("the archive claims more than it holds")
    with (
        warnings.catch_warnings(),
        bound_memory(2 * size + HEADROOM),
        _open_for_torch(path) as source,
    ):
        warnings.simplefilter("ignore")  # of torch, about a foreign pickle
        mapped = mapped and isinstance(source, Path)
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)


@contextmanager
def _open_for_torch(path: Path) -> Iterator[Path | IO[bytes]]:
    """The file by a name that is UTF-8, as torch needs, or as a stream where it has none."""
    try:
        os.fspath(path).encode()
        yield path
    except UnicodeEncodeError:
        with path.open("rb") as stream:
            # Linux's name of an open file; mapped memory outlives it
            other = Path(f"/proc/self/fd/{stream.fileno()}")
            yield other if other.exists() else stream


def check_storage(content: object, name: str = "it") -> None:
    """Refuses tensors, in nested dicts and lists, that claim more values than are stored.

    Args:
        name: of the content, for the error.

    Raises:
        ValueError: a tensor claims more values, or is sparse, quantised or without values.
    """
    if isinstance(content, Tensor):
        if content.layout != torch.strided or content.device.type != "cpu" or content.is_quantized:
            raise ValueError(f"{name} is no plain tensor")
        # A stride of 0 lets a small storage claim any shape.
        if content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise ValueError(f"{name} claims {content.numel()} values, more than are stored")
    elif isinstance(content, dict):
        for key, value in content.items():
            check_storage(value, f"{key}"[:40])
    elif isinstance(content, (list, tuple)):
        for value in content:
            check_storage(value, name)


def read_json(path: str | Path, what: str) -> object:
    """The content of a JSON file of bounded size, without NaN and infinity.

    Args:
        what: the kind of file, for the error.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    if not is_file(path):
        raise InputError(f"{path}: not a readable {what} (there is no such file)")
    try:
        if os.path.getsize(path) > _MAX_JSON:
            # Python's parser takes many times the file's size.
            raise ValueError(f"it is larger than {_MAX_JSON >> 20} MiB")
        # Editors on Windows begin a file with a byte order mark.
        text = Path(path).read_text(encoding="utf-8-sig")
        return json.loads(text, parse_constant=_refuse_constant)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"{path}: not a readable {what} ({type(error).__name__}: {reason})"
        ) from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


def read_limited(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
        OSError: it is no regular file, has more than 256 MiB, or cannot be read.
    """
    if not is_file(path):
        raise FileNotFoundError(None, "no such regular file")
    if os.path.getsize(path) > _MAX_FILE:
        raise OSError(None, f"larger than {_MAX_FILE >> 20} MiB")
    return Path(path).read_bytes()


def read_claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of a PNG, JPEG, WebP, BMP or TIFF states; None for
    other content.

    No pixel is decoded, so that a header that claims a huge image takes no memory.
    """
    from PIL import (
        BmpImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        opener = PngImagePlugin.PngImageFile if _chunks_fit(data) else None
    elif data.startswith(b"\xff\xd8"):
        opener = JpegImagePlugin.JpegImageFile
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        opener = WebPImagePlugin.WebPImageFile
    elif data[:4] in TiffImagePlugin.PREFIXES:
        opener = TiffImagePlugin.TiffImageFile
    else:
        opener = BmpImagePlugin.BmpImageFile if data.startswith(b"BM") else None
    if opener is None:
        return None
    try:
        # Pillow's WebP reader asks for two canvases of 4 bytes a pixel before it tells their size
        with bound_memory(8 * MAX_PIXELS + HEADROOM), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about tags of a TIFF
            return opener(io.BytesIO(data)).size
    except Exception:  # a damaged header can fail anywhere in the reader
        return None


def _chunks_fit(png: bytes) -> bool:
    """False where a chunk of a PNG claims to go on past the end of the file.

    OpenCV's decoder would ask for as much memory as the chunk claims.
    """
    at = 8
    while at + 12 <= len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        at += 12 + length
        if kind == b"IEND":
            break
    return at <= len(png)
