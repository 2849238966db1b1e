"""Frames without a given camera, placed by their tracks; and doubt about given cameras, told."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool

from models.cameras import Cameras, interpolate_poses
from models.run import Progress
from models.sfm.colmap import resect_frames
from models.sfm.given.matching import list_names
from models.sfm.options import CameraOptions
from models.sfm.triangulation import Points, triangulate
from models.tracks import PointTracks


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
    poses = cameras.world_from_cam.double().numpy().copy()
    placed = known.copy()
    lacking = np.flatnonzero(~known)
    found = resect_frames(cameras, tracks, points, lacking, options.registration_error)
    for t, pose in found.items():
        poses[t] = pose
        placed[t] = True
    for frames, how in ((placed & ~known, "solved from tracks"), (~placed, "interpolated")):
        if frames.any():
            numbers = list_names([str(t) for t in np.flatnonzero(frames)])
            progress.say(f"given cameras: {numbers} of the frames taken (from 0) {how}")
    poses = torch.from_numpy(interpolate_poses(poses, placed)).to(cameras.world_from_cam)
    return replace(cameras, world_from_cam=poses), placed


def warn_of_contradiction(
    tracks: PointTracks, points: Points, progress: Progress, options: CameraOptions
) -> None:
    """Says which share of the observations disagrees with given cameras, if most do.

    Args:
        tracks: the observations in frames that have a camera.
        points: their points under the given cameras.
    """
    share = 1 - points.agrees.sum() / max(tracks.visible.sum(), 1)
    if share > 1 - options.doubtful:
        progress.say(
            f"warning: {100 * share:.0f} % of the tracked observations disagree with the given cameras; "
            "check that the cameras are of this clip, in its order, with axes and sizes as "
            "docs/formats.md says, or leave out --cameras_path"
        )
