"""Flow between the frames of a clip, both ways, computed once a pair and kept aside while there is
room."""

import math
import os
import tempfile
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
from jaxtyping import Float, Float16, UInt8

from models.tracking.optical_flow import fine_flow, grey

ROOM = 1 << 30
"""Bytes of disk that fields may take; past that those used longest ago are dropped, and computed
again if need be."""
AHEAD = 16
"""Pairs whose flow may be asked for and not taken yet; past that those asked first are put
aside."""
_Pair = tuple[int, int]


class FlowFields:
    """Where points of one frame are in another, from dense flow computed ahead by threads and kept
    in a temporary file.

    Fields are kept at half the frames' size and in half precision: what that loses is far below the
    flow's own error. Memory does not grow with the clip's length, nor does the file past ``room``
    bytes. Sweeps that turn round at the ends of the clip find again what they read last, however
    little room there is.
    """

    def __init__(self, frames: UInt8[np.ndarray, "F H W 3"], room: int = ROOM):
        self.frames, (height, width) = frames, frames.shape[1:3]
        self.size = max(1, width // 2), max(1, height // 2)
        self.scale = np.array([width / self.size[0], height / self.size[1]], np.float32)
        """Pixels of a frame to one of a field, in x and y."""
        self._shelf = _Shelf((2, *self.size[::-1], 2), room)
        self._coming: dict[_Pair, Future] = {}
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="flow")

    def __enter__(self) -> "FlowFields":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._shelf.close()

    def ask(self, a: int, b: int) -> None:
        """Has the flow between two frames computed meanwhile, as it is needed soon."""
        pair = min(a, b), max(a, b)
        if pair in self._coming or pair in self._shelf:
            return
        if len(self._coming) == AHEAD:  # points that were to take it were lost on the way
            early = next(iter(self._coming))
            self._shelf.put(early, self._coming.pop(early).result())
        self._coming[pair] = self._pool.submit(self._compute, pair)

    def between(
        self, a: int, b: int
    ) -> tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w 2"]]:
        """Flow from frame a to b, and that from b to a; both in the frames' pixels, on fields of
        half their size."""
        pair = min(a, b), max(a, b)
        self.ask(*pair)
        coming = self._coming.pop(pair, None)
        fields = self._shelf.take(pair) if coming is None else coming.result()
        if coming is not None:
            self._shelf.put(pair, fields)
        there, back = fields.astype(np.float32)
        return (there, back) if a <= b else (back, there)

    def _compute(self, pair: _Pair) -> Float16[np.ndarray, "2 h w 2"]:
        a, b = (grey(self.frames[t]) for t in pair)
        both = fine_flow(a, b), fine_flow(b, a)
        return np.stack(
            [cv2.resize(f, self.size, interpolation=cv2.INTER_AREA) for f in both]
        ).astype(np.float16)


class _Shelf:
    """Arrays of one shape in a temporary file; the one used longest ago makes way.

    Read and written, not mapped: a full disk is then an error that can be told.
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
