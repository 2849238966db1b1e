"""The stronger tracker built in: dense flow over several intervals, chained along the way that is
most certain.

Chains over long intervals drift little, chains over short ones survive fast change; each point
takes in each frame the chain whose summed error of going there and back, and likeness to the query,
is best.

Source: Neoral, Serych, Matas, "MFT: Long-term tracking of every pixel", WACV 2024, with the learned
certainty of its flow replaced by the forward-backward error and by the look of the point.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from models.clip import at_points
from models.tracking.flow_fields import FlowFields
from models.tracking.optical_flow import sample
from models.tracking.sightings import Sightings

INTERVALS = (1, 3, 9, 27)
"""Frames that one link of a chain may span."""
FORWARD_BACKWARD_LIMIT = 0.7
"""A link whose way back misses its start by more than this, in pixels, is not taken."""
LINK_COST = 0.01
"""Squared pixels that each link adds to a chain's cost, whatever its own error."""
UNLIKE_COST = 0.01
"""Squared pixels that a chain's cost grows by each grey level of difference from the query's
patch."""
SEEN = 25.0
"""Mean difference from the query's patch, in grey levels, up to which a point counts as visible."""
LOST = 40.0
"""The same from which on a link is not taken."""
_RADIUS = 2
_SIGMA = 1.0
_MIN_FOR_GAIN = 32


