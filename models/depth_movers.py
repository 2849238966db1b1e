"""Depth of movers from maps or imports: the relief of their points, and with the ground they touch their distance."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter1d, median_filter

from models.depth_prior import AlignedDepth, DepthMaps, align_depth
from models.imported import SparseDepth
from models.tracks import Tracks

CONTACT_UNCERTAINTY = 0.1
"""Relative standard deviation that the depth of the ground under a mover is credited with."""
RELIEF = 1.5
"""How many times nearer or farther than the mover's middle its points may be."""
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
    contact: Float[np.ndarray, "F N"],
) -> Float[np.ndarray, "F N"]:
    """z-depth of each moving track in each frame, in world units.

    A mover's distance is the mean, by certainty, of that of the ground it touches and of ``depth``; its relief is
    ``depth``'s. Both are smooth over time. Where ``depth`` says nothing the contact depth stays.

    Args:
        xy: pixels.
        visible: where the tracks were seen.
        movers: number of the mover of each track.
        contact: z-depth of the mover of each track by its contact with the ground.
    """
    near, spread = np.full(visible.shape, np.nan), np.full(visible.shape, np.nan)
    for t in range(len(xy)):
        z, spread[t, visible[t]] = depth.at(t, xy[t, visible[t]])
        near[t, visible[t]] = np.log(z)
    result = contact.astype(np.float64).copy()
    for mover in np.unique(movers):
        own = movers == mover
        if np.isfinite(near[:, own]).any():
            result[:, own] = np.exp(_mover(near[:, own], spread[:, own], np.log(contact[:, own][:, 0])))
    return result


def _mover(near: np.ndarray, spread: np.ndarray, contact: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F n"]:
    """Logarithm of depth of one mover's tracks."""
    told = np.isfinite(near).any(1)
    middle, certain = np.full(len(near), np.nan), np.zeros(len(near))
    middle[told] = np.nanmedian(near[told], 1)
    certain[told] = 1 / np.maximum(np.nanmedian(spread[told], 1), 1e-3) ** 2
    prior = 1 / CONTACT_UNCERTAINTY**2
    distance = (np.where(told, middle, 0) * certain + contact * prior) / (certain + prior)
    distance = gaussian_filter1d(median_filter(distance, 5, mode="nearest"), SMOOTHING, mode="nearest")
    relief = np.clip(near - middle[:, None], -np.log(RELIEF), np.log(RELIEF))
    return distance[:, None] + np.stack([_smooth(column) for column in relief.T], 1)


def _smooth(values: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """One track's relief over time, gaps bridged; 0 where the maps never tell it."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return np.zeros(len(values))
    filled = np.interp(np.arange(len(values)), known, values[known])
    return gaussian_filter1d(median_filter(filled, 5, mode="nearest"), SMOOTHING, mode="nearest")
