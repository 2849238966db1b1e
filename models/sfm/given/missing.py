"""Frames without a given camera, placed by their tracks; and doubt about given cameras, told."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool

from models.cameras import Cameras, interpolate_poses
from models.run import Progress
from models.sfm.colmap import resect
from models.sfm.given.matching import list_names
from models.sfm.options import CameraOptions
from models.sfm.triangulation import UNSURE, Points, triangulate
from models.tracks import PointTracks

# Share of the observations that disagree from which given cameras are doubted. Movers and slipped
# tracks seldom hold half of them.
_DOUBT = 0.5


def place_missing(
    tracks: PointTracks,
    cameras: Cameras,
    known: Bool[np.ndarray, "F"],
    progress: Progress,
    options: CameraOptions,
) -> tuple[Cameras, Bool[np.ndarray, "F"]]:
    """The cameras with those of unknown frames solved from the points of the known frames, and True
    for each frame whose camera is known or solved.

    Args:
        cameras: interpolated where they are not known.
        progress: hears which frames were solved and which are interpolated.
    """
    if known.all():
        return cameras, known
    points = triangulate(tracks.restrict(known[:, None]), cameras)
    sure = np.isfinite(points.xyz).all(1) & (points.uncertainty < UNSURE)
    poses = cameras.world_from_cam.double().numpy().copy()
    placed = known.copy()
    for t in np.flatnonzero(~known):
        seen = np.flatnonzero(tracks.visible[t] & sure)
        single = replace(cameras[t], K=cameras.K[[t]].double())
        pose = resect(single, points.xyz[seen], tracks.xy[t, seen], options.registration_error)
        if pose is not None:
            poses[t] = pose
            placed[t] = True
    for frames, how in ((placed & ~known, "solved from tracks"), (~placed, "interpolated")):
        if frames.any():
            numbers = list_names([str(t) for t in np.flatnonzero(frames)])
            progress.say(f"given cameras: {numbers} of the frames taken (from 0) {how}")
    poses = torch.from_numpy(interpolate_poses(poses, placed)).to(cameras.world_from_cam)
    return replace(cameras, world_from_cam=poses), placed


def warn_of_contradiction(tracks: PointTracks, points: Points, progress: Progress) -> None:
    """Says which share of the observations disagrees with given cameras, if most do.

    Args:
        tracks: the observations in frames that have a camera.
        points: their points under the given cameras.
    """
    share = 1 - points.agrees.sum() / max(tracks.visible.sum(), 1)
    if share > _DOUBT:
        progress.say(
            f"warning: {100 * share:.0f} % of the tracked observations disagree with the given cameras; "
            "check that the cameras are of this clip, in its order, with axes and sizes as "
            "docs/formats.md says, or leave out --cameras_path"
        )
