"""Evidence of motion -> masks that follow pixel edges and are consistent in time, and a label for
each mover."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from models.cameras import Cameras
from models.motion.background_odds import compare_with_background
from models.motion.blobs import Blobs
from models.motion.evidence import Evidence, warp
from models.motion.options import MotionOptions
from models.motion.smoothing import smooth_probability
from models.run import SILENT, Progress

# Bound of the log-odds that flow gives a pixel of one frame.
_CERTAIN = 2.5
# Misfit of static pixels in a perfect frame: a larger median is the frame's noise.
_USUAL_MISFIT = 0.8
# Log-odds of a long track's vote for static.
_STATIC_TRACK_WEIGHT = 1.5
# Ratio of votes for moving on pixels that certainly move to those on pixels that certainly do not,
# from which such votes count, and the log-odds of a vote for each unit of the ratio's logarithm
# above.
_RELIABLE = 10.0
_MOVING_TRACK_WEIGHT = 0.7
# Share of the other evidence that is dropped where a pixel looks like its background in shadow.
_SHADOW_SHARE = 0.6
# Bins of each colour channel, and the standard deviation of their blur, in bins and in frames.
_COLOUR_LEVELS = 12
_COLOUR_BLUR = 0.7
_COLOUR_FRAMES = 4.0
# Rounds of segmentation: the distance from the mover found so far up to which a pixel may belong to
# it, as a share of the longer side.
_REACHES = (0.06, 0.03, 0.01)
# Smallest such distance in pixels.
_MIN_REACH = 3
# Log-odds of pixels out of reach, and log-odds below which a pixel is certainly static.
_FAR_ODDS = -4.0
_STATIC_ODDS = -0.5
# Vote of tracks below which a pixel shows background.
_STATIC_VOTE = -0.5
# Labels that 8 bits hold.
_MAX_LABELS = 255


def segment_motion(
    evidence: Evidence,
    votes: Float[np.ndarray, "F h w"],
    cameras: Cameras,
    progress: Progress = SILENT,
    options: MotionOptions = MotionOptions(),
) -> Float[np.ndarray, "F h w"]:
    """Probability that each pixel belongs to a mover, at the evidence's size.

    Args:
        votes: of the tracks, from -1 (static) to 1 (moving).
        cameras: of the frames, for images of any size.
    """
    static_tracks = _STATIC_TRACK_WEIGHT * np.minimum(votes, 0)
    motion = estimate_motion_odds(evidence, options) + static_tracks
    moving = _find_significant(motion, options)
    if not moving.any():
        progress.step("motion", len(_REACHES), len(_REACHES))
        return np.zeros(motion.shape, np.float32)
    odds = np.where(moving, motion, np.minimum(motion, _STATIC_ODDS))
    odds += _weigh_moving_tracks(votes * evidence.texture, moving, motion < _STATIC_ODDS)
    probability = 1 / (1 + np.exp(-odds))
    for reach in progress.over(_REACHES, "motion"):
        near = _grow(probability, _REACHES[0])
        colour = _estimate_colour_odds(evidence.images, probability, near)
        suspect = _grow(probability, reach) & (votes > _STATIC_VOTE)
        behind, shadow = compare_with_background(evidence, cameras, suspect)
        shadow *= _SHADOW_SHARE
        support = np.maximum(odds, 0) + options.colour_weight * colour
        total = (1 - shadow) * (support + options.background_weight * behind)
        total += np.minimum(odds, 0) - options.shadow_weight * shadow
        total[~near] = _FAR_ODDS
        probability = smooth_probability(evidence, total, probability, near)
    return probability


def label_movers(
    mask: Bool[np.ndarray, "F h w"], options: MotionOptions = MotionOptions()
) -> UInt8[np.ndarray, "F h w"]:
    """Labels 1, 2, ... of the movers of a mask, connected in space and time, largest first; blobs
    that are smaller or shorter than a mover get 0."""
    blobs = Blobs(mask)
    size = np.where(_find_lasting(blobs, options.smallest, options), blobs.count_pixels(), 0)
    order = np.argsort(-size, kind="stable")[: min(_MAX_LABELS, (size > 0).sum())]
    rank = np.zeros(len(size), np.uint8)
    rank[order] = np.arange(1, len(order) + 1)
    return blobs.paint(rank)


def estimate_motion_odds(
    evidence: Evidence, options: MotionOptions = MotionOptions()
) -> Float[np.ndarray, "F h w"]:
    """Log-odds of motion from each frame's misfit, averaged along the flow over the nearby
    frames."""
    single = np.zeros(evidence.misfit.shape, np.float32)
    for t, (misfit, support) in enumerate(zip(evidence.misfit, evidence.support, strict=True)):
        seen = support > 0
        noise = max(1.0, np.median(misfit[seen]) / _USUAL_MISFIT) if seen.any() else 1.0
        odds = np.clip(1.2 * (misfit / noise - options.threshold), -_CERTAIN, _CERTAIN)
        odds = np.where(odds < 0, odds * evidence.texture[t], odds)
        # Three flow vectors are full support.
        single[t] = odds * np.minimum(support / 3, 1)
    joined = 2.0 * single
    weight = 2.0 + 1e-6 * single
    for (a, b), flow in evidence.flows.items():
        known = np.isfinite(flow[..., 0])
        joined[a] += np.where(known, warp(single[b], flow), 0)
        weight[a] += known
    return joined / weight


def _weigh_moving_tracks(
    votes: Float[np.ndarray, "F h w"],
    moving: Bool[np.ndarray, "F h w"],
    static: Bool[np.ndarray, "F h w"],
) -> Float[np.ndarray, "F h w"]:
    """Log-odds that votes for moving add; their weight is how well they separate the pixels of
    which flow is certain in this clip.

    Votes alone find no mover: tracks slip at edges, and all tracks slip under poor cameras.
    """
    votes = np.maximum(votes, 0)
    usual = votes[static].mean() if static.any() else 1.0
    ratio = (votes[moving].mean() + 1e-4) / (usual + 1e-4)
    return _MOVING_TRACK_WEIGHT * max(0.0, np.log(ratio / _RELIABLE)) * votes


def _find_significant(
    odds: Float[np.ndarray, "F h w"], options: MotionOptions
) -> Bool[np.ndarray, "F h w"]:
    """Pixels of space-time blobs of motion that are certain, large and lasting enough."""
    square = np.ones((3, 3))
    certain = ((frame > 0.5).astype(np.uint8) for frame in odds)
    opened = np.stack([cv2.morphologyEx(frame, cv2.MORPH_OPEN, square) for frame in certain])
    blobs = Blobs(opened > 0)
    return blobs.paint(_find_lasting(blobs, options.smallest_seed, options))


def _find_lasting(blobs: Blobs, smallest: float, options: MotionOptions) -> Bool[np.ndarray, "B"]:
    """Blobs that have at least ``smallest`` of the image's area on average, and last."""
    shortest = min(options.shortest, len(blobs.masks))
    return blobs.find_lasting(shortest, smallest * blobs.masks[0].size)


