"""Evidence of motion -> masks that follow pixel edges and hold together in time, and a label for
each mover."""

from collections.abc import Callable

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from models.cameras import Cameras
from models.motion.background_odds import background_odds, bounds
from models.motion.blobs import Blobs
from models.motion.evidence import Evidence, warp

THRESHOLD = 3.0
"""Misfit, in standard deviations of the frame's own noise, at which motion is as likely as not."""
CERTAIN = 2.5
"""Bound of the log-odds that motion gives a pixel of one frame."""
TRACK_WEIGHT = 1.5
"""Log-odds of a long track's vote for static."""
RELIABLE = 10.0
"""How many times more often tracks must say "moving" on what certainly moves than on what certainly
does not."""
MOVING_TRACK_WEIGHT = 0.7
"""Log-odds of a track's vote for moving, for each unit by which the logarithm of that ratio is
higher."""
COLOUR_WEIGHT = 0.6
"""Weight of the log-odds that colour gives, once something moves."""
BEHIND_WEIGHT = 1.0
"""Weight of the log-odds from comparison with the background seen in other frames."""
SHADOW_SHARE = 0.6
"""Share of the other evidence that is dropped where a pixel looks like its background in shadow."""
SHADOW_WEIGHT = 2.0
"""Log-odds against motion where a pixel looks like its background in shadow, in place of those for
it."""
COLOUR_LEVELS = 12
"""Bins of each colour channel."""
REACHES = (0.06, 0.03, 0.01)
"""How far round a mover of each round a pixel may still belong to it, as shares of the longer
side."""
SMOOTH_SPACE = 0.5
SMOOTH_TIME = 0.8
"""Pull between neighbours of like colour, in space (each of 8) and in time (each of 2)."""
SMALLEST = 0.0012
"""Area of a mover, as a share of the image and on average over its frames, below which it is
noise."""
SMALLEST_SEED = 0.0004
"""The same for evidence of motion, before colour and background have had their say."""
SHORTEST = 4
"""Frames that a mover must last (or the whole clip, if that is shorter)."""


