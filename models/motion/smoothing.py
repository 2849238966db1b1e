"""Probabilities of motion smoothed over neighbours of like colour, in space and along the flow in
time (mean-field inference of a grid model)."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.motion.evidence import Evidence, warp
from models.motion.patches import find_box
from models.run import njit, run_tasks

# Pull between neighbours of like colour: in space (each of 8) and in time (each of 2).
_SPACE_PULL = 0.5
_TIME_PULL = 0.8
# Pull of a diagonal neighbour, which is farther away, relative to a direct one.
_DIAGONAL = 0.7
# Rounds in which each image takes the probabilities of the images before and after it.
_ROUNDS = 3


def smooth_probability(
    evidence: Evidence,
    odds: Float[np.ndarray, "F h w"],
    probability: Float[np.ndarray, "F h w"],
    near: Bool[np.ndarray, "F h w"],
) -> Float[np.ndarray, "F h w"]:
    """Mean-field estimate of the probability of motion from the pixels' odds and their neighbours.

    Args:
        odds: log-odds of each pixel by itself.
        probability: to start from.
        near: pixels that may move. Only the box around them is worked on.
    """
    sharpness = 1.0 / (2 * _measure_contrast(evidence.images))
    boxes = [find_box(mask) for mask in near]
    for _ in range(_ROUNDS):
        probability = _smooth_once(evidence, odds, probability, boxes, sharpness)
    return probability


def _smooth_once(
    evidence: Evidence,
    odds: Float[np.ndarray, "F h w"],
    probability: Float[np.ndarray, "F h w"],
    boxes: list[tuple[slice, slice] | None],
    sharpness: float,
) -> Float[np.ndarray, "F h w"]:
    """The probabilities after a round: those of each box from its own image and the images before
    and after it; 0 outside the boxes."""
    new = np.zeros_like(probability)

    def smooth(t: int) -> None:
        box = boxes[t]
        if box is not None:
            total = _add_pull_of_time(evidence, odds[t][box].copy(), probability, t, box)
            pull = _weigh_neighbours(evidence.images[t][box], sharpness)
            # Boxes of another layout of memory would be compiled for anew.
            start = np.ascontiguousarray(probability[t][box])
            new[t][box] = _solve_mean_field(pull, total, start)

    run_tasks(smooth, len(boxes))
    return new


def _add_pull_of_time(
    evidence: Evidence,
    odds: Float[np.ndarray, "h2 w2"],
    probability: Float[np.ndarray, "F h w"],
    t: int,
    box: tuple[slice, slice],
) -> Float[np.ndarray, "h2 w2"]:
    """Log-odds in a box of frame t, to which the frames before and after it add their pull along
    the flow, in place."""
    for other in (t - 1, t + 1):
        if (t, other) in evidence.flows:
            flow = evidence.flows[t, other][box]
            known = np.isfinite(flow[..., 0])
            corner = box[0].start, box[1].start
            carried = warp(2 * probability[other] - 1, flow, corner)
            odds += np.where(known, _TIME_PULL * carried, 0)
    return odds


def _measure_contrast(images: UInt8[np.ndarray, "F h w 3"]) -> float:
    """Mean squared difference of colour between horizontal neighbours."""
    steps = (np.diff(image.astype(np.float32), axis=1) for image in images)
    return float(np.mean([np.square(step).sum(-1).mean() for step in steps]))


def _weigh_neighbours(
    rgb: UInt8[np.ndarray, "h w 3"], sharpness: float
) -> Float[np.ndarray, "4 h2 w2"]:
    """Pull between each pixel and its neighbour right, below, below right and below left, with a
    border of 0.

    Args:
        sharpness: in 1 / squared grey levels. The larger, the more edges separate pixels.
    """
    image = np.ascontiguousarray(rgb.astype(np.float32).transpose(2, 0, 1))
    height, width = rgb.shape[:2]
    weight = np.zeros((4, height + 2, width + 2), np.float32)
    for k, (dx, dy) in enumerate(((1, 0), (0, 1), (1, 1), (-1, 1))):
        left = max(0, -dx)
        right = width - max(0, dx)
        here = image[:, : height - dy, left:right]
        there = image[:, dy:, left + dx : right + dx]
        unlike = np.square(here - there).sum(0)
        pull = _SPACE_PULL * (1.0 if k < 2 else _DIAGONAL) * np.exp(-sharpness * unlike)
        weight[k, 1 : 1 + height - dy, 1 + left : 1 + right] = pull
    return weight


@njit(cache=True, nogil=True, fastmath=True, forceinline=True)
def _solve_mean_field(w, odds, start, num_rounds=6):
    """Rounds of mean field in an image; neighbours of unlike colour hardly pull.

    w holds the pull between neighbours, see _weigh_neighbours.
    """
    height, width = odds.shape
    now = np.zeros((height + 2, width + 2), np.float32)
    now[1:-1, 1:-1] = np.float32(2.0) * start - np.float32(1.0)
    new = now.copy()
    half = np.float32(0.5)
    one = np.float32(1.0)
    for _ in range(num_rounds):
        for y in range(1, height + 1):
            for x in range(1, width + 1):
                pull = w[0, y, x] * now[y, x + 1] + w[0, y, x - 1] * now[y, x - 1]
                pull += w[1, y, x] * now[y + 1, x] + w[1, y - 1, x] * now[y - 1, x]
                pull += w[2, y, x] * now[y + 1, x + 1] + w[2, y - 1, x - 1] * now[y - 1, x - 1]
                pull += w[3, y, x] * now[y + 1, x - 1] + w[3, y - 1, x + 1] * now[y - 1, x + 1]
                z = half * (odds[y - 1, x - 1] + pull)
                # As steep as tanh(z) at 0, and cheaper.
                new[y, x] = z / np.sqrt(one + z * z)
        now, new = new, now
    return half + half * now[1:-1, 1:-1]
