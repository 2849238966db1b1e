"""Dense-flow tracker: flow over several intervals, chained along the most reliable way.

Chains over long intervals drift little; chains over short intervals survive fast change. In each
frame a point takes the chain of least cost: the summed forward-backward errors and differences
from the query's patch.

Source: Neoral, Serych, Matas, "MFT: Long-term tracking of every pixel", WACV 2024. Its learned
uncertainty of flow is replaced by the forward-backward error and the point's appearance.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from models.clip import at_points
from models.run import njit
from models.tracking.flow_fields import FlowFields
from models.tracking.optical_flow import sample_field
from models.tracking.options import TrackingOptions
from models.tracking.sightings import Sightings

# Frames that a single link of a chain may span.
_INTERVALS = (1, 3, 9, 27)
# Pixels along an axis by which chains to one place differ at most, by drift.
_ONE_PLACE = 2.0
# Share of the links between two frames that must be of points that chains of shorter links follow,
# and share of these that must end at the same place.
_FOLLOWED = 0.5
_RELIABLE = 0.9
# Half the side in pixels of the patch that tells a point's appearance.
_RADIUS = 2
# Standard deviation in pixels of the blur before patches are compared: it hides sub-pixel noise.
_SIGMA = 1.0
# Points below which the change of exposure between two frames is not estimated.
_MIN_FOR_GAIN = 32
# Largest change of exposure between two frames, as a factor.
_MAX_GAIN = 2


def dis_flow(
    frames: UInt8[np.ndarray, "F H W 3"],
    queries: Float[np.ndarray, "N 3"],
    fields: FlowFields | None = None,
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Follows queries [t, x, y] forwards and backwards; an occluded point can be found again.

    Args:
        fields: the clip's flow, shared by several calls; computed for this call if not given.
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
    appearance = _read_query_patches(frames, queries)
    for order in (range(num_frames), range(num_frames - 1, -1, -1)):
        found = _sweep(fields, order, queries, appearance)
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
    options: TrackingOptions = TrackingOptions(),
) -> Sightings:
    """The visible observations of ``dis_flow``, without arrays of all frames times all points.

    Args:
        fields: the clip's flow.
        queries: [t, x, y].
        reach: frames in which the points are followed.
        allowed: False on pixels that end a track.
    """
    frames = fields.frames
    start = queries[:, 0].astype(np.int64)
    appearance = _read_query_patches(frames, queries)
    parts = []
    for order in (reach, reach[::-1]):
        alive = np.ones(len(queries), bool)
        for t, points, places, seen in _sweep(fields, order, queries, appearance, options):
            points = points[seen]
            places = places[seen]
            if allowed is not None:
                # A track that has met a mask may follow the mover from there on.
                alive[points[~at_points(allowed[[t]], places[None])[0]]] = False
                points, places = points[alive[points]], places[alive[points]]
            parts.append((t, points.astype(np.int32), places))
    parts += [(t, np.flatnonzero(start == t), queries[start == t, 1:]) for t in np.unique(start)]
    return Sightings.gathered(parts, len(queries), len(frames))


@dataclass(frozen=True)
class _Front:
    """The points found in a frame, from which links lead on."""

    points: Int[np.ndarray, "n"]
    """Their indices among the queries."""
    xy: Float[np.ndarray, "n 2"]
    """Pixels."""
    cost: Float[np.ndarray, "n"]
    """Squared pixels, of the best chain."""


_Found = tuple[int, Int[np.ndarray, "n"], Float[np.ndarray, "n 2"], Bool[np.ndarray, "n"]]
"""Frame, indices of the points found in it, their pixels, and True where they are visible."""


def _sweep(
    fields: FlowFields,
    order: range,
    queries: Float[np.ndarray, "N 3"],
    appearance: Float[np.ndarray, "N P 3"],
    options: TrackingOptions = TrackingOptions(),
) -> Iterator[_Found]:
    """Carries points in one direction of time and yields each frame's points.

    Only the frames within reach of a link are held. The sweep ends after the last point is lost.
    """
    start = queries[:, 0].astype(np.int64)
    fronts = {}
    last = (start * order.step).max(initial=order[0] * order.step)
    for t in order:
        # No link reaches back this far.
        fronts.pop(t - order.step * (_INTERVALS[-1] + 1), None)
        if not fronts and t * order.step > last:
            return
        _ask_ahead(fields, order, t, fronts)
        cost, unlike, place = _link_points(fields, order, t, fronts, appearance, options)
        points = np.flatnonzero(np.isfinite(cost))
        if len(points):
            yield t, points, place[points], unlike[points] < options.seen_difference
        # Queries of this frame begin here, at no cost.
        cost[start == t] = 0
        place[start == t] = queries[start == t, 1:]
        points = np.flatnonzero(np.isfinite(cost))
        if len(points):
            fronts[t] = _Front(points, place[points], cost[points])


def _link_points(
    fields: FlowFields,
    order: range,
    t: int,
    fronts: dict[int, _Front],
    appearance: Float[np.ndarray, "N P 3"],
    options: TrackingOptions,
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"], Float[np.ndarray, "N 2"]]:
    """The best chain of each point to frame t: its cost (inf without a chain), the difference from
    the query's patch in grey levels, and the pixel."""
    best = np.full(len(appearance), np.inf, np.float32)
    unlike = np.zeros(len(appearance))
    place = np.zeros((len(appearance), 2), np.float32)
    sources = [source for source in _list_sources(order, t) if source in fronts]
    blurred = _blur(fields.frames[t]) if sources else None
    gain = np.ones(3, np.float32)
    for source in sources:
        front = fronts[source]
        there, error = _link(fields, source, t, front.xy)
        patch = _cut_patches(blurred, there)
        good = (error < options.link_error) & _is_inside(there, blurred.shape)
        # Neighbouring frames share most points, so they tell the change of exposure best.
        if abs(t - source) == 1:
            gain = _estimate_gain(appearance[front.points[good]], patch[good])
        differs = _measure_differences(appearance, front.points, patch, gain)
        total = front.cost + error**2 + options.link_cost + options.unlike_cost * differs
        better = total < best[front.points]
        if abs(t - source) > 1:
            better &= _may_win(there, place[front.points], best[front.points], good)
        won = good & (differs < options.lost_difference) & better
        won_points = front.points[won]
        best[won_points] = total[won]
        unlike[won_points] = differs[won]
        place[won_points] = there[won]
    return best, unlike, place


