"""2D tracks of the static scene -> a camera for each frame, by COLMAP's mappers.

Neither mapper is enough alone, so the result is judged and the other mapper tried. The time of
incremental mapping grows with the square of the frames: in a long clip only keyframes are mapped,
and the other frames are registered by the keyframes' points.
"""

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from models.cameras import Cameras, interpolate_poses
from models.run import SILENT, Progress
from models.sfm.adjustment import (
    LOSS_SCALE,
    adjust_fit,
    bundle_adjust,
    choose_depth_order,
    compare_cost,
    find_zoom,
    grow_cameras,
    measure_fit,
    rescale,
)
from models.sfm.colmap import read_poses, resect_frames, run_mapper, write_database
from models.sfm.options import CameraOptions
from models.sfm.triangulation import AGREEING, triangulate
from models.sfm.windows import Mapped, map_in_windows
from models.tracking import half_life
from models.tracks import PointTracks

MIN_TRACKS = 30
"""Tracks in a frame below which its camera cannot be solved."""
# Frames of the clip over which a point of a convincing mapping is seen on average, at most.
_CONVINCING_LENGTH = 8
# Cost of cameras grown from two frames, in costs of the mapper's, up to which they are preferred, and
# the share of the observations that must agree with them.
_CLEAR_GAIN = 0.95
_LEAST_AGREEING = 0.5
# Reaches (``_measure_reach``) from which a clip is mapped in windows, and the reprojection errors in
# pixels up to which observations count in the rounds of bundle adjustment after the join.
_LONG_WAY = 40
_CLOSING_LIMITS = (32.0, 12.0, 5.0, AGREEING, AGREEING)
# Reaches of a window, if that is more than ``CameraOptions.window_frames``. Larger takes fewer and
# longer windows; from ``CameraOptions.most_mapped`` on keyframes lie too far apart.
_WINDOW = 18
# Registered frames are compared in steps of a twentieth of the clip, and the error within a step.
_STEPS = 20


def map_cameras(
    tracks: PointTracks,
    seed: int,
    progress: Progress = SILENT,
    options: CameraOptions = CameraOptions(),
) -> Mapped | None:
    """Cameras of tracks; None if no mapper registers half of the frames.

    Args:
        progress: hears the stage "mapping", and the figures of each mapper that is tried.
    """
    step = _choose_keyframe_step(tracks.visible, options.most_mapped, options)
    while step > 1:
        keys = _list_keyframes(len(tracks), step)
        mapped = _map_frames(tracks.select_frames(keys), seed, progress, options, step)
        if mapped is not None and mapped.registered.mean() >= options.well_mapped:
            every = _register_others(tracks, keys, mapped, options)
            is_long = len(tracks) > options.most_keyframes
            return every if is_long else _adjust_all(every, tracks, options)
        # Too few keyframes were registered: twice as many.
        step //= 2
    return _map_frames(tracks, seed, progress, options)


def is_long_way(tracks: PointTracks, options: CameraOptions = CameraOptions()) -> bool:
    """Whether points are in view for so short a part of a clip that it is mapped in windows."""
    reach = _measure_reach(tracks.visible, options)
    return len(tracks) > max(2 * options.window_frames, _LONG_WAY * reach)


