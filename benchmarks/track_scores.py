"""How well 2D tracks follow the truth: the scores of the TAP-Vid benchmark."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

LIMITS = (1, 2, 4, 8, 16)
"""Distances in pixels of a 256x256 image below which a point counts as found."""
_SIDE = 256


@dataclass(frozen=True)
class TrackScores:
    """Percentages over all points and the frames after their query."""

    delta_avg: float
    """Share of visible points found within a limit, mean over the limits."""
    average_jaccard: float
    """Points found and called visible, over those and all that are missed or wrong; mean over the
    limits."""
    occlusion_accuracy: float
    """Share of points whose visibility is called rightly."""


def score_tracks(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    true_xy: Float[np.ndarray, "F N 2"],
    true_visible: Bool[np.ndarray, "F N"],
    query: Int[np.ndarray, "N"],
    width: int,
    height: int,
) -> TrackScores:
    """TAP-Vid scores of points queried once, from the frame after their query on.

    Source: Doersch et al., "TAP-Vid: A benchmark for tracking any point in a video", NeurIPS 2022,
    section 4.
    """
    counted = np.arange(len(xy))[:, None] > query
    if not (true_visible & counted).any():
        raise ValueError("no true point is visible after its query: there is nothing to score")
    away = np.linalg.norm((xy - true_xy) * np.array([_SIDE / width, _SIDE / height]), axis=-1)
    away = np.where(np.isfinite(away), away, np.inf)
    there = true_visible & counted
    found = [(away < limit) & there for limit in LIMITS]
    jaccard = [(f & visible).sum() / (there.sum() + (visible & counted & ~f).sum()) for f in found]
    return TrackScores(
        100 * float(np.mean([f.sum() / there.sum() for f in found])),
        100 * float(np.mean(jaccard)),
        100 * float((visible == true_visible)[counted].mean()),
    )
