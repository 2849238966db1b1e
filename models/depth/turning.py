"""Depth of a scene whose camera only turns or stands still: no point tells it, so depth maps alone
give the relief.

Points lie on known rays of one centre; all frames' maps must agree on each point's distance, up to
a scale and a shift of inverse depth that every frame has of its own. The middle frame keeps shift
0; the median distance is 1.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from models.depth.fit import MIN_POINTS, fit_inverse_depth
from models.depth.maps import DepthMaps, inverse_values
from models.run import InputError
from models.sfm import StaticScene

FARTHEST = 8.0
"""Distance of the far shell, in median distances."""
ROUNDS = 3
"""Times that all frames are fitted to what they agree on."""


def raise_relief(
    xy: Float[np.ndarray, "F N 2"], scene: StaticScene, maps: DepthMaps
) -> StaticScene:
    """The scene with its points moved along their rays to the distance that the depth maps agree
    on.

    Maps that do not say whether they hold depth or inverse depth are taken as depth.

    Raises:
        InputError: too few points lie on known depth.
    """
    seen = scene.points.agrees
    rays, lean = _rays(xy, scene)
    value = np.full(seen.shape, np.nan)
    for t in range(len(maps)):
        own = np.flatnonzero(seen[t])
        value[t, own] = inverse_values(
            maps, t, xy[t, own], scene.cameras.width, scene.cameras.height
        )
    middle = int(
        np.argmax(np.isfinite(value).sum(1) - 0.01 * np.abs(np.arange(len(maps)) - len(maps) // 2))
    )
    rho = lean[middle] * value[middle]
    if np.isfinite(rho).sum() < MIN_POINTS:
        raise InputError(
            f"{maps.paths[0].parent}: fewer than {MIN_POINTS} tracked points lie on known depth, so that the depth "
            "maps cannot be used; leave them out, or check that they belong to this clip"
        )
    told = np.full(seen.shape, np.nan)
    for t in sorted(range(len(maps)), key=lambda t: abs(t - middle)):
        told[t] = _fitted(value[t], lean[t], rho, t == middle)
        rho = _agreed(told)
    for _ in range(ROUNDS):
        told = np.stack([_fitted(value[t], lean[t], rho, t == middle) for t in range(len(maps))])
        rho = _agreed(told)
    rho = np.maximum(rho / np.nanmedian(rho), 1 / FARTHEST)
    xyz = scene.cameras.centers[0].double().numpy() + rays / rho[:, None]
    known = np.isfinite(rho)
    points = scene.points.restrict(np.broadcast_to(known, seen.shape))
    return replace(scene, points=replace(points, xyz=np.where(known[:, None], xyz, np.nan)))


def _rays(
    xy: np.ndarray, scene: StaticScene
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "F N"]]:
    """Unit direction of each point in the world, and the cosine of its angle with each frame's
    axis."""
    xyz = scene.points.xyz - scene.cameras.centers[0].double().numpy()
    rays = xyz / np.linalg.norm(xyz, axis=1, keepdims=True)
    axis = scene.cameras.world_from_cam[:, :3, 2].double()
    return rays, (axis @ torch.from_numpy(rays).T).numpy()


def _fitted(
    value: np.ndarray, lean: np.ndarray, rho: np.ndarray, fixed: bool
) -> Float[np.ndarray, "N"]:
    """What one frame says of inverse distance, fitted to what is agreed on so far; NaN where it
    says nothing."""
    if fixed:
        return lean * value
    both = np.isfinite(value) & np.isfinite(rho)
    fit = fit_inverse_depth(value[both], rho[both] / lean[both])
    return np.full(len(value), np.nan) if fit is None else lean * (fit[0] * value + fit[1])


def _agreed(told: Float[np.ndarray, "F N"]) -> Float[np.ndarray, "N"]:
    """Median over the frames; NaN where none says anything."""
    known = np.isfinite(told).any(0)
    out = np.full(told.shape[1], np.nan)
    out[known] = np.nanmedian(told[:, known], 0)
    return out
