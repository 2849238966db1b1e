"""Depth maps put to use in the background: points with little parallax, and points where nothing
could be tracked."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from models.depth.maps import AlignedDepth, DepthMaps, align_depth
from models.sfm import UNSURE, DepthGuess, Points, StaticScene, choose_anchors, triangulate
from models.tracks import PointTracks

GAP = 3.0
BETWEEN = 2.0
"""Spacings from the nearest tracked point beyond which points are added, and from one added point
to the next."""
AGREEMENT = 3.0
"""Standard deviations by which an added point may differ from the depth map of a frame that shows
it."""
ADDED_RESIDUAL = 1.0
"""Pixels of error that an added point is credited with: less trust than tracked ones."""


def align_to_scene(
    maps: DepthMaps, scene: StaticScene, progress: Callable[[int], None] = lambda done: None
) -> AlignedDepth:
    """The maps in the scene's scale, by its points that are sure of their depth.

    Raises:
        InputError: see ``align_depth``.
    """
    sure = np.where((scene.points.uncertainty < UNSURE)[:, None], scene.points.xyz, np.nan)
    return align_depth(maps, scene.cameras, sure, scene.points.agrees, progress)


def settle_points(
    xy: Float[np.ndarray, "F N 2"], scene: StaticScene, depth: AlignedDepth
) -> StaticScene:
    """The scene with points of little parallax solved again, the depth maps as what is known of
    them beforehand."""
    seen = scene.points.agrees
    anchor = choose_anchors(seen)
    guess = np.full(len(anchor), np.nan)
    spread = np.full(len(anchor), np.inf)
    for t in np.unique(anchor[seen.any(0)]):
        own = np.flatnonzero((anchor == t) & seen.any(0))
        guess[own], spread[own] = depth.at(t, xy[t, own])
    cameras = scene.cameras
    tracks = PointTracks(xy, seen, cameras.width, cameras.height)
    points = triangulate(tracks, cameras, guess=DepthGuess(guess, spread))
    return replace(scene, points=replace(points, uncertainty=scene.points.uncertainty))


def fill_gaps(
    xy: Float[np.ndarray, "F N 2"],
    scene: StaticScene,
    depth: AlignedDepth,
    free: Bool[np.ndarray, "F H W"],
    spacing: int,
) -> tuple[Float[np.ndarray, "F M 2"], StaticScene]:
    """Tracks and scene with points added where no track is near: blank walls, roads, the sky (on
    the far shell).

    An added point lies on the depth map of the frame that lacked it, and is seen wherever it
    projects to free pixels whose own map agrees with it.

    Args:
        free: where nothing moves.
    """
    added = np.zeros((0, 3))
    for t in range(len(xy)):
        place = _grid(free[t], BETWEEN * spacing)
        place = _away(place, xy[t, scene.points.agrees[t]], GAP * spacing)
        place = _away(place, _seen(added, t, scene, depth, free), 0.9 * BETWEEN * spacing)
        z, _ = depth.at(t, place)
        place = place[np.isfinite(z)]
        z = z[np.isfinite(z)]
        new = (
            scene.cameras[[t]]
            .unproject(torch.from_numpy(place)[None], torch.from_numpy(z)[None])[0]
            .numpy()
        )
        added = np.concatenate([added, new])
    image, _ = scene.cameras.project(torch.from_numpy(added))
    visible = np.zeros((len(xy), len(added)), bool)
    for t in range(len(xy)):
        visible[t] = _agrees(added, t, scene, depth, free)
    return np.concatenate([xy, image.numpy()], 1), replace(
        scene, points=_joined(scene.points, added, visible)
    )


def _grid(free: Bool[np.ndarray, "H W"], step: float) -> Float[np.ndarray, "Q 2"]:
    """Free pixels a step apart."""
    height, width = free.shape
    grid = np.stack(
        np.meshgrid(np.arange(step / 2, width, step), np.arange(step / 2, height, step)), -1
    ).reshape(-1, 2)
    return grid[free[grid[:, 1].astype(int), grid[:, 0].astype(int)]]


def _away(
    place: Float[np.ndarray, "Q 2"], known: Float[np.ndarray, "K 2"], gap: float
) -> Float[np.ndarray, "R 2"]:
    """Those of the pixels that have no known point within ``gap``."""
    return place[cKDTree(known).query(place)[0] > gap] if len(known) and len(place) else place


def _seen(
    added: np.ndarray, t: int, scene: StaticScene, depth: AlignedDepth, free: np.ndarray
) -> Float[np.ndarray, "K 2"]:
    """Pixels of the added points that frame t sees."""
    image, _ = scene.cameras[[t]].project(torch.from_numpy(added))
    return image[0].numpy()[_agrees(added, t, scene, depth, free)]


def _agrees(
    added: np.ndarray, t: int, scene: StaticScene, depth: AlignedDepth, free: np.ndarray
) -> np.ndarray:
    """Which points project to free pixels of frame t whose depth is theirs."""
    image, z = (v[0].numpy() for v in scene.cameras[[t]].project(torch.from_numpy(added)))
    height, width = free.shape[1:]
    inside = (z > 0) & (image >= 0).all(1) & (image < [width, height]).all(1)
    found = np.zeros(len(added), bool)
    pixel = image[inside].astype(np.int64)
    there, spread = depth.at(t, image[inside])
    close = np.abs(there / z[inside] - 1) < AGREEMENT * np.maximum(spread, 0.01)
    found[inside] = free[t, pixel[:, 1], pixel[:, 0]] & close
    return found


def _joined(
    points: Points, xyz: Float[np.ndarray, "M 3"], visible: Bool[np.ndarray, "F M"]
) -> Points:
    agrees = np.concatenate([points.agrees, visible], 1)
    known = np.nonzero(agrees)[1] < len(points.xyz)
    residual = np.full(len(known), ADDED_RESIDUAL, np.float32)
    residual[known] = points.residual
    return Points(
        xyz=np.concatenate([points.xyz, np.where(visible.any(0)[:, None], xyz, np.nan)]),
        agrees=agrees,
        residual=residual,
        uncertainty=np.concatenate([points.uncertainty, np.full(len(xyz), np.inf)]),
    )
