"""Robust lines: inverse depth of points against what a depth map holds there."""

import numpy as np
from jaxtyping import Float

MIN_POINTS = 12
"""Points that a fit needs."""
SHIFT_GAIN = 0.95
"""A shift must leave less than this share of what a scale alone leaves."""
ROUNDS = 15
"""Reweighted least-squares steps of a fit."""


def holds_inverse(samples: list[tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]]) -> bool:
    """Whether a map's values rise with inverse depth, by rank, in most of what the frames say.

    Args:
        samples: values and inverse depths of the points of each frame; zeros say nothing.
    """
    vote = 0.0
    for value, rho in samples:
        told = value > 0
        if told.sum() >= MIN_POINTS:
            a, b = (np.argsort(np.argsort(v[told])) - (told.sum() - 1) / 2 for v in (value, rho))
            vote += float((a * b).sum() / max((b * b).sum(), 1))
    return vote >= 0


def fit_inverse_depth(
    value: Float[np.ndarray, "N"], rho: Float[np.ndarray, "N"]
) -> tuple[float, float, float] | None:
    """Scale, shift and robust error of inverse depth rho ~ scale * value + shift; None if it cannot
    be told.

    The shift stays 0 where it explains nothing: without spread in the values it cannot be told from
    the scale.
    """
    if len(rho) < MIN_POINTS:
        return None
    scale = _least_deviations(
        value[:, None], rho, np.array([np.median(rho / np.maximum(value, 1e-12))])
    )[0]
    shift = 0.0
    left = np.abs(rho - scale * value)
    steeper, moved = _least_deviations(
        np.stack([value, np.ones_like(value)], 1), rho, _median_line(value, rho)
    )
    other = np.abs(rho - steeper * value - moved)
    if steeper > 0 and other.mean() < SHIFT_GAIN * left.mean():
        scale = steeper
        shift = moved
        left = other
    return (float(scale), float(shift), 1.4826 * float(np.median(left))) if scale > 0 else None


def _least_deviations(
    A: Float[np.ndarray, "N P"], b: Float[np.ndarray, "N"], start: np.ndarray
) -> np.ndarray:
    """The x that minimises the sum of |b - A x|, by reweighted least squares."""
    x = start
    for _ in range(ROUNDS):
        left = np.abs(b - A @ x)
        weight = 1 / np.maximum(left, 0.1 * np.median(left) + 1e-9 * np.median(b))
        Aw = A * (weight / weight.max())[:, None]
        x = np.linalg.lstsq(Aw.T @ A, Aw.T @ b, rcond=None)[0]
    return x


def _median_line(value: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Scale and shift by medians of pairs, which a quarter of wrong points does not move (after
    Theil and Sen)."""
    order = np.argsort(value, kind="stable")
    half = len(order) // 2
    rise = value[order[-half:]] - value[order[:half]]
    slopes = (rho[order[-half:]] - rho[order[:half]])[rise > 0] / rise[rise > 0]
    slope = np.median(slopes) if len(slopes) else 0.0
    return np.array([slope, np.median(rho - slope * value)])
