"""Rigid movers: structure from motion on a mover's own tracks, as if it stood still and the camera
went round it."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.clip import split_into_stretches
from models.sfm import (
    MIN_SHARED,
    Points,
    bundle_adjust,
    poses_of,
    run_mapper,
    triangulate,
    write_database,
)
from models.tracking import half_life, thin

REGISTERED_SHARE = 0.8
"""Share of the frames with enough tracks that must be placed for a mover to be taken as rigid."""
AGREEING_SHARE = 0.75
"""Share of the sightings that must agree with the rigid shape."""
MOST_RELIEF = 2.0
"""Depth range of a believable shape, as a share of its width or height, whichever is larger."""
SUNK_SHARE = 0.005
"""Share of a mover's points, and one more, that may lie behind the background by error."""
WHOLE = 100
SHARED = 20
"""Frames that are mapped at once, at most, and those that two stretches of a longer clip share: the
time that mapping takes grows faster than the frames."""
NEIGHBOURS = 4
"""Points of the shape that a track without one takes its depth from."""


@dataclass(frozen=True)
class RigidMotion:
    """A mover's shape as each frame's camera sees it, up to one scale."""

    depth: Float[np.ndarray, "F N"]
    """z-depth of each track, seen or not, in units of the mover's own; NaN in frames that were not
    placed."""
    sure: Bool[np.ndarray, "F N"]
    """Sightings of long tracks that agree with the shape: a shadow's or a slipping one soon
    ends."""
    placed: Bool[np.ndarray, "F"]
    """Frames whose camera is known relative to the mover."""


def solve_rigid(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    cameras: Cameras,
    seed: int = 0,
) -> RigidMotion | None:
    """Depths of one mover's tracks, None where no rigid shape explains them.

    Args:
        xy: 2D tracks of the mover in pixels.
        visible: which of them were seen.
        cameras: the clip's; only their intrinsics are used.
    """
    if len(xy) > WHOLE:
        return _solve_long(xy, visible, cameras, seed)
    if _enough(visible).sum() < 3:
        return None
    xy = xy.astype(np.float64)
    own = _map(xy, visible, cameras, seed)
    if own is None:
        return None
    own_cameras, placed = own
    points = triangulate(xy, visible & placed[:, None], own_cameras)
    if not _explains(points, visible, placed):
        return None
    depth = _depths(xy, visible, points, own_cameras, placed)
    if not _believable(xy, visible, depth, float(cameras.K[0, 0, 0])):
        return None
    long = points.agrees.sum(0) >= half_life(points.agrees)
    return RigidMotion(depth, points.agrees & long, placed)


def metric_depth(
    motion: RigidMotion, xy: Float[np.ndarray, "F N 2"], surface: Sequence[Float[np.ndarray, "H W"]]
) -> Float[np.ndarray, "F N"] | None:
    """World z-depths of the tracks: the largest scale at which the mover does not sink into what
    lies behind it.

    A mover that stands on the ground touches it with its lowest points; one that does not may be
    nearer than this.

    Args:
        xy: the tracks in pixels.
        surface: the background's depth map in each frame, also behind the mover; inf where there is
            none.

    Returns:
        None where no background lies behind the mover.
    """
    scales = []
    for t in np.flatnonzero(motion.placed):
        sure = np.flatnonzero(motion.sure[t])
        behind = surface[t]  # drawn when asked for
        height, width = behind.shape
        x, y = xy[t, sure].astype(np.int64).clip(0, [width - 1, height - 1]).T
        ratio = behind[y, x] / motion.depth[t, sure]
        ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
        if len(ratio) >= MIN_SHARED:
            scales.append(np.sort(ratio)[int(SUNK_SHARE * len(ratio)) + 1])
    return float(np.median(scales)) * motion.depth if scales else None


