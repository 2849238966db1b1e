"""Canonical coordinates of a rigid mover: its points in 3D, seen from a reference frame."""

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras
from models.movers.depth import RelativeDepth
from models.movers.local_maps import find_box, find_home, map_locally
from models.tracks import PointTracks


def rigid_places(
    tracks: PointTracks,
    masks: Bool[np.ndarray, "F H W"],
    shape: RelativeDepth,
    cameras: Cameras,
) -> Float[np.ndarray, "N 3"]:
    """Place of each track on its mover, in the axes of the camera of the frame that sees most tracks
    and in pixels of that frame at the mover's median depth; the third coordinate is 0 there.

    Args:
        tracks: of the mover.
        masks: of the mover; its box stands in where a frame that was not placed sees few tracks.
        shape: with poses.
        cameras: of the clip's frames; only intrinsics are used.
    """
    points = _mean_points(tracks, shape, cameras)
    known = np.isfinite(points).all(1)
    reference = int((tracks.visible[:, known] & shape.placed[:, None]).sum(1).argmax())
    cam_from_mover = np.linalg.inv(shape.mover_from_cam[reference])
    places = points @ cam_from_mover[:3, :3].T + cam_from_mover[:3, 3]
    middle = float(np.median(places[known & tracks.visible[reference], 2]))
    K = cameras.K[reference].double().numpy()
    places = (places - [0, 0, middle]) * K[0, 0] / middle
    places[:, :2] += K[:2, 2]
    return _fill_places(places, tracks, masks)


def _mean_points(
    tracks: PointTracks, shape: RelativeDepth, cameras: Cameras
) -> Float[np.ndarray, "N 3"]:
    """The mean over frames of each track's points in the mover's axes, of its sure observations if
    it has some; NaN for a track that no placed frame sees."""
    total = np.zeros((2, tracks.num_tracks, 3))
    count = np.zeros((2, tracks.num_tracks, 1))
    poses = torch.from_numpy(shape.mover_from_cam)
    own = Cameras(cameras.K, poses, cameras.width, cameras.height)
    for t in np.flatnonzero(shape.placed):
        seen = np.flatnonzero(tracks.visible[t] & np.isfinite(shape.depth[t]))
        xy = torch.from_numpy(tracks.xy[[t]][:, seen]).double()
        depth = torch.from_numpy(shape.depth[[t]][:, seen])
        points = own[int(t)].unproject(xy, depth)[0].numpy()
        is_sure = shape.sure[t, seen]
        for kind, members in enumerate((is_sure, ~is_sure)):
            total[kind, seen[members]] += points[members]
            count[kind, seen[members]] += 1
    sure, unsure = total / np.where(count > 0, count, np.nan)
    return np.where(count[0] > 0, sure, unsure)


def _fill_places(
    places: Float[np.ndarray, "N 3"], tracks: PointTracks, masks: Bool[np.ndarray, "F H W"]
) -> Float[np.ndarray, "N 3"]:
    """Places with those that are not known set by the known ones in the frames that see both, by
    local maps; to the mean place without such a frame."""
    places = places.copy()
    known = np.isfinite(places).all(1)
    mean = places[known].mean(0)
    shared = (tracks.visible & known).sum(1)
    for t in np.argsort(-shared, kind="stable"):
        wanted = tracks.visible[t] & ~np.isfinite(places).all(1)
        own = tracks.visible[t] & known
        if wanted.any() and own.any():
            xy = tracks.xy[t].astype(np.float64)
            box = find_box(masks[t], xy[own])
            home = find_home(xy[own], places[own, :2], box)
            places[wanted] = map_locally(xy[own], places[own], xy[wanted], box, home)
    return np.where(np.isfinite(places), places, mean)
