"""Depth of a scene whose camera only turns or stands still: without parallax, depth maps alone give
the relief.

Points lie on known rays from one centre. The maps of all frames must agree on the distance of each
point, up to a scale and a shift of inverse depth of each frame. The reference frame, near the middle
of the clip, keeps shift 0; the median distance is 1.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.depth.fit import MIN_POINTS, fit_inverse_depth
from models.depth.maps import DepthMaps, invert_depth
from models.run import InputError
from models.sfm import StaticScene
from models.tracks import PointTracks

# Rounds in which all frames are fitted to the inverse distances that they agree on.
_ROUNDS = 3
# Points that a frame must know more than another to be the reference, for each frame farther from
# the middle of the clip.
_OFF_MIDDLE = 0.01


def raise_relief(tracks: PointTracks, scene: StaticScene, maps: DepthMaps) -> StaticScene:
    """The scene with its points moved along their rays to the distance on which the depth maps
    agree.

    Maps of an unknown kind are taken as depth.

    Raises:
        InputError: too few points lie on known depth.
    """
    seen = scene.points.agrees
    rays, cosine = _find_rays(scene)
    value = _sample_inverse(maps, tracks, seen)
    # A frame near the middle overlaps most others.
    off_middle = np.abs(np.arange(len(maps)) - len(maps) // 2)
    reference = int(np.argmax(np.isfinite(value).sum(1) - _OFF_MIDDLE * off_middle))
    if np.isfinite(cosine[reference] * value[reference]).sum() < MIN_POINTS:
        raise InputError(
            f"{maps.paths[0].parent}: fewer than {MIN_POINTS} tracked points lie on known depth, so that the depth "
            "maps cannot be used; leave them out, or check that they belong to this clip"
        )

    rho = _fit_all(value, cosine, reference)
    # Median distance 1, as in every scene; the far shell bounds the sky.
    rho = np.maximum(rho / np.nanmedian(rho), 1 / maps.options.turning_far_shell)
    xyz = scene.cameras.centers[0].double().numpy() + rays / rho[:, None]
    known = np.isfinite(rho)
    points = scene.points.restrict(np.broadcast_to(known, seen.shape))
    return replace(scene, points=replace(points, xyz=np.where(known[:, None], xyz, np.nan)))


def _fit_all(
    value: Float[np.ndarray, "F N"], cosine: Float[np.ndarray, "F N"], reference: int
) -> Float[np.ndarray, "N"]:
    """The inverse distance of each point on which the frames agree: frames are fitted one by one,
    outwards from the reference frame, and all of them again in several rounds."""
    rho = cosine[reference] * value[reference]

    def fit_frame(t: int) -> Float[np.ndarray, "N"]:
        return _fit_frame(value[t], cosine[t], rho, fixed=t == reference)

    fitted = np.full(value.shape, np.nan)
    # Outwards, so that each frame shares points with fitted ones.
    for t in sorted(range(len(value)), key=lambda t: abs(t - reference)):
        fitted[t] = fit_frame(t)
        rho = _find_agreement(fitted)
    for _ in range(_ROUNDS):
        fitted = np.stack([fit_frame(t) for t in range(len(value))])
        rho = _find_agreement(fitted)
    return rho


def _sample_inverse(
    maps: DepthMaps, tracks: PointTracks, seen: Bool[np.ndarray, "F N"]
) -> Float[np.ndarray, "F N"]:
    """Inverse depth of the maps at the points that each frame sees, in the maps' unit; NaN
    elsewhere."""
    value = np.full(seen.shape, np.nan)
    for t in range(len(maps)):
        own = np.flatnonzero(seen[t])
        found = maps.sample(t, tracks.xy[t, own], (tracks.width, tracks.height)).astype(np.float64)
        value[t, own] = found if maps.inverse else invert_depth(found)
    return value


def _find_rays(scene: StaticScene) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "F N"]]:
    """Unit direction of each point in the world, and the cosine of its angle with the optical axis
    of each frame."""
    xyz = scene.points.xyz - scene.cameras.centers[0].double().numpy()
    rays = xyz / np.linalg.norm(xyz, axis=1, keepdims=True)
    axis = scene.cameras.world_from_cam[:, :3, 2].double()
    return rays, (axis @ torch.from_numpy(rays).T).numpy()


def _fit_frame(
    value: Float[np.ndarray, "N"],
    cosine: Float[np.ndarray, "N"],
    rho: Float[np.ndarray, "N"],
    fixed: bool,
) -> Float[np.ndarray, "N"]:
    """Inverse distances by the map of one frame, its scale and shift fitted to the agreed inverse
    distances ``rho``; NaN for points without depth in the map.

    Args:
        value: inverse depth of the points in the map's unit.
        fixed: keep scale 1 and shift 0.
    """
    if fixed:
        return cosine * value
    # Distance along the ray times the cosine is z-depth.
    both = np.isfinite(value) & np.isfinite(rho)
    fit = fit_inverse_depth(value[both], rho[both] / cosine[both])
    return np.full(len(value), np.nan) if fit is None else cosine * (fit[0] * value + fit[1])


def _find_agreement(fitted: Float[np.ndarray, "F N"]) -> Float[np.ndarray, "N"]:
    """Median inverse distance of each point over the frames; NaN if no frame knows one."""
    known = np.isfinite(fitted).any(0)
    out = np.full(fitted.shape[1], np.nan)
    out[known] = np.nanmedian(fitted[:, known], 0)
    return out
