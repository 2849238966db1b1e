"""2D point tracks: seeds where coverage is thin, and the trackers by name that follow them.

A tracker is a function ``(frames, queries) -> (xy, visible)``.
"""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from models.clip import at_points
from models.learned import LEARNED, Tracker, open_learned
from models.run import InputError
from models.tracking.dis_flow import dis_flow, follow_by_flow
from models.tracking.flow_fields import FlowFields
from models.tracking.lucas_kanade import lucas_kanade
from models.tracking.sightings import Sightings, dense_tracks

LONGEST_BY_FLOW = 1000
"""Frames of a clip up to which ``auto`` takes dense flow: it is not known to cost more past that,
but not measured."""


def auto(
    frames: UInt8[np.ndarray, "F H W 3"], queries: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """The better of the trackers built in that the clip's length allows."""
    return for_length(auto, len(frames))(frames, queries)


def for_length(tracker: Tracker, num_frames: int) -> Tracker:
    """A tracker that stands for itself, or the one that ``auto`` stands for."""
    if tracker is not auto:
        return tracker
    return dis_flow if num_frames <= LONGEST_BY_FLOW else lucas_kanade


TRACKERS: dict[str, Tracker] = {"auto": auto, "lucas_kanade": lucas_kanade, "dis_flow": dis_flow}
"""Trackers that need nothing but this package."""
CORNER_QUALITY = 2e-5
"""Smallest eigenvalue of the gradient matrix (images in [0, 1]) below which a patch cannot be
tracked."""
MANY_SEEDS = 8
"""Frames of one round from which on they seed in two turns, so that the second can leave out what
the first covers."""
AT_ONCE = 1 << 25
"""Points times frames that a tracker is given at most: its answer takes 9 bytes for each."""
FEW_ROUNDS = 3
"""Rounds of seeding for dis_flow, whose cost is in the flow of each round and hardly in the
points."""
STRETCH = 100
"""Frames that dis_flow seeds before it carries all tracks on, so that memory and disk do not grow
with a clip."""


def register_tracker(name: str) -> Callable[[Tracker], Tracker]:
    """Makes a tracker available by name to ``track_points`` and the scripts' ``--tracker``."""

    def register(tracker: Tracker) -> Tracker:
        TRACKERS[name] = tracker
        return tracker

    return register


def check_tracker(tracker: str) -> None:
    """Raises InputError where there is no tracker of that name."""
    known = sorted({*TRACKERS, *LEARNED})
    if tracker not in known:
        raise InputError(f"tracker '{tracker}' is not known; choose one of {', '.join(known)}")


def open_tracker(name: str, checkpoint_path: Path | None = None, device: str = "cpu") -> Tracker:
    """The tracker of that name, ready to be called; a learned one reads its checkpoint here.

    Args:
        checkpoint_path: weights of a learned tracker; None where the name of one that comes along
            is given.
        device: where a learned tracker runs.

    Raises:
        InputError: no such tracker; its package or checkpoint is missing or wrong; it needs another
            device.
    """
    check_tracker(name)
    if name in TRACKERS:
        if checkpoint_path is not None:
            raise InputError(
                f"tracker '{name}' has no checkpoint; leave out --checkpoint_path {checkpoint_path}"
            )
        return TRACKERS[name]
    return open_learned(name, checkpoint_path, device)


def track_points(
    frames: UInt8[np.ndarray, "F H W 3"],
    queries: Float[np.ndarray, "N 3"],
    tracker: str | Tracker = "lucas_kanade",
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Follows each query point through all frames, before and after the query.

    Args:
        frames: RGB.
        queries: [frame, x, y] with the centre of the top-left pixel at (0.5, 0.5).
        tracker: a name in ``TRACKERS``, or what ``open_tracker`` returned.

    Returns:
        Pixel positions (same convention; the tracker's best guess where not visible) and
        visibility.
    """
    if isinstance(tracker, str):
        tracker = open_tracker(tracker)
    queries = np.asarray(queries, np.float32).reshape(-1, 3)
    return tracker(frames, queries)


def grow_tracks(
    frames: UInt8[np.ndarray, "F H W 3"],
    spacing: int,
    tracker: str | Tracker = "lucas_kanade",
    allowed: Bool[np.ndarray, "F H W"] | None = None,
    progress: Callable[[int, int], None] | None = None,
    begun: tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]] | None = None,
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Tracks that cover every frame about every ``spacing`` pixels: seed, track, and seed again
    where thin.

    Frames are visited coarse to fine in time (first, last, middles, ...), so that most frames are
    covered by tracks from others before they seed their own. Where ``allowed`` is False no point is
    seeded, and a track that arrives there ends. Tracks that are there already (``begun``) come
    first; new ones fill in between.

    Raises:
        InputError: no frame has a corner that can be tracked.
    """
    if isinstance(tracker, str):
        tracker = open_tracker(tracker)
    tracker = for_length(tracker, len(frames))
    xy, visible = begun or (
        np.zeros((len(frames), 0, 2), np.float32),
        np.zeros((len(frames), 0), bool),
    )
    if allowed is not None:
        visible = _ended_at_masks(visible, at_points(allowed, xy), visible.argmax(0))
    tracks = Sightings.of(xy, visible)
    parts = []
    count = 0
    numbers = np.zeros(0, np.int64)
    done = 0
    by_flow = tracker is dis_flow
    with FlowFields(frames) if by_flow else nullcontext() as fields:
        for stretch, reach in stretches(len(frames)) if by_flow else [(range(len(frames)),) * 2]:
            if stretch[0]:
                numbers, tracks = _carried_on(fields, numbers, tracks, stretch, allowed)
            settled = len(numbers)
            for batch in seed_rounds(len(stretch), FEW_ROUNDS if by_flow else None):
                queries = _queries(frames, [stretch[t] for t in batch], tracks, spacing, allowed)
                if by_flow:
                    found = follow_by_flow(fields, queries, reach, allowed)
                else:
                    found = _followed(frames, queries, tracker, allowed)
                tracks = tracks.joined(found)
                tracks = tracks.chosen(_thinned(tracks, spacing, 2, settled, stretch[0]))
                done += len(batch)
                if progress is not None:
                    progress(done, count + len(tracks.length) - settled)
            fresh = len(tracks.length) - settled
            numbers = np.concatenate([numbers, count + np.arange(fresh)])
            count = count + fresh
            parts.append((numbers, tracks))
    if not count:
        raise InputError(
            "no frame has texture outside the masks that can be tracked; film more detail or mask less"
        )
    return dense_tracks(parts, count)


def stretches(num_frames: int) -> list[tuple[range, range]]:
    """All frames in order, in stretches about as long as each other; each, and it with the one
    before it."""
    edges = np.linspace(0, num_frames, -(-num_frames // STRETCH) + 1).round().astype(int).tolist()
    return [
        (range(begin, end), range(before, end))
        for before, (begin, end) in zip([0, *edges[:-2]], pairwise(edges), strict=True)
    ]


def _carried_on(
    fields: FlowFields,
    numbers: np.ndarray,
    tracks: Sightings,
    stretch: range,
    allowed: np.ndarray | None,
) -> tuple[Int[np.ndarray, "n"], Sightings]:
    """The numbered tracks that go on in a stretch: those seen in the frame before it, followed
    through it.

    Others have no part in it: what is held does not grow with the clip. Those that go on by
    themselves were given.
    """
    before = stretch[0] - 1
    last = tracks.first[1:] - 1
    latest = tracks.frame[last]
    given = np.flatnonzero(latest > before)
    ends = np.flatnonzero(latest == before)
    queries = np.column_stack([np.full(len(ends), before, np.float32), tracks.xy[last[ends]]])
    found = follow_by_flow(fields, queries, range(before, stretch[-1] + 1), allowed)
    return np.concatenate([numbers[given], numbers[ends]]), tracks.chosen(given).joined(found)


def _queries(
    frames: np.ndarray,
    times: list[int],
    tracks: Sightings,
    spacing: int,
    allowed: np.ndarray | None,
) -> Float[np.ndarray, "n 3"]:
    """Seeds of some frames."""
    free = [None if allowed is None else allowed[t] for t in times]
    return np.concatenate(
        [_seeds(frames[t], t, tracks.at(t), spacing, f) for t, f in zip(times, free, strict=True)]
    )


def _followed(
    frames: np.ndarray, queries: np.ndarray, tracker: Tracker, allowed: np.ndarray | None
) -> Sightings:
    """Tracks of the queries, so many at a time that a long clip does not fill the memory, up to the
    masks."""
    size = max(1, AT_ONCE // len(frames))
    found = None
    for begin in range(0, max(1, len(queries)), size):
        part = queries[begin : begin + size]
        xy, visible = track_points(frames, part, tracker)
        if allowed is not None:
            visible = _ended_at_masks(visible, at_points(allowed, xy), part[:, 0])
        sightings = Sightings.of(xy, visible)
        found = sightings if found is None else found.joined(sightings)
    return found


def thin(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    spacing: int,
    min_length: int = 2,
) -> np.ndarray:
    """Indices of tracks to keep, longest first, leaving out those that mostly run beside a longer
    one."""
    return _thinned(Sightings.of(xy, visible), spacing, min_length)


def _thinned(
    tracks: Sightings, spacing: int, min_length: int, settled: int = 0, begin: int = 0
) -> np.ndarray:
    """As ``thin``, by the frames from ``begin`` on; the first ``settled`` tracks stay, as no frame
    is seeded twice."""
    order = settled + np.argsort(-tracks.length[settled:], kind="stable")
    order = np.concatenate([np.arange(settled), order[tracks.length[order] >= min_length]])
    if len(order) == 0:
        return order
    cell = max(2.0, 0.6 * spacing)
    return order[
        _greedy(
            tracks.xy, tracks.frame, tracks.first, tracks.num_frames, order, settled, begin, cell
        )
    ]


def half_life(visible: Bool[np.ndarray, "F N"]) -> float:
    """Half the frames that a sighting's track lasts (their median); 0 without any sighting."""
    length = np.sort(visible.sum(0))
    until = np.cumsum(
        length
    )  # sightings of tracks up to each one; a length for each of them would take 8 bytes
    total = int(until[-1]) if len(until) else 0
    middle = (
        length[np.searchsorted(until, [(total - 1) // 2, total // 2], side="right")]
        if total
        else [0, 0]
    )
    return float(sum(middle)) / 4


@numba.njit(cache=True)
def _greedy(xy, frame, first, num_frames, order, settled, begin, cell):
    width, height = xy[:, 0].max(), xy[:, 1].max()
    columns, rows = int(width / cell) + 2, int(height / cell) + 2
    taken = np.zeros((num_frames, rows, columns), np.bool_)
    kept = np.zeros(len(order), np.bool_)
    for i, n in enumerate(order):
        crowded = length = 0
        for s in range(first[n], first[n + 1]):
            if frame[s] >= begin:
                crowded += taken[frame[s], int(xy[s, 1] / cell), int(xy[s, 0] / cell)]
                length += 1
        if i < settled or 2 * crowded < length:
            kept[i] = True
            for s in range(first[n], first[n + 1]):
                taken[frame[s], int(xy[s, 1] / cell), int(xy[s, 0] / cell)] = True
    return kept


def seed_rounds(num_frames: int, at_most: int | None = None) -> list[list[int]]:
    """``coarse_to_fine``, with long rounds in two turns; or its last rounds joined so that few are
    left."""
    rounds = coarse_to_fine(num_frames)
    if at_most is None:
        turns = [[r] if len(r) < MANY_SEEDS else [r[::2], r[1::2]] for r in rounds]
        return [turn for pair in turns for turn in pair]
    first = max(0, len(rounds) - at_most)
    return [sorted(t for early in rounds[: first + 1] for t in early), *rounds[first + 1 :]]


def coarse_to_fine(num_frames: int) -> list[list[int]]:
    """All frame numbers once, in rounds: the ends, then middles of what is left, as a binary search
    would."""
    rounds = [[0]]
    seen = {0}
    gap = num_frames
    while len(seen) < num_frames:
        gap = max(1, gap // 2)
        fresh = [t for t in range(gap, num_frames, gap) if t not in seen]
        if num_frames - 1 not in seen and num_frames - 1 not in fresh:
            fresh.append(num_frames - 1)
        if fresh:
            rounds.append(fresh)
        seen.update(fresh)
    return rounds


def _seeds(
    frame: np.ndarray, t: int, taken: np.ndarray, spacing: int, allowed: np.ndarray | None
) -> Float[np.ndarray, "n 3"]:
    """The best corner of each grid cell that is farther than ~spacing from a point it has, as [t,
    x, y]."""
    height, width = frame.shape[:2]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    quality = cv2.cornerMinEigenVal(grey, 5)
    if allowed is not None:
        quality = np.where(allowed, quality, 0)
    covered = np.zeros((height, width), np.uint8)
    pixels = np.clip(taken.astype(np.int64), 0, [width - 1, height - 1])
    covered[pixels[:, 1], pixels[:, 0]] = 1
    side = 2 * int(0.6 * spacing) + 1
    quality[cv2.dilate(covered, np.ones((side, side), np.uint8)) > 0] = 0
    border = 2
    quality[:border] = quality[-border:] = quality[:, :border] = quality[:, -border:] = 0
    rows, columns = -(-height // spacing), -(-width // spacing)
    padded = np.zeros((rows * spacing, columns * spacing), np.float32)
    padded[:height, :width] = quality
    cells = (
        padded.reshape(rows, spacing, columns, spacing).swapaxes(1, 2).reshape(rows * columns, -1)
    )
    best = cells.argmax(1)
    row, column = np.divmod(np.arange(rows * columns), columns)
    y, x = row * spacing + best // spacing, column * spacing + best % spacing
    good = cells[np.arange(len(cells)), best] > CORNER_QUALITY
    return np.stack([np.full(good.sum(), t), x[good] + 0.5, y[good] + 0.5], 1).astype(np.float32)


def _ended_at_masks(
    visible: np.ndarray, free: np.ndarray, start: np.ndarray
) -> Bool[np.ndarray, "F N"]:
    """Visibility until a track meets a mask, on either side of its query: past it the point may be
    the mover's."""
    blocked = visible & ~free
    t = np.arange(len(visible))[:, None]
    after = np.logical_or.accumulate(blocked & (t >= start), 0)
    before = np.logical_or.accumulate((blocked & (t <= start))[::-1], 0)[::-1]
    return visible & ~after & ~before
