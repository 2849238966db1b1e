"""Relative depth of a mover that is not rigid: as it comes nearer, its picture grows."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse
from scipy.sparse.linalg import spsolve

from models.movers.depth.contact import BackgroundCues
from models.movers.depth.rigid import RelativeDepth
from models.movers.local_maps import find_pairs
from models.movers.options import MoverOptions
from models.tracks import PointTracks

# Tracks seen in two frames below which their change of size is not measured.
_MIN_TRACKS = 4
# Frames with contact below which contact does not correct apparent size.
_MIN_CONTACTS = 3
# Rounds of reweighting in which outliers of contact lose their weight.
_ROUNDS = 20


def follow_size(
    tracks: PointTracks,
    cues: BackgroundCues,
    options: MoverOptions = MoverOptions(),
    moved: RelativeDepth | None = None,
) -> RelativeDepth:
    """One depth for all tracks of a frame, inverse to the apparent size; turning and deforming
    change that size too, which contact with the ground corrects where it is seen.

    Args:
        moved: a flat shape, whose changes of depth replace those of apparent size between the
            frames that it places.
    """
    steps = _measure_steps(tracks)
    sure = tracks.visible
    if moved is not None:
        change = np.diff(np.log(moved.depth[:, 0]), prepend=np.nan)
        steps = np.where(np.isfinite(change), change, steps)
        sure = moved.sure
    log_depth = np.cumsum(steps)
    contact = [np.nan if c is None or c.is_cut else np.log(c.depth) for c in cues.contact]
    log_depth += _correct_drift(np.array(contact) - log_depth, options)
    depth = np.broadcast_to(np.exp(log_depth)[:, None], tracks.visible.shape)
    return RelativeDepth(depth, sure, tracks.visible.any(1), is_flat=True)


def _measure_steps(tracks: PointTracks) -> Float[np.ndarray, "F"]:
    """Change of the logarithm of depth from the frame before, by apparent size; 0 where too few
    tracks show it."""
    steps = np.zeros(len(tracks))
    for t in range(len(tracks) - 1):
        both = tracks.visible[t] & tracks.visible[t + 1]
        if both.sum() >= _MIN_TRACKS:
            steps[t + 1] = -_measure_growth(tracks.xy[t, both], tracks.xy[t + 1, both])
    return steps


def _measure_growth(before: Float[np.ndarray, "n 2"], after: Float[np.ndarray, "n 2"]) -> float:
    """Logarithm of the growth of a picture: median over the edges between neighbouring points,
    weighted by the length of the edges, as position errors count less in long edges; 0 for points
    on a line."""
    pairs = find_pairs(before.astype(np.float64))
    if not len(pairs):
        return 0.0
    lengths = [np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1) for xy in (before, after)]
    growth = np.log(np.maximum(lengths[1], 1e-6) / np.maximum(lengths[0], 1e-6))
    order = np.argsort(growth)
    weight = np.cumsum(lengths[0][order])
    return float(growth[order][np.searchsorted(weight, weight[-1] / 2)])


def _correct_drift(offset: Float[np.ndarray, "F"], options: MoverOptions) -> Float[np.ndarray, "F"]:
    """A random walk through the offsets of contact from apparent size, outliers left out, with
    median 0 over the frames with contact.

    Args:
        offset: in the logarithm of depth; NaN without contact.
    """
    known: Bool[np.ndarray, "F"] = np.isfinite(offset)
    frames = len(offset)
    if known.sum() < _MIN_CONTACTS:
        return np.zeros(frames)
    given = np.where(known, offset, 0.0)
    step = sparse.diags([-np.ones(frames - 1), np.ones(frames - 1)], [0, 1], (frames - 1, frames))
    smooth = (step.T @ step) / options.size_drift**2
    walk = np.full(frames, np.median(offset[known]))
    for _ in range(_ROUNDS):
        misfit = (given - walk) / options.contact_error
        weight = known / (1 + 0.5 * misfit**2) / options.contact_error**2
        walk = spsolve((smooth + sparse.diags(weight)).tocsc(), weight * given)
    return walk - np.median(walk[known])
