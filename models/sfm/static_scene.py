"""2D tracks of the static scene -> cameras and 3D points.

A camera that only turns or stands still has its own path; others are mapped. Once geometry is known
the tracks are sharpened by it, and both are solved again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from models.cameras import Cameras
from models.run import InputError
from models.sfm.mapping import MIN_TRACKS, Progress, adjust_cameras, interpolated, map_cameras
from models.sfm.rotation import solve_rotation
from models.sfm.sharpening import sharpen_tracks
from models.sfm.triangulation import Points, triangulate
from models.tracking import half_life, thin

ENOUGH_TRACKS = 150
"""Tracks that a frame keeps when short ones are left out of solving cameras, where it has so
many."""
ROTATION_LIMIT = 1.0
"""Median residual in pixels under which a model of pure rotation explains the tracks, at 640 pixels
width."""
TRACKING_NOISE = 0.35
"""The same in small images, where the tracks' own noise sets it."""


@dataclass(frozen=True)
class StaticScene:
    """What the background is: a camera for every frame and a point for every track."""

    cameras: Cameras
    points: Points
    method: str
    """"incremental", "global", "rotation", "still" or "given"."""
    registered: Bool[np.ndarray, "F"]
    """False where a camera was interpolated from its neighbours."""
    reprojection_error: float
    """Mean over the observations that agree, in pixels."""


def scene_values(scene: StaticScene) -> dict:
    """A scene as a plain dict of arrays, numbers and strings, from which ``scene_of_values`` makes
    the same again."""
    cameras = scene.cameras
    points = scene.points
    own = {name: getattr(scene, name) for name in ("method", "registered", "reprojection_error")}
    size = {"width": cameras.width, "height": cameras.height}
    return {
        "K": cameras.K.numpy(),
        "world_from_cam": cameras.world_from_cam.numpy(),
        **size,
        **vars(points),
        **own,
    }


def scene_of_values(values: dict) -> StaticScene:
    """The scene that ``scene_values`` took apart."""
    K = torch.from_numpy(values["K"])
    poses = torch.from_numpy(values["world_from_cam"])
    cameras = Cameras(K, poses, values["width"], values["height"])
    points = Points(*(values[name] for name in ("xyz", "agrees", "residual", "uncertainty")))
    return StaticScene(
        cameras, points, values["method"], values["registered"], values["reprojection_error"]
    )