def _map(
    xy: np.ndarray, visible: np.ndarray, cameras: Cameras, seed: int
) -> tuple[Cameras, np.ndarray] | None:
    """Cameras round the mover, and the frames that have one."""
    longest = max(cameras.width, cameras.height)
    subset = thin(xy, visible, max(4, longest // 80), min_length=3)
    focal = float(cameras.K[:, 0, 0].mean())
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        write_database(
            database, xy[:, subset], visible[:, subset], cameras.width, cameras.height, focal
        )
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
    return bundle_adjust(
        own, points.xyz[chosen], xy[:, chosen], points.agrees[:, chosen], False
    ), placed


def _enough(visible: Bool[np.ndarray, "F N"]) -> Bool[np.ndarray, "F"]:
    """Frames that see enough of a mover to be placed."""
    return visible.sum(1) >= MIN_SHARED


def _explains(
    points: Points, visible: Bool[np.ndarray, "F N"], placed: Bool[np.ndarray, "F"]
) -> bool:
    """Whether a rigid shape places most frames, and most sightings agree with it."""
    enough = _enough(visible)
    agreeing = points.agrees.sum() / max((visible & placed[:, None]).sum(), 1)
    return (placed & enough).sum() >= REGISTERED_SHARE * enough.sum() and agreeing >= AGREEING_SHARE


def _solve_long(
    xy: np.ndarray, visible: np.ndarray, cameras: Cameras, seed: int
) -> RigidMotion | None:
    """``solve_rigid`` in stretches, each solved as a short clip is and brought to the unit of those
    before it.

    A mover that is not rigid is thus given up at its first stretch. Depths change over from one
    stretch to the next in the frames that they share.
    """
    enough = np.flatnonzero(_enough(visible))
    if len(enough) < 3:
        return None
    depth = np.full(visible.shape, np.nan)
    sure = np.zeros(visible.shape, bool)
    placed = np.zeros(len(xy), bool)
    for frames in _stretches(int(enough[0]), int(enough[-1]) + 1):
        part = slice(frames[0], frames[-1] + 1)
        tracks = np.flatnonzero(visible[part].any(0))
        found = solve_rigid(xy[part, tracks], visible[part, tracks], cameras[part], seed)
        if found is None:
            return None
        before = depth[part, tracks]
        scale = 1.0
        if placed.any():
            both = sure[part, tracks] & found.sure
            if both.sum() < MIN_SHARED:
                return None
            scale = float(np.median(before[both] / found.depth[both]))
        share = np.clip((np.arange(len(frames)) + 1) / (SHARED + 1), 0, 1)[:, None]
        after = scale * found.depth
        joined = np.where(np.isnan(after), before, (1 - share) * before + share * after)
        depth[part, tracks] = np.where(np.isnan(before), after, joined)
        sure[part, tracks] |= found.sure
        placed[part] |= found.placed
    return RigidMotion(depth, sure, placed)


def _stretches(begin: int, end: int) -> list[range]:
    """Frames [begin, end) in stretches of at most ``WHOLE``, each with ``SHARED`` of the next."""
    parts = split_into_stretches(begin, end - SHARED, WHOLE - SHARED)
    return [range(max(begin, part.start), part.stop + SHARED) for part in parts]


def _depths(
    xy: np.ndarray, visible: np.ndarray, points: Points, cameras: Cameras, placed: np.ndarray
) -> np.ndarray:
    """Depth of each track's point; where a track has none, or slipped off it, that of points seen
    next to it."""
    known = np.isfinite(points.xyz).all(1)
    xyz = torch.from_numpy(np.where(known[:, None], points.xyz, 0.0))
    out = np.full(visible.shape, np.nan)
    for t in np.flatnonzero(placed):
        depth = cameras[[t]].project(xyz)[1][0].numpy()
        sure = points.agrees[t].copy()
        low, high = _range(depth[sure]) if sure.any() else (0.0, 0.0)
        inside = known & (depth > low) & (depth < high)
        out[t, inside] = depth[inside]
        sure &= inside
        lost = visible[t] & ~sure
        if lost.any() and sure.any():
            _, near = cKDTree(xy[t, sure]).query(xy[t, lost], min(NEIGHBOURS, sure.sum()))
            out[t, lost] = 1 / np.median(1 / depth[sure][near.reshape(lost.sum(), -1)], 1)
    return out


def _range(depth: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Depths that a mover's points may have: those of nearly all, and half as much beyond."""
    low, high = np.quantile(depth, [0.02, 0.98])
    return max(low - (high - low) / 2, 0.5 * low), high + (high - low) / 2


def _believable(xy: np.ndarray, visible: np.ndarray, depth: np.ndarray, focal: float) -> bool:
    """Whether the shape is about as deep as it is wide: with too little turning, depth is a
    guess."""
    reliefs = []
    for t in range(len(xy)):
        seen = visible[t] & np.isfinite(depth[t])
        if seen.sum() >= MIN_SHARED:
            z = depth[t, seen]
            extent = (
                np.ptp(np.quantile(xy[t, seen], [0.05, 0.95], axis=0), axis=0).max()
                * np.median(z)
                / focal
            )
            reliefs.append(np.ptp(np.quantile(z, [0.05, 0.95])) / max(extent, 1e-9))
    return bool(reliefs) and np.median(reliefs) < MOST_RELIEF
