"""2D point tracks that cover every frame: seed, follow, and seed again where coverage is thin."""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from models.clip import split_into_stretches
from models.learned import Tracker
from models.run import SILENT, InputError, Progress
from models.tracking.dis_flow import dis_flow, follow_by_flow
from models.tracking.flow_fields import FlowFields
from models.tracking.names import open_tracker
from models.tracking.options import TrackingOptions
from models.tracking.seeding import end_at_masks, seed_frames, split_rounds, thin_sightings
from models.tracking.sightings import Sightings, dense_tracks
from models.tracks import PointTracks


def track_points(
    frames: UInt8[np.ndarray, "F H W 3"],
    queries: Float[np.ndarray, "N 3"],
    tracker: str | Tracker = "lucas_kanade",
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Follows each query point through all frames, before and after the query.

    Args:
        frames: RGB.
        queries: [frame, x, y] with the centre of the top-left pixel at (0.5, 0.5).
        tracker: a name in ``TRACKERS``, or the result of ``open_tracker``.

    Returns:
        Pixel positions (same convention; the tracker's best guess if not visible) and visibility.
    """
    if isinstance(tracker, str):
        tracker = open_tracker(tracker)
    queries = np.asarray(queries, np.float32).reshape(-1, 3)
    return tracker(frames, queries)


def grow_tracks(
    frames: UInt8[np.ndarray, "F H W 3"],
    tracker: str | Tracker = "lucas_kanade",
    allowed: Bool[np.ndarray, "F H W"] | None = None,
    begun: PointTracks | None = None,
    progress: Progress = SILENT,
    options: TrackingOptions = TrackingOptions(),
) -> PointTracks:
    """Tracks that cover every frame about every ``options.spacing`` pixels.

    Frames seed coarse to fine in time (first, last, middles, ...), so that tracks of other frames
    cover most frames before these seed their own.

    Args:
        allowed: False on pixels that get no seed and end every track.
        begun: tracks that exist already. They come first in the result; new tracks fill in between.
        progress: hears the stage "tracking".

    Raises:
        InputError: no frame has a corner that can be tracked.
    """
    if isinstance(tracker, str):
        tracker = open_tracker(tracker)
    growing = _Growing(frames, tracker, allowed, progress, options)
    is_dense = tracker is dis_flow
    whole = range(len(frames))
    parts = split_stretches(len(frames), options) if is_dense else [(whole, whole)]
    with FlowFields(frames) if is_dense else nullcontext() as fields:
        grown = growing.begin(begun)
        for stretch, reach in parts:
            grown = growing.grow(grown, stretch, reach, fields)
    if not growing.count:
        raise InputError(
            "no frame has texture outside the masks that can be tracked; film more detail or mask "
            "less"
        )
    xy, visible = dense_tracks(growing.parts, growing.count)
    height, width = frames.shape[1:3]
    return PointTracks(xy, visible, width, height)


def split_stretches(
    num_frames: int, options: TrackingOptions = TrackingOptions()
) -> list[tuple[range, range]]:
    """Stretches of about equal length that hold all frames in order; with each, the same and the
    stretch before it."""
    parts = split_into_stretches(0, num_frames, options.stretch)
    before = [0, *(part.start for part in parts[:-1])]
    return [(part, range(b, part.stop)) for b, part in zip(before, parts, strict=True)]


@dataclass(frozen=True)
class _Grown:
    """Tracks alive in a stretch."""

    numbers: Int[np.ndarray, "n"]
    """Numbers of the first n tracks among all tracks of the clip; later tracks have none yet."""
    tracks: Sightings


class _Growing:
    """The loop over stretches and rounds of seeding."""

    def __init__(
        self,
        frames: UInt8[np.ndarray, "F H W 3"],
        tracker: Tracker,
        allowed: Bool[np.ndarray, "F H W"] | None,
        progress: Progress,
        options: TrackingOptions,
    ):
        self.frames = frames
        self.tracker = tracker
        self.allowed = allowed
        self.progress = progress
        self.options = options
        self.parts: list[tuple[Int[np.ndarray, "n"], Sightings]] = []
        self.count = 0
        self.done = 0

    def begin(self, begun: PointTracks | None) -> _Grown:
        """The tracks that exist before any seed."""
        if begun is None:
            xy = np.zeros((len(self.frames), 0, 2), np.float32)
            visible = np.zeros((len(self.frames), 0), bool)
        else:
            xy = begun.xy
            visible = begun.visible
        if self.allowed is not None:
            visible = end_at_masks(visible, xy, visible.argmax(0), self.allowed)
        return _Grown(np.zeros(0, np.int64), Sightings.of(xy, visible))

    def grow(
        self, grown: _Grown, stretch: range, reach: range, fields: FlowFields | None
    ) -> _Grown:
        """Seeds and follows in a stretch.

        Args:
            reach: frames in which new points are followed.
            fields: the clip's dense flow, if that is the tracker.
        """
        # The first stretch has no tracks to carry on.
        if stretch[0]:
            grown = self._carry_on(grown, stretch, fields)
        numbers = grown.numbers
        tracks = grown.tracks
        settled = len(numbers)
        for batch in split_rounds(len(stretch), self.options.dense_rounds if fields else None):
            times = [stretch[t] for t in batch]
            queries = seed_frames(self.frames, times, tracks, self.allowed, self.options)
            tracks = tracks.joined(self._follow(queries, reach, fields))
            kept = thin_sightings(tracks, self.options.spacing, 2, settled, stretch[0])
            tracks = tracks.chosen(kept)
            self.done += len(batch)
            found = self.count + len(tracks.length) - settled
            self.progress.step("tracking", self.done, len(self.frames), f"{found} tracks")
        # Tracks of this stretch get the next numbers of the clip.
        fresh = len(tracks.length) - settled
        numbers = np.concatenate([numbers, self.count + np.arange(fresh)])
        self.count += fresh
        self.parts.append((numbers, tracks))
        return _Grown(numbers, tracks)

    def _carry_on(self, grown: _Grown, stretch: range, fields: FlowFields) -> _Grown:
        """The tracks visible in the frame before a stretch, followed through it.

        Tracks that ended earlier are dropped, so that memory does not grow with the clip. Tracks
        that reach into the stretch already (``begun``) are not followed again.
        """
        before = stretch[0] - 1
        last = grown.tracks.first[1:] - 1
        latest = grown.tracks.frame[last]
        given = np.flatnonzero(latest > before)
        ends = np.flatnonzero(latest == before)
        start = np.full(len(ends), before, np.float32)
        queries = np.column_stack([start, grown.tracks.xy[last[ends]]])
        reach = range(before, stretch[-1] + 1)
        found = follow_by_flow(fields, queries, reach, self.allowed, self.options)
        numbers = np.concatenate([grown.numbers[given], grown.numbers[ends]])
        return _Grown(numbers, grown.tracks.chosen(given).joined(found))

    def _follow(
        self, queries: Float[np.ndarray, "n 3"], reach: range, fields: FlowFields | None
    ) -> Sightings:
        """Observations of the queries up to the masks, a batch at a time: the dense answer of a
        tracker for all points of a long clip would fill the memory."""
        if fields is not None:
            return follow_by_flow(fields, queries, reach, self.allowed, self.options)
        size = max(1, self.options.batch_values // len(self.frames))
        found = None
        for begin in range(0, max(1, len(queries)), size):
            part = queries[begin : begin + size]
            xy, visible = track_points(self.frames, part, self.tracker)
            if self.allowed is not None:
                visible = end_at_masks(visible, xy, part[:, 0], self.allowed)
            sightings = Sightings.of(xy, visible)
            found = sightings if found is None else found.joined(sightings)
        return found
