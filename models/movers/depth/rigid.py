"""Relative depth of a rigid mover: structure from motion on its own tracks, as if the mover stood
still and the camera moved around it."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from pycolmap import Reconstruction
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.clip import split_into_stretches
from models.movers.options import MoverOptions
from models.sfm import (
    MIN_SHARED,
    Points,
    bundle_adjust,
    read_poses,
    run_mapper,
    triangulate,
    write_database,
)
from models.tracking import half_life, thin
from models.tracks import PointTracks

# Frames below which no shape is solved.
_MIN_FRAMES = 3
# Tracks for the mapper: their spacing as a share of the longer side and in pixels at least, and
# their observations at least.
_SPACING_SHARE = 80
_MIN_SPACING = 4
_MIN_LENGTH = 3
# Tracks in a mean frame that the mapper takes at half the density: its time grows with them.
_ENOUGH_TRACKS = 120
# Points of the shape around a track that give it a depth where it has none, or juts out from them.
_NEIGHBOURS = 7
# Distance in depth from the points around it, in medians of its frame, beyond which a point juts out.
_JUTTING = 5.0
# Quantiles of depth that hold nearly all points of a frame.
_DEPTH_QUANTILES = 0.02, 0.98
# Quantiles between which the extent of a shape is measured.
_EXTENT_QUANTILES = 0.05, 0.95


@dataclass(frozen=True)
class RelativeDepth:
    """A mover's shape as each frame's camera sees it, up to a common scale."""

    depth: Float[np.ndarray, "F N"]
    """z-depth of each track, visible or not, in units of the mover; NaN in frames that were not
    placed."""
    sure: Bool[np.ndarray, "F N"]
    """Observations of long tracks that agree with the shape: tracks on a shadow, and tracks that
    slip, end soon."""
    placed: Bool[np.ndarray, "F"]
    """Frames whose camera is known relative to the mover."""
    mover_from_cam: Float[np.ndarray, "F 4 4"] | None = None
    """Poses of the placed frames' cameras in the mover's axes, in units of the mover; None for a
    mover that is not rigid or whose relief is not known."""
    is_flat: bool = False
    """Whether all tracks of a frame share a depth: the mover's relief is not known."""


def solve_rigid(
    tracks: PointTracks,
    cameras: Cameras,
    seed: int = 0,
    options: MoverOptions = MoverOptions(),
) -> RelativeDepth | None:
    """Depths of a mover's tracks; None if no rigid shape explains the tracks.

    A mover that deforms, or hardly turns, seems to be very deep; its distance in each frame is
    right all the same. The result is then flat.

    Args:
        tracks: of the mover.
        cameras: of the clip's frames; only intrinsics are used.
        seed: of the mapper.
    """
    solve = _solve_long if len(tracks) > options.rigid_frames else _solve_stretch
    shape = solve(tracks, cameras, seed, options)
    if shape is None:
        return None
    relief = _measure_relief(tracks, shape.depth, float(cameras.K[0, 0, 0]))
    return shape if relief < options.rigid_relief else _flatten(shape)


def _solve_stretch(
    tracks: PointTracks, cameras: Cameras, seed: int, options: MoverOptions
) -> RelativeDepth | None:
    """``solve_rigid`` of frames that the mapper gets at once, with any relief."""
    if _find_enough(tracks.visible).sum() < _MIN_FRAMES:
        return None
    tracks = replace(tracks, xy=tracks.xy.astype(np.float64))
    mapped = _map_cameras(tracks, cameras, seed, options)
    if mapped is None:
        return None
    own, placed = mapped
    points = triangulate(tracks.restrict(placed[:, None]), own)
    if not _is_explained(points, tracks.visible, placed, options):
        return None
    depth = _find_depths(tracks, points, own, placed)
    is_long = points.agrees.sum(0) >= half_life(points.agrees)
    poses = own.world_from_cam.double().numpy()
    return RelativeDepth(depth, points.agrees & is_long, placed, poses)


def _flatten(shape: RelativeDepth) -> RelativeDepth:
    """The shape with one depth a frame, the median of its sure observations; a frame without any is
    not placed."""
    known = shape.sure & np.isfinite(shape.depth)
    depth = np.full(shape.depth.shape, np.nan)
    placed = shape.placed & known.any(1)
    for t in np.flatnonzero(placed):
        depth[t] = np.median(shape.depth[t, known[t]])
    return replace(shape, depth=depth, placed=placed, mover_from_cam=None, is_flat=True)


