"""Cameras grown from a pair of frames, for clips in which COLMAP's mappers find no good start.

COLMAP refuses a first pair between which the camera moves straight ahead, or sees its points under a
small angle, and a car's camera and a slow pan have no other pairs. Here the pair is chosen by the
points whose depth it tells. Frames are placed by the points from the pair outwards, with a bundle
adjustment after each few.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from models.cameras import Cameras, interpolate_poses
from models.run import SILENT, Progress, ProgressPart
from models.sfm.adjustment.bundle import Freedom
from models.sfm.adjustment.evidence import Fit, adjust_fit, measure_fit
from models.sfm.colmap import MIN_SHARED, resect_frames
from models.sfm.triangulation import UNSURE, Points, triangulate
from models.tracks import PointTracks

# Focal lengths at the start, in longer sides of the image; bundle adjustment moves them.
_FOCALS = (0.8, 1.2, 1.8)
# Frames in which a pair is sought to begin.
_BEGINNINGS = 12
# Shares of a frame's tracks that the second frame of a pair still sees.
_STILL_SEEN = (0.7, 0.4)
# RANSAC of a pair: error in pixels, and confidence.
_PAIR_ERROR = 1.0
_PAIR_CONFIDENCE = 0.999
# Reprojection error in pixels up to which a point supports the pose of a new frame.
_PLACED_ERROR = 4.0
# Frames placed on each side before the next bundle adjustment, as a share of the placed.
_GROWTH = 0.3
# Frames from which the focal length is free.
_ENOUGH_FRAMES = 5
_FIXED_FOCAL = Freedom(focal_length=False)
_LAST_ROUNDS = 3
# Name of the bar.
_STAGE = "growth"


@dataclass(frozen=True)
class Grown:
    """Cameras grown from a pair."""

    fit: Fit
    """All frames, with the tracks of the placed frames alone."""
    placed: Bool[np.ndarray, "F"]
    """False where a camera was interpolated from its neighbours in time."""


def grow_cameras(tracks: PointTracks, progress: Progress = SILENT) -> Grown | None:
    """Cameras from the pair of frames that tells most depths, for the focal length at the start with
    which most observations agree; None if no pair can be placed.

    Args:
        progress: hears the frames that are tried with each focal length, as the stage "growth".
    """
    longer = max(tracks.width, tracks.height)
    total = len(_FOCALS) * len(tracks)
    grown = []
    for number, focal in enumerate(_FOCALS):
        part = ProgressPart(progress, number * len(tracks), total)
        grown.append(_grow(tracks, focal * longer, part))
        part.step(_STAGE, len(tracks), len(tracks))
    return max(
        (one for one in grown if one is not None),
        key=lambda one: one.fit.agrees.sum(),
        default=None,
    )


def _grow(tracks: PointTracks, focal: float, progress: Progress) -> Grown | None:
    """Cameras of all frames from one focal length at the start."""
    K = np.array([[focal, 0, tracks.width / 2], [0, focal, tracks.height / 2], [0, 0, 1]])
    pair = _choose_pair(tracks, K)
    if pair is None:
        return None
    poses = np.tile(np.eye(4), (len(tracks), 1, 1))
    poses[pair.second] = pair.pose
    placed = np.zeros(len(tracks), bool)
    placed[[pair.first, pair.second]] = True
    matrices = torch.from_numpy(np.tile(K, (len(tracks), 1, 1)))
    cameras = Cameras(matrices, torch.from_numpy(poses), tracks.width, tracks.height)
    tried = placed.copy()
    while True:
        cameras = _adjust(cameras, tracks, placed, rounds=1)
        progress.step(_STAGE, int(tried.sum()), len(tracks))
        found = _place_next(cameras, tracks, placed, tried)
        if found is None:
            break
        cameras = found
    return _finish(cameras, tracks, placed)


def _finish(cameras: Cameras, tracks: PointTracks, placed: Bool[np.ndarray, "F"]) -> Grown:
    """The cameras adjusted once more, with interpolated cameras where none was placed."""
    cameras = _adjust(cameras, tracks, placed, rounds=_LAST_ROUNDS)
    poses = interpolate_poses(cameras.world_from_cam.numpy(), placed)
    cameras = replace(cameras, world_from_cam=torch.from_numpy(poses))
    return Grown(measure_fit(cameras, tracks.restrict(placed[:, None])), placed)


def _adjust(
    cameras: Cameras, tracks: PointTracks, placed: Bool[np.ndarray, "F"], rounds: int
) -> Cameras:
    """Bundle adjustment of the placed frames."""
    fit = measure_fit(cameras, tracks.restrict(placed[:, None]))
    if (fit.agrees.sum(1) >= MIN_SHARED).sum() < 2:
        return cameras
    freedom = Freedom() if placed.sum() >= _ENOUGH_FRAMES else _FIXED_FOCAL
    return adjust_fit(fit, freedom, rounds).cameras


def _place_next(
    cameras: Cameras,
    tracks: PointTracks,
    placed: Bool[np.ndarray, "F"],
    tried: Bool[np.ndarray, "F"],
) -> Cameras | None:
    """The cameras with more frames placed, which ``placed`` then tells; None if none is left."""
    points = triangulate(tracks.restrict(placed[:, None]), cameras)
    while not tried.all():
        frames = _list_next(tried)
        tried[frames] = True
        found = resect_frames(cameras, tracks, _believe_best(points), frames, _PLACED_ERROR)
        if found:
            poses = cameras.world_from_cam.clone()
            for t, pose in found.items():
                poses[t] = torch.from_numpy(pose)
                placed[t] = True
            return replace(cameras, world_from_cam=poses)
    return None


def _list_next(tried: Bool[np.ndarray, "F"]) -> Int[np.ndarray, "f"]:
    """The next frames to place: those between tried frames, then the nearest outside."""
    known = np.flatnonzero(tried)
    between = known[0] + np.flatnonzero(~tried[known[0] : known[-1]])
    if len(between):
        return between
    step = max(1, int(_GROWTH * len(known)))
    near = np.arange(known[0] - step, known[-1] + step + 1)
    near = near[(near >= 0) & (near < len(tried))]
    return near[~tried[near]]


def _believe_best(points: Points) -> Points:
    """The points with their better half taken as sure, where few are."""
    known = np.isfinite(points.xyz).all(1)
    if not known.any():
        return points
    scale = min(1.0, 0.99 * UNSURE / max(float(np.median(points.uncertainty[known])), 1e-12))
    return replace(points, uncertainty=points.uncertainty * scale)


@dataclass(frozen=True)
class _Pair:
    """Two frames and the pose between them."""

    first: int
    second: int
    pose: Float[np.ndarray, "4 4"]
    """world_from_cam of the second, in the axes of the first."""
    told: float
    """Points whose depth the pair tells; a point of doubtful depth counts less."""


def _choose_pair(tracks: PointTracks, K: Float[np.ndarray, "3 3"]) -> _Pair | None:
    """The pair of frames that tells most depths."""
    beginnings = np.unique(np.linspace(0, len(tracks) - 2, _BEGINNINGS).astype(int))
    pairs = {
        (a, b) for a in beginnings for share in _STILL_SEEN for b in _find_second(tracks, a, share)
    }
    solved = (_solve_pair(tracks, K, a, b) for a, b in sorted(pairs))
    return max(
        (pair for pair in solved if pair is not None), key=lambda pair: pair.told, default=None
    )


def _find_second(tracks: PointTracks, first: int, share: float) -> list[int]:
    """The last frame that still sees a share of a frame's tracks; empty if none follows."""
    seen = tracks.visible[first]
    shared = (tracks.visible[first + 1 :] & seen).sum(1)
    enough = np.flatnonzero(shared >= max(MIN_SHARED, share * seen.sum()))
    return [first + 1 + int(enough[-1])] if len(enough) else []


