"""Evidence of motion -> masks that follow pixel edges and are consistent in time, and a label for
each mover."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.motion.blobs import Blobs
from models.motion.cues import (
    Appearance,
    TrackMaps,
    compare_with_background,
    estimate_colour_odds,
    estimate_life_odds,
    estimate_motion_odds,
    estimate_saliency_odds,
    weigh_moving_tracks,
)
from models.motion.evidence import Evidence
from models.motion.options import MotionOptions
from models.motion.patches import grow
from models.motion.smoothing import smooth_probability
from models.run import SILENT, Progress, ProgressPart

# Log-odds of a long track's vote for static.
_STATIC_TRACK_WEIGHT = 1.5
# Share of the other evidence that is dropped where a pixel looks like its background in shadow.
_SHADOW_SHARE = 0.9
# Reaches of the rounds, see list_reaches.
_REACHES = (0.06, 0.03, 0.01)
# The same with a saliency network, which looks after some coarse rounds.
_SALIENT_REACHES = (0.06, 0.03, 0.03, 0.01)
_COARSE_ROUNDS = 2
# Log-odds of pixels out of reach, and log-odds below which a pixel is certainly static.
_FAR_ODDS = -4.0
_STATIC_ODDS = -0.5
# Vote of tracks below which a pixel shows background.
_STATIC_VOTE = -0.5
# Half the width of gaps in movers that are closed, as a share of the longer side. A larger share
# closes gaps between legs.
_GAP = 0.004
# Labels that 8 bits hold.
_MAX_LABELS = 255


def segment_motion(
    evidence: Evidence,
    around: TrackMaps,
    cameras: Cameras,
    appearance: Appearance | None = None,
    progress: Progress = SILENT,
    options: MotionOptions = MotionOptions(),
) -> Float[np.ndarray, "F h w"]:
    """Probability that each pixel belongs to a mover, at the evidence's size.

    Args:
        around: votes and lives of the tracks around each pixel.
        cameras: of the frames, for images of any size.
        appearance: a saliency network draws the outlines, if there is one.
        progress: hears a step for each frame in each of ``count_passes`` passes.
    """
    votes = around.votes
    odds = _estimate_odds(evidence, votes, options)
    rounds = list_reaches(appearance is not None)
    last = len(rounds) - 1
    frames = len(votes)
    steps = frames * count_passes(appearance is not None)
    if odds is None:
        progress.step("motion", steps, steps)
        return np.zeros(votes.shape, np.float32)
    probability = 1 / (1 + np.exp(-odds))
    salient = None
    hears = (ProgressPart(progress, done, steps) for done in range(0, steps, frames))
    for number, reach in enumerate(rounds):
        if appearance is not None and number == _COARSE_ROUNDS:
            salient = estimate_saliency_odds(appearance, evidence, probability, next(hears))
        near = grow(probability > 0.5, _REACHES[0])
        suspect = grow(probability > 0.5, reach) & (votes > _STATIC_VOTE)
        aligned = number == last
        behind = compare_with_background(evidence, cameras, suspect, aligned, next(hears))
        colour = estimate_colour_odds(evidence.images, probability, near)
        cues = zip(odds, colour, *behind, strict=True)
        total = np.stack([_join_cues(*of_frame, options) for of_frame in cues])
        total += options.life_weight * estimate_life_odds(around.life, probability)
        if salient is not None:
            total += salient
        total[~near] = _FAR_ODDS
        probability = smooth_probability(evidence, total, probability, near)
    return _close_gaps(probability)


def _close_gaps(probability: Float[np.ndarray, "F h w"]) -> Float[np.ndarray, "F h w"]:
    """The probabilities with narrow gaps closed: pixels in which a mover looks like its background
    for a moment."""
    reach = max(1, round(_GAP * max(probability.shape[1:])))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.stack([cv2.morphologyEx(image, cv2.MORPH_CLOSE, disc) for image in probability])


def list_reaches(with_saliency: bool) -> tuple[float, ...]:
    """Rounds of segmentation: the distance from the mover found so far up to which a pixel may
    belong to it, as a share of the longer side."""
    return _SALIENT_REACHES if with_saliency else _REACHES


def count_passes(with_saliency: bool) -> int:
    """Passes of ``segment_motion`` over all frames."""
    return len(list_reaches(with_saliency)) + with_saliency


def _estimate_odds(
    evidence: Evidence, votes: Float[np.ndarray, "F h w"], options: MotionOptions
) -> Float[np.ndarray, "F h w"] | None:
    """Log-odds of motion from flow and tracks; positive only in significant motion. None if there
    is none."""
    motion = estimate_motion_odds(evidence, options) + _STATIC_TRACK_WEIGHT * np.minimum(votes, 0)
    moving = _find_significant(motion, options)
    if not moving.any():
        return None
    odds = np.where(moving, motion, np.minimum(motion, _STATIC_ODDS))
    return odds + weigh_moving_tracks(votes * evidence.texture, moving, motion < _STATIC_ODDS)


def _join_cues(
    odds: Float[np.ndarray, "h w"],
    colour: Float[np.ndarray, "h w"],
    behind: Float[np.ndarray, "h w"],
    shadow: Float[np.ndarray, "h w"],
    options: MotionOptions,
) -> Float[np.ndarray, "h w"]:
    """Log-odds of each pixel from motion, colour, and the background behind it, plain and in
    shadow."""
    # Flow is blurred over its patches: where the background is known, it tells the outline.
    blurred = np.where(behind != 0, options.blurred_weight, 1.0) * np.maximum(odds, 0)
    shadow = _SHADOW_SHARE * shadow
    total = blurred + options.colour_weight * colour + options.background_weight * behind
    return (1 - shadow) * total + np.minimum(odds, 0) - options.shadow_weight * shadow


def label_movers(
    mask: Bool[np.ndarray, "F h w"], options: MotionOptions = MotionOptions()
) -> UInt8[np.ndarray, "F h w"]:
    """Labels 1, 2, ... of the movers of a mask, connected in space and time, largest first; blobs
    that are smaller or shorter than a mover get 0."""
    blobs = Blobs(mask)
    size = np.where(find_lasting(blobs, options.smallest, options), blobs.count_pixels(), 0)
    order = np.argsort(-size, kind="stable")[: min(_MAX_LABELS, (size > 0).sum())]
    rank = np.zeros(len(size), np.uint8)
    rank[order] = np.arange(1, len(order) + 1)
    return blobs.paint(rank)


def _find_significant(
    odds: Float[np.ndarray, "F h w"], options: MotionOptions
) -> Bool[np.ndarray, "F h w"]:
    """Pixels of space-time blobs of motion that are certain, large and lasting enough."""
    square = np.ones((3, 3))
    certain = ((frame > 0.5).astype(np.uint8) for frame in odds)
    opened = np.stack([cv2.morphologyEx(frame, cv2.MORPH_OPEN, square) for frame in certain])
    blobs = Blobs(opened > 0)
    return blobs.paint(find_lasting(blobs, options.smallest_seed, options))


def find_lasting(blobs: Blobs, smallest: float, options: MotionOptions) -> Bool[np.ndarray, "B"]:
    """Blobs that have at least ``smallest`` of the image's area on average, and last."""
    shortest = min(options.shortest, len(blobs.masks))
    return blobs.find_lasting(shortest, smallest * blobs.masks[0].size)
