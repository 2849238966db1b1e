"""Depth of movers from maps or imports: the relief of their points, and with the ground they touch
their distance."""

import numpy as np
from jaxtyping import Bool, Float, Int

from models.clip import smooth_over_time
from models.depth.imported import SparseDepth
from models.depth.maps import AlignedDepth, DepthMaps, align_depth
from models.tracks import Tracks

CONTACT_UNCERTAINTY = 0.1
"""Relative standard deviation that the depth of the ground under a mover is credited with."""
RELIEF = 1.5
"""How many times nearer or farther than the mover's middle its points may be."""
HAS_RELIEF = 1e-3
"""Difference in the logarithm of depth from which tracks of a mover are not all at one depth."""
SMOOTHING = 2.0
"""Standard deviation in frames of the smoothing over time."""
SURE = 0.5
"""Confidence of background points that the maps are aligned by."""


def align_to_tracks(maps: DepthMaps, background: Tracks) -> AlignedDepth:
    """The maps in the scale of a track file's background.

    Raises:
        InputError: see ``align_depth``.
    """
    seen = background.visible & (background.confidence > SURE)
    return align_depth(maps, background.cameras, background.xyz[0].numpy(), seen.numpy())


def mover_depth(
    depth: AlignedDepth | SparseDepth,
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    movers: Int[np.ndarray, "N"],
    found: Float[np.ndarray, "F N"],
) -> Float[np.ndarray, "F N"]:
    """z-depth of each moving track in each frame, in world units.

    A mover's distance is the mean, by certainty, of what was found so far (from the ground it
    touches) and of ``depth``. Its relief is ``depth``'s, unless it has one already. Both are smooth
    over time. Where ``depth`` says nothing what was found stays.

    Args:
        xy: pixels.
        visible: where the tracks were seen.
        movers: number of the mover of each track.
        found: z-depth of each track so far, in world units.
    """
    near = np.full(visible.shape, np.nan)
    spread = np.full(visible.shape, np.nan)
    for t in range(len(xy)):
        z, spread[t, visible[t]] = depth.at(t, xy[t, visible[t]])
        near[t, visible[t]] = np.log(z)
    before = np.where(visible & (found > 0), np.log(np.maximum(found, 1e-12)), np.nan)
    result = found.astype(np.float64).copy()
    for mover in np.unique(movers):
        own = movers == mover
        told = np.isfinite(near[:, own]) & np.isfinite(before[:, own])
        if told.any():
            result[:, own] = np.exp(_mover(near[:, own], spread[:, own], before[:, own]))
    return result


def _mover(near: np.ndarray, spread: np.ndarray, before: np.ndarray) -> Float[np.ndarray, "F n"]:
    """Logarithm of depth of one mover's tracks; of all three (F, n) NaN is what is not known."""
    contact, _ = _middle(before)
    middle, told = _middle(near)
    certain = np.where(told, 1 / np.maximum(_middle(spread)[0], 1e-3) ** 2, 0)
    prior = 1 / CONTACT_UNCERTAINTY**2
    distance = (middle * certain + contact * prior) / (certain + prior)
    distance = smooth_over_time(distance, SMOOTHING)
    own_relief = before - contact[:, None]
    relief = own_relief if np.nanmax(np.abs(own_relief)) > HAS_RELIEF else near - middle[:, None]
    relief = np.clip(relief, -np.log(RELIEF), np.log(RELIEF))
    return distance[:, None] + np.stack([_smooth(column) for column in relief.T], 1)


def _middle(values: np.ndarray) -> tuple[Float[np.ndarray, "F"], Bool[np.ndarray, "F"]]:
    """Median over the tracks in each frame, gaps bridged, and which frames have one of their
    own."""
    told = np.isfinite(values).any(1)
    middle = np.nanmedian(values[told], 1)
    return np.interp(np.arange(len(values)), np.flatnonzero(told), middle), told


def _smooth(values: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """One track's relief over time, gaps bridged; 0 where it is never told."""
    known = np.isfinite(values).any()
    return smooth_over_time(values, SMOOTHING) if known else np.zeros(len(values))
