"""z-depth of a mover in each frame, in world units: contact with the background's surface, smooth
in time."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from models.clip import smooth_over_time
from models.movers.options import MoverOptions

# Pixels of a mask below which its lowest row says nothing about contact.
_MIN_PIXELS = 20
# Depth of a mover without contact, as a share of the depth of the background that it hides.
_BEFORE_BACKGROUND = 0.9


def lift_mover(
    masks: Bool[np.ndarray, "F H W"],
    background_depth: Sequence[Float[np.ndarray, "H W"]],
    options: MoverOptions = MoverOptions(),
) -> Float[np.ndarray, "F"]:
    """z-depth of a mover in each frame, in world units: that of the background at its feet. A mover
    without contact in any frame is a little nearer than the background that it hides; without any
    background, its depth is 1.

    Args:
        background_depth: the background's depth map in each frame, also behind the mover; inf at
            holes.
    """
    contact, behind = np.full((2, len(masks)), np.nan)
    # Frames without the mover are left out: to draw a depth map takes long.
    for t in np.flatnonzero(masks.any((1, 2))):
        surface = background_depth[t]
        contact[t] = find_contact_depth(masks[t], surface, options)
        behind[t] = _find_hidden_depth(masks[t], surface)
    depth = smooth_depth(contact, options)
    if np.isnan(depth).all():
        depth = smooth_depth(_BEFORE_BACKGROUND * behind, options)
    return np.ones(len(masks)) if np.isnan(depth).all() else depth


def find_contact_depth(
    mask: Bool[np.ndarray, "H W"],
    background_depth: Float[np.ndarray, "H W"],
    options: MoverOptions = MoverOptions(),
) -> float:
    """Depth of the background just below a mover's feet, its lowest pixels.

    NaN for a mover that is small or cut by the lower image border, and for a background with holes
    below the feet.
    """
    rows, columns = np.nonzero(mask)
    height = len(mask)
    if len(rows) < _MIN_PIXELS or rows.max() >= height - 2:
        return float("nan")
    lowest = np.full(mask.shape[1], -1)
    np.maximum.at(lowest, columns, rows)
    limit = rows.max() - max(2.0, options.contact_share * (rows.max() - rows.min()))
    feet = np.flatnonzero(lowest >= limit)
    below = np.minimum(lowest[feet] + 2, height - 1)
    found = background_depth[below, feet]
    found = found[np.isfinite(found) & (found > 0)]
    return float(np.median(found)) if len(found) else float("nan")


def smooth_depth(
    depth: Float[np.ndarray, "F"], options: MoverOptions = MoverOptions()
) -> Float[np.ndarray, "F"]:
    """Depths over time without outliers and gaps, smoothed in their logarithm; NaN only if no depth
    is known."""
    known = np.isfinite(depth) & (depth > 0)
    value = np.full(len(depth), np.nan)
    value[known] = np.log(depth[known])
    return np.exp(smooth_over_time(value, options.depth_smoothing))


def _find_hidden_depth(
    mask: Bool[np.ndarray, "H W"], background_depth: Float[np.ndarray, "H W"]
) -> float:
    """Depth of the nearer part (25th percentile) of the background that a mover hides; NaN if no
    background is there."""
    found = background_depth[mask]
    found = found[np.isfinite(found)]
    return float(np.percentile(found, 25)) if len(found) else float("nan")
