"""The likely cause where cameras do not explain the tracks: lens, zoom or rolling shutter.

Each cause displaces the tracks in a pattern of its own. Poses and points take up part of the pattern;
the rest stays in the residuals. Residuals of a plain camera follow no pattern.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import uniform_filter1d

from models.sfm.adjustment.evidence import Fit
from models.tracks import PointTracks

Field = Float[np.ndarray, "F N 2"]

# Correlation of the residuals with a cause's pattern from which the cause is likely. The pattern of
# a zoom has a number for each frame, with which it also follows other errors.
_LEAST_CORRELATION = 0.1
_LEAST_ZOOM = 0.3
# Least amounts: distortion (k1 at the half diagonal), and share of the time between frames in which
# the rows are read. Tracks lag behind by a few hundredths of a frame's motion.
_LEAST_BEND = 0.005
_LEAST_DELAY = 0.15
# Causes by name, with the least correlation and the least amount of each.
_LENS, _ZOOM, _SHUTTER = "a lens that bends straight lines", "a zoom", "a rolling shutter"
_CAUSES = {
    _LENS: (_LEAST_CORRELATION, _LEAST_BEND),
    _ZOOM: (_LEAST_ZOOM, 0.0),
    _SHUTTER: (_LEAST_CORRELATION, _LEAST_DELAY),
}
# Parts of the clip in time, and the share of the whole clip's amount that each must have, so that
# the cause is steady.
_PARTS = 4
_STEADY_SHARE = 0.25
# Frames over which the scale of a zoom is averaged.
_SMOOTHED_FRAMES = 3
# Rounds in which the part of a pattern that poses and points take up is removed.
_ROUNDS = 3


def find_cause(fits: Iterable[Fit]) -> str | None:
    """The cause whose pattern the residuals follow most closely and at all times; None if they
    follow none.

    Args:
        fits: of stretches of a clip, in the order of time.
    """
    stretches = [_compare(fit) for fit in fits]
    power = sum(own for _, own in stretches)
    likeness = {}
    for name, (enough, least) in _CAUSES.items():
        product, square = np.concatenate([sums[name] for sums, _ in stretches], 1)
        length = np.sqrt(square.sum() * power)
        correlation = abs(product.sum()) / max(length, 1e-9)
        if correlation > enough and _is_steady(product, square, least):
            likeness[name] = correlation
    return max(likeness, key=likeness.__getitem__) if likeness else None


def _compare(fit: Fit) -> tuple[dict[str, Float[np.ndarray, "2 F"]], float]:
    """For each cause the product of the residuals and its pattern and the square of the pattern,
    summed over each frame; and the sum of the squared residuals."""
    projected, _ = fit.cameras.project(torch.from_numpy(np.nan_to_num(fit.xyz)))
    residual = np.where(fit.agrees[..., None], fit.tracks.xy - projected.numpy(), 0)
    patterns = {
        _LENS: _keep_residual(_bend(fit.tracks), fit),
        _ZOOM: _magnify(residual, fit),
        _SHUTTER: _keep_residual(_delay_rows(fit.tracks), fit),
    }
    sums = {
        name: np.stack([(residual * pattern).sum((1, 2)), (pattern**2).sum((1, 2))])
        for name, pattern in patterns.items()
    }
    return sums, float((residual**2).sum())


def _is_steady(
    product: Float[np.ndarray, "F"], square: Float[np.ndarray, "F"], least: float
) -> bool:
    """Whether the amount of a cause is large enough, of one sign in all parts of the clip, and small
    in none.

    Args:
        product: of residuals and pattern, summed over each frame.
        square: of the pattern, summed over each frame.
    """
    whole = product.sum() / square.sum()
    if abs(whole) < least:
        return False
    parts = zip(np.array_split(product, _PARTS), np.array_split(square, _PARTS), strict=True)
    amounts = [part.sum() / max(own.sum(), 1e-9) for part, own in parts]
    return min(np.array(amounts) / whole) > _STEADY_SHARE


def _keep_residual(pattern: Field, fit: Fit) -> Field:
    """The pattern without the mean of each track, and without the shift, turn and scale of each
    frame: points and poses take these up."""
    seen = fit.agrees[..., None]
    count = np.maximum(seen.sum(0), 1)
    pattern = np.where(seen, pattern, 0)
    middle = [fit.tracks.width / 2, fit.tracks.height / 2]
    for _ in range(_ROUNDS):
        for t, own in enumerate(fit.agrees):
            pattern[t, own] -= _fit_similarity(fit.tracks.xy[t, own] - middle, pattern[t, own])
        pattern = np.where(seen, pattern - pattern.sum(0) / count, 0)
    return pattern


def _fit_similarity(
    xy: Float[np.ndarray, "n 2"], shift: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 2"]:
    """The shift, turn and scale nearest to the displacements of some points."""
    places = xy[:, 0] + 1j * xy[:, 1]
    columns = np.stack([np.ones(len(places)), places / max(np.abs(places).max(initial=0), 1)], 1)
    fitted = columns @ np.linalg.lstsq(columns, shift[:, 0] + 1j * shift[:, 1], rcond=None)[0]
    return np.stack([fitted.real, fitted.imag], 1)


def _bend(tracks: PointTracks) -> Field:
    """Radial displacement by the cube of the distance from the middle."""
    size = np.array([tracks.width, tracks.height])
    offset = tracks.xy - size / 2
    distance = np.linalg.norm(offset, axis=-1, keepdims=True) / np.linalg.norm(size / 2)
    return offset * distance**2


def _magnify(residual: Field, fit: Fit) -> Field:
    """Change of scale over time that is nearest to the residuals, smooth over a few frames."""
    middle = [fit.tracks.width / 2, fit.tracks.height / 2]
    offset = np.where(fit.agrees[..., None], fit.tracks.xy - middle, 0)
    scale = (residual * offset).sum((1, 2)) / np.maximum((offset**2).sum((1, 2)), 1e-9)
    change = uniform_filter1d(scale - scale.mean(), _SMOOTHED_FRAMES, mode="nearest")
    return offset * change[:, None, None]


def _delay_rows(tracks: PointTracks) -> Field:
    """Motion of the image from the time of the middle row to the time of a point's row, for rows
    that are read over the whole time between frames."""
    both = tracks.visible[1:] & tracks.visible[:-1]
    step = np.where(both[..., None], np.diff(tracks.xy, axis=0), 0)
    edge, none = np.zeros_like(step[:1]), np.zeros_like(both[:1])
    count = np.concatenate([both, none]).astype(int) + np.concatenate([none, both])
    velocity = np.concatenate([step, edge]) + np.concatenate([edge, step])
    velocity /= np.maximum(count, 1)[..., None]
    return velocity * (tracks.xy[..., 1:] / tracks.height - 0.5)
