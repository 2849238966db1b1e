"""Frames of a clip, in memory or, where they are too many, in a file that the system pages in."""

import tempfile

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray


class FrameStore:
    """Frames as they come: in memory, or from a limit on in a temporary file, whose pages the system can take back."""

    def __init__(self, limit: int | None):
        """``limit``: bytes of frames to hold in memory, all of them where None."""
        self.limit, self.frames, self.shape, self.count, self.file = limit, [], (), 0, None

    def add(self, frame: UInt8[ndarray, "H W 3"]) -> None:
        """Takes one more frame."""
        self.shape, self.count = frame.shape, self.count + 1
        if self.file is None and self.limit is not None and self.count * frame.nbytes > self.limit:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115, the array keeps it open
            for i in range(len(self.frames)):
                self.file.write(self.frames[i].data)
                self.frames[i] = None
        if self.file is None:
            self.frames.append(frame)
        else:
            self.file.write(np.ascontiguousarray(frame).data)

    def array(self) -> UInt8[ndarray, "F H W 3"]:
        """All frames; each is freed once copied, so that a long clip is not held twice."""
        if self.file is not None:
            self.file.flush()
            return np.memmap(self.file, np.uint8, "r", shape=(self.count, *self.shape))
        stack = np.empty((self.count, *self.shape), np.uint8)
        for i in range(self.count):
            stack[i], self.frames[i] = self.frames[i], None
        return stack
