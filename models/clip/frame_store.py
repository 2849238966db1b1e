"""Frames of a clip, in memory or, where they are too many, in a file that the system pages in."""

import tempfile

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

GROWTH = 8
"""Room is made for so much more than what is held: an eighth."""


class FrameStore:
    """Frames as they come: in memory, or from a limit on in a temporary file, whose pages the
    system can take back.

    In memory they are one array from the start: thousands of arrays, once freed, would stay with
    the process.
    """

    def __init__(self, limit: int | None):
        """``limit``: bytes of frames to hold in memory, all of them where None."""
        self.limit, self.shape, self.count, self.file = limit, (), 0, None
        self.frames = np.empty(0, np.uint8)

    def add(self, frame: UInt8[ndarray, "H W 3"]) -> None:
        """Takes one more frame."""
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
            self.frames.resize(
                end + end // GROWTH, refcheck=False
            )  # large blocks are moved, not copied
        self.frames[begin:end] = frame.reshape(-1)

    def array(self) -> UInt8[ndarray, "F H W 3"]:
        """All frames; none can be added after."""
        shape = self.count, *self.shape
        if self.file is not None:
            self.file.flush()
            return np.memmap(self.file, np.uint8, "r", shape=shape)
        self.frames.resize(int(np.prod(shape)), refcheck=False)
        return self.frames.reshape(shape)
