"""A tracker that works on a few frames, or forwards only, made to follow points through a whole
clip.

A ``Follow`` takes frames and queries as a tracker does, but its answers before the frame of a query
mean nothing.
"""

from collections.abc import Callable

import numpy as np

Follow = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``(frames (F, H, W, 3), queries (N, 3) as [t, x, y]) -> (xy (F, N, 2), visible (F, N))``, valid
from the frame of each query on."""


def both_ways(
    follow: Follow, frames: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Follows queries [t, x, y] forwards in the clip, and forwards in the reversed clip for the
    frames before each query.

    Returns:
        Positions (F, N, 2) in float32 and visibility (F, N); in its own frame a query is visible at
        its own position.
    """
    num_frames = len(frames)
    start = queries[:, 0].astype(np.int64)
    mirrored = queries.copy()
    mirrored[:, 0] = num_frames - 1 - start
    xy, visible = _follow_from_first(follow, frames, queries)
    back_xy, back_visible = (
        out[::-1] for out in _follow_from_first(follow, frames[::-1], mirrored)
    )
    before = np.arange(num_frames)[:, None] < start
    xy = np.where(before[..., None], back_xy, xy)
    visible = np.where(before, back_visible, visible)
    own = start, np.arange(len(start))
    xy[own] = queries[:, 1:]
    visible[own] = True
    return xy.astype(np.float32), visible


def _follow_from_first(
    follow: Follow, frames: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Follows forwards from the frame of the first query; ``follow`` is not called if that is the
    last frame.

    In earlier frames the points lie at the positions of their queries, not visible.
    """
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
    """Follows at most ``size`` queries at a time, for trackers whose memory grows with their
    number."""

    def follow_groups(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            follow(frames, queries[i : i + size]) for i in range(0, max(1, len(queries)), size)
        ]
        return np.concatenate([p[0] for p in parts], 1), np.concatenate([p[1] for p in parts], 1)

    return follow_groups


def in_windows(follow: Follow, length: int, overlap: int) -> Follow:
    """Follows through windows of ``length`` frames, each of which begins with the last ``overlap``
    frames of the window before.

    A point continues from the first frame of the overlap in which it is visible; a point that is
    visible in none of them is lost.
    """

    def follow_windows(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_frames = len(frames)
        num_queries = len(queries)
        start = queries[:, 0].astype(np.int64)
        xy = np.repeat(queries[None, :, 1:], num_frames, 0).astype(np.float32)
        visible = np.zeros((num_frames, num_queries), bool)
        visible[start, np.arange(num_queries)] = True
        for first in range(0, max(1, num_frames - overlap), length - overlap):
            window = range(first, min(first + length, num_frames))
            asked = _queries_of_window(xy, visible, start, window, overlap if first else 0)
            if len(asked):
                n = asked[:, 0].astype(np.int64)
                own = asked[:, 1:].astype(np.float32)
                part = slice(window.start, window.stop)
                new_xy, new_visible = follow(frames[part], own)
                ahead = np.arange(len(window))[:, None] > own[None, :, 0]
                xy[part, n] = np.where(ahead[..., None], new_xy, xy[part, n])
                visible[part, n] = np.where(ahead, new_visible, visible[part, n])
            # Until a later window continues a point, the point stays at its last position.
            begun = start < window.stop
            xy[window.stop :, begun] = xy[window.stop - 1, begun]
        return xy, visible

    return follow_windows


def _queries_of_window(
    xy: np.ndarray, visible: np.ndarray, start: np.ndarray, window: range, overlap: int
) -> np.ndarray:
    """Rows [point, frame in the window, x, y]: queries that start in a window, and points that
    continue from its overlap with the window before.

    Args:
        start: frame of each query in the clip.
    """
    first = window.start
    seen = visible[first : first + max(overlap, 1)]
    starts_here = start >= first
    begin = np.where(starts_here, start - first, seen.argmax(0))
    asked = np.flatnonzero(np.where(starts_here, start < window.stop, seen.any(0)))
    return np.c_[asked, begin[asked], xy[first + begin[asked], asked]]
