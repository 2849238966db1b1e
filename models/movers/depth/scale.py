"""The scale that brings a mover's relative depths to world units.

Each cue gives a cost, a negative log-likelihood, to each scale of a grid; the sum decides, and its
width says how sure the scale is. The path's cue is the idea of Park et al., "3D reconstruction of a
moving point from a series of 2D projections", 2010: at a wrong depth a share of the camera's own
motion is added to the mover's path, which makes it less smooth.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.movers.depth.contact import BackgroundCues
from models.movers.depth.rigid import RelativeDepth
from models.movers.options import MoverOptions
from models.tracks import PointTracks

# Logarithms of the scales that are compared: below and above the largest scale at which the mover
# stays before the background, and their step.
_NEARER, _FARTHER, _STEP = 3.0, 0.5, 0.0025
# Cost of each unit of the logarithm by which a mover stands before the background that it hides.
_BEFORE_BACKGROUND = 0.7
# Weight of a frame's mean cost of sinking into the background: frames err together.
_HIDDEN_WEIGHT = 4.0
# Tolerance of sinking, in the logarithm of depth, and the largest tolerance for a flat mover.
_SUNK_TOLERANCE, _MOST_TOLERANCE = 0.03, 0.15
# Points from which the depth at a foot is read.
_NEAR_FEET = 3
# Frames with contact at which contact counts in full, and the guess of a cut mover not at all.
_ENOUGH_CONTACTS = 3
# Quantile of the contact's ratios that counts: a runner's feet leave the ground, and the ground
# below is farther.
_CONTACT_QUANTILE = 0.25
# Range of the logarithm of depth over which a mover in the air may be.
_AIR_RANGE = 3.0
# Tracks that a frame's mean motion needs, and frames that the path's cue needs.
_MIN_TRACKS, _MIN_FRAMES = 3, 3
# Frames between the positions of a path, as a share of the clip at most.
_LONGEST_STEP = 0.2
# Error in pixels of a track, and error of relative depth from frame to frame.
_TRACK_ERROR, _DEPTH_ERROR = 0.3, 0.003
# Tracks whose errors are independent, as a share of all.
_INDEPENDENT = 0.25
# Distance in steps of the grid over which a cue's slope is measured.
_SLOPE = 80

_SOURCES = {
    "contact": "contact with the ground",
    "cut": "the ground at the lower border",
    "path": "its path against the camera's",
}
"""Cues in the words that a person reads."""
_GUESS = "a guess before the background that it hides"

Costs = Float[np.ndarray, "S"]
"""A cost for each logarithm of the scale."""


@dataclass(frozen=True)
class Scale:
    """World units for a unit of a mover's relative depth."""

    value: float
    uncertainty: float
    """Standard deviation of the logarithm of the value."""
    source: str
    """The cue that keeps the mover from coming nearer, in the words that a person reads."""


def find_scale(
    shape: RelativeDepth,
    tracks: PointTracks,
    cameras: Cameras,
    cues: BackgroundCues,
    options: MoverOptions = MoverOptions(),
) -> Scale | None:
    """The scale on which contact with the ground, the background behind the mover and a smooth path
    in the world agree best; None without any background.

    Args:
        shape: relative depths of the tracks.
        tracks: of the mover.
        cameras: of the frames.
        cues: of the background, on the same tracks.
    """
    hidden = _find_limits(shape, cues, options)
    whole, cut = (_find_ratios(shape, tracks, cues, is_cut) for is_cut in (False, True))
    limits = hidden if len(hidden) else np.concatenate([whole, cut])
    if not len(limits):
        return None
    focal = float(cameras.K[:, 0, 0].mean())
    tolerance = cues.extent / focal if shape.is_flat else 0.0
    tolerance = float(np.clip(tolerance, _SUNK_TOLERANCE, _MOST_TOLERANCE))
    farthest = float(np.median(limits)) + tolerance
    grid = np.arange(farthest - _NEARER, farthest + _FARTHER, _STEP)
    costs = {
        "before": _BEFORE_BACKGROUND * (farthest - grid),
        "hidden": _cost_of_sinking(grid, hidden + tolerance, options),
        "contact": _cost_of_contact(grid, whole, options),
        "cut": _cost_of_cut(grid, cut, options) * max(0.0, 1 - len(whole) / _ENOUGH_CONTACTS),
        "path": _cost_of_path(grid, shape, tracks, cameras),
    }
    total = np.sum(list(costs.values()), 0)
    best = int(total.argmin())
    weight = np.exp(total[best] - total)
    weight /= weight.sum()
    mean = (weight * grid).sum()
    uncertainty = np.sqrt((weight * (grid - mean) ** 2).sum())
    return Scale(float(np.exp(grid[best])), float(uncertainty), _name_source(costs, best))