def segment(
    evidence: Evidence,
    votes: Float[np.ndarray, "F h w"],
    cameras: Cameras,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Float[np.ndarray, "F h w"]:
    """Probability that each pixel belongs to a mover, at the evidence's size.

    Args:
        votes: what tracks say, from -1 (static) to 1 (moving).
    """
    motion = motion_odds(evidence) + TRACK_WEIGHT * np.minimum(votes, 0)
    moving = _significant(motion)
    if not moving.any():
        progress(len(REACHES), len(REACHES))
        return np.zeros(motion.shape, np.float32)
    odds = np.where(moving, motion, np.minimum(motion, -0.5))
    odds += _moving_tracks(votes * evidence.texture, moving, motion < -0.5)
    probability = 1 / (1 + np.exp(-odds))
    for i, reach in enumerate(REACHES):
        near = _near(probability, REACHES[0])
        colour = _colour_odds(evidence.images, probability, near)
        behind, shadow = background_odds(
            evidence, cameras, _near(probability, reach) & (votes > -0.5)
        )
        shadow *= SHADOW_SHARE
        total = (1 - shadow) * (
            np.maximum(odds, 0) + COLOUR_WEIGHT * colour + BEHIND_WEIGHT * behind
        )
        total += np.minimum(odds, 0) - SHADOW_WEIGHT * shadow
        total[~near] = -4.0
        probability = _smoothed(evidence, total, probability, near)
        progress(i + 1, len(REACHES))
    return probability


def _moving_tracks(
    votes: Float[np.ndarray, "F h w"],
    moving: Bool[np.ndarray, "F h w"],
    static: Bool[np.ndarray, "F h w"],
) -> Float[np.ndarray, "F h w"]:
    """Log-odds that votes for moving add, by how well they tell apart what flow is certain of in
    this clip.

    They found no mover: tracks slip at edges, and all of them where the cameras are poor.
    """
    votes = np.maximum(votes, 0)
    ratio = (votes[moving].mean() + 1e-4) / ((votes[static].mean() if static.any() else 1.0) + 1e-4)
    return MOVING_TRACK_WEIGHT * max(0.0, np.log(ratio / RELIABLE)) * votes


def motion_odds(evidence: Evidence) -> Float[np.ndarray, "F h w"]:
    """Log-odds of motion from each frame's misfit, joined along the flow over the frames around
    it."""
    single = np.zeros(evidence.misfit.shape, np.float32)
    for t, (misfit, support) in enumerate(zip(evidence.misfit, evidence.support, strict=True)):
        seen = support > 0
        noise = max(1.0, np.median(misfit[seen]) / 0.8) if seen.any() else 1.0
        odds = np.clip(1.2 * (misfit / noise - THRESHOLD), -CERTAIN, CERTAIN)
        odds = np.where(odds < 0, odds * evidence.texture[t], odds)
        single[t] = odds * np.minimum(support / 3, 1)
    joined = 2.0 * single
    weight = 2.0 + 1e-6 * single
    for (a, b), flow in evidence.flows.items():
        known = np.isfinite(flow[..., 0])
        joined[a] += np.where(known, warp(single[b], flow), 0)
        weight[a] += known
    return joined / weight


def _significant(odds: Float[np.ndarray, "F h w"]) -> Bool[np.ndarray, "F h w"]:
    """Pixels of space-time blobs of motion that are certain, large and lasting enough."""
    strong = np.stack(
        [
            cv2.morphologyEx((o > 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
            for o in odds
        ]
    )
    blobs = Blobs(strong > 0)
    return blobs.painted(_lasting(blobs, SMALLEST_SEED))


def _lasting(blobs: Blobs, smallest: float) -> Bool[np.ndarray, "B"]:
    """Blobs that are large and last."""
    return blobs.lasting(min(SHORTEST, len(blobs.masks)), smallest * blobs.masks[0].size)


def _near(probability: Float[np.ndarray, "F h w"], reach: float) -> Bool[np.ndarray, "F h w"]:
    radius = max(3, round(reach * max(probability.shape[1:])))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.stack([cv2.dilate((p > 0.5).astype(np.uint8), disc) > 0 for p in probability])


def _colour_odds(
    images: UInt8[np.ndarray, "F h w 3"],
    probability: Float[np.ndarray, "F h w"],
    near: Bool[np.ndarray, "F h w"],
) -> np.ndarray:
    """Log-odds of each pixel's colour: movers of the frames around against what surrounds them."""
    bins = [_bins(image) for image in images]
    size = COLOUR_LEVELS**3
    inside = np.stack(
        [np.bincount(b.ravel(), p.ravel(), size) for b, p in zip(bins, probability, strict=True)]
    )
    outside = np.stack(
        [np.bincount(b[n], 1 - p[n], size) for b, p, n in zip(bins, probability, near, strict=True)]
    )
    inside, outside = (
        _blurred(ndimage.gaussian_filter1d(h, 4.0, 0, mode="nearest")) for h in (inside, outside)
    )
    inside /= inside.sum(1, keepdims=True) + 1e-9
    outside /= outside.sum(1, keepdims=True) + 1e-9
    ratio = np.clip(np.log((inside + 2e-5) / (outside + 2e-5)), -3, 3)
    odds = np.empty(probability.shape, np.float32)
    for t, own in enumerate(bins):
        odds[t] = ratio[t, own]
    return odds


def _bins(image: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    level = image.astype(np.uint16) * COLOUR_LEVELS // 256
    return (level[..., 0] * COLOUR_LEVELS + level[..., 1]) * COLOUR_LEVELS + level[..., 2]


def _blurred(histogram: np.ndarray) -> np.ndarray:
    cube = histogram.reshape(-1, COLOUR_LEVELS, COLOUR_LEVELS, COLOUR_LEVELS)
    return ndimage.gaussian_filter(cube, (0, 0.7, 0.7, 0.7)).reshape(len(histogram), -1)


def _smoothed(
    evidence: Evidence,
    odds: np.ndarray,
    probability: np.ndarray,
    near: Bool[np.ndarray, "F h w"],
    rounds: int = 3,
) -> np.ndarray:
    """Mean-field steps of a grid model whose neighbours (8 in space, 2 in time along the flow) pull
    at each other.

    Beyond the box around ``near`` no pixel moves: only the box is worked on.
    """
    images = evidence.images
    contrast = float(
        np.mean([np.square(np.diff(i.astype(np.float32), axis=1)).sum(-1).mean() for i in images])
    )
    boxes = [bounds(n) for n in near]
    for _ in range(rounds):
        new = np.zeros_like(probability)
        for t, box in enumerate(boxes):
            if box is None:
                continue
            total = odds[t][box].copy()
            for other in (t - 1, t + 1):
                if (t, other) in evidence.flows:
                    flow = evidence.flows[t, other]
                    known = np.isfinite(flow[box][..., 0])
                    total += np.where(
                        known, SMOOTH_TIME * warp(2 * probability[other] - 1, flow)[box], 0
                    )
            image = np.ascontiguousarray(images[t][box].astype(np.float32).transpose(2, 0, 1))
            weight = _likeness(image, 1.0 / (2 * contrast), SMOOTH_SPACE)
            new[t][box] = _mean_field(weight, total, probability[t][box])
        probability = new
    return probability


def _likeness(
    image: Float[np.ndarray, "3 h w"], sharpness: float, strength: float
) -> Float[np.ndarray, "4 h2 w2"]:
    """How much each pixel pulls at its neighbour right, below, below right and below left; with a
    border of 0."""
    height, width = image.shape[1:]
    weight = np.zeros((4, height + 2, width + 2), np.float32)
    for k, (dx, dy) in enumerate(((1, 0), (0, 1), (1, 1), (-1, 1))):
        left, right = max(0, -dx), width - max(0, dx)
        here = image[:, : height - dy, left:right]
        there = image[:, dy:, left + dx : right + dx]
        unlike = np.square(here - there).sum(0)
        pull = strength * (1.0 if k < 2 else 0.7) * np.exp(-sharpness * unlike)
        weight[k, 1 : 1 + height - dy, 1 + left : 1 + right] = pull
    return weight


@numba.njit(cache=True, fastmath=True, forceinline=True)
def _mean_field(weight, odds, start, num_rounds=6):
    """Rounds of mean field in one image; neighbours of unlike colour hardly pull."""
    height, width = odds.shape
    now = np.zeros((height + 2, width + 2), np.float32)
    now[1:-1, 1:-1] = np.float32(2.0) * start - np.float32(1.0)
    new = now.copy()
    half = np.float32(0.5)
    one = np.float32(1.0)
    for _ in range(num_rounds):
        for y in range(1, height + 1):
            for x in range(1, width + 1):
                pull = weight[0, y, x] * now[y, x + 1] + weight[0, y, x - 1] * now[y, x - 1]
                pull += weight[1, y, x] * now[y + 1, x] + weight[1, y - 1, x] * now[y - 1, x]
                pull += (
                    weight[2, y, x] * now[y + 1, x + 1]
                    + weight[2, y - 1, x - 1] * now[y - 1, x - 1]
                )
                pull += (
                    weight[3, y, x] * now[y + 1, x - 1]
                    + weight[3, y - 1, x + 1] * now[y - 1, x + 1]
                )
                z = half * (odds[y - 1, x - 1] + pull)
                new[y, x] = z / np.sqrt(one + z * z)  # as steep as tanh(z) at 0, and cheaper
        now, new = new, now
    return half + half * now[1:-1, 1:-1]


def label_movers(mask: Bool[np.ndarray, "F h w"]) -> UInt8[np.ndarray, "F h w"]:
    """1, 2, ... for space-time blobs that last, largest first; smaller ones than noise are
    dropped."""
    blobs = Blobs(mask)
    size = np.where(_lasting(blobs, SMALLEST), blobs.sizes(), 0)
    order = np.argsort(-size, kind="stable")[: min(255, (size > 0).sum())]
    rank = np.zeros(len(size), np.uint8)
    rank[order] = np.arange(1, len(order) + 1)
    return blobs.painted(rank)
