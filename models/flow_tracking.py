"""The stronger tracker built in: dense flow over several intervals, chained along the way that is most certain.

Chains over long intervals drift little, chains over short ones survive fast change; each point takes in each frame the
chain whose summed error of going there and back, and likeness to the query, is best.

Source: Neoral, Serych, Matas, "MFT: Long-term tracking of every pixel", WACV 2024, with the learned certainty of its
flow replaced by the forward-backward error and by the look of the point.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.optical_flow import fine_flow, grey, sample

INTERVALS = (1, 2, 4, 8, 16, 32)
"""Frames that one link of a chain may span."""
FORWARD_BACKWARD_LIMIT = 0.7
"""A link whose way back misses its start by more than this, in pixels, is not taken."""
LINK_COST = 0.01
"""Squared pixels that each link adds to a chain's cost, whatever its own error."""
UNLIKE_COST = 0.01
"""Squared pixels that a chain's cost grows by each grey level of difference from the query's patch."""
SEEN = 25.0
"""Mean difference from the query's patch, in grey levels, up to which a point counts as visible."""
LOST = 40.0
"""The same from which on a link is not taken."""
_RADIUS, _SIGMA = 2, 1.0
_MIN_FOR_GAIN = 32


def dis_flow(
    frames: UInt8[np.ndarray, "F H W 3"], queries: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Follows queries [t, x, y] both ways in time; a point that was hidden can be found again.

    Flow fields are computed as they are needed and dropped, so memory does not grow with the clip's length.
    """
    num_frames, num_queries = len(frames), len(queries)
    start = queries[:, 0].astype(np.int64)
    xy = np.repeat(queries[None, :, 1:], num_frames, 0).astype(np.float32)
    visible = np.zeros((num_frames, num_queries), bool)
    visible[start, np.arange(num_queries)] = True
    look = _looks(frames, queries)
    _sweep(frames, start, look, xy, visible)
    # backwards: the same on the clip read from its end; the views are written in place
    _sweep(frames[::-1], num_frames - 1 - start, look, xy[::-1], visible[::-1])
    return xy, visible


def _sweep(frames: np.ndarray, start: np.ndarray, look: np.ndarray, xy: np.ndarray, visible: np.ndarray) -> None:
    """Carries points onwards from their start, writing into xy and visible."""
    if len(start) == 0:
        return
    cost = np.full(visible.shape, np.inf, np.float32)
    cost[start, np.arange(len(start))] = 0
    for t in range(int(start.min()) + 1, len(frames)):
        blurred, gain, now = _blurred(frames[t]), np.ones(3, np.float32), grey(frames[t])
        begun = start < t
        best, unlike, place = np.full(len(start), np.inf, np.float32), np.zeros(len(start)), xy[t - 1].copy()
        for interval in INTERVALS:
            source = t - interval
            from_here = np.flatnonzero(np.isfinite(cost[source]) & (start <= source)) if source >= 0 else []
            if len(from_here) == 0:
                continue
            there, error = _link(grey(frames[source]), now, xy[source, from_here])
            patch = _patches(blurred, there)
            good = (error < FORWARD_BACKWARD_LIMIT) & _inside(there, now.shape)
            if interval == 1:
                gain = _gain(look[from_here[good]], patch[good])
            differs = np.abs(look[from_here] - patch * gain).mean((1, 2))
            total = cost[source, from_here] + error**2 + LINK_COST + UNLIKE_COST * differs
            won = good & (differs < LOST) & (total < best[from_here])
            best[from_here[won]], unlike[from_here[won]] = total[won], differs[won]
            place[from_here[won]] = there[won]
        cost[t, begun] = best[begun]
        xy[t, begun] = place[begun]
        visible[t, begun] = (np.isfinite(best) & (unlike < SEEN))[begun]


def _link(a: np.ndarray, b: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in b of points in a by dense flow, and by how much the way back misses."""
    there = xy + sample(fine_flow(a, b), xy)
    back = there + sample(fine_flow(b, a), there)
    return there, np.linalg.norm(back - xy, axis=-1)


def _inside(xy: np.ndarray, shape: tuple[int, ...]) -> Bool[np.ndarray, "n"]:
    return ((xy >= 0.5) & (xy <= np.array(shape[1::-1]) - 0.5)).all(-1)


def _looks(frames: np.ndarray, queries: np.ndarray) -> Float[np.ndarray, "N P 3"]:
    """The query points' patches."""
    look = np.zeros((len(queries), (2 * _RADIUS + 1) ** 2, 3), np.float32)
    start = queries[:, 0].astype(np.int64)
    for t in np.unique(start):
        look[start == t] = _patches(_blurred(frames[t]), queries[start == t, 1:])
    return look


def _blurred(frame: np.ndarray) -> Float[np.ndarray, "H W 3"]:
    return cv2.GaussianBlur(frame, (0, 0), _SIGMA).astype(np.float32)


def _patches(image: np.ndarray, xy: np.ndarray) -> Float[np.ndarray, "n P 3"]:
    side = np.arange(-_RADIUS, _RADIUS + 1, dtype=np.float32)
    offsets = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    return sample(image, xy[:, None] + offsets)


def _gain(look: np.ndarray, patch: np.ndarray) -> Float[np.ndarray, "3"]:
    """By how much the exposure has changed since the queries, so that a camera that adapts hides no point."""
    if len(look) < _MIN_FOR_GAIN:
        return np.ones(3, np.float32)
    ratio = np.median((look.mean(1) + 4) / (patch.mean(1) + 4), 0)
    return np.clip(ratio, 0.5, 2).astype(np.float32)