def dis_flow(
    frames: UInt8[np.ndarray, "F H W 3"],
    queries: Float[np.ndarray, "N 3"],
    fields: FlowFields | None = None,
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Follows queries [t, x, y] both ways in time; a point that was hidden can be found again.

    Args:
        fields: the clip's flow, for those that have more than one call's queries; that of this call
            alone if not given.
    """
    if fields is None:
        with FlowFields(frames) as fields:
            return dis_flow(frames, queries, fields)
    num_frames = len(frames)
    num_queries = len(queries)
    start = queries[:, 0].astype(np.int64)
    xy = np.repeat(queries[None, :, 1:], num_frames, 0).astype(np.float32)
    visible = np.zeros((num_frames, num_queries), bool)
    visible[start, np.arange(num_queries)] = True
    look = _looks(frames, queries)
    for order in (range(num_frames), range(num_frames - 1, -1, -1)):
        found = _sweep(fields, order, queries, look)
        coming = next(found, None)
        for t in order[1:]:
            begun = start * order.step < t * order.step
            xy[t, begun] = xy[t - order.step, begun]
            if coming is not None and coming[0] == t:
                _, points, places, seen = coming
                xy[t, points] = places
                visible[t, points] = seen
                coming = next(found, None)
    return xy, visible


def follow_by_flow(
    fields: FlowFields,
    queries: Float[np.ndarray, "N 3"],
    reach: range,
    allowed: Bool[np.ndarray, "F H W"] | None = None,
) -> Sightings:
    """What ``dis_flow`` sees of queries [t, x, y], without arrays of all frames times all points.

    Args:
        fields: the clip's flow.
        reach: frames in which the points are looked for.
        allowed: a track ends where it meets a pixel that is not.
    """
    frames = fields.frames
    start = queries[:, 0].astype(np.int64)
    look = _looks(frames, queries)
    parts = []
    for order in (reach, reach[::-1]):
        alive = np.ones(len(queries), bool)
        for t, points, places, seen in _sweep(fields, order, queries, look):
            points = points[seen]
            places = places[seen]
            if allowed is not None:
                alive[points[~at_points(allowed[[t]], places[None])[0]]] = False
                points, places = points[alive[points]], places[alive[points]]
            parts.append((t, points.astype(np.int32), places))
    parts += [(t, np.flatnonzero(start == t), queries[start == t, 1:]) for t in np.unique(start)]
    return Sightings.gathered(parts, len(queries), len(frames))


@dataclass(frozen=True)
class _Front:
    """The points found in one frame, from which links lead on."""

    points: Int[np.ndarray, "n"]
    xy: Float[np.ndarray, "n 2"]
    cost: Float[np.ndarray, "n"]


_Found = tuple[int, Int[np.ndarray, "n"], Float[np.ndarray, "n 2"], Bool[np.ndarray, "n"]]


def _sweep(
    fields: FlowFields, order: range, queries: np.ndarray, look: np.ndarray
) -> Iterator[_Found]:
    """Carries points along one direction of time: frame, points found in it, where, and whether
    they look as they did.

    Only the frames that a link may span are held; the sweep ends where no point is left to carry.
    """
    start = queries[:, 0].astype(np.int64)
    fronts = {}
    last = (start * order.step).max(initial=order[0] * order.step)
    for t in order:
        fronts.pop(t - order.step * (INTERVALS[-1] + 1), None)
        if not fronts and t * order.step > last:
            return
        _ask_ahead(fields, order, t, fronts)
        cost, unlike, place = _linked(fields, order, t, fronts, look)
        points = np.flatnonzero(np.isfinite(cost))
        if len(points):
            yield t, points, place[points], unlike[points] < SEEN
        cost[start == t] = 0
        place[start == t] = queries[start == t, 1:]
        points = np.flatnonzero(np.isfinite(cost))
        if len(points):
            fronts[t] = _Front(points, place[points], cost[points])


def _linked(
    fields: FlowFields, order: range, t: int, fronts: dict[int, _Front], look: np.ndarray
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"], Float[np.ndarray, "N 2"]]:
    """Of all points: the cost of the best chain to frame t, inf without one; difference from the
    query; place."""
    best = np.full(len(look), np.inf, np.float32)
    unlike = np.zeros(len(look))
    place = np.empty((len(look), 2), np.float32)
    sources = [source for source in _sources(order, t) if source in fronts]
    blurred = _blurred(fields.frames[t]) if sources else None
    gain = np.ones(3, np.float32)
    for source in sources:
        front = fronts[source]
        there, error = _link(fields, source, t, front.xy)
        patch = _patches(blurred, there)
        good = (error < FORWARD_BACKWARD_LIMIT) & _inside(there, blurred.shape)
        if abs(t - source) == 1:
            gain = _gain(look[front.points[good]], patch[good])
        differs = _differences(look, front.points, patch, gain)
        total = front.cost + error**2 + LINK_COST + UNLIKE_COST * differs
        won = good & (differs < LOST) & (total < best[front.points])
        won_points = front.points[won]
        best[won_points] = total[won]
        unlike[won_points] = differs[won]
        place[won_points] = there[won]
    return best, unlike, place


def _sources(order: range, t: int) -> list[int]:
    """Frames from which a link may lead to frame t, the nearest first."""
    return [
        t - order.step * interval for interval in INTERVALS if t - order.step * interval in order
    ]


def _ask_ahead(fields: FlowFields, order: range, t: int, fronts: dict[int, _Front]) -> None:
    """Has the flow of the links to frame t computed, and of those to the next while the points of t
    are looked at."""
    sources = [source for source in _sources(order, t) if source in fronts]
    for source in sources:
        fields.ask(source, t)
    following = t + order.step
    if not sources or following not in order:
        return
    for source in _sources(order, following):
        if source == t or source in fronts:
            fields.ask(source, following)


def _link(fields: FlowFields, a: int, b: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in frame b of points in frame a by dense flow, and by how much the way back
    misses."""
    onwards, backwards = fields.between(a, b)
    there = xy + sample(onwards, xy / fields.scale)
    back = there + sample(backwards, there / fields.scale)
    return there, np.hypot(*(back - xy).T)


def _inside(xy: np.ndarray, shape: tuple[int, ...]) -> Bool[np.ndarray, "n"]:
    (x, y), (height, width) = xy.T, shape[:2]
    return (x >= 0.5) & (y >= 0.5) & (x <= width - 0.5) & (y <= height - 0.5)


def _looks(frames: np.ndarray, queries: np.ndarray) -> Float[np.ndarray, "N P 3"]:
    """The query points' patches."""
    look = np.zeros((len(queries), (2 * _RADIUS + 1) ** 2, 3), np.float32)
    start = queries[:, 0].astype(np.int64)
    for t in np.unique(start):
        look[start == t] = _patches(_blurred(frames[t]), queries[start == t, 1:])
    return look


def _blurred(frame: np.ndarray) -> Float[np.ndarray, "H W 3"]:
    return cv2.GaussianBlur(frame, (0, 0), _SIGMA).astype(np.float32)


def _patches(
    image: Float[np.ndarray, "H W 3"], xy: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n P 3"]:
    """Bilinear values round points; the border repeats."""
    patches = np.empty((len(xy), (2 * _RADIUS + 1) ** 2, 3), np.float32)
    _read_patches(image, xy.astype(np.float32), patches)
    return patches


@numba.njit(cache=True, nogil=True)
def _read_patches(image, xy, patches):
    height, width = image.shape[:2]
    for n in range(len(xy)):
        x = min(max(xy[n, 0] - np.float32(0.5), np.float32(-width)), np.float32(2 * width))
        y = min(max(xy[n, 1] - np.float32(0.5), np.float32(-height)), np.float32(2 * height))
        left = int(np.floor(x))
        top = int(np.floor(y))
        right = x - np.float32(left)
        below = y - np.float32(top)
        weights = (1 - right) * (1 - below), right * (1 - below), (1 - right) * below, right * below
        place = 0
        for dy in range(-_RADIUS, _RADIUS + 1):
            above = min(max(top + dy, 0), height - 1)
            under = min(max(top + dy + 1, 0), height - 1)
            for dx in range(-_RADIUS, _RADIUS + 1):
                a, b = min(max(left + dx, 0), width - 1), min(max(left + dx + 1, 0), width - 1)
                for c in range(3):
                    patches[n, place, c] = (
                        weights[0] * image[above, a, c]
                        + weights[1] * image[above, b, c]
                        + weights[2] * image[under, a, c]
                        + weights[3] * image[under, b, c]
                    )
                place += 1


@numba.njit(cache=True, nogil=True)
def _differences(look, points, patches, gain):
    """Mean absolute difference of the points' patches, brightened by gain, from those of their
    queries."""
    difference = np.empty(len(points), np.float32)
    for n in range(len(points)):
        total = np.float32(0)
        for place in range(patches.shape[1]):
            for c in range(3):
                total += abs(look[points[n], place, c] - patches[n, place, c] * gain[c])
        difference[n] = total / (3 * patches.shape[1])
    return difference


def _gain(look: np.ndarray, patch: np.ndarray) -> Float[np.ndarray, "3"]:
    """By how much the exposure has changed since the queries, so that a camera that adapts hides no
    point."""
    if len(look) < _MIN_FOR_GAIN:
        return np.ones(3, np.float32)
    ratio = np.median((look.mean(1) + 4) / (patch.mean(1) + 4), 0)
    return np.clip(ratio, 0.5, 2).astype(np.float32)