def _name_source(costs: dict[str, Costs], best: int) -> str:
    """The cue whose cost grows most towards nearer scales."""
    below = max(best - _SLOPE, 0)
    growth = {name: costs[name][below] - costs[name][best] for name in _SOURCES}
    name = max(growth, key=growth.__getitem__)
    return _SOURCES[name] if growth[name] > _BEFORE_BACKGROUND * _SLOPE * _STEP else _GUESS


def _find_limits(
    shape: RelativeDepth, cues: BackgroundCues, options: MoverOptions
) -> Float[np.ndarray, "f"]:
    """Logarithm of the largest scale at which the mover is not behind the background, in each frame
    in which the background is known."""
    limits = []
    for t in range(len(shape.depth)):
        ratio = np.log(cues.hidden[t, shape.sure[t]] / shape.depth[t, shape.sure[t]])
        ratio = ratio[np.isfinite(ratio)]
        if len(ratio) >= _MIN_TRACKS:
            limits.append(np.quantile(ratio, options.sunk_share))
    return np.array(limits)


def _find_ratios(
    shape: RelativeDepth, tracks: PointTracks, cues: BackgroundCues, is_cut: bool
) -> Float[np.ndarray, "f"]:
    """Logarithm of the scale at which the lowest points touch the ground, in each frame in which the
    ground and tracks are known.

    Args:
        is_cut: of the frames in which the lower border cuts the mover, or of the others.
    """
    ratios = []
    for t, contact in enumerate(cues.contact):
        if contact is None or contact.is_cut != is_cut:
            continue
        own = np.flatnonzero(shape.sure[t] & np.isfinite(shape.depth[t]))
        if len(own) < _MIN_TRACKS:
            continue
        _, near = cKDTree(tracks.xy[t, own]).query(contact.feet, _NEAR_FEET)
        ratios.append(np.log(contact.depth / np.median(shape.depth[t, own[np.unique(near)]])))
    return np.array(ratios)


def _cost_of_sinking(grid: Costs, limits: Float[np.ndarray, "f"], options: MoverOptions) -> Costs:
    """Cost of a mover behind the background that it hides."""
    if not len(limits):
        return np.zeros_like(grid)
    sunk = np.maximum(0, grid[:, None] - limits) / options.contact_error
    # Frames in which the mover passes behind something near must not outvote all others.
    return _HIDDEN_WEIGHT * np.log1p(0.5 * sunk**2).mean(1)


def _cost_of_contact(grid: Costs, ratios: Float[np.ndarray, "f"], options: MoverOptions) -> Costs:
    """A mover touches the ground or, with a small probability, is somewhere before it in the air."""
    if not len(ratios):
        return np.zeros_like(grid)
    scatter = np.median(np.abs(ratios - np.median(ratios)))
    error = options.contact_error + 0.5 * scatter
    misfit = (grid - np.quantile(ratios, _CONTACT_QUANTILE)) / error
    on_ground = (1 - options.in_the_air) * min(1.0, len(ratios) / _ENOUGH_CONTACTS)
    touching = on_ground * np.exp(-0.5 * misfit**2) / (error * np.sqrt(2 * np.pi))
    cost = -np.log(touching + (1 - on_ground) / _AIR_RANGE)
    return np.where(misfit > 0, cost.min() + 0.5 * misfit**2, cost)