def solve_scene(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    width: int,
    height: int,
    cameras: Cameras | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda stage, done, total: None,
) -> StaticScene:
    """Cameras and 3D points from tracks; with ``cameras`` given only the points are solved.

    Args:
        xy: pixels, top-left pixel centre (0.5, 0.5).
        visible: which of them were seen.
        cameras: known cameras, one for each frame.
        report: is told what was tried and how it went.
        progress: is told the stage, and how many of its frames are done.

    Raises:
        InputError: too few tracks.
    """
    if visible.sum(1).max() < MIN_TRACKS:
        raise InputError(
            f"only {visible.sum(1).max()} points could be tracked (at least {MIN_TRACKS} are needed): "
            "the video has too little texture or the masks cover almost all of it; film more detail or mask less"
        )
    if cameras is not None:
        return _finish(xy, visible, cameras, "given", np.ones(len(xy), bool))
    subset = _long_and_spread(xy, visible, max(8, max(width, height) // 24))
    few_xy = xy[:, subset]
    few_visible = visible[:, subset]
    turning, residual = solve_rotation(few_xy, few_visible, width, height)
    report(f"pure rotation leaves {residual:.2f} px")
    if residual < max(TRACKING_NOISE, ROTATION_LIMIT * max(width, height) / 640):
        return _finish_turning(xy, visible, turning)
    best = map_cameras(few_xy, few_visible, width, height, seed, report, progress)
    if best is None:
        report("no mapper could place the cameras: taken as a camera that turns")
        return _finish_turning(xy, visible, turning)
    cameras, registered, method = best
    return _finish(xy, visible, cameras, method, registered)


def sharpen_scene(
    frames: UInt8[np.ndarray, "F H W 3"],
    xy: Float[np.ndarray, "F N 2"],
    scene: StaticScene,
    rounds: int = 2,
    report: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[Float[np.ndarray, "F N 2"], StaticScene]:
    """Tracks aligned to sub-pixels by the scene's geometry, and the scene solved again from them.

    Cameras are adjusted too unless they were given; turning and still ones have no planes to align
    by and stay. The tracks given are overwritten: a copy of them is what a long clip has no room
    for.
    """
    if scene.method in ("rotation", "still"):
        return xy, scene
    visible = scene.points.agrees
    for round_ in range(rounds):
        counted = partial(_count, progress, "sharpening", round_ * len(xy), rounds * len(xy))
        xy, visible = sharpen_tracks(
            frames, xy, visible, scene.cameras, scene.points, counted, out=xy
        )
        cameras = scene.cameras
        if scene.method != "given":
            points = triangulate(xy, visible, cameras)
            subset = _long_and_spread(
                xy, points.agrees, max(8, max(cameras.width, cameras.height) // 48)
            )
            cameras = adjust_cameras(
                cameras, points.xyz[subset], xy[:, subset], points.agrees[:, subset]
            )
        scene = _finish(xy, visible, cameras, scene.method, scene.registered)
        report(f"sharpened: reprojection {scene.reprojection_error:.2f} px")
    return xy, scene


def _count(progress: Progress, stage: str, before: int, total: int, done: int) -> None:
    progress(stage, before + done, total)


def _long_and_spread(
    xy: Float[np.ndarray, "F N 2"], visible: Bool[np.ndarray, "F N"], spacing: int
) -> Int[np.ndarray, "n"]:
    """Indices of tracks to solve cameras from: evenly over the image, and long where frames have
    enough of those.

    A track that slips along an edge or a shadow agrees with some point for a few frames and bends
    the cameras; over many frames it agrees with none. "Long" is half of what a sighting's track
    lasts (their median), or less.
    """
    subset = thin(xy, visible, spacing, min_length=3)
    enough = np.minimum(ENOUGH_TRACKS, visible[:, subset].sum(1) / 2)
    least = int(half_life(visible))
    while least > 3:
        long = thin(xy, visible, spacing, min_length=least)
        if (visible[:, long].sum(1) >= enough).all():
            return long
        least //= 2
    return subset


def _finish_turning(xy: np.ndarray, visible: np.ndarray, turning: Cameras) -> StaticScene:
    """The scene of a camera that turns or stands still; a frame with hardly a track takes its
    neighbours' pose."""
    registered = visible.sum(1) >= min(MIN_TRACKS, visible.sum(1).max())
    poses = torch.from_numpy(interpolated(turning.world_from_cam.numpy(), registered))
    still = bool(torch.equal(poses, torch.eye(4).to(poses).expand_as(poses)))
    return _finish(
        xy,
        visible,
        replace(turning, world_from_cam=poses),
        "still" if still else "rotation",
        registered,
    )


def solve_points(
    scene: StaticScene, xy: Float[np.ndarray, "F N 2"], visible: Bool[np.ndarray, "F N"]
) -> StaticScene:
    """The scene's points again, under its cameras, from other sightings (of other tracks, or fewer
    of the same)."""
    return _finish(xy, visible, scene.cameras, scene.method, scene.registered)


def _finish(
    xy: np.ndarray, visible: np.ndarray, cameras: Cameras, method: str, registered: np.ndarray
) -> StaticScene:
    points = triangulate(
        xy, visible & registered[:, None], cameras, flat=method in ("rotation", "still")
    )
    error = float(points.residual.mean()) if points.agrees.any() else float("nan")
    return StaticScene(cameras, points, method, registered, error)
