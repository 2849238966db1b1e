"""Depth maps in the scale of a scene.

A map holds depth or inverse depth in any unit. The inverse depth of each frame gets a robust scale
and shift of its own, since the maps of a monocular model are known only up to these.

Source: Ranftl et al., "Towards robust monocular depth estimation: mixing datasets for zero-shot
cross-dataset transfer", 2020.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.depth.fit import MIN_POINTS, fit_inverse_depth, holds_inverse
from models.depth.maps import DepthMaps, invert_depth
from models.depth.options import AlignmentOptions
from models.run import SILENT, InputError, Progress

# Quantile of the points' inverse depth whose depth counts as that of the farthest points.
_FARTHEST_QUANTILE = 0.01
# Smallest inverse depth and spread that are divided by, in 1 / world unit.
_TINY = 1e-12


@dataclass(frozen=True)
class AlignedDepth:
    """Depth maps in world units: 1 / depth = scale * inverse value + shift of each frame, plus a
    correction by points near in the image and in depth."""

    maps: DepthMaps
    inverse: bool
    """Whether the maps hold inverse depth."""
    scale: Float[np.ndarray, "F"]
    """Of each frame, in the maps' unit / world unit."""
    shift: Float[np.ndarray, "F"]
    """Of each frame, in 1 / world unit."""
    error: Float[np.ndarray, "F"]
    """Robust standard deviation of the residuals of scale and shift, in inverse depth."""
    known: list[Float[np.ndarray, "P 4"]]
    """Of each frame: pixel x, y, inverse depth and residual of its points."""
    farthest: float
    """Depth of the far shell in world units, the largest depth that is returned."""
    size: tuple[int, int]
    """Width and height of the frames in pixels."""
    explained: float
    """Share of the spread of the points' inverse depth that the maps explain, 0 to 1."""

    @property
    def options(self) -> AlignmentOptions:
        """How the maps are aligned and used."""
        return self.maps.options

    @property
    def trusted(self) -> bool:
        """Whether the maps explain enough of this scene to be used."""
        return self.explained > self.options.min_explained

    def at(
        self, t: int, xy: Float[np.ndarray, "N 2"]
    ) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """z-depth in world units at pixels of frame t, and its relative standard deviation; NaN
        if the map knows no depth."""
        values = self.maps.sample(t, xy, self.size)
        value = values.astype(np.float64) if self.inverse else invert_depth(values)
        # Beyond the far shell depth is not told apart.
        rho = np.maximum(self.scale[t] * value + self.shift[t], 1 / self.farthest)
        bias, error = self._correct(t, xy, rho)
        rho = np.maximum(rho + bias, 1 / self.farthest)
        return 1 / rho, error / rho

    def _correct(self, t: int, xy: np.ndarray, rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correction of inverse depth ``rho`` at pixels of frame t, the weighted mean residual of
        near points, and the standard deviation of their residuals."""
        own = self.known[t]
        error = self.error[t]
        bias = np.zeros(len(rho))
        spread = np.full(len(rho), error)
        finite = np.flatnonzero(np.isfinite(rho))
        if not len(own) or not len(finite):
            return bias, spread
        # Distance in the image and in the logarithm of depth, each by its own reach.
        reach = self.options.near_pixels * max(self.size)
        place = [
            np.c_[p / reach, np.log(r) / self.options.near_depth]
            for p, r in ((own[:, :2], own[:, 2]), (xy[finite], rho[finite]))
        ]
        neighbours = list(range(1, min(self.options.near_points, len(own)) + 1))
        distance, index = cKDTree(place[0]).query(place[1], neighbours)
        # Gaussian weight of a neighbour.
        weight = np.exp(-0.5 * distance**2)
        residual = own[index, 3]
        # The global alignment counts as one more point, of residual 0.
        total = weight.sum(1) + 1
        bias[finite] = (weight * residual).sum(1) / total
        spread[finite] = np.sqrt(
            ((weight * (residual - bias[finite, None]) ** 2).sum(1) + error**2) / total
        )
        return bias, spread

    def describe(self) -> str:
        """A sentence on the alignment."""
        kind = "inverse depth" if self.inverse else "depth"
        low, middle, high = np.percentile(self.scale, [0, 50, 100])
        explained = f"they explain {100 * self.explained:.0f} % of the spread"
        used = "" if self.trusted else ": not used"
        return (
            f"maps of {kind} aligned to {sum(map(len, self.known))} sightings: inverse depth = {middle:.3g} x value "
            f"{np.median(self.shift):+.3g} (scales {low:.3g} to {high:.3g}); {explained}{used}"
        )


def align_depth(
    maps: DepthMaps,
    cameras: Cameras,
    xyz: Float[np.ndarray, "N 3"],
    seen: Bool[np.ndarray, "F N"],
    progress: Progress = SILENT,
) -> AlignedDepth:
    """Depth maps brought to the scale of static 3D points, each frame by itself.

    A frame with too few points takes scale and shift between those of its neighbours in time.

    Args:
        cameras: of the frames of the maps.
        xyz: world points; points whose depth is uncertain are NaN and ignored.
        seen: whether a frame sees a point.

    Raises:
        InputError: too few points lie on known depth in every frame.
    """
    samples = _sample_points(maps, cameras, xyz, seen, progress)
    inverse = maps.inverse
    # The kind of the maps is not known: the points decide.
    if inverse is None:
        inverse = holds_inverse([(s[:, 3], s[:, 2]) for s in samples])
    if not inverse:
        samples = [np.c_[s[:, :3], invert_depth(s[:, 3])][s[:, 3] > 0] for s in samples]
    scale, shift, error = _fit_frames(maps, samples)
    # Residuals of outliers are clipped, so that they do not bend the map around them.
    limit = maps.options.outlier_limit
    known = [
        np.c_[s[:, :3], np.clip(s[:, 2] - a * s[:, 3] - b, -limit * e, limit * e)]
        for s, a, b, e in zip(samples, scale, shift, error, strict=True)
    ]
    rho, residual = (np.concatenate([k[:, c] for k in known]) for c in (2, 3))
    farthest = maps.options.far_shell / max(np.quantile(rho, _FARTHEST_QUANTILE), _TINY)
    # Mean absolute deviations, as the fit is robust.
    spread = max(np.abs(rho - np.median(rho)).mean(), _TINY)
    explained = max(0.0, 1 - float(np.abs(residual).mean() / spread))
    size = cameras.width, cameras.height
    return AlignedDepth(maps, inverse, scale, shift, error, known, farthest, size, explained)


def _fit_frames(
    maps: DepthMaps, samples: list[Float[np.ndarray, "P 4"]]
) -> Float[np.ndarray, "3 F"]:
    """Scale, shift and robust standard deviation of inverse depth in each frame.

    Args:
        samples: of each frame, pixel x, y, inverse depth and inverse value of its points.

    Raises:
        InputError: no frame has enough points.
    """
    fits = [fit_inverse_depth(s[:, 3], s[:, 2]) for s in samples]
    good = np.array([f is not None for f in fits])
    if not good.any():
        raise InputError(
            f"{maps.paths[0].parent}: no frame has {MIN_POINTS} tracked points on known depth, so "
            "that the depth maps cannot be aligned; leave them out, or check that they belong to "
            "this clip"
        )
    table = np.array([f if f is not None else (np.nan,) * 3 for f in fits])
    # Frames without a fit lie between their neighbours in time.
    times = np.arange(len(maps))
    return np.stack([np.interp(times, np.flatnonzero(good), column[good]) for column in table.T])


def _sample_points(
    maps: DepthMaps,
    cameras: Cameras,
    xyz: Float[np.ndarray, "N 3"],
    seen: Bool[np.ndarray, "F N"],
    progress: Progress,
) -> list[Float[np.ndarray, "P 4"]]:
    """Of each frame: pixel x, y and inverse depth of the points that it sees, and the map's value
    there; points on unknown depth are left out."""
    image, depth = (
        v.numpy() for v in cameras.project(torch.from_numpy(np.asarray(xyz, np.float64)))
    )
    samples = []
    for t in progress.over(range(len(maps)), "aligning depth"):
        use = seen[t] & np.isfinite(depth[t]) & (depth[t] > 0)
        value = maps.sample(t, image[t, use], (cameras.width, cameras.height)).astype(np.float64)
        samples.append(np.c_[image[t, use], 1 / depth[t, use], value][np.isfinite(value)])
    return samples
