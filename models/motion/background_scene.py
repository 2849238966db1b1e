"""The rigid scene of the background: the given scene, or another if that follows a mover."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from models.motion.options import MotionOptions
from models.sfm import (
    StaticScene,
    choose_depth_order,
    find_small_motion,
    solve_rotation,
    triangulate,
)
from models.tracking import thin
from models.tracks import PointTracks

# Share of agreeing neighbours above which a track belongs to the object that a wrong scene was
# built on.
_SUSPECT_SHARE = 0.25
# Share of a track's observations that must agree with a new scene for the track to refine it.
_AGREEING_SHARE = 0.8
# Side of the cells over which agreement is averaged: pixels in an image of the reference width, and
# at least so many pixels.
_CELL = 20
_REFERENCE_WIDTH = 854
_MIN_CELL = 4.0
# Standard deviation of the blur of agreement, in frames and cells.
_BLUR = (1.0, 1.5, 1.5)
# Residual in pixels of a turning camera that is good enough without motion.
_TURNING_RESIDUAL = 0.3
# Frames up to which a camera that turns is also tried as one that moves: memory grows with the
# square.
_MOST_MOVING = 300
# Spacing of the tracks that cameras are solved from: this share of the longer side, and at least so
# many pixels.
_SPACING_SHARE = 24
_MIN_SPACING = 8
# Tracks, and observations of each frame, below which no camera is solved.
_MIN_TRACKS = 8


def find_background_scene(
    tracks: PointTracks, scene: StaticScene | None, options: MotionOptions = MotionOptions()
) -> StaticScene | None:
    """The given scene if it covers most of the image; otherwise a scene solved without the tracks
    that the given scene was built on.

    Reconstruction prefers the tracks with most parallax, which may be on a mover. The background is
    the scene that covers most of the image.

    Returns:
        None for too few tracks.
    """
    share = np.zeros(tracks.num_tracks)
    most = 0.0
    if scene is not None:
        share, most = measure_agreement(tracks, scene.points.agrees)
        if most >= options.coverage:
            return scene
    best = scene
    everything = np.ones(tracks.num_tracks, bool)
    for keep in (everything,) if scene is None else (share < _SUSPECT_SHARE, everything):
        candidate = _solve_candidate(tracks, keep)
        if candidate is None:
            continue
        _, coverage = measure_agreement(tracks, candidate.points.agrees)
        if coverage > most:
            best = candidate
            most = coverage
        if most >= options.coverage:
            break
    return best


def measure_agreement(
    tracks: PointTracks, agrees: Bool[np.ndarray, "F N"]
) -> tuple[Float[np.ndarray, "N"], float]:
    """Share of agreeing observations around each track, and share of the tracked image in which
    most observations agree.

    Args:
        agrees: observations that agree with a scene.
    """
    visible = tracks.visible
    rows, columns = _count_cells(tracks)
    seen = np.zeros((len(tracks), rows * columns))
    good = np.zeros(seen.shape)
    for t in range(len(tracks)):
        cells = _number_cells(tracks, t)
        seen[t] = np.bincount(cells, minlength=rows * columns)
        good[t] = np.bincount(cells, agrees[t, visible[t]], rows * columns)
    seen = seen.reshape(-1, rows, columns)
    around = np.maximum(ndimage.gaussian_filter(seen, _BLUR), 1e-3)
    share = ndimage.gaussian_filter(good.reshape(seen.shape), _BLUR) / around
    coverage = float((share[seen > 0] > 0.5).mean()) if (seen > 0).any() else 0.0
    mean = np.zeros(tracks.num_tracks)
    for t in range(len(tracks)):
        mean[visible[t]] += share[t].ravel()[_number_cells(tracks, t)]
    return mean / np.maximum(visible.sum(0), 1), coverage


def _measure_cell(tracks: PointTracks) -> float:
    """Side of a cell in pixels."""
    return max(_MIN_CELL, _CELL * max(tracks.width, tracks.height) / _REFERENCE_WIDTH)


def _count_cells(tracks: PointTracks) -> tuple[int, int]:
    """Rows and columns of cells in an image."""
    cell = _measure_cell(tracks)
    return int(tracks.height / cell) + 1, int(tracks.width / cell) + 1


def _number_cells(tracks: PointTracks, t: int) -> Int[np.ndarray, "n"]:
    """Number of the cell of each track visible in frame t, row by row; tracks beyond the border of
    the image are in the cells at its border."""
    cell = _measure_cell(tracks)
    rows, columns = _count_cells(tracks)
    xy = tracks.xy[t, tracks.visible[t]]
    column = np.clip(xy[:, 0] / cell, 0, columns - 1).astype(int)
    row = np.clip(xy[:, 1] / cell, 0, rows - 1).astype(int)
    return np.ravel_multi_index((row, column), (rows, columns))


def _solve_candidate(tracks: PointTracks, keep: Bool[np.ndarray, "N"]) -> StaticScene | None:
    """A scene from some of the tracks, solved again from the tracks that agree; None for too few
    tracks."""
    candidate = _solve_from_rotation(tracks, keep)
    if candidate is None:
        return None
    agreeing = candidate.points.agrees.sum(0) > _AGREEING_SHARE * tracks.visible.sum(0)
    return _solve_from_rotation(tracks, agreeing) or candidate


def _solve_from_rotation(tracks: PointTracks, keep: Bool[np.ndarray, "N"]) -> StaticScene | None:
    """The scene of cameras that turn and, if that explains much more, also move, from tracks spread
    evenly over the image; None for too few tracks."""
    kept = np.flatnonzero(keep)
    spacing = max(_MIN_SPACING, max(tracks.width, tracks.height) // _SPACING_SHARE)
    own = tracks.select(kept)
    few = tracks.select(kept[thin(own, spacing, min_length=3)])
    if few.num_tracks < _MIN_TRACKS or few.visible.sum(1).min() < _MIN_TRACKS:
        return None
    cameras, error = solve_rotation(few)
    motion = None
    if not (error < _TURNING_RESIDUAL or len(tracks) > _MOST_MOVING):
        motion = find_small_motion(few, cameras, error)
    flat = motion is None
    doubtful = False
    if not flat:
        moving, error = motion
        ordered = choose_depth_order(moving, few)
        cameras = ordered.cameras
        doubtful = ordered.doubtful
    points = triangulate(tracks, cameras, flat=flat)
    method = "rotation" if flat else "adjusted"
    return StaticScene(cameras, points, method, np.ones(len(tracks), bool), error, doubtful)
