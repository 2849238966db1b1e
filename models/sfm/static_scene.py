"""2D tracks of the static scene -> cameras and 3D points.

A camera that only turns or stands still has a solver of its own; any other is mapped. Once geometry
is known the tracks are sharpened by it, and cameras and points are solved again.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from models.cameras import Cameras, interpolate_poses
from models.clip import Lens
from models.run import SILENT, InputError, Progress, ProgressPart, copy_array
from models.sfm.adjustment import find_lens, straighten_points
from models.sfm.given import place_missing, warn_of_contradiction
from models.sfm.mapping import (
    MIN_TRACKS,
    adjust_cameras,
    is_long_way,
    map_cameras,
    map_long_way,
)
from models.sfm.options import CameraOptions
from models.sfm.rotation import solve_rotation
from models.sfm.sharpening import sharpen_tracks
from models.sfm.small_motion import find_small_motion
from models.sfm.triangulation import Points, triangulate
from models.sfm.windows import Mapped
from models.tracking import half_life, thin
from models.tracks import PointTracks

# Image width in pixels that CameraOptions.rotation_error refers to.
_REFERENCE_WIDTH = 640
# Tracks across the longer side of the image when cameras are solved, and when they are adjusted.
_TRACKS_ACROSS = 24
_ADJUSTED_ACROSS = 32
# Error of the tracks that cameras are adjusted to after sharpening, in that of the median track of
# their part of the image. Larger admits tracks that slip along outlines.
_EXACT = 0.7
# Parts of the image along each side. More make outlines less of an exception in their part.
_PARTS = 2
# Share of the agreeing observations that must remain under cameras of the exact tracks of the whole image.
# Smaller takes cameras that a near ground contradicts.
_AS_MANY = 0.999
# Share of a frame's tracks that suffices to join it with the next, if it has few. Larger leaves more
# cameras as they were mapped.
_JOINED = 0.25
# Growth of that limit where frames would be left with too few tracks.
_RELAXED = 1.3
# Least distance in pixels between tracks that cameras are solved from.
_LEAST_SPACING = 8
# ``CameraOptions.convincing`` of a window. Larger takes windows that are bent: at 0.6 px of an image of
# 320 pixels the camera path of a rendered walk was 16 % wrong.
_CONVINCING_WINDOW = 0.35
# Observations that must agree with mapped cameras, in observations that agree with turning ones, where
# either may be right. Larger takes more clips as turning.
_MOVING_GAIN = 1.1
# Quantiles of the points' distances that count as near and as far, and their least ratio in a scene
# with relief. A larger ratio takes more clips as turning.
_RELIEF_SHARES = (0.05, 0.95)
_LEAST_RELIEF = 1.3
# Observations below which a track takes no part in solving cameras.
_MIN_LENGTH = 3


@dataclass(frozen=True)
class StaticScene:
    """The static background: a camera for every frame and a point for every track."""

    cameras: Cameras
    points: Points
    method: str
    """"incremental", "global", "grown", "windows", "rotation", "still" or "given"."""
    registered: Bool[np.ndarray, "F"]
    """False where a camera was interpolated from its neighbours in time."""
    reprojection_error: float
    """Mean over the observations that agree, in pixels."""
    doubtful: bool = False
    """Near and far can hardly be told apart."""

    def to_values(self) -> dict:
        """The scene as a dict of arrays, numbers and strings, for ``from_values``."""
        return {
            "K": self.cameras.K.numpy(),
            "world_from_cam": self.cameras.world_from_cam.numpy(),
            "width": self.cameras.width,
            "height": self.cameras.height,
            **vars(self.points),
            "method": self.method,
            "registered": self.registered,
            "reprojection_error": self.reprojection_error,
            "doubtful": self.doubtful,
        }

    @staticmethod
    def from_values(values: dict) -> "StaticScene":
        """The scene of ``to_values``."""
        cameras = Cameras(
            torch.from_numpy(values["K"]),
            torch.from_numpy(values["world_from_cam"]),
            values["width"],
            values["height"],
        )
        points = Points(*(values[name] for name in ("xyz", "agrees", "residual", "uncertainty")))
        names = ("method", "registered", "reprojection_error", "doubtful")
        return StaticScene(cameras, points, *(values[name] for name in names))


def solve_scene(
    tracks: PointTracks,
    cameras: Cameras | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
    options: CameraOptions = CameraOptions(),
    known: Bool[np.ndarray, "F"] | None = None,
) -> StaticScene:
    """Cameras and 3D points from tracks; with ``cameras`` given only the points are solved.

    Args:
        cameras: known cameras, one for each frame.
        progress: hears the stage "mapping", the residuals of each method that is tried, and doubt
            about given cameras.
        known: False for frames whose given camera is interpolated: it is solved from tracks where
            they suffice.

    Raises:
        InputError: too few tracks.
    """
    most = tracks.visible.sum(1).max()
    if most < MIN_TRACKS:
        raise InputError(
            f"only {most} points could be tracked (at least {MIN_TRACKS} are needed): the video "
            "has too little texture or the masks cover almost all of it; film more detail or mask "
            "less"
        )
    if cameras is not None:
        known = np.ones(len(tracks), bool) if known is None else known
        cameras, known = place_missing(tracks, cameras, known, progress, options)
        scene = _triangulate_scene(tracks, cameras, "given", known)
        used = tracks.restrict(known[:, None])
        warn_of_contradiction(used, scene.points, progress, options)
        return scene
    longer = max(tracks.width, tracks.height)
    few = select_few(tracks, options)
    turning, residual = solve_rotation(few, options)
    progress.say(f"pure rotation leaves {residual:.2f} px")
    limit = options.rotation_error * longer / _REFERENCE_WIDTH
    may_turn = residual < max(options.tracking_noise, limit)
    if may_turn and _is_steady(few, turning, residual, options):
        return _triangulate_turning(tracks, turning)
    mapped = None
    if is_long_way(few, options):
        of_window = partial(_map_window, seed=seed, options=options)
        mapped = map_long_way(tracks, few, of_window, progress, options)
    if mapped is None:
        mapped = map_cameras(few, seed, progress, options)
    if mapped is None:
        progress.say("no mapper could place the cameras: taken as a camera that turns")
        return _triangulate_turning(tracks, turning)
    scene = _triangulate_scene(tracks, mapped.cameras, mapped.method, mapped.registered)
    if not may_turn:
        return replace(scene, doubtful=mapped.doubtful)
    turned = _triangulate_turning(tracks, turning)
    is_sure = mapped.registered.all() and not mapped.doubtful
    explains = scene.points.agrees.sum() > _MOVING_GAIN * turned.points.agrees.sum()
    return scene if is_sure and explains and _has_relief(scene) else turned


def _is_steady(few: PointTracks, turning: Cameras, residual: float, options: CameraOptions) -> bool:
    """Whether cameras that turn explain the tracks about as well as if they also move.

    Args:
        residual: of the turning cameras, in pixels.
    """
    if residual < options.tracking_noise:
        return True
    keys = _choose_frames(len(few), options)
    chosen = few.select_frames(keys)
    chosen = chosen.select(np.flatnonzero(chosen.visible.sum(0) >= 2))
    return find_small_motion(chosen, turning[keys.tolist()], residual) is None


def _choose_frames(count: int, options: CameraOptions) -> Int[np.ndarray, "k"]:
    """Frames at equal steps, as few as are adjusted together."""
    return np.arange(0, count, -(-count // options.most_keyframes))


def _has_relief(scene: StaticScene) -> bool:
    """Whether points lie at different depths. A lens that bends the images of a turning camera is also
    explained by motion, before points that are all about as far."""
    middle = scene.cameras.centers.mean(0).numpy()
    known = np.isfinite(scene.points.xyz).all(1) & scene.points.agrees.any(0)
    distance = np.linalg.norm(scene.points.xyz[known] - middle, axis=1)
    if not len(distance):
        return False
    near, far = np.quantile(distance, _RELIEF_SHARES)
    return bool(far > _LEAST_RELIEF * near)


def _map_window(tracks: PointTracks, seed: int, options: CameraOptions) -> Mapped | None:
    """Cameras of a window of a long clip; no later step could mend a wrong window."""
    strict = replace(options, convincing=min(options.convincing, _CONVINCING_WINDOW))
    return map_cameras(select_few(tracks, options), seed, options=strict)


def straighten_scene(
    tracks: PointTracks,
    scene: StaticScene,
    progress: Progress = SILENT,
    options: CameraOptions = CameraOptions(),
) -> tuple[StaticScene, Lens | None]:
    """The scene of the straight images, and the lens that bends the images as they are; the scene as
    it is and None where no lens can be told.

    Args:
        tracks: in pixels of the images as they are.
        progress: hears of a lens.
    """
    if scene.method in ("rotation", "still", "given"):
        return scene, None
    few = select_few(replace(tracks, visible=scene.points.agrees), options)
    frames = _choose_frames(len(tracks), options)
    own, lens = find_lens(scene.cameras[frames.tolist()], few.select_frames(frames), progress)
    if lens is None:
        return scene, None
    straight = straighten_points(tracks, lens)
    K = own.K[:1].repeat(len(tracks), 1, 1)
    cameras = replace(scene.cameras, K=K)
    if len(own) == len(tracks):
        cameras = own
    cameras = _adjust(straight, cameras, options)
    return solve_points(replace(scene, cameras=cameras), straight), lens


def refine_scene(
    scene: StaticScene, tracks: PointTracks, options: CameraOptions = CameraOptions()
) -> StaticScene:
    """The scene with cameras adjusted to these tracks, and with their points."""
    cameras = _adjust(tracks, scene.cameras, options)
    return solve_points(replace(scene, cameras=cameras), tracks)


def solve_points(scene: StaticScene, tracks: PointTracks) -> StaticScene:
    """The scene with the points of these tracks, under its own cameras."""
    solved = _triangulate_scene(tracks, scene.cameras, scene.method, scene.registered)
    return replace(solved, doubtful=scene.doubtful)


def sharpen_scene(
    frames: UInt8[np.ndarray, "F H W 3"],
    tracks: PointTracks,
    scene: StaticScene,
    progress: Progress = SILENT,
    options: CameraOptions = CameraOptions(),
) -> tuple[PointTracks, StaticScene]:
    """Tracks aligned to sub-pixels by the scene's geometry, and the scene solved again from them.

    Cameras are adjusted too, unless they were given or hardly any track goes from some frame to the
    next. A turning or still camera has no parallax, so its tracks stay as they are.

    Args:
        tracks: positions in float32.
        progress: hears the stage "sharpening", and the reprojection error after each round.
    """
    if scene.method in ("rotation", "still"):
        return tracks, scene
    tracks = replace(tracks, xy=copy_array(tracks.xy), visible=scene.points.agrees)
    rounds = options.sharpening_rounds
    adjusts = False
    for done in range(rounds):
        hear = ProgressPart(progress, done * len(tracks), rounds * len(tracks))
        tracks = sharpen_tracks(frames, tracks, scene.cameras, scene.points, hear, options)
        cameras = scene.cameras
        adjusts = scene.method != "given" and _is_well_joined(tracks.visible, options)
        if adjusts:
            cameras = _adjust(tracks, cameras, options, _PARTS)
        scene = solve_points(replace(scene, cameras=cameras), tracks)
        progress.say(f"sharpened: reprojection {scene.reprojection_error:.2f} px")
    if adjusts:
        scene = _refine_exactly(tracks, scene, options)
    return tracks, scene


def _refine_exactly(tracks: PointTracks, scene: StaticScene, options: CameraOptions) -> StaticScene:
    """The scene with cameras adjusted to the most exact tracks of the whole image, if as many
    observations agree with them: in a rendered scene all do, on real video a near ground may not."""
    cameras = _adjust(tracks, scene.cameras, options, parts=1)
    refined = solve_points(replace(scene, cameras=cameras), tracks)
    if refined.points.agrees.sum() > _AS_MANY * scene.points.agrees.sum():
        return refined
    return scene


def _adjust(
    tracks: PointTracks, cameras: Cameras, options: CameraOptions, parts: int | None = None
) -> Cameras:
    """Cameras by bundle adjustment of long tracks.

    Args:
        parts: adjust to tracks whose residuals are small for their part of the image; the number of
            parts along each side. None for tracks evenly over the image.
    """
    points = triangulate(tracks, cameras)
    agreeing = replace(tracks, visible=points.agrees)
    if parts is not None:
        subset = _choose_exact_tracks(agreeing, points, options, parts)
    else:
        spacing = max(tracks.width, tracks.height) // _ADJUSTED_ACROSS
        subset = _choose_long_tracks(agreeing, spacing, options)
    return adjust_cameras(cameras, points.xyz[subset], agreeing.select(subset), options)


def _choose_exact_tracks(
    tracks: PointTracks, points: Points, options: CameraOptions, parts: int = _PARTS
) -> Int[np.ndarray, "n"]:
    """Long tracks whose residuals are small for their part of the image, as many as every frame needs.

    Tracks that slip along an outline agree with a point that is not there, and many of them bend the
    cameras together. Their residuals are larger than those of tracks on a surface beside it. Small
    residuals of the whole image would leave out all of a near ground, which tells most about where
    the camera is.

    Args:
        tracks: seen where they agree with the points.
        parts: of the image along each side.
    """
    agrees = points.agrees
    counts = agrees.sum(0)
    usable = np.flatnonzero(counts >= _MIN_LENGTH)
    if not len(usable):
        return usable
    # a track's residuals are smaller than its errors, as its point has three free coordinates
    error = np.sqrt(_sum_squares(points) / np.maximum(2 * counts - 3, 1))[usable]
    part = _find_parts(tracks, usable, parts)
    typical = ndimage.median(error, part, np.arange(part.max() + 1))[part]
    relative = error / np.maximum(typical, np.finfo(float).tiny)
    limit = _EXACT
    least = int(half_life(agrees))
    enough = _count_enough(agrees, usable, options)
    while True:
        chosen = usable[(counts[usable] >= least) & (relative <= limit)]
        if (
            len(chosen) == len(usable)
            or (np.concatenate(_count_seen(agrees, chosen)) >= enough).all()
        ):
            return chosen
        limit *= _RELAXED
        least = int(least / _RELAXED)


def _find_parts(
    tracks: PointTracks, usable: Int[np.ndarray, "n"], parts: int
) -> Int[np.ndarray, "n"]:
    """Number of the part of the image in which each track is on average."""
    total = np.zeros((tracks.num_tracks, 2))
    # Frame by frame: the positions of all observations would fill the memory.
    for xy, seen in zip(tracks.xy, tracks.visible, strict=True):
        total[seen] += xy[seen]
    mean = total[usable] / tracks.visible.sum(0)[usable, None]
    column, row = np.clip(mean / (tracks.width, tracks.height) * parts, 0, parts - 1).astype(int).T
    return row * parts + column


def _is_well_joined(visible: Bool[np.ndarray, "F N"], options: CameraOptions) -> bool:
    """Whether enough tracks go from each frame to the next, or a good part of those that it has.

    In a fast turn few do, and adjustment lets the cameras before and after it drift apart.
    """
    seen, common = _count_seen(visible, slice(None))
    fewer = np.minimum(seen[1:], seen[:-1])
    return bool((common >= np.minimum(options.enough_tracks, _JOINED * fewer)).all())


def _count_enough(
    visible: Bool[np.ndarray, "F N"], usable: Int[np.ndarray, "n"], options: CameraOptions
) -> Float[np.ndarray, "C"]:
    """Counts of ``_count_seen``, joined, that remain when some of the usable tracks are left out."""
    return np.minimum(options.enough_tracks, np.concatenate(_count_seen(visible, usable)) / 2)


def _count_seen(
    visible: Bool[np.ndarray, "F N"], chosen: Int[np.ndarray, "n"] | slice
) -> tuple[Int[np.ndarray, "F"], Int[np.ndarray, "F-1"]]:
    """Chosen tracks seen in each frame, and in each two successive frames."""
    # Frame by frame: all frames' rows of the chosen tracks would fill the memory.
    seen = [np.count_nonzero(row[chosen]) for row in visible]
    common = [np.count_nonzero((a & b)[chosen]) for a, b in pairwise(visible)]
    return np.array(seen), np.array(common, int)


def _sum_squares(points: Points) -> Float[np.ndarray, "N"]:
    """Sum of the squared residuals of each track."""
    total = np.zeros(points.agrees.shape[1])
    begin = 0
    # Frame by frame: the indices of all observations would fill the memory.
    for seen in points.agrees:
        end = begin + np.count_nonzero(seen)
        total[seen] += points.residual[begin:end] ** 2
        begin = end
    return total


def select_few(tracks: PointTracks, options: CameraOptions = CameraOptions()) -> PointTracks:
    """A few hundred long tracks in a frame: the mappers' time grows with the tracks."""
    spacing = max(tracks.width, tracks.height) // _TRACKS_ACROSS
    return tracks.select(_choose_long_tracks(tracks, spacing, options))


