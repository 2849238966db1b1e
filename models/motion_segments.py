"""Evidence of motion -> masks that follow pixel edges and hold together in time, and a label for each mover."""

from collections.abc import Callable

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from models.cameras import Cameras
from models.motion_background import background_odds
from models.motion_evidence import Evidence, warp

THRESHOLD = 3.0
"""Misfit, in standard deviations of the frame's own noise, at which motion is as likely as not."""
CERTAIN = 2.5
"""Bound of the log-odds that motion gives a pixel of one frame."""
TRACK_WEIGHT = 1.5
"""Log-odds of a long track's vote."""
COLOUR_WEIGHT = 0.6
"""Weight of the log-odds that colour gives, once something moves."""
BEHIND_WEIGHT = 1.0
"""Weight of the log-odds from comparison with the background seen in other frames."""
SHADOW_SHARE = 0.6
"""Share of the other evidence that is dropped where a pixel looks like its background in shadow."""
SHADOW_WEIGHT = 2.0
"""Log-odds against motion where a pixel looks like its background in shadow, in place of those for it."""
COLOUR_LEVELS = 12
"""Bins of each colour channel."""
REACHES = (0.06, 0.03, 0.01)
"""How far round a mover of each round a pixel may still belong to it, as shares of the longer side."""
SMOOTH_SPACE, SMOOTH_TIME = 0.5, 0.8
"""Pull between neighbours of like colour, in space (each of 8) and in time (each of 2)."""
SMALLEST = 0.0012
"""Area of a mover, as a share of the image and on average over its frames, below which it is noise."""
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
        votes: what tracks say, from -1 (static) to 0 (nothing).
    """
    motion = motion_odds(evidence) + TRACK_WEIGHT * votes
    moving = _significant(motion)
    if not moving.any():
        return np.zeros(motion.shape, np.float32)
    odds = np.where(moving, motion, np.minimum(motion, -0.5))
    probability = 1 / (1 + np.exp(-odds))
    for i, reach in enumerate(REACHES):
        colour = _colour_odds(evidence.images, probability)
        behind, shadow = background_odds(evidence, cameras, _near(probability, reach) & (votes > -0.5))
        shadow *= SHADOW_SHARE
        total = (1 - shadow) * (np.maximum(odds, 0) + COLOUR_WEIGHT * colour + BEHIND_WEIGHT * behind)
        total += np.minimum(odds, 0) - SHADOW_WEIGHT * shadow
        total[~_near(probability, REACHES[0])] = -4.0
        probability = _smoothed(evidence, total, probability)
        progress(i + 1, len(REACHES))
    return probability


def motion_odds(evidence: Evidence) -> Float[np.ndarray, "F h w"]:
    """Log-odds of motion from each frame's misfit, joined along the flow over the frames around it."""
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
    strong = np.stack([cv2.morphologyEx((o > 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3))) for o in odds])
    return _lasting(strong > 0, SMALLEST_SEED) > 0


def _lasting(mask: Bool[np.ndarray, "F h w"], smallest: float) -> np.ndarray:
    """Space-time components that are large and last; 0 elsewhere."""
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    for n, box in enumerate(ndimage.find_objects(labels), 1):
        area = (labels[box] == n).sum((1, 2))
        frames = (area > 0).sum()
        if frames < min(SHORTEST, len(mask)) or area.sum() / max(frames, 1) < smallest * mask[0].size:
            labels[box][labels[box] == n] = 0
    return labels


def _near(probability: Float[np.ndarray, "F h w"], reach: float) -> Bool[np.ndarray, "F h w"]:
    radius = max(3, round(reach * max(probability.shape[1:])))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.stack([cv2.dilate((p > 0.5).astype(np.uint8), disc) > 0 for p in probability])


def _colour_odds(images: UInt8[np.ndarray, "F h w 3"], probability: Float[np.ndarray, "F h w"]) -> np.ndarray:
    """Log-odds of each pixel's colour: movers of the frames around against what surrounds them."""
    bins = _bins(images)
    near = _near(probability, REACHES[0])
    size = COLOUR_LEVELS**3
    inside = np.stack([np.bincount(b.ravel(), p.ravel(), size) for b, p in zip(bins, probability, strict=True)])
    outside = np.stack([np.bincount(b[n], 1 - p[n], size) for b, p, n in zip(bins, probability, near, strict=True)])
    inside, outside = (_blurred(ndimage.gaussian_filter1d(h, 4.0, 0, mode="nearest")) for h in (inside, outside))
    inside /= inside.sum(1, keepdims=True) + 1e-9
    outside /= outside.sum(1, keepdims=True) + 1e-9
    ratio = np.clip(np.log((inside + 2e-5) / (outside + 2e-5)), -3, 3)
    return np.stack([r[b] for r, b in zip(ratio, bins, strict=True)]).astype(np.float32)


