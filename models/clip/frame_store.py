"""The frames of a clip in memory, or, if they are too large, in a file that the system pages in."""

import tempfile

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

# When the array is full it grows by one part in this many.
_GROWTH = 8


class FrameStore:
    """Frames, added singly: in memory, or above a limit in a temporary file, whose pages the system
    can take back.

    In memory they are a single array from the start: the memory of thousands of small arrays would stay
    with the process after they are freed.
    """

    def __init__(self, limit: int | None):
        """Holds at most ``limit`` bytes of frames in memory; all of them if None."""
        self.limit = limit
        self.shape: tuple[int, ...] = ()
        self.count = 0
        self.file = None
        self.frames = np.empty(0, np.uint8)

    def add(self, frame: UInt8[ndarray, "H W 3"]) -> None:
        """Adds a frame of the size of all others."""
        self.shape = frame.shape
        begin = self.count * frame.nbytes
        self.count = self.count + 1
        end = begin + frame.nbytes
        if self.file is None and self.limit is not None and end > self.limit:
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

    def array(self) -> UInt8[ndarray, "F H W 3"]:
        """All frames; no frame can be added afterwards."""
        shape = self.count, *self.shape
        if self.file is not None:
            self.file.flush()
            return np.memmap(self.file, np.uint8, "r", shape=shape)
        self.frames.resize(int(np.prod(shape)), refcheck=False)
        return self.frames.reshape(shape)
