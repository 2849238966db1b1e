"""How well cameras explain tracks."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras
from models.sfm.adjustment.bundle import SHARED_FOCAL, Freedom, adjust_freely
from models.sfm.triangulation import triangulate
from models.tracks import PointTracks

# Reprojection error in pixels at which an observation has lost half its weight, and error of an
# observation behind the camera.
_SCALE = 0.3
_BEHIND = 100.0


@dataclass(frozen=True)
class Fit:
    """Cameras with the errors of the tracks under them."""

    cameras: Cameras
    tracks: PointTracks
    """The tracks in the pixels of these cameras."""
    xyz: Float[np.ndarray, "N 3"]
    """World points; not finite for tracks of no static point."""
    error: Float[np.ndarray, "F N"]
    """Reprojection error in pixels."""
    agrees: Bool[np.ndarray, "F N"]
    """Visible observations that agree with their point."""

    def measure_cost(self, chosen: Bool[np.ndarray, "F N"]) -> float:
        """Mean robust cost (Cauchy's) of some observations."""
        return float(np.log1p((self.error[chosen] / _SCALE) ** 2).mean())


def measure_fit(cameras: Cameras, tracks: PointTracks) -> Fit:
    """Triangulates the tracks and measures their reprojection errors."""
    points = triangulate(tracks, cameras)
    known = np.isfinite(points.xyz).all(1)
    projected, depth = cameras.project(torch.from_numpy(np.nan_to_num(points.xyz)))
    error = np.linalg.norm(projected.numpy() - tracks.xy, axis=-1)
    error[(depth.numpy() <= 0) | ~known] = _BEHIND
    return Fit(cameras, tracks, points.xyz, np.minimum(error, _BEHIND), points.agrees)


def compare_cost(fit: Fit, other: Fit) -> float:
    """Cost of a scene in costs of another, over the observations that agree with either."""
    either = fit.agrees | other.agrees
    return fit.measure_cost(either) / max(other.measure_cost(either), 1e-9)


def compare_common_cost(fit: Fit, other: Fit) -> float:
    """Cost of a scene in costs of another, over the observations that agree with both where these are
    the majority, else over those that agree with either.

    What a single scene explains may move: any motion along the camera's is explained by some depth.
    """
    common = fit.agrees & other.agrees
    if 2 * common.sum() <= (fit.agrees | other.agrees).sum():
        return compare_cost(fit, other)
    return fit.measure_cost(common) / max(other.measure_cost(common), 1e-9)


def adjust_fit(fit: Fit, freedom: Freedom = SHARED_FOCAL, rounds: int = 1) -> Fit:
    """Bundle adjustment of the agreeing observations and triangulation, some rounds of both."""
    for _ in range(rounds):
        agreeing = replace(fit.tracks, visible=fit.agrees)
        adjusted = adjust_freely(fit.cameras, np.nan_to_num(fit.xyz), agreeing, freedom)
        fit = measure_fit(adjusted.cameras, fit.tracks)
    return fit


def rescale(fit: Fit) -> Cameras:
    """The cameras with the first at the origin and a median depth of 1 there."""
    from_world = fit.cameras.cam_from_world[:1].double()
    moved = from_world @ fit.cameras.world_from_cam.double()
    _, depth = fit.cameras[0].project(torch.from_numpy(np.nan_to_num(fit.xyz)))
    ahead = depth[0][torch.from_numpy(fit.agrees.any(0)) & (depth[0] > 0)]
    if len(ahead):
        moved[:, :3, 3] /= ahead.median()
    return replace(fit.cameras, world_from_cam=moved)