def _map_cameras(
    tracks: PointTracks, cameras: Cameras, seed: int, options: MoverOptions
) -> tuple[Cameras, Bool[np.ndarray, "F"]] | None:
    """Cameras around the mover, and the frames with a camera; None if the mappers fail."""
    spacing = max(_MIN_SPACING, max(cameras.width, cameras.height) // _SPACING_SHARE)
    subset = thin(tracks, spacing, min_length=_MIN_LENGTH)
    few = thin(tracks, 2 * spacing, min_length=_MIN_LENGTH)
    if tracks.visible[:, few].sum() < _ENOUGH_TRACKS * tracks.visible.any(1).sum():
        few = subset
    model = _run_mappers(tracks.select(few), cameras, seed, options)
    if model is None:
        return None
    poses, placed, *_ = read_poses(model, len(tracks))
    own = Cameras(cameras.K, torch.from_numpy(poses), cameras.width, cameras.height)
    points = triangulate(tracks.restrict(placed[:, None]), own)
    chosen = subset[points.agrees[:, subset].sum(0) >= _MIN_LENGTH]
    if len(chosen) < MIN_SHARED:
        return own, placed
    agreeing = replace(tracks, visible=points.agrees).select(chosen)
    return bundle_adjust(own, points.xyz[chosen], agreeing, False), placed


def _run_mappers(
    tracks: PointTracks, cameras: Cameras, seed: int, options: MoverOptions
) -> Reconstruction | None:
    """The model of incremental mapping or, where that places too few frames, the model of global
    mapping if it places more; None if neither places enough for a shape.

    Incremental mapping begins with two frames, and ends early where the mover turned little between
    them.
    """
    wanted = options.rigid_registered * _find_enough(tracks.visible).sum()
    best = None
    most = _MIN_FRAMES - 1
    focal = float(cameras.K[:, 0, 0].mean())
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        write_database(database, tracks, focal)
        for method in ("incremental", "global"):
            given = method, database, Path(folder), seed
            model = run_mapper(*given, refine_focal_length=False)
            if model is not None and model.num_reg_images() > most:
                best = model
                most = model.num_reg_images()
            if most >= wanted:
                break
    return best


def _find_enough(visible: Bool[np.ndarray, "F N"]) -> Bool[np.ndarray, "F"]:
    """Frames that see enough of a mover to be placed."""
    return visible.sum(1) >= MIN_SHARED


def _is_explained(
    points: Points,
    visible: Bool[np.ndarray, "F N"],
    placed: Bool[np.ndarray, "F"],
    options: MoverOptions,
) -> bool:
    """Whether a rigid shape places most frames, and most observations agree with it."""
    enough = _find_enough(visible)
    agreeing = points.agrees.sum() / max((visible & placed[:, None]).sum(), 1)
    is_placed = (placed & enough).sum() >= options.rigid_registered * enough.sum()
    return is_placed and agreeing >= options.rigid_agreeing


def _solve_long(
    tracks: PointTracks, cameras: Cameras, seed: int, options: MoverOptions
) -> RelativeDepth | None:
    """``_solve_stretch`` in stretches of a long clip, all brought to the scale of the first.

    A mover that is not rigid is given up at its first stretch.
    """
    enough = np.flatnonzero(_find_enough(tracks.visible))
    if len(enough) < _MIN_FRAMES:
        return None
    depth = np.full(tracks.visible.shape, np.nan)
    sure = np.zeros(tracks.visible.shape, bool)
    poses = np.tile(np.eye(4), (len(tracks), 1, 1))
    whole = RelativeDepth(depth, sure, np.zeros(len(tracks), bool), poses)
    for frames in split_stretches(int(enough[0]), int(enough[-1]) + 1, options):
        part = slice(frames[0], frames[-1] + 1)
        subset = np.flatnonzero(tracks.visible[part].any(0))
        own = tracks.select_frames(part).select(subset)
        found = _solve_stretch(own, cameras[part], seed, options)
        if found is None or not _join(whole, found, part, subset, options.rigid_overlap):
            return None
    return whole


def _join(
    whole: RelativeDepth, found: RelativeDepth, part: slice, subset: np.ndarray, overlap: int
) -> bool:
    """Adds the motion of a stretch to that of the stretches before, in place; in shared frames
    depths change over linearly. False if shared observations are too few for a common scale.

    Args:
        part: frames of the stretch.
        subset: tracks of the stretch.
        overlap: frames that the stretch shares with the stretch before.
    """
    before = whole.depth[part, subset]
    scale = 1.0
    if whole.placed.any():
        both = whole.sure[part, subset] & found.sure
        if both.sum() < MIN_SHARED:
            return False
        scale = float(np.median(before[both] / found.depth[both]))
    _join_poses(whole, found, part, scale)
    share = np.clip((np.arange(len(before)) + 1) / (overlap + 1), 0, 1)[:, None]
    after = scale * found.depth
    joined = np.where(np.isnan(after), before, (1 - share) * before + share * after)
    whole.depth[part, subset] = np.where(np.isnan(before), after, joined)
    whole.sure[part, subset] |= found.sure
    whole.placed[part] |= found.placed
    return True


def _join_poses(whole: RelativeDepth, found: RelativeDepth, part: slice, scale: float) -> None:
    """Adds the poses of a stretch to those of the stretches before, in place; the axes are joined at
    the middle one of the frames that both place.

    Args:
        part: frames of the stretch.
        scale: units of the whole for a unit of the stretch.
    """
    before = whole.mover_from_cam[part]
    poses = found.mover_from_cam.copy()
    poses[:, :3, 3] *= scale
    shared = np.flatnonzero(whole.placed[part] & found.placed)
    if len(shared):
        middle = shared[len(shared) // 2]
        poses = before[middle] @ np.linalg.inv(poses[middle]) @ poses
    fresh = found.placed & ~whole.placed[part]
    before[fresh] = poses[fresh]


def split_stretches(begin: int, end: int, options: MoverOptions = MoverOptions()) -> list[range]:
    """Frames [begin, end) in stretches of at most ``rigid_frames``, each with ``rigid_overlap``
    frames of the next."""
    overlap = options.rigid_overlap
    parts = split_into_stretches(begin, end - overlap, options.rigid_frames - overlap)
    return [range(max(begin, part.start), part.stop + overlap) for part in parts]


def _find_depths(
    tracks: PointTracks, points: Points, cameras: Cameras, placed: Bool[np.ndarray, "F"]
) -> Float[np.ndarray, "F N"]:
    """Depth of each track's point; for a track without a point, that slipped off or whose point juts
    out, the median depth of points observed nearby."""
    known = np.isfinite(points.xyz).all(1)
    xyz = torch.from_numpy(np.where(known[:, None], points.xyz, 0.0))
    out = np.full(tracks.visible.shape, np.nan)
    for t in np.flatnonzero(placed):
        depth = cameras[t].project(xyz)[1][0].numpy()
        sure = points.agrees[t].copy()
        low, high = _find_range(depth[sure]) if sure.any() else (0.0, 0.0)
        inside = known & (depth > low) & (depth < high)
        out[t, inside] = depth[inside]
        sure &= inside
        seen = tracks.visible[t]
        if seen.any() and sure.any():
            count = min(_NEIGHBOURS, sure.sum())
            _, near = cKDTree(tracks.xy[t, sure]).query(tracks.xy[t, seen], count)
            around = 1 / np.median(1 / depth[sure][near.reshape(seen.sum(), -1)], 1)
            apart = np.abs(np.log(np.where(sure[seen], depth[seen], around) / around))
            juts = apart > _JUTTING * np.median(apart[sure[seen]])
            out[t, seen] = np.where(sure[seen] & ~juts, depth[seen], around)
    return out


def _find_range(depth: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Depths that a mover's points may have: the range of nearly all points, and half of it
    beyond."""
    low, high = np.quantile(depth, _DEPTH_QUANTILES)
    return max(low - (high - low) / 2, 0.5 * low), high + (high - low) / 2


def _measure_relief(tracks: PointTracks, depth: Float[np.ndarray, "F N"], focal: float) -> float:
    """Depth range of a shape as a share of its width or height, median over frames; inf if no frame
    sees enough points. With too little turning, depth is a guess and the relief large.

    Args:
        focal: focal length in pixels.
    """
    reliefs = []
    for t in range(len(tracks)):
        seen = tracks.visible[t] & np.isfinite(depth[t])
        if seen.sum() >= MIN_SHARED:
            z = depth[t, seen]
            span = np.ptp(np.quantile(tracks.xy[t, seen], _EXTENT_QUANTILES, axis=0), axis=0)
            extent = span.max() * np.median(z) / focal
            reliefs.append(np.ptp(np.quantile(z, _EXTENT_QUANTILES)) / max(extent, 1e-9))
    return float(np.median(reliefs)) if reliefs else np.inf