def _cost_of_cut(grid: Costs, ratios: Float[np.ndarray, "f"], options: MoverOptions) -> Costs:
    """A mover that the lower border cuts is somewhat nearer than the ground at the border."""
    if not len(ratios):
        return np.zeros_like(grid)
    beyond = grid[:, None] - ratios
    guess = 0.5 * ((beyond + options.cut_depth) / options.cut_depth) ** 2
    sunk = 0.5 + 0.5 * (beyond / options.contact_error) ** 2
    return np.where(beyond > 0, sunk, guess).mean(1)


def _cost_of_path(
    grid: Costs, shape: RelativeDepth, tracks: PointTracks, cameras: Cameras
) -> Costs:
    """Cost of a path that is not smooth, over several spans of time.

    The size of a mover's own accelerations is not known; their standard deviation at each scale is
    that of the path itself, in units of the mover's depth. Successive accelerations of a path over
    a long span say the same, and count less. The speed has no say: a camera that follows a mover
    would put it far away.
    """
    noise = (_TRACK_ERROR / float(cameras.K[:, 0, 0].mean())) ** 2 * 6
    cost = np.zeros_like(grid)
    usable = shape.sure & np.isfinite(shape.depth)
    if not usable.any():
        return cost
    shape = replace(shape, sure=usable)
    unit = float(np.median(shape.depth[usable]))
    longest = max(1, int(_LONGEST_STEP * len(tracks)))
    spans = [2**k for k in range(longest.bit_length())]
    for span in spans:
        bends = _find_bends(span, shape, tracks, cameras)
        if bends is None:
            continue
        floor = noise / max(1.0, _INDEPENDENT * bends.count) + _DEPTH_ERROR**2
        weight = max(1.0, len(bends.own) / (3 * span)) / len(spans)
        cost += weight * _log_spread(grid, bends, floor * unit**2)
    return cost - cost.min()


def _log_spread(grid: Costs, bends: "_Bends", floor: float) -> Costs:
    """Negative log-likelihood of accelerations at each scale; outliers count by their logarithm.

    Args:
        floor: variance of the accelerations' errors, in squared units of relative depth.
    """
    inverse = np.exp(-grid)[:, None, None]
    squared = ((inverse * bends.camera + bends.own) ** 2).sum(2)
    typical = 0.3 * squared.mean(1, keepdims=True)
    return 1.5 * np.log(squared + typical + floor).mean(1)


@dataclass(frozen=True)
class _Bends:
    """Second differences over a span of time, in frames where enough tracks show them."""

    own: Float[np.ndarray, "f 3"]
    """Of the mover seen from the camera, in the world's axes and units of relative depth."""
    camera: Float[np.ndarray, "f 3"]
    """Of the camera, in world units."""
    count: float
    """Median number of tracks behind a difference."""


def _find_bends(
    span: int, shape: RelativeDepth, tracks: PointTracks, cameras: Cameras
) -> _Bends | None:
    """Differences over ``span`` frames to either side; None if too few frames show them.

    Args:
        shape: has a depth for each sure observation.
    """
    center = cameras.centers.double().numpy()
    own, camera, counts = [], [], []
    for t in range(span, len(tracks) - span):
        times = t - span, t, t + span
        shared = np.flatnonzero(shape.sure[list(times)].all(0))
        if len(shared) >= _MIN_TRACKS:
            before, now, after = (_see(i, shared, shape, tracks, cameras) for i in times)
            own.append(np.median(after - 2 * now + before, 0))
            camera.append(center[t + span] - 2 * center[t] + center[t - span])
            counts.append(len(shared))
    if len(own) < _MIN_FRAMES:
        return None
    return _Bends(np.array(own), np.array(camera), float(np.median(counts)))


def _see(
    t: int, subset: np.ndarray, shape: RelativeDepth, tracks: PointTracks, cameras: Cameras
) -> Float[np.ndarray, "n 3"]:
    """Vectors from the camera to tracks in the world's axes, in units of relative depth."""
    xy = torch.from_numpy(tracks.xy[[t]][:, subset]).double()
    depth = torch.from_numpy(shape.depth[[t]][:, subset].copy())
    points = cameras[t].unproject(xy, depth)[0]
    return (points - cameras.centers[t].double()).numpy()
