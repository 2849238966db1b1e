"""Depth of movers from depth maps or imported tracks: the relief of their points, and, with the
ground that they touch, their distance."""

from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from models.clip import smooth_over_time
from models.depth.aligned import AlignedDepth, align_depth
from models.depth.maps import DepthMaps
from models.depth.options import MoverDepthOptions
from models.tracks import PointTracks, Tracks

# Difference in the logarithm of depth above which the tracks of a mover have a relief of their own.
_HAS_RELIEF = 1e-3
# Confidence above which an observation of a background point aligns depth maps.
_SURE = 0.5
# Smallest relative standard deviation that is divided by.
_LEAST_SPREAD = 1e-3
# Smallest depth, in world units, of which a logarithm is taken.
_LEAST_DEPTH = 1e-12


class PlacedDepth(Protocol):
    """Depth in world units at pixels: of aligned depth maps, or of imported points."""

    @property
    def trusted(self) -> bool:
        """Whether the depth is good enough to be used."""

    def at(
        self, t: int, xy: Float[np.ndarray, "N 2"]
    ) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """z-depth at pixels of frame t, and its relative standard deviation; NaN if unknown."""

    def describe(self) -> str:
        """A sentence on the alignment."""


def align_to_tracks(maps: DepthMaps, background: Tracks) -> AlignedDepth:
    """The maps in the scale of a track file's background.

    Raises:
        InputError: see ``align_depth``.
    """
    seen = background.visible & (background.confidence > _SURE)
    return align_depth(maps, background.cameras, background.xyz[0].numpy(), seen.numpy())


def merge_depth(
    depth: PlacedDepth,
    tracks: PointTracks,
    label: Int[np.ndarray, "N"],
    found: Float[np.ndarray, "F N"],
    options: MoverDepthOptions = MoverDepthOptions(),
) -> Float[np.ndarray, "F N"]:
    """z-depth of each moving track in each frame, in world units.

    The distance of a mover is the mean, weighted by certainty, of the depth found so far (of the
    ground that it touches) and of ``depth``. Its relief is the relief of ``depth``, unless the depth
    found so far has one. Both are smooth over time. Movers of which ``depth`` knows nothing keep the
    depth found so far.

    Args:
        label: number of the mover of each track.
        found: z-depth of each track so far, in world units.
    """
    visible = tracks.visible
    near = np.full(visible.shape, np.nan)
    spread = np.full(visible.shape, np.nan)
    for t in range(len(tracks)):
        z, spread[t, visible[t]] = depth.at(t, tracks.xy[t, visible[t]])
        # Logarithms: errors of depth are relative.
        near[t, visible[t]] = np.log(z)
    # A depth of 0 or less is no depth.
    usable = visible & (found > 0)
    before = np.where(usable, np.log(np.maximum(found, _LEAST_DEPTH)), np.nan)
    result = found.astype(np.float64).copy()
    for mover in np.unique(label):
        own = label == mover
        known = np.isfinite(near[:, own]) & np.isfinite(before[:, own])
        if known.any():
            result[:, own] = np.exp(
                _merge_mover(near[:, own], spread[:, own], before[:, own], options)
            )
    return result


def _merge_mover(
    near: Float[np.ndarray, "F n"],
    spread: Float[np.ndarray, "F n"],
    before: Float[np.ndarray, "F n"],
    options: MoverDepthOptions,
) -> Float[np.ndarray, "F n"]:
    """Logarithm of the depth of the tracks of a mover; unknown values are NaN.

    Args:
        near: logarithm of depth from outside.
        spread: its relative standard deviation.
        before: logarithm of the depth found so far.
    """
    contact, _ = _find_middle(before)
    middle, known = _find_middle(near)
    variance = np.maximum(_find_middle(spread)[0], _LEAST_SPREAD) ** 2
    certain = np.where(known, 1 / variance, 0)
    # Weights are inverse variances.
    prior = 1 / options.contact_uncertainty**2
    distance = (middle * certain + contact * prior) / (certain + prior)
    distance = smooth_over_time(distance, options.smoothing)
    own_relief = before - contact[:, None]
    has_relief = np.nanmax(np.abs(own_relief)) > _HAS_RELIEF
    relief = own_relief if has_relief else near - middle[:, None]
    # Larger relief is an outlier of the map, at a mover's outline.
    relief = np.clip(relief, -np.log(options.relief), np.log(options.relief))
    smooth = [_smooth_relief(column, options.smoothing) for column in relief.T]
    return distance[:, None] + np.stack(smooth, 1)


def _find_middle(
    values: Float[np.ndarray, "F n"],
) -> tuple[Float[np.ndarray, "F"], Bool[np.ndarray, "F"]]:
    """Median over the tracks in each frame, gaps bridged linearly, and which frames have a median of
    their own."""
    known = np.isfinite(values).any(1)
    middle = np.nanmedian(values[known], 1)
    return np.interp(np.arange(len(values)), np.flatnonzero(known), middle), known


def _smooth_relief(values: Float[np.ndarray, "F"], sigma: float) -> Float[np.ndarray, "F"]:
    """Relief of a track, smooth over time; 0 if the relief is never known."""
    known = np.isfinite(values).any()
    return smooth_over_time(values, sigma) if known else np.zeros(len(values))
