"""Depth from outside put to use: in the scene of the background, and in the depth of movers."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from models.depth.aligned import align_depth
from models.depth.imported import Imported, align_imported
from models.depth.maps import DepthMaps
from models.depth.mover_depth import align_to_tracks, merge_depth
from models.depth.options import MoverDepthOptions
from models.depth.points import align_to_scene, fill_gaps, settle_points
from models.depth.turning import raise_relief
from models.run import SILENT, Progress
from models.sfm import StaticScene
from models.tracks import PointTracks, Tracks


def apply_depth(
    maps: DepthMaps,
    tracks: PointTracks,
    scene: StaticScene,
    masks: Bool[np.ndarray, "F H W"],
    spacing: int,
    progress: Progress = SILENT,
) -> tuple[PointTracks, StaticScene]:
    """Tracks and scene with better depth for points of little parallax, and with points added in
    image regions without tracks; unchanged if the maps explain too little of the scene.

    If the camera only turns or stands still, the maps alone give the depth of the points.

    Args:
        tracks: of the scene's points.
        masks: of movers.
        spacing: of the tracks, in pixels.

    Raises:
        InputError: a map cannot be read, or too few points lie on known depth.
    """
    if scene.method in ("rotation", "still"):
        scene = raise_relief(tracks, scene, maps)
        depth = align_depth(maps, scene.cameras, scene.points.xyz, scene.points.agrees, progress)
        progress.say(
            "the camera keeps its place, so that depth is that of the maps alone, its median set to 1"
        )
        progress.say(depth.describe())
    else:
        depth = align_to_scene(maps, scene, progress)
        progress.say(depth.describe())
        if not depth.trusted:
            return tracks, scene
        scene = settle_points(tracks, scene, depth)
    before = tracks.num_tracks
    tracks, scene = fill_gaps(tracks, scene, depth, ~masks, spacing)
    added = tracks.num_tracks - before
    progress.say(f"depth maps: {added} points added where nothing could be tracked")
    return tracks, scene


@dataclass(frozen=True)
class MovingTracks:
    """Tracks of movers and their depth so far."""

    tracks: PointTracks
    label: Int[np.ndarray, "N"]
    """Number of the mover of each track."""
    xyz: Float[np.ndarray, "F N 3"]
    """World positions that the tracks have so far."""


def refine_mover_depth(
    source: DepthMaps | Imported,
    background: Tracks,
    movers: MovingTracks,
    progress: Progress = SILENT,
    options: MoverDepthOptions = MoverDepthOptions(),
) -> Float[np.ndarray, "F N"]:
    """z-depth of moving tracks in world units, by depth maps or imported tracks; unchanged if these
    explain too little of the background. See ``merge_depth``.

    Raises:
        InputError: the source cannot be aligned to the background.
    """
    xyz = torch.from_numpy(np.asarray(movers.xyz, np.float64))
    found = background.cameras.to_camera(xyz)[..., 2].numpy()
    align = align_imported if isinstance(source, Imported) else align_to_tracks
    depth = align(source, background)
    progress.say(depth.describe())
    if not depth.trusted:
        return found
    return merge_depth(depth, movers.tracks, movers.label, found, options)