def _choose_long_tracks(
    tracks: PointTracks, spacing: int, options: CameraOptions
) -> Int[np.ndarray, "n"]:
    """Indices of tracks to solve cameras from: evenly over the image, and long where frames have
    enough long tracks.

    A track that slips along an edge or a shadow agrees with some point for a few frames and bends
    the cameras; over many frames it agrees with none. A track is long from half the length of the
    median observation's track, or less where frames would be left with too few.
    """
    spacing = max(_LEAST_SPACING, spacing)
    subset = thin(tracks, spacing, min_length=_MIN_LENGTH)
    enough = _count_enough(tracks.visible, subset, options)
    least = int(half_life(tracks.visible))
    while least > _MIN_LENGTH:
        long = thin(tracks, spacing, min_length=least)
        if (np.concatenate(_count_seen(tracks.visible, long)) >= enough).all():
            return long
        # Some frame keeps too few tracks of this length.
        least //= 2
    return subset


def _triangulate_turning(tracks: PointTracks, turning: Cameras) -> StaticScene:
    """The scene of a camera that turns or stands still. A frame with few tracks takes its pose from
    its neighbours."""
    counts = tracks.visible.sum(1)
    registered = counts >= min(MIN_TRACKS, counts.max())
    poses = torch.from_numpy(interpolate_poses(turning.world_from_cam.numpy(), registered))
    still = bool(torch.equal(poses, torch.eye(4).to(poses).expand_as(poses)))
    cameras = replace(turning, world_from_cam=poses)
    return _triangulate_scene(tracks, cameras, "still" if still else "rotation", registered)


def _triangulate_scene(
    tracks: PointTracks, cameras: Cameras, method: str, registered: Bool[np.ndarray, "F"]
) -> StaticScene:
    """The scene of known cameras: points from the observations in registered frames."""
    used = tracks.restrict(registered[:, None])
    points = triangulate(used, cameras, flat=method in ("rotation", "still"))
    error = float(points.residual.mean()) if points.agrees.any() else float("nan")
    return StaticScene(cameras, points, method, registered, error)