def _bins(images: np.ndarray) -> np.ndarray:
    level = images.astype(np.int32) * COLOUR_LEVELS // 256
    return (level[..., 0] * COLOUR_LEVELS + level[..., 1]) * COLOUR_LEVELS + level[..., 2]


def _blurred(histogram: np.ndarray) -> np.ndarray:
    cube = histogram.reshape(-1, COLOUR_LEVELS, COLOUR_LEVELS, COLOUR_LEVELS)
    return ndimage.gaussian_filter(cube, (0, 0.7, 0.7, 0.7)).reshape(len(histogram), -1)


def _smoothed(evidence: Evidence, odds: np.ndarray, probability: np.ndarray, rounds: int = 3) -> np.ndarray:
    """Mean-field steps of a grid model whose neighbours (8 in space, 2 in time along the flow) pull at each other."""
    images = evidence.images
    contrast = float(np.mean([np.square(np.diff(i.astype(np.float32), axis=1)).sum(-1).mean() for i in images]))
    for _ in range(rounds):
        new = np.empty_like(probability)
        for t in range(len(odds)):
            total = odds[t].copy()
            for other in (t - 1, t + 1):
                if (t, other) in evidence.flows:
                    flow = evidence.flows[t, other]
                    known = np.isfinite(flow[..., 0])
                    total += np.where(known, SMOOTH_TIME * warp(2 * probability[other] - 1, flow), 0)
            _mean_field(images[t], total, probability[t], 1.0 / (2 * contrast), SMOOTH_SPACE, new[t])
        probability = new
    return probability


@numba.njit(cache=True, parallel=True)
def _mean_field(image, odds, start, sharpness, strength, out):
    """Six rounds of mean field in one image; neighbours of unlike colour hardly pull."""
    height, width = odds.shape
    weight = np.zeros((height + 2, width + 2, 4), np.float32)
    for y in numba.prange(height):
        for x in range(width):
            for k in range(4):  # right, down, down right, down left
                u, v = x + (1 if k in (0, 2) else (0 if k == 1 else -1)), y + (1 if k > 0 else 0)
                if u < 0 or u >= width or v >= height:
                    continue
                d = 0.0
                for c in range(3):
                    e = float(image[y, x, c]) - float(image[v, u, c])
                    d += e * e
                weight[y + 1, x + 1, k] = strength * np.exp(-d * sharpness) * (1.0 if k < 2 else 0.7)
    now = np.zeros((height + 2, width + 2), np.float32)
    now[1:-1, 1:-1] = 2.0 * start - 1.0
    new = now.copy()
    for _ in range(6):
        for y in numba.prange(1, height + 1):
            for x in range(1, width + 1):
                pull = weight[y, x, 0] * now[y, x + 1] + weight[y, x - 1, 0] * now[y, x - 1]
                pull += weight[y, x, 1] * now[y + 1, x] + weight[y - 1, x, 1] * now[y - 1, x]
                pull += weight[y, x, 2] * now[y + 1, x + 1] + weight[y - 1, x - 1, 2] * now[y - 1, x - 1]
                pull += weight[y, x, 3] * now[y + 1, x - 1] + weight[y - 1, x + 1, 3] * now[y - 1, x + 1]
                z = 0.5 * (odds[y - 1, x - 1] + pull)
                new[y, x] = z / np.sqrt(1.0 + z * z)  # as steep as tanh(z) at 0, and cheaper
        now, new = new, now
    out[:] = 0.5 + 0.5 * now[1:-1, 1:-1]


def label_movers(mask: Bool[np.ndarray, "F h w"]) -> UInt8[np.ndarray, "F h w"]:
    """1, 2, ... for space-time blobs that last, largest first; smaller ones than noise are dropped."""
    kept = _lasting(mask, SMALLEST)
    size = np.bincount(kept.ravel())
    size[0] = 0
    order = np.argsort(-size)[: min(255, (size > 0).sum())]
    rank = np.zeros(len(size), np.uint8)
    rank[order] = np.arange(1, len(order) + 1)
    return rank[kept]
