"""Rigid movers: structure from motion on a mover's own tracks, as if it stood still and the camera went round it."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.colmap import MIN_SHARED, bundle_adjust, poses_of, run_mapper, write_database
from models.tracking import half_life, thin
from models.triangulation import Points, triangulate

REGISTERED_SHARE = 0.8
"""Share of the frames with enough tracks that must be placed for a mover to be taken as rigid."""
AGREEING_SHARE = 0.75
"""Share of the sightings that must agree with the rigid shape."""
MOST_RELIEF = 2.0
"""Depth range of a believable shape, as a share of its width or height, whichever is larger."""
SUNK_SHARE = 0.005
"""Share of a mover's points, and one more, that may lie behind the background by error."""
NEIGHBOURS = 4
"""Points of the shape that a track without one takes its depth from."""


@dataclass(frozen=True)
class RigidMotion:
    """A mover's shape as each frame's camera sees it, up to one scale."""

    depth: Float[np.ndarray, "F N"]
    """z-depth of each track, seen or not, in units of the mover's own; NaN in frames that were not placed."""
    sure: Bool[np.ndarray, "F N"]
    """Sightings of long tracks that agree with the shape: a shadow's or a slipping one soon ends."""
    placed: Bool[np.ndarray, "F"]
    """Frames whose camera is known relative to the mover."""


def solve_rigid(
    xy: Float[np.ndarray, "F N 2"], visible: Bool[np.ndarray, "F N"], cameras: Cameras, seed: int = 0
) -> RigidMotion | None:
    """Depths of one mover's tracks, None where no rigid shape explains them.

    Args:
        xy: 2D tracks of the mover in pixels.
        visible: which of them were seen.
        cameras: the clip's; only their intrinsics are used.
    """
    enough = visible.sum(1) >= MIN_SHARED
    if enough.sum() < 3:
        return None
    own = _map(xy, visible, cameras, seed)
    if own is None:
        return None
    own_cameras, placed = own
    points = triangulate(xy, visible & placed[:, None], own_cameras)
    agreeing = points.agrees.sum() / max((visible & placed[:, None]).sum(), 1)
    if (placed & enough).sum() < REGISTERED_SHARE * enough.sum() or agreeing < AGREEING_SHARE:
        return None
    depth = _depths(xy, visible, points, own_cameras, placed)
    if not _believable(xy, visible, depth, float(cameras.K[0, 0, 0])):
        return None
    long = points.agrees.sum(0) >= half_life(points.agrees)
    return RigidMotion(depth, points.agrees & long, placed)


def metric_depth(
    motion: RigidMotion, xy: Float[np.ndarray, "F N 2"], surface: Sequence[Float[np.ndarray, "H W"]]
) -> Float[np.ndarray, "F N"] | None:
    """World z-depths of the tracks: the largest scale at which the mover does not sink into what lies behind it.

    A mover that stands on the ground touches it with its lowest points; one that does not may be nearer than this.

    Args:
        xy: the tracks in pixels.
        surface: the background's depth map in each frame, also behind the mover; inf where there is none.

    Returns:
        None where no background lies behind the mover.
    """
    scales = []
    for t in np.flatnonzero(motion.placed):
        sure = np.flatnonzero(motion.sure[t])
        height, width = surface[t].shape
        x, y = xy[t, sure].astype(np.int64).clip(0, [width - 1, height - 1]).T
        ratio = surface[t][y, x] / motion.depth[t, sure]
        ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
        if len(ratio) >= MIN_SHARED:
            scales.append(np.sort(ratio)[int(SUNK_SHARE * len(ratio)) + 1])
    return float(np.median(scales)) * motion.depth if scales else None


def _map(xy: np.ndarray, visible: np.ndarray, cameras: Cameras, seed: int) -> tuple[Cameras, np.ndarray] | None:
    """Cameras round the mover, and the frames that have one."""
    longest = max(cameras.width, cameras.height)
    subset = thin(xy, visible, max(4, longest // 80), min_length=3)
    focal = float(cameras.K[:, 0, 0].mean())
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        write_database(database, xy[:, subset], visible[:, subset], cameras.width, cameras.height, focal)
        model = run_mapper("incremental", database, Path(folder), seed, refine_focal_length=False)
    if model is None or model.num_reg_images() < 3:
        return None
    poses, placed, *_ = poses_of(model, len(xy))
    own = Cameras(cameras.K, torch.from_numpy(poses), cameras.width, cameras.height)
    points = triangulate(xy, visible & placed[:, None], own)
    good = points.agrees[:, subset].sum(0) >= 3
    chosen = subset[good]
    if len(chosen) < MIN_SHARED:
        return own, placed
    return bundle_adjust(own, points.xyz[chosen], xy[:, chosen], points.agrees[:, chosen], False), placed


def _depths(xy: np.ndarray, visible: np.ndarray, points: Points, cameras: Cameras, placed: np.ndarray) -> np.ndarray:
    """Depth of each track's point; where a track has none, or slipped off it, that of points seen next to it."""
    known = np.isfinite(points.xyz).all(1)
    xyz = torch.from_numpy(np.where(known[:, None], points.xyz, 0.0))
    depth = np.concatenate([cameras[[t]].project(xyz)[1].numpy() for t in range(len(cameras))])
    out = np.full(depth.shape, np.nan)
    for t in np.flatnonzero(placed):
        sure = points.agrees[t].copy()
        low, high = _range(depth[t, sure]) if sure.any() else (0.0, 0.0)
        inside = known & (depth[t] > low) & (depth[t] < high)
        out[t, inside] = depth[t, inside]
        sure &= inside
        lost = visible[t] & ~sure
        if lost.any() and sure.any():
            _, near = cKDTree(xy[t, sure]).query(xy[t, lost], min(NEIGHBOURS, sure.sum()))
            out[t, lost] = 1 / np.median(1 / depth[t, sure][near.reshape(lost.sum(), -1)], 1)
    return out


def _range(depth: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Depths that a mover's points may have: those of nearly all, and half as much beyond."""
    low, high = np.quantile(depth, [0.02, 0.98])
    return max(low - (high - low) / 2, 0.5 * low), high + (high - low) / 2


def _believable(xy: np.ndarray, visible: np.ndarray, depth: np.ndarray, focal: float) -> bool:
    """Whether the shape is about as deep as it is wide: with too little turning, depth is a guess."""
    reliefs = []
    for t in range(len(xy)):
        seen = visible[t] & np.isfinite(depth[t])
        if seen.sum() >= MIN_SHARED:
            z = depth[t, seen]
            extent = np.ptp(np.quantile(xy[t, seen], [0.05, 0.95], axis=0), axis=0).max() * np.median(z) / focal
            reliefs.append(np.ptp(np.quantile(z, [0.05, 0.95])) / max(extent, 1e-9))
    return bool(reliefs) and np.median(reliefs) < MOST_RELIEF
