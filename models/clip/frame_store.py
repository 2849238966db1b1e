"""The frames of a clip in memory, or, if they are too large, in a file that the system pages in."""

import tempfile

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from models.run import map_file

# Bytes of frames that are held in memory at most. More is faster for clips of some hundred frames.
_MOST_HELD = 1 << 28
# When the array is full it grows by one part in this many.
_GROWTH = 8


class FrameStore:
    """Frames, added singly: in memory, or above a limit in a temporary file, whose pages the system
    can take back.

    In memory they are a single array from the start: the memory of thousands of small arrays would stay
    with the process after they are freed.
    """

    def __init__(self, limit: int | None = None):
        """Holds at most ``limit`` bytes of frames in memory, and at most 256 MiB."""
        self.limit = _MOST_HELD if limit is None else min(limit, _MOST_HELD)
        self.shape: tuple[int, ...] = ()
        self.count = 0
        self.file = None
        self.frames = np.empty(0, np.uint8)

    def add(self, frame: UInt8[ndarray, "H W *C"]) -> None:
        """Adds a frame of the size of all others."""
        self.shape = frame.shape
        begin = self.count * frame.nbytes
        self.count = self.count + 1
        end = begin + frame.nbytes
        if self.file is None and end > self.limit:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115, the array keeps it open
            self.file.write(self.frames[:begin].data)
            self.frames = np.empty(0, np.uint8)
        if self.file is not None:
            self.file.write(np.ascontiguousarray(frame).data)
            return
        if end > len(self.frames):
            # Large blocks are moved by the system, not copied.
            self.frames.resize(end + end // _GROWTH, refcheck=False)
        self.frames[begin:end] = frame.reshape(-1)

    def array(self) -> UInt8[ndarray, "F H W *C"]:
        """All frames; no frame can be added afterwards."""
        shape = self.count, *self.shape
        if self.file is not None:
            self.file.flush()
            return map_file(self.file, shape, np.uint8)
        self.frames.resize(int(np.prod(shape)), refcheck=False)
        return self.frames.reshape(shape)
