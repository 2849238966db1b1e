"""A scene solved inside out, and its mirror image.

Seen from afar, a scene and its mirror image in depth (near and far exchanged, the camera moving the
other way) give nearly the same tracks: the depth reversal of Necker's cube. Perspective decides
between the two, often by a few hundredths of a pixel. A mapper that started in the wrong image does
not leave it, so both are adjusted and compared.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras, find_middle_frame, interpolate_poses
from models.run import SILENT, Progress
from models.sfm.adjustment.evidence import (
    Fit,
    adjust_fit,
    compare_common_cost,
    compare_cost,
    measure_fit,
    rescale,
)
from models.tracks import PointTracks

# Range of inverse depth in the mirror image, in medians.
_NEAREST, _FARTHEST = 6.0, 0.15
# Observations that place a camera.
_LEAST_SEEN = 12
# RANSAC of a camera's pose: reprojection error in pixels, and most rounds.
_POSE_ERROR = 3.0
_POSE_ROUNDS = 200
# Most rounds of adjustment, and the share of the cost that a round must save to be followed by
# another.
_ROUNDS = 5
_SETTLED = 0.01
# Cost of the mirror image before adjustment, in costs of the scene, from which it is given up.
_HOPELESS = 4.0
# Cost of the mirror image, in costs of the scene, below which it is taken, and up to which the two
# are too close to be told apart by their errors.
_BETTER = 0.97
_CLOSE = 1.03
# Rank correlation of depths from which two scenes are the same.
_SAME_ORDER = 0.5


@dataclass(frozen=True)
class Ordered:
    """Cameras whose order of depth was checked."""

    cameras: Cameras
    doubtful: bool = False
    """Near and far can hardly be told apart."""


def choose_depth_order(
    cameras: Cameras, tracks: PointTracks, progress: Progress = SILENT
) -> Ordered:
    """The cameras, or the cameras of the scene's mirror image if that explains the tracks better.

    Where errors do not tell, or the tracks that agree with both scenes contradict the rest, the order
    in which the lower part of the image is nearer is taken, as the ground is, with doubt.

    Args:
        tracks: that the cameras were solved from.
        progress: hears if the mirror image is taken, and of doubt.
    """
    solved = measure_fit(cameras, tracks)
    start = _mirror(solved)
    if start is None:
        return Ordered(cameras)
    mirrored = measure_fit(start, tracks)
    if compare_common_cost(mirrored, solved) > _HOPELESS:
        return Ordered(cameras)
    solved = _adjust_best(solved)
    mirrored = _adjust_best(mirrored)
    if _compare_order(solved, mirrored) > _SAME_ORDER:
        return Ordered(cameras)  # the mirror image has turned back into the scene
    return _judge_order(cameras, solved, mirrored, progress)


def _judge_order(cameras: Cameras, solved: Fit, mirrored: Fit, progress: Progress) -> Ordered:
    """The order that the observations support.

    The observations that agree with both images decide against those that agree with either where
    the latter do not tell. Where the two contradict each other, the rest is a mover, or the part of
    the scene that has parallax: the ground decides.
    """
    ratio, common = compare_cost(mirrored, solved), compare_common_cost(mirrored, solved)
    if min(ratio, common) > _CLOSE:
        return Ordered(cameras)
    if max(ratio, common) < _BETTER:
        progress.say("the scene was solved inside out: near and far are exchanged, with less error")
        return Ordered(rescale(mirrored))
    _warn(ratio, progress)
    ground = _measure_ground(mirrored) > _measure_ground(solved)
    contradict = min(ratio, common) < _BETTER and max(ratio, common) > _CLOSE
    close = _BETTER <= common <= _CLOSE
    turn = ground if contradict or close else common < _BETTER
    return Ordered(rescale(mirrored) if turn else cameras, True)


def _warn(ratio: float, progress: Progress) -> None:
    """Tells doubt with its cause.

    Args:
        ratio: cost of the mirror image in costs of the scene, over all observations.
    """
    cause = "the camera moves little beside the distance of the scene"
    if not _BETTER <= ratio <= _CLOSE:
        cause = "only a small part of the picture, which may be a mover, tells them apart"
    progress.say(
        f"warning: near and far can hardly be told apart in this clip, as {cause}; look at the depth "
        "video"
    )


def _adjust_best(fit: Fit) -> Fit:
    """The fit of least cost among the given one and rounds of adjustment: where perspective hardly
    tells the focal length, a round may end with more cost than it began with."""
    best = fit
    for _ in range(_ROUNDS):
        fit = adjust_fit(fit)
        gain = 1 - compare_cost(fit, best)
        if gain > 0:
            best = fit
        if gain < _SETTLED:
            break
    return best


def _compare_order(fit: Fit, other: Fit) -> float:
    """Rank correlation of the inverse depths of two scenes in the middle frame."""
    (a, seen_a), (b, seen_b) = _read_inverse_depth(fit), _read_inverse_depth(other)
    both = seen_a & seen_b
    return _correlate_ranks(a[both], b[both])


def _measure_ground(fit: Fit) -> float:
    """Rank correlation of inverse depth with the row in the middle frame."""
    inverse, seen = _read_inverse_depth(fit)
    rows = fit.tracks.xy[find_middle_frame(fit.cameras), seen, 1]
    return _correlate_ranks(rows, inverse[seen])


def _correlate_ranks(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    """Spearman's rank correlation; 0 for few values or equal ones."""
    if len(a) < _LEAST_SEEN or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def _read_inverse_depth(fit: Fit) -> tuple[Float[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
    """Inverse z-depth of each point in the middle camera, and whether it is in front of it."""
    return _invert_depth(fit, _move_to_middle(fit))


def _move_to_middle(fit: Fit) -> Float[np.ndarray, "N 3"]:
    """The points in the axes of the middle camera."""
    middle = fit.cameras[find_middle_frame(fit.cameras)]
    return middle.to_camera(torch.from_numpy(np.nan_to_num(fit.xyz)))[0].numpy()


def _invert_depth(
    fit: Fit, local: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
    """Inverse z-depth of points in a camera's axes, and whether they are in front of it."""
    ahead = np.isfinite(fit.xyz).all(1) & (local[:, 2] > 0)
    return np.where(ahead, 1 / np.where(ahead, local[:, 2], 1), 0), ahead


def _mirror(fit: Fit) -> Cameras | None:
    """Cameras of the mirror image: inverse depth in the middle camera is reversed about its median,
    and every camera is placed anew; None if none can be placed."""
    local = _move_to_middle(fit)
    inverse, ahead = _invert_depth(fit, local)
    if ahead.sum() < _LEAST_SEEN:
        return None
    median = np.median(inverse[ahead])
    turned = np.clip(2 * median - inverse, _FARTHEST * median, _NEAREST * median)
    shape = local * (inverse / turned)[:, None]
    found = [_place_camera(fit, t, shape, ahead) for t in range(len(fit.cameras))]
    placed = np.array([pose is not None for pose in found])
    if not placed.any():
        return None
    poses = np.stack([np.eye(4) if pose is None else pose for pose in found])
    poses = interpolate_poses(poses, placed)
    return replace(fit.cameras, world_from_cam=torch.from_numpy(poses))


def _place_camera(
    fit: Fit, t: int, shape: Float[np.ndarray, "N 3"], usable: Bool[np.ndarray, "N"]
) -> Float[np.ndarray, "4 4"] | None:
    """world_from_cam of a frame that sees points of a shape; None if it sees too few."""
    seen = np.flatnonzero(fit.tracks.visible[t] & usable)
    if len(seen) < _LEAST_SEEN:
        return None
    cv2.setRNGSeed(t)
    found, turn, shift, _ = cv2.solvePnPRansac(
        shape[seen],
        fit.tracks.xy[t, seen].astype(np.float64),
        fit.cameras.K[t].double().numpy(),
        None,
        reprojectionError=_POSE_ERROR,
        iterationsCount=_POSE_ROUNDS,
        flags=cv2.SOLVEPNP_EPNP,
    )
    if not found:
        return None
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = cv2.Rodrigues(turn)[0]
    cam_from_world[:3, 3] = shift[:, 0]
    return np.linalg.inv(cam_from_world)