def _grow(probability: Float[np.ndarray, "F h w"], reach: float) -> Bool[np.ndarray, "F h w"]:
    """Pixels within reach (a share of the longer side) of pixels that move more likely than not."""
    radius = max(_MIN_REACH, round(reach * max(probability.shape[1:])))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.stack([cv2.dilate((p > 0.5).astype(np.uint8), disc) > 0 for p in probability])


def _estimate_colour_odds(
    images: UInt8[np.ndarray, "F h w 3"],
    probability: Float[np.ndarray, "F h w"],
    near: Bool[np.ndarray, "F h w"],
) -> Float[np.ndarray, "F h w"]:
    """Log-odds of each pixel's colour: histogram of the movers over the frames around, against that
    of their surroundings."""
    bins = [_find_bins(image) for image in images]
    size = _COLOUR_LEVELS**3
    inside = np.stack(
        [np.bincount(b.ravel(), p.ravel(), size) for b, p in zip(bins, probability, strict=True)]
    )
    outside = np.stack(
        [np.bincount(b[n], 1 - p[n], size) for b, p, n in zip(bins, probability, near, strict=True)]
    )
    inside = _normalize_histograms(inside)
    outside = _normalize_histograms(outside)
    ratio = np.clip(np.log((inside + 2e-5) / (outside + 2e-5)), -3, 3)
    odds = np.empty(probability.shape, np.float32)
    for t, own in enumerate(bins):
        odds[t] = ratio[t, own]
    return odds


def _find_bins(image: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    """Number of each pixel's colour bin."""
    level = image.astype(np.uint16) * _COLOUR_LEVELS // 256
    return (level[..., 0] * _COLOUR_LEVELS + level[..., 1]) * _COLOUR_LEVELS + level[..., 2]


def _normalize_histograms(histograms: Float[np.ndarray, "F bins"]) -> Float[np.ndarray, "F bins"]:
    """Histograms blurred over frames and colours, each divided by its sum."""
    blurred = ndimage.gaussian_filter1d(histograms, _COLOUR_FRAMES, 0, mode="nearest")
    cube = blurred.reshape(-1, _COLOUR_LEVELS, _COLOUR_LEVELS, _COLOUR_LEVELS)
    blur = (0, _COLOUR_BLUR, _COLOUR_BLUR, _COLOUR_BLUR)
    smooth = ndimage.gaussian_filter(cube, blur).reshape(len(histograms), -1)
    smooth /= smooth.sum(1, keepdims=True) + 1e-9
    return smooth
