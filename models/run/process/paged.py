"""Large arrays in temporary files, so that memory does not grow with the length of a clip.

The system writes pages of such a file to the disk and takes their memory back as it needs it.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import IO

import numpy as np
from numpy.typing import DTypeLike

LARGE = 1 << 26
"""Bytes from which an array lies in a file. Smaller values need less memory and more disk."""

_maps: weakref.WeakSet = weakref.WeakSet()


def allocate(shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """An array of zeros: in memory, or in a temporary file if it is large and the disk has room for
    it."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size < max(LARGE, 1):
        return np.zeros(shape, dtype)
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115, the array keeps it open
        # A page without room on the disk would end the process when it is written.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError:  # a full disk, or one that cannot reserve room
        return np.zeros(shape, dtype)
    return map_file(file, shape, dtype)


def map_file(file: IO[bytes], shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """The content of a temporary file as an array over the file, whose pages ``release_pages``
    releases."""
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE)
    _maps.add(content)
    return np.frombuffer(content, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)


def copy_array(array: np.ndarray) -> np.ndarray:
    """A copy in an array of ``allocate``."""
    out = allocate(array.shape, array.dtype)
    out[...] = array
    return out


def release_pages() -> None:
    """Takes the pages of all arrays in files out of the process: they stay in the system's file
    cache, or on the disk, and come back when they are read."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for content in list(_maps):
            content.madvise(mmap.MADV_DONTNEED)
