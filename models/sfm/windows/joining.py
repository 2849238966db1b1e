"""The frames of a long way -> cameras, window by window.

The time of incremental mapping grows with the square of the frames, and a mapper that loses its way
once loses all that follows. So overlapping windows are mapped one by one, and joined by the
similarities between their shared frames.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from models.cameras import Cameras
from models.run import SILENT, Progress
from models.sfm.options import CameraOptions
from models.sfm.triangulation import triangulate
from models.sfm.windows.closing import close_loops, find_loops
from models.sfm.windows.window import Mapped, Window
from models.tracks import PointTracks

# Share of a window's frames that the next window has too.
_OVERLAP = 1 / 3
# Relative difference of the focal length up to which a window's cameras are kept as they are.
_SAME_FOCAL = 0.002


def map_in_windows(
    tracks: PointTracks,
    few: PointTracks,
    map_window: Callable[[PointTracks], Mapped | None],
    adjust: Callable[[Cameras, Float[np.ndarray, "n 3"], PointTracks], Cameras],
    progress: Progress = SILENT,
    options: CameraOptions = CameraOptions(),
) -> Cameras | None:
    """Cameras of all frames in the axes and units of the first window; None if a window cannot be
    mapped, or the lens zooms.

    Args:
        few: the tracks by which windows are joined.
        map_window: cameras of some successive frames from their tracks.
        adjust: cameras of a window adjusted to its points and their tracks, at their focal length.
        progress: hears the windows of the stage "mapping", and the loops.
    """
    windows = []
    for frames in progress.over(split_windows(len(tracks), options.window_frames), "mapping"):
        own = tracks.select_frames(frames)
        mapped = map_window(own.select(own.visible.sum(0) > 1))
        if mapped is None or mapped.registered.mean() < options.well_mapped:
            return None
        if (mapped.cameras.K[:1] != mapped.cameras.K).any():
            return None
        joining = few.select_frames(frames).restrict(mapped.registered[:, None])
        points = triangulate(joining, mapped.cameras)
        windows.append(Window(frames, joining, mapped.cameras, points))
    windows = _share_focal_length(windows, adjust)
    windows, cameras = _chain(windows, len(tracks))
    loops = find_loops(windows)
    progress.say(f"{len(windows)} windows mapped, the way closed by {len(loops)} frames")
    return close_loops(cameras, loops)


def split_windows(num_frames: int, longest: int) -> list[Int[np.ndarray, "f"]]:
    """Successive frames of overlapping windows of equal length.

    Args:
        longest: frames of a window, at most.
    """
    length = min(longest, num_frames)
    count = 1 + -(-(num_frames - length) // max(1, round((1 - _OVERLAP) * length)))
    begins = np.linspace(0, num_frames - length, count).round().astype(int)
    return [np.arange(begin, begin + length) for begin in begins]


def _share_focal_length(
    windows: list[Window],
    adjust: Callable[[Cameras, Float[np.ndarray, "n 3"], PointTracks], Cameras],
) -> list[Window]:
    """The windows adjusted to one focal length, the median of their own."""
    focal = np.median([window.cameras.K[0, 0, 0].item() for window in windows])
    shared = []
    for window in windows:
        K = window.cameras.K.clone()
        if abs(K[0, 0, 0].item() / focal - 1) < _SAME_FOCAL:
            shared.append(window)
            continue
        K[:, 0, 0] = K[:, 1, 1] = focal
        agreeing = replace(window.tracks, visible=window.points.agrees)
        chosen = np.flatnonzero(agreeing.visible.sum(0) > 1)
        given = replace(window.cameras, K=K), window.points.xyz[chosen], agreeing.select(chosen)
        cameras = adjust(*given)
        points = triangulate(window.tracks, cameras)
        shared.append(replace(window, cameras=cameras, points=points))
    return shared


def _chain(windows: list[Window], num_frames: int) -> tuple[list[Window], Cameras]:
    """The windows with their scales, and the cameras of all frames in the axes of the first."""
    first = windows[0]
    poses = np.tile(np.eye(4), (num_frames, 1, 1))
    poses[first.frames] = first.cameras.world_from_cam.numpy()
    chained = [first]
    for window in windows[1:]:
        before = chained[-1]
        shared = np.intersect1d(before.frames, window.frames)
        window = replace(window, scale=before.scale * _compare_depths(before, window, shared))
        own = window.cameras.world_from_cam.numpy()
        local = own[shared - window.frames[0]]
        turns = poses[shared, :3, :3] @ local[:, :3, :3].transpose(0, 2, 1)
        turn = Rotation.from_matrix(turns).mean().as_matrix()
        moved = window.scale * own[:, :3, 3] @ turn.T
        shift = (poses[shared, :3, 3] - moved[shared - window.frames[0]]).mean(0)
        # Frames in the first half of the overlap lie deeper in the window before.
        taken = window.frames[window.frames >= shared[len(shared) // 2]]
        poses[taken, :3, :3] = turn @ own[taken - window.frames[0], :3, :3]
        poses[taken, :3, 3] = moved[taken - window.frames[0]] + shift
        chained.append(window)
    K = first.cameras.K[:1].repeat(num_frames, 1, 1)
    cameras = replace(first.cameras, K=K, world_from_cam=torch.from_numpy(poses))
    return chained, cameras


def _compare_depths(a: Window, b: Window, shared: Int[np.ndarray, "s"]) -> float:
    """Units of a to a unit of b: the median ratio of depths in shared frames."""
    ratios = [
        a.measure_depth(t - a.frames[0]) / b.measure_depth(t - b.frames[0]) for t in shared.tolist()
    ]
    return float(np.nanmedian(ratios))
