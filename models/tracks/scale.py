"""A scene in metres: its scale from a known distance, or from the height of the camera."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from models.run import InputError
from models.tracks.content import Tracks

# Planes tried for the ground.
_PLANES = 2000
# Distance from the ground, as a share of the camera's height over it, up to which a point lies on it:
# to find it, and to fit it again and again.
_ON_GROUND = 0.01, 0.01, 0.005, 0.005
# Largest angle between the ground's normal and the cameras' own up direction, as a cosine.
_LEAST_UPRIGHT = 0.87
# Smallest share of the points below the camera that the ground must hold.
_LEAST_SHARE = 0.05
# Pixels within which a track must lie of a place that is given in pixels.
_REACH = 12.0
# Tracks nearest to such a place that its depth is read from.
_AROUND = 16


@dataclass(frozen=True)
class ScaleOptions:
    """What is known of the scene's size; without it lengths are the scene's own."""

    scale_metres: float | None = None
    """Metres between the points of scale_between, or from the ground to the first camera (to a few
    percent): results are in metres."""
    scale_between: tuple[int, ...] = ()
    """Two points: the numbers of two tracks, or a frame and the pixels x y x y of both in it, as in
    background_tracks.mp4."""


def find_scale(tracks: Tracks, options: ScaleOptions) -> float:
    """Metres of a world unit; 1 where no distance is known.

    Args:
        tracks: of the background.

    Raises:
        InputError: the distance is not positive, a point does not exist, or no ground is found.
    """
    if options.scale_metres is None:
        if options.scale_between:
            raise InputError("--scale_between needs the distance, --scale_metres")
        return 1.0
    if not 0 < options.scale_metres < float("inf"):
        raise InputError("--scale_metres must be a positive number of metres")
    if options.scale_between:
        first, second = _find_points(tracks, options.scale_between)
        length = float(np.linalg.norm(first - second))
        if not length > 0:
            raise InputError("--scale_between: the points have no distance; choose others")
    else:
        length = measure_height(tracks)
    return options.scale_metres / length


def scale_tracks(tracks: Tracks, factor: float) -> Tracks:
    """Tracks and cameras in other units: all lengths times ``factor``."""
    if factor == 1.0:
        return tracks
    pose = tracks.world_from_cam.clone()
    pose[:, :3, 3] *= factor
    xyz = tracks.xyz
    # points that stand still are stored once for all frames
    still = xyz.stride(0) == 0
    scaled = (xyz[:1] * factor).expand(len(xyz), -1, -1) if still else xyz * factor
    return replace(tracks, xyz=scaled, world_from_cam=pose)


def _find_points(tracks: Tracks, between: tuple[int, ...]) -> Float[np.ndarray, "2 3"]:
    """World positions of the two points."""
    if len(between) == 2:
        if not all(0 <= number < tracks.num_tracks for number in between):
            raise InputError(
                f"--scale_between: there are tracks 0 to {tracks.num_tracks - 1}, not "
                f"{between[0]} and {between[1]}"
            )
        return tracks.xyz[0, list(between)].double().numpy()
    if len(between) != 5:
        raise InputError(
            "--scale_between: give two tracks, or a frame and two pixels: FRAME X Y X Y"
        )
    t, *places = between
    if not 0 <= t < len(tracks):
        raise InputError(f"--scale_between: there are frames 0 to {len(tracks) - 1}, not {t}")
    return np.stack([_lift(tracks, t, places[:2]), _lift(tracks, t, places[2:])])


def _lift(tracks: Tracks, t: int, pixel: list[int]) -> Float[np.ndarray, "3"]:
    """World position of the surface in a pixel of frame t: inverse depth is linear between the
    tracks around it, as on a plane."""
    seen = torch.nonzero(tracks.visible[t])[:, 0]
    middle = torch.tensor(pixel).double() + 0.5
    distance = (tracks.xy[t, seen] - middle).norm(dim=1)
    if not len(seen) or distance.min() > _REACH:
        raise InputError(
            f"--scale_between: frame {t} has no track within {_REACH:g} pixels of "
            f"{pixel[0]} {pixel[1]}; look at background_tracks.mp4 for a place that has one"
        )
    around = seen[distance.argsort()[:_AROUND]]
    xy = tracks.xy[t, around].double()
    camera = tracks.cameras[t]
    inverse = 1 / camera.project(tracks.xyz[t, around].double())[1][0]
    try:
        between = LinearNDInterpolator(xy.numpy(), inverse.numpy())(middle.numpy())[0]
    except (QhullError, ValueError):  # too few tracks, or all on a line
        between = np.nan
    depth = 1 / inverse[0]
    if np.isfinite(between):  # not outside all tracks
        depth = 1 / torch.tensor(between)
    return camera.unproject(middle[None, None], depth[None, None])[0, 0].numpy()


def measure_height(tracks: Tracks) -> float:
    """Height of the first camera above the ground, in world units.

    The ground is the plane below the cameras, upright to within 30 degrees, that holds most static
    points (RANSAC: Fischler and Bolles, 1981).

    Raises:
        InputError: no plane holds enough points.
    """
    pose = tracks.world_from_cam.double().numpy()
    up = -pose[:, :3, 1].mean(0)
    up /= np.linalg.norm(up)
    center = pose[0, :3, 3]
    points = tracks.xyz[0, tracks.visible.any(0)].double().numpy() - center
    points = points[np.isfinite(points).all(1)]
    below = points[points @ up < 0]
    best, ground = 0, None
    random = np.random.default_rng(0)
    for _ in range(_PLANES if len(below) > 2 else 0):
        normal, distance = _fit_plane(below[random.choice(len(below), 3, replace=False)], up)
        if normal @ up < _LEAST_UPRIGHT or distance <= 0:
            continue
        held = np.abs(below @ normal + distance) < _ON_GROUND[0] * distance
        if held.sum() > best:
            best, ground = int(held.sum()), (normal, distance)
    if ground is None or best < _LEAST_SHARE * len(below):
        raise InputError(
            "--scale_metres: no ground is seen below the camera; give the distance of two points "
            "by --scale_between"
        )
    normal, distance = ground
    for reach in _ON_GROUND:
        held = np.abs(below @ normal + distance) < reach * distance
        normal, distance = _fit_plane(below[held], up) if held.sum() > 2 else (normal, distance)
    return distance


def _fit_plane(
    points: Float[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "3"], float]:
    """Unit normal of the plane through points, on the side of ``up``, and the plane's distance
    below the origin."""
    middle = points.mean(0)
    normal = np.linalg.svd(points - middle)[2][2]
    normal *= np.sign(normal @ up) or 1.0
    return normal, float(-middle @ normal)
