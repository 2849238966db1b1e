"""Seeds of tracks: the order in which frames seed, corners where coverage is thin, and thinning."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from models.clip import at_points
from models.run import njit
from models.tracking.options import TrackingOptions
from models.tracking.sightings import Sightings
from models.tracks import PointTracks

# Frames of a round from which on it seeds in two turns: the second turn leaves out the areas that
# the first covers.
_LONG_ROUND = 8
# Radius round a track, in spacings, in which no corner is seeded and no other track is kept.
_CROWDED = 0.6
# Side in pixels of the window over which gradients are summed for the corner quality.
_CORNER_WINDOW = 5
# Pixels along the image border without corners: their windows would reach beyond the image.
_BORDER = 2


def split_rounds(num_frames: int, at_most: int | None = None) -> list[list[int]]:
    """Rounds of frames that seed together, coarse to fine in time.

    Args:
        at_most: number of rounds; early rounds are joined. If not given, long rounds are split in
            two turns instead.
    """
    rounds = order_coarse_to_fine(num_frames)
    if at_most is None:
        turns = [[r] if len(r) < _LONG_ROUND else [r[::2], r[1::2]] for r in rounds]
        return [turn for pair in turns for turn in pair]
    first = max(0, len(rounds) - at_most)
    joined = sorted(t for early in rounds[: first + 1] for t in early)
    return [joined, *rounds[first + 1 :]]


def order_coarse_to_fine(num_frames: int) -> list[list[int]]:
    """Every frame number once, in rounds: both ends, then the middles between earlier frames."""
    rounds = [[0]]
    visited = {0}
    gap = num_frames
    while len(visited) < num_frames:
        gap = max(1, gap // 2)
        fresh = [t for t in range(gap, num_frames, gap) if t not in visited]
        if num_frames - 1 not in visited and num_frames - 1 not in fresh:
            fresh.append(num_frames - 1)
        if fresh:
            rounds.append(fresh)
        visited.update(fresh)
    return rounds


def seed_frames(
    frames: UInt8[np.ndarray, "F H W 3"],
    times: list[int],
    tracks: Sightings,
    allowed: Bool[np.ndarray, "F H W"] | None,
    options: TrackingOptions,
) -> Float[np.ndarray, "n 3"]:
    """New queries [t, x, y] in some frames, away from the tracks observed there."""
    queries = []
    for t in times:
        free = None if allowed is None else allowed[t]
        corners = _find_corners(frames[t], tracks.at(t), free, options)
        queries.append(np.column_stack([np.full(len(corners), t, np.float32), corners]))
    return np.concatenate(queries)


def _find_corners(
    frame: UInt8[np.ndarray, "H W 3"],
    covered: Float[np.ndarray, "n 2"],
    allowed: Bool[np.ndarray, "H W"] | None,
    options: TrackingOptions,
) -> Float[np.ndarray, "m 2"]:
    """Pixels of the best corner of each grid cell, at least ~spacing from covered points."""
    spacing = options.spacing
    height, width = frame.shape[:2]
    quality = _measure_corners(frame, covered, allowed, spacing)
    rows = -(-height // spacing)
    columns = -(-width // spacing)
    padded = np.zeros((rows * spacing, columns * spacing), np.float32)
    padded[:height, :width] = quality
    cells = padded.reshape(rows, spacing, columns, spacing).swapaxes(1, 2)
    cells = cells.reshape(rows * columns, -1)
    best = cells.argmax(1)
    row, column = np.divmod(np.arange(rows * columns), columns)
    y = row * spacing + best // spacing
    x = column * spacing + best % spacing
    good = cells[np.arange(len(cells)), best] > options.corner_quality
    return np.stack([x[good] + 0.5, y[good] + 0.5], 1).astype(np.float32)


def _measure_corners(
    frame: UInt8[np.ndarray, "H W 3"],
    covered: Float[np.ndarray, "n 2"],
    allowed: Bool[np.ndarray, "H W"] | None,
    spacing: int,
) -> Float[np.ndarray, "H W"]:
    """Smallest eigenvalue of the gradient matrix; 0 on masks, near covered points and at the
    border."""
    height, width = frame.shape[:2]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    quality = cv2.cornerMinEigenVal(grey, _CORNER_WINDOW)
    if allowed is not None:
        quality = np.where(allowed, quality, 0)
    occupied = np.zeros((height, width), np.uint8)
    pixels = np.clip(covered.astype(np.int64), 0, [width - 1, height - 1])
    occupied[pixels[:, 1], pixels[:, 0]] = 1
    side = 2 * int(_CROWDED * spacing) + 1
    quality[cv2.dilate(occupied, np.ones((side, side), np.uint8)) > 0] = 0
    quality[:_BORDER] = 0
    quality[-_BORDER:] = 0
    quality[:, :_BORDER] = 0
    quality[:, -_BORDER:] = 0
    return quality


def end_at_masks(
    visible: Bool[np.ndarray, "F n"],
    xy: Float[np.ndarray, "F n 2"],
    start: Int[np.ndarray, "n"],
    allowed: Bool[np.ndarray, "F H W"],
) -> Bool[np.ndarray, "F n"]:
    """Visibility of tracks up to the first forbidden pixel on either side of their start in time.

    Beyond a mask the track may follow the object of the mask.
    """
    blocked = visible & ~at_points(allowed, xy)
    t = np.arange(len(visible))[:, None]
    after = np.logical_or.accumulate(blocked & (t >= start), 0)
    before = np.logical_or.accumulate((blocked & (t <= start))[::-1], 0)[::-1]
    return visible & ~after & ~before


def thin(tracks: PointTracks, spacing: float, min_length: int = 2) -> Int[np.ndarray, "n"]:
    """Indices of tracks to keep, longest first.

    A track is dropped if it runs beside longer tracks in most of its frames.

    Args:
        spacing: distance in pixels.
        min_length: observations of the shortest track that is kept.
    """
    return thin_sightings(Sightings.of(tracks.xy, tracks.visible), spacing, min_length)


def thin_sightings(
    tracks: Sightings, spacing: float, min_length: int, settled: int = 0, begin: int = 0
) -> Int[np.ndarray, "n"]:
    """``thin`` judged by the frames from ``begin`` on; the first ``settled`` tracks always stay."""
    order = settled + np.argsort(-tracks.length[settled:], kind="stable")
    order = np.concatenate([np.arange(settled), order[tracks.length[order] >= min_length]])
    if len(order) == 0:
        return order
    cell = max(2.0, _CROWDED * spacing)
    kept = _keep_uncrowded(
        tracks.xy, tracks.frame, tracks.first, tracks.num_frames, order, settled, begin, cell
    )
    return order[kept]


@njit(cache=True)
def _keep_uncrowded(xy, frame, first, num_frames, order, settled, begin, cell):
    """Greedy choice in the given order: a track is kept if less than half of its observations lie
    in grid cells that kept tracks occupy in the same frame."""
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


def half_life(visible: Bool[np.ndarray, "F N"]) -> float:
    """Half the length in frames of the track of the median observation; 0 without observations."""
    length = np.sort(visible.sum(0))
    # Observations of the tracks up to each one: a length for each observation would take 8 bytes.
    until = np.cumsum(length)
    total = int(until[-1]) if len(until) else 0
    if not total:
        return 0.0
    middle = length[np.searchsorted(until, [(total - 1) // 2, total // 2], side="right")]
    return float(sum(middle)) / 4