def map_long_way(
    tracks: PointTracks,
    few: PointTracks,
    map_window: Callable[[PointTracks], Mapped | None],
    progress: Progress = SILENT,
    options: CameraOptions = CameraOptions(),
) -> Mapped | None:
    """Cameras of a long way: windows of frames are mapped and joined, and keyframes of all of the clip
    adjusted together. None if a window cannot be mapped.

    Args:
        few: the tracks by which windows are joined and cameras adjusted.
        map_window: cameras of some successive frames from their tracks.
        progress: hears the windows of the stage "mapping".
    """
    reach = _measure_reach(tracks.visible, options)
    window = max(options.window_frames, round(_WINDOW * reach))
    windowed = replace(options, window_frames=window)
    adjust = partial(adjust_cameras, options=options, refine_focal_length=False)
    joined = map_in_windows(tracks, few, map_window, adjust, progress, windowed)
    if joined is None:
        progress.say(
            "a window cannot be mapped, or the lens zooms: all of the clip is mapped at once"
        )
        return None
    keys = _list_keyframes(len(few), -(-len(few) // options.most_keyframes))
    among_keys = few.select_frames(keys)
    mapped = Mapped(joined[keys.tolist()], np.ones(len(keys), bool), "windows")
    # Joints of windows are off by many pixels at first: a narrow limit would cut what ties them.
    for limit in _CLOSING_LIMITS:
        mapped = _adjust_all(mapped, among_keys, options, limit)
    return _register_others(few, keys, mapped, options)


def _adjust_all(
    mapped: Mapped, tracks: PointTracks, options: CameraOptions, limit: float = AGREEING
) -> Mapped:
    """The cameras of all frames adjusted together: frames between keyframes were only registered.

    Args:
        limit: reprojection error in pixels up to which observations count.
    """
    used = tracks.restrict(mapped.registered[:, None])
    points = triangulate(used, mapped.cameras, limit=limit)
    chosen = np.flatnonzero(points.agrees.sum(0) >= 2)
    agreeing = replace(used, visible=points.agrees).select(chosen)
    scale = LOSS_SCALE * limit / AGREEING
    cameras = adjust_cameras(mapped.cameras, points.xyz[chosen], agreeing, options, scale)
    return replace(mapped, cameras=cameras)


def adjust_cameras(
    cameras: Cameras,
    xyz: Float[np.ndarray, "N 3"],
    tracks: PointTracks,
    options: CameraOptions = CameraOptions(),
    loss_scale: float = LOSS_SCALE,
    refine_focal_length: bool = True,
) -> Cameras:
    """``bundle_adjust``, in a long clip of keyframes only: its time grows with the square of the
    length of a track."""
    step = _choose_keyframe_step(tracks.visible, options.most_keyframes, options)
    if step == 1:
        return bundle_adjust(cameras, xyz, tracks, refine_focal_length, loss_scale)
    keys = _list_keyframes(len(tracks), step)
    given = cameras[keys.tolist()], xyz, tracks.select_frames(keys)
    moved = bundle_adjust(*given, refine_focal_length, loss_scale)
    mapped = Mapped(moved, np.ones(len(keys), bool), "")
    return _register_others(tracks, keys, mapped, options).cameras


def _list_keyframes(num_frames: int, step: int) -> Int[np.ndarray, "k"]:
    """Every ``step``-th frame, and the last."""
    return np.unique([*range(0, num_frames, step), num_frames - 1])


def _choose_keyframe_step(
    visible: Bool[np.ndarray, "F N"], most: int, options: CameraOptions
) -> int:
    """Frames from one keyframe to the next.

    Args:
        most: keyframes.
    """
    wanted = -(-len(visible) // most)
    return max(1, min(wanted, int(_measure_reach(visible, options))))


def _measure_reach(visible: Bool[np.ndarray, "F N"], options: CameraOptions) -> float:
    """Most frames from a keyframe to the next with which a track of median length is visible in
    enough of them."""
    return 2 * half_life(visible) / options.keyframes_per_track


def _register_others(
    tracks: PointTracks, keys: Int[np.ndarray, "k"], mapped: Mapped, options: CameraOptions
) -> Mapped:
    """Cameras of all frames: frames between keyframes are registered by the keyframes' points."""
    cameras = mapped.cameras
    among_keys = tracks.select_frames(keys).restrict(mapped.registered[:, None])
    points = triangulate(among_keys, cameras)
    poses = np.tile(np.eye(4), (len(tracks), 1, 1))
    registered = np.zeros(len(tracks), bool)
    poses[keys] = cameras.world_from_cam.numpy()
    registered[keys] = mapped.registered
    K = _interpolate_intrinsics(cameras.K, keys, len(tracks))
    others = np.setdiff1d(np.arange(len(tracks)), keys)
    every = replace(cameras, K=K, world_from_cam=torch.from_numpy(poses))
    found = resect_frames(every, tracks, points, others, options.registration_error)
    for t, pose in found.items():
        poses[t] = pose
        registered[t] = True
    poses = torch.from_numpy(interpolate_poses(poses, registered))
    every = replace(cameras, K=K, world_from_cam=poses)
    return replace(mapped, cameras=every, registered=registered)


def _interpolate_intrinsics(
    K: Float[torch.Tensor, "k 3 3"], keys: Int[np.ndarray, "k"], num_frames: int
) -> Float[torch.Tensor, "F 3 3"]:
    """Intrinsics of all frames from those of the keyframes, which differ in a zoom."""
    flat = K.double().numpy().reshape(len(keys), 9)
    times = np.arange(num_frames)
    filled = np.stack([np.interp(times, keys, column) for column in flat.T], 1)
    return torch.from_numpy(filled.reshape(-1, 3, 3)).to(K)


def _map_frames(
    tracks: PointTracks, seed: int, progress: Progress, options: CameraOptions, step: int = 1
) -> Mapped | None:
    """The best of incremental mapping, global mapping and growth from two frames; the others run only
    where incremental mapping is not convincing.

    Args:
        step: frames of the clip from one frame to the next.
    """
    results = _run_mappers(tracks, seed, progress, options, step)
    mapped = None
    if results:
        best = max(results, key=lambda r: (round(_STEPS * r.frames / len(tracks)), -r.error))
        mapped = _read_mapped(best.model, tracks, best.method)
    if not (results and results[0].convincing and results[0].method == "incremental"):
        mapped = _prefer_grown(mapped, tracks, progress)
    return mapped and _correct(mapped, tracks, progress)


@dataclass(frozen=True)
class _Result:
    """A model with its figures."""

    method: str
    model: object
    frames: int
    """Registered."""
    error: float
    """Mean reprojection error in pixels."""
    convincing: bool


def _run_mappers(
    tracks: PointTracks, seed: int, progress: Progress, options: CameraOptions, step: int
) -> list[_Result]:
    """Models of incremental mapping and, where that is not convincing, of global mapping."""
    total = len(tracks)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        write_database(database, tracks)
        for method in ("incremental", "global"):
            hear = _count_registered(progress, total)
            model = run_mapper(method, database, Path(folder), seed, placed=hear)
            progress.step("mapping", total, total)
            if model is None:
                progress.say(f"{method} mapping: no model")
                continue
            results.append(_judge(method, model, total, progress, step, options.convincing))
            if results[-1].convincing:
                break
    return results


def _judge(
    method: str, model: object, total: int, progress: Progress, step: int, limit: float
) -> _Result:
    """The figures of a model, which ``progress`` hears.

    Args:
        limit: reprojection error in pixels of a convincing model.
    """
    frames = model.num_reg_images()
    length = model.compute_mean_track_length()
    error = model.compute_mean_reprojection_error()
    progress.say(
        f"{method} mapping: {frames} of {total} frames, {error:.2f} px, {length:.0f} frames a point"
    )
    long = step * length >= min(_CONVINCING_LENGTH, step * total / 3)
    convincing = frames == total and error < limit and long
    return _Result(method, model, frames, error, convincing)


def _prefer_grown(mapped: Mapped | None, tracks: PointTracks, progress: Progress) -> Mapped | None:
    """Cameras grown from two frames, if they place half of the frames, no fewer than the mapper, and
    explain the tracks clearly better; else as mapped."""
    grown = grow_cameras(tracks, progress)
    if grown is None:
        return mapped
    agrees = grown.fit.agrees
    share = agrees.sum() / max(tracks.visible.sum(), 1)
    error = grown.fit.error[agrees].mean() if agrees.any() else np.inf
    progress.say(
        f"growth from two frames: {grown.placed.sum()} of {len(tracks)} frames, {error:.2f} px, "
        f"{100 * share:.0f} % of the observations agree"
    )
    if grown.placed.mean() < 0.5 or share < _LEAST_AGREEING:
        return mapped
    if mapped is not None:
        used = tracks.restrict(mapped.registered[:, None])
        if _count_steps(grown.placed) < _count_steps(mapped.registered):
            return mapped
        if compare_cost(grown.fit, adjust_fit(measure_fit(mapped.cameras, used))) > _CLEAR_GAIN:
            return mapped
    return Mapped(rescale(grown.fit), grown.placed, "grown")


def _count_steps(registered: Bool[np.ndarray, "F"]) -> int:
    """Registered frames in steps of the clip."""
    return round(_STEPS * float(registered.mean()))


def _correct(mapped: Mapped, tracks: PointTracks, progress: Progress) -> Mapped:
    """The cameras with near and far the right way round, and with a zoom."""
    used = tracks.restrict(mapped.registered[:, None])
    ordered = choose_depth_order(mapped.cameras, used, progress)
    cameras = find_zoom(ordered.cameras, used, progress)
    return replace(mapped, cameras=cameras, doubtful=ordered.doubtful)


def _count_registered(progress: Progress, total: int) -> Callable[[], None]:
    """A function to call for each frame that a mapper registers."""
    # The first two frames come together. A mapper that starts again counts on.
    registered = itertools.count(3)

    def hear() -> None:
        progress.step("mapping", min(next(registered), total - 1), total)

    return hear


def _read_mapped(model: object, tracks: PointTracks, method: str) -> Mapped | None:
    """Cameras of all frames from a model; None if it registers less than half of them."""
    if model.num_reg_images() < max(2, len(tracks) // 2):
        return None
    poses, registered, K, points = read_poses(model, len(tracks))
    poses = _normalize(interpolate_poses(poses, registered), int(registered.argmax()), points)
    shared = torch.from_numpy(np.tile(K, (len(tracks), 1, 1)))
    cameras = Cameras(shared, torch.from_numpy(poses), tracks.width, tracks.height)
    return Mapped(cameras, registered, method)


def _normalize(
    world_from_cam: Float[np.ndarray, "F 4 4"], first: int, points: Float[np.ndarray, "P 3"]
) -> Float[np.ndarray, "F 4 4"]:
    """Poses in the scene's own frame and scale: camera ``first`` at the origin, median depth 1
    there."""
    from_world = np.linalg.inv(world_from_cam[first])
    local = points @ from_world[:3, :3].T + from_world[:3, 3]
    ahead = local[:, 2][local[:, 2] > 0]
    moved = from_world @ world_from_cam
    # Points behind the first camera are errors of the mapper.
    moved[:, :3, 3] /= np.median(ahead) if len(ahead) else 1.0
    return moved
