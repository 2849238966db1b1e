"""Large arrays in temporary files, so that memory does not grow with the length of a clip.

The system writes pages of such a file to the disk and takes their memory back as it needs it.
"""

import ctypes
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

import numpy as np
from numpy.typing import DTypeLike

LARGE = 1 << 26
"""Bytes from which an array lies in a file. Smaller values need less memory and more disk."""

# madvise(2): the system writes changed pages away and takes back their memory, since Linux 5.4.
_MADV_PAGEOUT = 21

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


class Shelf:
    """Keeps small arrays for a long time, without memory for them where they are many: from the
    first ``LARGE`` bytes on they lie one behind another in temporary files."""

    def __init__(self) -> None:
        self._held = 0
        self._block = np.empty(0, np.uint8)
        """Room in a file for further arrays."""

    def keep(self, array: np.ndarray) -> np.ndarray:
        """The array, or an equal one in a file, for which the given one can be dropped."""
        size = array.nbytes
        if self._held + size < LARGE:
            self._held += size
            return array
        if len(self._block) < size:
            self._block = allocate([max(size, LARGE)], np.uint8)
        kept = self._block[:size].view(array.dtype).reshape(array.shape)
        # The next array begins where any type may.
        self._block = self._block[-(-size // 16) * 16 :]
        kept[...] = array
        return kept


def release_pages() -> None:
    """Takes the pages of all arrays in files out of the process: they stay in the system's file
    cache, or on the disk, and come back when they are read."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for content in list(_maps):
            content.madvise(mmap.MADV_DONTNEED)
    _page_out_files()


def _page_out_files() -> None:
    """Asks Linux to take the pages of large files that torch mapped. Pages that the process changed
    keep their values."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            lines = [line.split(maxsplit=5) for line in maps]
        advise = ctypes.CDLL(None).madvise
        for line in lines:
            # torch maps files to be written privately; programs and libraries are not
            if len(line) < 6 or line[1] != "rw-p" or not line[5].startswith("/"):
                continue
            begin, end = (int(place, 16) for place in line[0].split("-"))
            if end - begin >= LARGE:
                advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_PAGEOUT)
