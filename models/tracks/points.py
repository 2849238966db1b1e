"""Tracks in pixels."""

from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from models.run import allocate


@dataclass(frozen=True)
class PointTracks:
    """N points followed through F frames in pixels, without 3D: numpy arrays and the image size."""

    xy: Float[np.ndarray, "F N 2"]
    """Pixels; in frames in which a track is not visible, its position in the last frame in which it
    was."""
    visible: Bool[np.ndarray, "F N"]
    """Whether a track was observed."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def num_tracks(self) -> int:
        """N."""
        return self.xy.shape[1]

    @staticmethod
    def none(num_frames: int, width: int, height: int) -> "PointTracks":
        """No track at all."""
        xy = np.zeros((num_frames, 0, 2), np.float32)
        return PointTracks(xy, np.zeros((num_frames, 0), bool), width, height)

    def to_values(self) -> dict[str, object]:
        """The fields by name, for a file."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    @staticmethod
    def from_values(values: dict) -> "PointTracks":
        """The inverse of ``to_values``."""
        return PointTracks(**values)

    def select(self, tracks: Int[np.ndarray, "n"] | Bool[np.ndarray, "N"]) -> "PointTracks":
        """Some of the tracks, in the given order."""
        numbers = np.arange(self.num_tracks)[tracks]
        return replace(self, xy=_take(self.xy, numbers), visible=_take(self.visible, numbers))

    def select_frames(self, frames: slice | Int[np.ndarray, "f"]) -> "PointTracks":
        """All tracks in some of the frames."""
        return replace(self, xy=self.xy[frames], visible=self.visible[frames])

    def restrict(self, allowed: Bool[np.ndarray, "F N"]) -> "PointTracks":
        """The same tracks, visible only where ``allowed`` too; positions are shared, not copied."""
        visible = allocate(self.visible.shape, bool)
        return replace(self, visible=np.logical_and(self.visible, allowed, out=visible))

    def joined(
        self, xy: Float[np.ndarray, "F n 2"], visible: Bool[np.ndarray, "F n"]
    ) -> "PointTracks":
        """These tracks, and behind them others in the same frames."""
        pairs = (self.xy, xy), (self.visible, visible)
        return replace(self, xy=_join(*pairs[0]), visible=_join(*pairs[1]))


def find_lifetimes(
    visible: Bool[np.ndarray, "F N"],
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """First and last frame in which each track is visible; F and -F for a track that never is."""
    never = len(visible)
    first = np.full(visible.shape[1], never)
    last = np.full(visible.shape[1], -never)
    for t, seen in enumerate(visible):
        first[seen & (first == never)] = t
        last[seen] = t
    return first, last


def _join(a: Shaped[np.ndarray, "F N *C"], b: Shaped[np.ndarray, "F n *C"]) -> np.ndarray:
    """The values of tracks, and behind them those of others."""
    shape = len(a), a.shape[1] + b.shape[1], *a.shape[2:]
    return np.concatenate([a, b], 1, out=allocate(shape, np.result_type(a, b)))


def _take(values: Shaped[np.ndarray, "F N *C"], numbers: Int[np.ndarray, "n"]) -> np.ndarray:
    """The values of some tracks."""
    out = allocate((len(values), len(numbers), *values.shape[2:]), values.dtype)
    for t, own in enumerate(values):
        out[t] = own[numbers]
    return out
