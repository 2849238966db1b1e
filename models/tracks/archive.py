"""The arrays of an .npz file of another program, read within bounds."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.run import HEADROOM, InputError, bound_memory

MAX_VALUES = 1 << 31
"""Largest number of values that tracks may have."""
# Bytes within which the header of an array must end; a header may claim any length.
_HEADER = 1 << 14
# Unpacked bytes above which an archive may be a bomb,
_BOMB_SIZE = 1 << 28
# which it is if they are more than this multiple of the size of its file.
_BOMB_RATIO = 50


@dataclass(frozen=True)
class Archive:
    """Some arrays of an .npz file."""

    arrays: dict[str, np.ndarray]
    """The arrays asked for that the file holds."""
    shapes: dict[str, tuple[int, ...]]
    """Shapes of all arrays of the file, by their headers."""
    scalars: dict[str, int]
    """Width and height, if the file holds them as whole numbers."""


def read_archive(path: Path, wanted: set[str]) -> Archive:
    """Reads the arrays ``wanted``; of other arrays, such as the video, only the header.

    Raises:
        InputError: the file is damaged, holds objects, or unpacks to more than can be worked on.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
            shapes = {name: _read_shape(archive, name) for name in names}
            sizes = {
                name: archive.getinfo(f"{name}.npy").file_size for name in names if name in wanted
            }
        _check_size(path, shapes, sizes)
        with (
            bound_memory(2 * sum(sizes.values()) + HEADROOM),
            np.load(path, allow_pickle=False) as data,
        ):
            arrays = {name: data[name] for name in names if name in wanted}
            scalars = {n: int(data[n]) for n in ("width", "height") if shapes.get(n) == ()}
    except InputError:
        raise
    # A damaged archive can fail anywhere in the decoders.
    except Exception as error:
        raise InputError(
            f"{path}: is no readable .npz of arrays ({type(error).__name__}); save it again"
        ) from error
    return Archive(arrays, shapes, scalars)


def _check_size(path: Path, shapes: dict[str, tuple[int, ...]], sizes: dict[str, int]) -> None:
    """Refuses arrays that would not fit into memory.

    Args:
        shapes: of all arrays.
        sizes: bytes of the arrays to be read, unpacked.
    """
    if sum(int(np.prod(shapes[n], dtype=object)) for n in sizes) > MAX_VALUES:
        raise InputError(
            f"{path}: claims more values than can be worked on; save fewer frames or points"
        )
    if sum(sizes.values()) > max(_BOMB_SIZE, _BOMB_RATIO * path.stat().st_size):
        raise InputError(
            f"{path}: unpacks to far more than tracks ever would; save it again, uncompressed"
        )


def _read_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """Shape of an array by its header."""
    with archive.open(f"{name}.npy") as start:
        stream = io.BytesIO(start.read(_HEADER))
        version = np.lib.format.read_magic(stream)
        is_first = version == (1, 0)
        formats = np.lib.format
        read = formats.read_array_header_1_0 if is_first else formats.read_array_header_2_0
        return read(stream)[0]