def _may_win(
    there: Float[np.ndarray, "n 2"],
    place: Float[np.ndarray, "n 2"],
    best: Float[np.ndarray, "n"],
    good: Bool[np.ndarray, "n"],
) -> Bool[np.ndarray, "n"]:
    """Points whose link may replace their best chain, or start one: flow over many frames can be
    wrong both ways, and ends at another piece of a pattern or where it began.

    Links between two frames are believed if many of them are of points that chains of shorter links
    follow too, and nearly all of these end at the same place.

    Args:
        there: where the links end.
        place: where the best chains of shorter links end.
        best: cost of these chains, inf for points that they have lost.
        good: links that pass the forward-backward check.
    """
    both = good & np.isfinite(best)
    agrees = np.abs(there - place).max(1) < _ONE_PLACE
    if (both & agrees).sum() >= _RELIABLE * max(both.sum(), _FOLLOWED * good.sum()):
        return np.ones(len(there), bool)
    return both & agrees


def _list_sources(order: range, t: int) -> list[int]:
    """Frames from which a link may lead to frame t, the nearest first."""
    frames = [t - order.step * interval for interval in _INTERVALS]
    return [source for source in frames if source in order]


def _ask_ahead(fields: FlowFields, order: range, t: int, fronts: dict[int, _Front]) -> None:
    """Starts to compute the flow of all links to frame t, and to the frame after it, which threads
    compute while the points of t are compared."""
    sources = [source for source in _list_sources(order, t) if source in fronts]
    for source in sources:
        fields.ask(source, t)
    following = t + order.step
    if not sources or following not in order:
        return
    for source in _list_sources(order, following):
        if source == t or source in fronts:
            fields.ask(source, following)


def _link(
    fields: FlowFields, a: int, b: int, xy: Float[np.ndarray, "n 2"]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
    """Pixels in frame b of points in frame a by dense flow, and the forward-backward error in
    pixels."""
    onwards, backwards = fields.between(a, b)
    there = xy + sample_field(onwards, xy / fields.scale)
    back = there + sample_field(backwards, there / fields.scale)
    return there, np.hypot(*(back - xy).T)


def _is_inside(xy: Float[np.ndarray, "n 2"], shape: tuple[int, ...]) -> Bool[np.ndarray, "n"]:
    """True for points between the centres of the border pixels."""
    x, y = xy.T
    height, width = shape[:2]
    return (x >= 0.5) & (y >= 0.5) & (x <= width - 0.5) & (y <= height - 0.5)


def _read_query_patches(
    frames: UInt8[np.ndarray, "F H W 3"], queries: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "N P 3"]:
    """The patch round each query in its own frame."""
    appearance = np.zeros((len(queries), (2 * _RADIUS + 1) ** 2, 3), np.float32)
    start = queries[:, 0].astype(np.int64)
    for t in np.unique(start):
        appearance[start == t] = _cut_patches(_blur(frames[t]), queries[start == t, 1:])
    return appearance


def _blur(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    return cv2.GaussianBlur(frame, (0, 0), _SIGMA).astype(np.float32)


def _cut_patches(
    image: Float[np.ndarray, "H W 3"], xy: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n P 3"]:
    """Bilinear values of the pixels round points; the border repeats."""
    patches = np.empty((len(xy), (2 * _RADIUS + 1) ** 2, 3), np.float32)
    _read_patches(image, xy.astype(np.float32), patches)
    return patches


@njit(cache=True, nogil=True)
def _read_patches(image, xy, patches):
    # A kernel of its own beside optical_flow.sample_field: it computes the weights once for all
    # pixels of a patch, and releases the GIL.
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


@njit(cache=True, nogil=True)
def _measure_differences(appearance, points, patches, gain):
    """Mean absolute difference in grey levels of patches, times gain, from their queries'."""
    difference = np.empty(len(points), np.float32)
    for n in range(len(points)):
        total = np.float32(0)
        for place in range(patches.shape[1]):
            for c in range(3):
                total += abs(appearance[points[n], place, c] - patches[n, place, c] * gain[c])
        difference[n] = total / (3 * patches.shape[1])
    return difference


def _estimate_gain(
    appearance: Float[np.ndarray, "n P 3"], patch: Float[np.ndarray, "n P 3"]
) -> Float[np.ndarray, "3"]:
    """Change of exposure since the queries, as a factor for each channel: auto-exposure must not
    make points invisible."""
    if len(appearance) < _MIN_FOR_GAIN:
        return np.ones(3, np.float32)
    # The 4 grey levels keep ratios of dark patches finite.
    ratio = np.median((appearance.mean(1) + 4) / (patch.mean(1) + 4), 0)
    return np.clip(ratio, 1 / _MAX_GAIN, _MAX_GAIN).astype(np.float32)