def _solve_pair(
    tracks: PointTracks, K: Float[np.ndarray, "3 3"], first: int, second: int
) -> _Pair | None:
    """The pose between two frames by the essential matrix; None if there is none."""
    shared = tracks.visible[first] & tracks.visible[second]
    a, b = (tracks.xy[t, shared].astype(np.float64) for t in (first, second))
    essential, inlier = cv2.findEssentialMat(
        a, b, K, method=cv2.RANSAC, prob=_PAIR_CONFIDENCE, threshold=_PAIR_ERROR
    )
    if essential is None or len(essential) < 3:
        return None
    # Points at any distance count: OpenCV's own limit is 50 baselines.
    _, turn, shift, *_ = cv2.recoverPose(
        essential[:3], a, b, K, distanceThresh=1e9, mask=inlier.copy()
    )
    pose = np.eye(4)
    pose[:3, :3] = turn.T
    pose[:3, 3] = -turn.T @ shift[:, 0]
    cameras = Cameras(
        torch.from_numpy(np.stack([K, K])),
        torch.from_numpy(np.stack([np.eye(4), pose])),
        tracks.width,
        tracks.height,
    )
    both = tracks.select(shared).select_frames(np.array([first, second]))
    return _Pair(first, second, pose, _count_told(triangulate(both, cameras)))


def _count_told(points: Points) -> float:
    """Points that agree, each with the share of its information on depth."""
    weight = 1 / (1 + (points.uncertainty / UNSURE) ** 2)
    return float(weight[points.agrees.all(0)].sum())
