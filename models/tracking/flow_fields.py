"""Dense flow between frames of a clip in both directions, computed once for each pair and cached on
disk."""

import math
import os
import tempfile
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
from jaxtyping import Float, Float16, UInt8

from models.tracking.optical_flow import estimate_fine_flow, to_grey

# Bytes of disk that fields may take. Beyond it the fields used longest ago are dropped, and
# computed again on demand.
_ROOM = 1 << 30
# Pairs that may be computed ahead of their use. Beyond it the earliest are moved to the shelf.
_AHEAD = 16
_Pair = tuple[int, int]
"""The smaller and the larger frame number."""


class FlowFields:
    """Dense flow between frames, computed ahead by threads and cached in a temporary file.

    Fields are kept at half the frames' size and in half precision; the loss is far below the error
    of the flow. Memory does not grow with the clip's length, and the file does not grow past
    ``room`` bytes. Sweeps that turn round at an end of the clip find the fields that they read
    last.
    """

    def __init__(self, frames: UInt8[np.ndarray, "F H W 3"], room: int = _ROOM):
        self.frames = frames
        height, width = frames.shape[1:3]
        self.size = max(1, width // 2), max(1, height // 2)
        self.scale = np.array([width / self.size[0], height / self.size[1]], np.float32)
        """Pixels of a frame for each pixel of a field, in x and y."""
        self._shelf = _Shelf((2, *self.size[::-1], 2), room)
        self._coming: dict[_Pair, Future] = {}
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="flow")

    def __enter__(self) -> "FlowFields":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._shelf.close()

    def ask(self, a: int, b: int) -> None:
        """Starts to compute the flow between two frames that are needed soon."""
        pair = min(a, b), max(a, b)
        if pair in self._coming or pair in self._shelf:
            return
        # A pair that was asked for is never taken if all its points were lost.
        if len(self._coming) == _AHEAD:
            early = next(iter(self._coming))
            self._shelf.put(early, self._coming.pop(early).result())
        self._coming[pair] = self._pool.submit(self._compute, pair)

    def between(
        self, a: int, b: int
    ) -> tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w 2"]]:
        """Flow from frame a to b, and from b to a: in pixels of the frames, sampled at half their
        size."""
        pair = min(a, b), max(a, b)
        self.ask(*pair)
        coming = self._coming.pop(pair, None)
        fields = self._shelf.take(pair) if coming is None else coming.result()
        if coming is not None:
            self._shelf.put(pair, fields)
        there, back = fields.astype(np.float32)
        return (there, back) if a <= b else (back, there)

    def _compute(self, pair: _Pair) -> Float16[np.ndarray, "2 h w 2"]:
        a, b = (to_grey(self.frames[t]) for t in pair)
        both = estimate_fine_flow(a, b), estimate_fine_flow(b, a)
        small = [cv2.resize(flow, self.size, interpolation=cv2.INTER_AREA) for flow in both]
        return np.stack(small).astype(np.float16)


class _Shelf:
    """Arrays of equal shape in a temporary file; the array used longest ago is replaced.

    The file is read and written, not mapped into memory: so a full disk raises an error instead of
    ending the process.
    """

    def __init__(self, shape: tuple[int, ...], room: int):
        self.shape = shape
        self.size = np.dtype(np.float16).itemsize * math.prod(shape)
        self.slots = room // self.size
        self.file = None
        self.slot: OrderedDict[_Pair, int] = OrderedDict()

    def __contains__(self, pair: _Pair) -> bool:
        return pair in self.slot

    def put(self, pair: _Pair, array: Float16[np.ndarray, "..."]) -> None:
        if self.slots == 0:
            return
        if self.file is None:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        slot = self.slot.popitem(last=False)[1] if len(self.slot) == self.slots else len(self.slot)
        self.file.seek(slot * self.size)
        self.file.write(array.data)
        self.slot[pair] = slot

    def take(self, pair: _Pair) -> Float16[np.ndarray, "..."]:
        self.slot.move_to_end(pair)
        array = np.empty(self.shape, np.float16)
        self.file.seek(self.slot[pair] * self.size)
        self.file.readinto(array.data.cast("B"))
        return array

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
