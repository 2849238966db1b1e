"""Depth of movers: where they touch the background's surface, smooth in time; 2D tracks -> 3D in
each frame."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d, median_filter

CONTACT_SHARE = 0.12
"""Share of a mover's height, from its lowest pixel up, that may touch the ground."""
SMOOTHING = 2.0
"""Standard deviation in frames of the smoothing of depth over time."""


def contact_depth(
    mask: Bool[np.ndarray, "H W"], background_depth: Float[np.ndarray, "H W"]
) -> float:
    """Depth of the background where the mover's feet stand: below its lowest pixels. NaN where that
    is not seen.

    A mover that the lower image border cuts, or one with nothing behind it, says nothing.
    """
    rows, columns = np.nonzero(mask)
    height = len(mask)
    if len(rows) < 20 or rows.max() >= height - 2:
        return float("nan")
    lowest = np.full(mask.shape[1], -1)
    np.maximum.at(lowest, columns, rows)
    limit = rows.max() - max(2.0, CONTACT_SHARE * (rows.max() - rows.min()))
    feet = np.flatnonzero(lowest >= limit)
    below = np.minimum(lowest[feet] + 2, height - 1)
    found = background_depth[below, feet]
    found = found[np.isfinite(found) & (found > 0)]
    return float(np.median(found)) if len(found) else float("nan")


def smooth_depth(depth: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """Depths over time without jumps: outliers removed, gaps bridged, in the logarithm; NaN only if
    all are."""
    known = np.flatnonzero(np.isfinite(depth) & (depth > 0))
    if not len(known):
        return np.full(len(depth), np.nan)
    value = np.interp(np.arange(len(depth)), known, np.log(depth[known]))
    value = median_filter(value, size=5, mode="nearest")
    smooth = gaussian_filter1d(value, SMOOTHING, mode="nearest")
    return np.exp(smooth)


def lift_mover(
    masks: Bool[np.ndarray, "F H W"], background_depth: Sequence[Float[np.ndarray, "H W"]]
) -> Float[np.ndarray, "F"]:
    """z-depth of one mover in each frame, in world units: contact with the background, never behind
    what it hides.

    Args:
        background_depth: the background's depth map in each frame, also behind the mover; inf where
            there is none.
    """
    contact, behind = np.full((2, len(masks)), np.nan)
    for t in np.flatnonzero(masks.any((1, 2))):  # to draw the background takes long
        surface = background_depth[t]
        contact[t] = contact_depth(masks[t], surface)
        behind[t] = _behind(masks[t], surface)
    depth = smooth_depth(contact)
    if np.isnan(depth).all():
        depth = smooth_depth(0.9 * behind)
    if np.isnan(depth).all():
        depth = np.ones(len(masks))
    return depth


def _behind(mask: np.ndarray, background_depth: np.ndarray) -> float:
    """Depth of the background that the mover hides, its nearer part."""
    found = background_depth[mask]
    found = found[np.isfinite(found)]
    return float(np.percentile(found, 25)) if len(found) else float("nan")
