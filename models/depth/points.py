"""Depth maps in the background: points with little parallax, and points in image regions without
tracks."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from models.clip import at_points
from models.depth.aligned import AlignedDepth, align_depth
from models.depth.maps import DepthMaps
from models.run import SILENT, Progress
from models.sfm import UNSURE, DepthGuess, Points, StaticScene, choose_anchors, triangulate
from models.tracks import PointTracks

# Reprojection error in pixels of an added point: it is trusted less than tracked points.
_ADDED_RESIDUAL = 1.0
# Share of the spacing of added points below which a grid point counts as taken by one of them.
_TAKEN_SHARE = 0.9
# Smallest relative standard deviation of a map's depth when it is compared with an added point.
_LEAST_SPREAD = 0.01


def align_to_scene(
    maps: DepthMaps, scene: StaticScene, progress: Progress = SILENT
) -> AlignedDepth:
    """The maps in the scene's scale, by the points whose depth is certain.

    Raises:
        InputError: see ``align_depth``.
    """
    # Uncertain points would pull the maps towards their own errors.
    sure = np.where((scene.points.uncertainty < UNSURE)[:, None], scene.points.xyz, np.nan)
    return align_depth(maps, scene.cameras, sure, scene.points.agrees, progress)


def settle_points(tracks: PointTracks, scene: StaticScene, depth: AlignedDepth) -> StaticScene:
    """The scene with its points solved again, with the depth of the maps as a prior, which decides
    for points of little parallax."""
    xy = tracks.xy
    seen = scene.points.agrees
    # The prior is of the frame in which triangulation solves the point.
    anchor = choose_anchors(seen)
    guess = np.full(len(anchor), np.nan)
    spread = np.full(len(anchor), np.inf)
    for t in np.unique(anchor[seen.any(0)]):
        own = np.flatnonzero((anchor == t) & seen.any(0))
        guess[own], spread[own] = depth.at(t, xy[t, own])
    agreeing = replace(tracks, visible=seen)
    points = triangulate(agreeing, scene.cameras, guess=DepthGuess(guess, spread))
    return replace(scene, points=replace(points, uncertainty=scene.points.uncertainty))


def fill_gaps(
    tracks: PointTracks,
    scene: StaticScene,
    depth: AlignedDepth,
    free: Bool[np.ndarray, "F H W"],
    spacing: int,
) -> tuple[PointTracks, StaticScene]:
    """Tracks and scene with points added far from all tracks: on blank walls, roads, and the sky
    (on the far shell).

    An added point lies on the depth map of the frame that lacked a track. The point is visible in
    every frame in which it projects to a free pixel whose depth agrees.

    Args:
        free: pixels outside the masks of movers.
        spacing: of the tracks, in pixels.
    """
    added = np.zeros((0, 3))
    for t in range(len(tracks)):
        visible = _find_visible(added, t, scene, depth, free)
        image = scene.cameras[t].project(torch.from_numpy(added))[0][0].numpy()
        # A coarser grid than that of the tracks: blank areas are smooth.
        place = _make_grid(free[t], depth.options.added_spacing * spacing)
        tracked = tracks.xy[t, scene.points.agrees[t]]
        place = _keep_far(place, tracked, depth.options.gap * spacing)
        reach = _TAKEN_SHARE * (depth.options.added_spacing * spacing)
        # Points that an earlier frame added here need no second.
        place = _keep_far(place, image[visible], reach)
        added = np.concatenate([added, _place_points(place, t, scene, depth)])
    image, _ = scene.cameras.project(torch.from_numpy(added))
    visible = np.zeros((len(tracks), len(added)), bool)
    for t in range(len(tracks)):
        visible[t] = _find_visible(added, t, scene, depth, free)
    tracks = tracks.joined(image.numpy(), visible)
    return tracks, replace(scene, points=_append_points(scene.points, added, visible))


def _place_points(
    place: Float[np.ndarray, "Q 2"], t: int, scene: StaticScene, depth: AlignedDepth
) -> Float[np.ndarray, "M 3"]:
    """World points at pixels of frame t, on its depth map; pixels of unknown depth give none."""
    z, _ = depth.at(t, place)
    place = place[np.isfinite(z)]
    z = z[np.isfinite(z)]
    xyz = scene.cameras[t].unproject(torch.from_numpy(place)[None], torch.from_numpy(z)[None])
    return xyz[0].numpy()


def _make_grid(free: Bool[np.ndarray, "H W"], step: float) -> Float[np.ndarray, "Q 2"]:
    """Free pixels ``step`` pixels apart."""
    height, width = free.shape
    grid = np.stack(
        np.meshgrid(np.arange(step / 2, width, step), np.arange(step / 2, height, step)), -1
    ).reshape(-1, 2)
    return grid[at_points(free[None], grid[None])[0]]


def _keep_far(
    place: Float[np.ndarray, "Q 2"], known: Float[np.ndarray, "K 2"], gap: float
) -> Float[np.ndarray, "R 2"]:
    """The pixels without a known point within ``gap`` pixels."""
    return place[cKDTree(known).query(place)[0] > gap] if len(known) and len(place) else place


def _find_visible(
    xyz: Float[np.ndarray, "M 3"],
    t: int,
    scene: StaticScene,
    depth: AlignedDepth,
    free: Bool[np.ndarray, "F H W"],
) -> Bool[np.ndarray, "M"]:
    """Which world points project to free pixels of frame t whose depth agrees with theirs."""
    image, z = (v[0].numpy() for v in scene.cameras[t].project(torch.from_numpy(xyz)))
    height, width = free.shape[1:]
    # In front of the camera and inside the image.
    inside = (z > 0) & (image >= 0).all(1) & (image < [width, height]).all(1)
    found = np.zeros(len(xyz), bool)
    map_depth, spread = depth.at(t, image[inside])
    limit = depth.options.agreement * np.maximum(spread, _LEAST_SPREAD)
    close = np.abs(map_depth / z[inside] - 1) < limit
    found[inside] = at_points(free[t][None], image[inside][None])[0] & close
    return found


def _append_points(
    points: Points, xyz: Float[np.ndarray, "M 3"], visible: Bool[np.ndarray, "F M"]
) -> Points:
    """The points with added ones, which are NaN if no frame sees them."""
    agrees = np.concatenate([points.agrees, visible], 1)
    # Residuals stand frame by frame, tracked points before added ones.
    tracked = np.nonzero(agrees)[1] < len(points.xyz)
    residual = np.full(len(tracked), _ADDED_RESIDUAL, np.float32)
    residual[tracked] = points.residual
    return Points(
        xyz=np.concatenate([points.xyz, np.where(visible.any(0)[:, None], xyz, np.nan)]),
        agrees=agrees,
        residual=residual,
        uncertainty=np.concatenate([points.uncertainty, np.full(len(xyz), np.inf)]),
    )
