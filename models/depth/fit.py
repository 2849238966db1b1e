"""Robust lines: inverse depth of points against the values of a depth map at the points."""

import numpy as np
from jaxtyping import Float

MIN_POINTS = 12
"""Points that a fit needs."""
# A shift is used if its residuals are below this share of the residuals of a scale alone.
_SHIFT_GAIN = 0.95
# Reweighted least-squares steps of a fit.
_STEPS = 15
# Standard deviation of a normal distribution over its median absolute deviation.
_DEVIATION = 1.4826


def holds_inverse(samples: list[tuple[Float[np.ndarray, "P"], Float[np.ndarray, "P"]]]) -> bool:
    """Whether the values of a map rise with inverse depth, by the rank correlations of the frames.

    Args:
        samples: values and inverse depths of the points of each frame; a value of 0 is unknown.
    """
    vote = 0.0
    for value, rho in samples:
        known = value > 0
        if known.sum() >= MIN_POINTS:
            # Spearman's rank correlation: the relation need not be linear.
            a, b = (np.argsort(np.argsort(v[known])) - (known.sum() - 1) / 2 for v in (value, rho))
            vote += float((a * b).sum() / max((b * b).sum(), 1))
    return vote >= 0


def fit_inverse_depth(
    value: Float[np.ndarray, "N"], rho: Float[np.ndarray, "N"]
) -> tuple[float, float, float] | None:
    """Scale, shift and robust standard deviation of inverse depth rho ~ scale * value + shift; None
    for too few points, or if no positive scale fits.

    The shift stays 0 if it explains nothing: values without spread do not tell it from the scale.
    """
    if len(rho) < MIN_POINTS:
        return None
    # The robust ratio, for a fit without shift.
    start = np.array([np.median(rho / np.maximum(value, 1e-12))])
    scale = _minimize_deviations(value[:, None], rho, start)[0]
    shift = 0.0
    residual = np.abs(rho - scale * value)
    A = np.stack([value, np.ones_like(value)], 1)
    line_scale, line_shift = _minimize_deviations(A, rho, _fit_median_line(value, rho))
    line_residual = np.abs(rho - line_scale * value - line_shift)
    if line_scale > 0 and line_residual.mean() < _SHIFT_GAIN * residual.mean():
        scale = line_scale
        shift = line_shift
        residual = line_residual
    if scale <= 0:
        return None
    return float(scale), float(shift), _DEVIATION * float(np.median(residual))


def _minimize_deviations(
    A: Float[np.ndarray, "N P"], b: Float[np.ndarray, "N"], start: Float[np.ndarray, "P"]
) -> Float[np.ndarray, "P"]:
    """The x that minimises the sum of |b - A x|, by iteratively reweighted least squares."""
    x = start
    for _ in range(_STEPS):
        residual = np.abs(b - A @ x)
        # The floor keeps a point that is met exactly from taking all the weight.
        weight = 1 / np.maximum(residual, 0.1 * np.median(residual) + 1e-9 * np.median(b))
        Aw = A * (weight / weight.max())[:, None]
        x = np.linalg.lstsq(Aw.T @ A, Aw.T @ b, rcond=None)[0]
    return x


def _fit_median_line(
    value: Float[np.ndarray, "N"], rho: Float[np.ndarray, "N"]
) -> Float[np.ndarray, "2"]:
    """Scale and shift by medians of pairs, which up to a quarter of wrong points does not move.

    Source: Theil, 1950, and Sen, "Estimates of the regression coefficient based on Kendall's tau",
    1968, with each point in one pair.
    """
    # Pairs far apart in value give certain slopes.
    order = np.argsort(value, kind="stable")
    half = len(order) // 2
    rise = value[order[-half:]] - value[order[:half]]
    slopes = (rho[order[-half:]] - rho[order[:half]])[rise > 0] / rise[rise > 0]
    slope = np.median(slopes) if len(slopes) else 0.0
    return np.array([slope, np.median(rho - slope * value)])
