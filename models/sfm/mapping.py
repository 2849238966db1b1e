"""2D tracks of the static scene -> a camera for each frame, by COLMAP's mappers.

Neither of them is enough alone, so results are judged and the other tried. What the incremental one
takes grows with the square of the frames: of a long clip key frames are mapped, and the others
placed by the points of those.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation, Slerp

from models.cameras import Cameras
from models.sfm.colmap import bundle_adjust, poses_of, resect, run_mapper, write_database
from models.sfm.triangulation import UNSURE, triangulate
from models.tracking import half_life

Progress = Callable[[str, int, int], None]
"""Is told a stage, how many of its steps are done, and of how many."""
Mapped = tuple[Cameras, Bool[np.ndarray, "F"], str]
"""A camera for each frame, which of them are not interpolated, and the mapper."""
MIN_TRACKS = 30
"""Tracks in a frame below which no camera can be told."""
MOST_MAPPED = 200
"""Frames that are mapped; of a clip with more, so many key frames."""
KEYS_OF_A_TRACK = 8
"""Key frames in which half of the tracks' sightings should lie, by the length of their tracks."""
WELL_MAPPED = 0.9
"""Share of the key frames that the mapper must place; with fewer, twice as many key frames are
tried."""


def map_cameras(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    width: int,
    height: int,
    seed: int,
    report: Callable[[str], None],
    progress: Progress,
) -> Mapped | None:
    """Cameras of tracks in pixels, in the scene's own scale; None where no mapper can place half of
    the frames."""
    step = _key_step(visible)
    while step > 1:
        keys = _keys(len(xy), step)
        mapped = _map(xy[keys], visible[keys], width, height, seed, report, progress)
        if mapped is not None and mapped[1].mean() >= WELL_MAPPED:
            return _with_others(xy, visible, keys, mapped)
        step //= 2
    return _map(xy, visible, width, height, seed, report, progress)


def adjust_cameras(
    cameras: Cameras,
    xyz: Float[np.ndarray, "N 3"],
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
) -> Cameras:
    """``bundle_adjust``; of a long clip only key frames, as what it takes grows with the square of
    a track's length."""
    step = _key_step(visible)
    if step == 1:
        return bundle_adjust(cameras, xyz, xy, visible)
    keys = _keys(len(xy), step)
    moved = bundle_adjust(cameras[keys.tolist()], xyz, xy[keys], visible[keys])
    return _with_others(xy, visible, keys, (moved, np.ones(len(keys), bool), ""))[0]


def _keys(num_frames: int, step: int) -> Int[np.ndarray, "k"]:
    """Every ``step``-th frame, and the last."""
    return np.unique([*range(0, num_frames, step), num_frames - 1])


def _key_step(visible: Bool[np.ndarray, "F N"]) -> int:
    """Frames from one key frame to the next."""
    wanted = -(-len(visible) // MOST_MAPPED)
    longest = 2 * half_life(visible) / KEYS_OF_A_TRACK
    return max(1, min(wanted, int(longest)))


def _with_others(
    xy: np.ndarray, visible: np.ndarray, keys: Int[np.ndarray, "k"], mapped: Mapped
) -> Mapped:
    """Cameras of all frames from those of the key frames: the others are placed by the points that
    these see."""
    cameras, key_registered, method = mapped
    points = triangulate(xy[keys], visible[keys] & key_registered[:, None], cameras)
    sure = np.isfinite(points.xyz).all(1) & (points.uncertainty < UNSURE)
    K = cameras.K[0].numpy()
    poses = np.tile(np.eye(4), (len(xy), 1, 1))
    registered = np.zeros(len(xy), bool)
    poses[keys] = cameras.world_from_cam.numpy()
    registered[keys] = key_registered
    for t in np.setdiff1d(np.arange(len(xy)), keys):
        seen = np.flatnonzero(visible[t] & sure)
        pose = resect(K, cameras.width, cameras.height, points.xyz[seen], xy[t, seen])
        if pose is not None:
            poses[t] = pose
            registered[t] = True
    shared = cameras.K[:1].repeat(len(xy), 1, 1)
    poses = torch.from_numpy(interpolated(poses, registered))
    return replace(cameras, K=shared, world_from_cam=poses), registered, method


def _next(progress: Progress, placed: Iterator[int], total: int) -> None:
    progress("mapping", min(next(placed), total - 1), total)


def _map(
    xy: np.ndarray,
    visible: np.ndarray,
    width: int,
    height: int,
    seed: int,
    report: Callable[[str], None],
    progress: Progress,
) -> Mapped | None:
    """The better of incremental and global mapping; the second runs only where the first is not
    convincing."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        write_database(database, xy, visible, width, height)
        for method in ("incremental", "global"):
            placed = itertools.count(
                3
            )  # the first two come together; a mapper that starts again counts on
            told = partial(_next, progress, placed, len(xy))
            model = run_mapper(method, database, Path(folder), seed, placed=told)
            progress("mapping", len(xy), len(xy))
            if model is None:
                report(f"{method} mapping: no model")
                continue
            frames = model.num_reg_images()
            length = model.compute_mean_track_length()
            error = model.compute_mean_reprojection_error()
            report(
                f"{method} mapping: {frames} of {len(xy)} frames, {error:.2f} px, {length:.0f} frames a point"
            )
            results.append((frames, -error, model, method))
            if frames == len(xy) and error < 1.5 and length >= min(8, len(xy) / 3):
                break
    if not results:
        return None
    *_, model, method = max(results, key=lambda r: (round(20 * r[0] / len(xy)), r[1]))
    if model.num_reg_images() < max(2, len(xy) // 2):
        return None
    poses, registered, K, points = poses_of(model, len(xy))
    poses = _in_own_scale(interpolated(poses, registered), int(registered.argmax()), points)
    shared = torch.from_numpy(np.tile(K, (len(xy), 1, 1)))
    return Cameras(shared, torch.from_numpy(poses), width, height), registered, method


def _in_own_scale(
    world_from_cam: Float[np.ndarray, "F 4 4"], first: int, points: Float[np.ndarray, "P 3"]
) -> Float[np.ndarray, "F 4 4"]:
    """Poses in the scene's own scale: median point depth 1, the first registered camera as the
    world's axes."""
    from_world = np.linalg.inv(world_from_cam[first])
    local = points @ from_world[:3, :3].T + from_world[:3, 3]
    ahead = local[:, 2][local[:, 2] > 0]
    moved = from_world @ world_from_cam
    moved[:, :3, 3] /= np.median(ahead) if len(ahead) else 1.0
    return moved


def interpolated(
    poses: Float[np.ndarray, "F 4 4"], registered: Bool[np.ndarray, "F"]
) -> Float[np.ndarray, "F 4 4"]:
    """Poses of unregistered frames from their neighbours in time (held at the ends)."""
    known = np.flatnonzero(registered)
    if len(known) == 1:
        return np.repeat(poses[known], len(poses), 0)
    times = np.clip(np.arange(len(poses)), known[0], known[-1])
    filled = poses.copy()
    filled[:, :3, :3] = Slerp(known, Rotation.from_matrix(poses[known, :3, :3]))(times).as_matrix()
    for axis in range(3):
        filled[:, axis, 3] = np.interp(times, known, poses[known, axis, 3])
    filled[registered] = poses[registered]
    return filled
