"""Trackers that see one stretch of time, or one direction of it, made to follow points through a
whole clip.

A ``Follow`` is ``(frames, queries) -> (xy, visible)`` like a tracker, but is only right from each
query on.
"""

from collections.abc import Callable

import numpy as np

Follow = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def both_ways(
    follow: Follow, frames: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Follows queries [t, x, y] onwards, and backwards by following them onwards in the reversed
    clip."""
    num_frames = len(frames)
    start = queries[:, 0].astype(np.int64)
    mirrored = queries.copy()
    mirrored[:, 0] = num_frames - 1 - start
    xy, visible = _from_first(follow, frames, queries)
    back_xy, back_visible = (out[::-1] for out in _from_first(follow, frames[::-1], mirrored))
    before = np.arange(num_frames)[:, None] < start
    xy = np.where(before[..., None], back_xy, xy)
    visible = np.where(before, back_visible, visible)
    own = start, np.arange(len(start))
    xy[own] = queries[:, 1:]
    visible[own] = True
    return xy.astype(np.float32), visible


def _from_first(
    follow: Follow, frames: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Follows onwards, leaving out the frames before the first query; nothing to do where that is
    the last frame."""
    num_frames = len(frames)
    num_queries = len(queries)
    xy = np.repeat(queries[None, :, 1:], num_frames, 0).astype(np.float32)
    visible = np.zeros((num_frames, num_queries), bool)
    first = int(queries[:, 0].min()) if num_queries else num_frames
    if first < num_frames - 1:
        shifted = queries.copy()
        shifted[:, 0] -= first
        xy[first:], visible[first:] = follow(frames[first:], shifted)
    return xy, visible


def in_groups(follow: Follow, size: int) -> Follow:
    """Follows so many queries at a time, where memory grows with their number."""

    def grouped(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            follow(frames, queries[i : i + size]) for i in range(0, max(1, len(queries)), size)
        ]
        return np.concatenate([p[0] for p in parts], 1), np.concatenate([p[1] for p in parts], 1)

    return grouped


def in_windows(follow: Follow, length: int, overlap: int) -> Follow:
    """Follows through stretches of ``length`` frames, each of which starts again from the last
    one's overlap.

    A point goes on from the first frame of the overlap that sees it; one that no frame of it sees
    is lost.
    """

    def windowed(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_frames = len(frames)
        num_queries = len(queries)
        start = queries[:, 0].astype(np.int64)
        xy = np.repeat(queries[None, :, 1:], num_frames, 0).astype(np.float32)
        visible = np.zeros((num_frames, num_queries), bool)
        visible[start, np.arange(num_queries)] = True
        for first in range(0, max(1, num_frames - overlap), length - overlap):
            last = min(first + length, num_frames)
            asked = _questions(xy, visible, start, first, last, overlap if first else 0)
            if len(asked):
                n = asked[:, 0].astype(np.int64)
                window = asked[:, 1:].astype(np.float32)
                new_xy, new_visible = follow(frames[first:last], window)
                ahead = np.arange(last - first)[:, None] > window[None, :, 0]
                xy[first:last, n] = np.where(ahead[..., None], new_xy, xy[first:last, n])
                visible[first:last, n] = np.where(ahead, new_visible, visible[first:last, n])
            _freeze(xy, visible, start, first, last)
        return xy, visible

    return windowed


def _questions(
    xy: np.ndarray, visible: np.ndarray, start: np.ndarray, first: int, last: int, overlap: int
) -> np.ndarray:
    """Rows [point, frame in the window, x, y] of what a window is asked."""
    seen = visible[first : first + max(overlap, 1)]
    at = np.where(start >= first, start - first, seen.argmax(0))
    asked = np.flatnonzero(np.where(start >= first, start < last, seen.any(0)))
    return np.c_[asked, at[asked], xy[first + at[asked], asked]]


def _freeze(xy: np.ndarray, visible: np.ndarray, start: np.ndarray, first: int, last: int) -> None:
    """Leaves what comes after the window at the last position, until a later window says more."""
    begun = start < last
    xy[last:, begun] = xy[last - 1, begun]
