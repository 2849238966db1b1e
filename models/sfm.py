"""2D tracks of the static scene -> cameras and 3D points; the only file that imports pycolmap.

Tracks are handed to COLMAP as matches between frames at gaps 1, 2, 4, ...: no descriptors are needed. Neither
mapper is enough alone, so both results are judged; a camera that only turns or stands still has its own path.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation, Slerp

from models.cameras import Cameras, load_transforms
from models.errors import InputError
from models.images import natural_key
from models.rotation import solve_rotation
from models.tracking import thin
from models.triangulation import Points, triangulate

MIN_TRACKS = 30
"""Tracks in a frame below which no camera can be told."""
ROTATION_LIMIT = 1.0
"""Median residual in pixels under which a model of pure rotation explains the tracks, at 640 pixels width."""
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


def solve_scene(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    width: int,
    height: int,
    cameras: Cameras | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
) -> StaticScene:
    """Cameras and 3D points from tracks; with ``cameras`` given only the points are solved.

    Args:
        xy: pixels, top-left pixel centre (0.5, 0.5).
        visible: which of them were seen.
        cameras: known cameras, one for each frame.
        report: is told what was tried and how it went.

    Raises:
        InputError: too few tracks.
    """
    if visible.sum(1).max() < MIN_TRACKS:
        raise InputError(
            f"only {visible.sum(1).max()} points could be tracked (at least {MIN_TRACKS} are needed): "
            "the video has too little texture, or the masks cover almost all of it"
        )
    if cameras is not None:
        return _finish(xy, visible, cameras, "given", np.ones(len(xy), bool))
    subset = thin(xy, visible, max(8, max(width, height) // 24), min_length=3)
    few_xy, few_visible = xy[:, subset], visible[:, subset]
    turning, residual = solve_rotation(few_xy, few_visible, width, height)
    report(f"pure rotation leaves {residual:.2f} px")
    if residual < max(TRACKING_NOISE, ROTATION_LIMIT * max(width, height) / 640):
        return _finish_turning(xy, visible, turning)
    best = _map(few_xy, few_visible, width, height, seed, report)
    if best is None:
        report("no mapper could place the cameras: taken as a camera that turns")
        return _finish_turning(xy, visible, turning)
    cameras, registered, method = best
    return _finish(xy, visible, cameras, method, registered)


def _finish_turning(xy: np.ndarray, visible: np.ndarray, turning: Cameras) -> StaticScene:
    """The scene of a camera that turns or stands still; a frame with hardly a track takes its neighbours' pose."""
    registered = visible.sum(1) >= min(MIN_TRACKS, visible.sum(1).max())
    poses = torch.from_numpy(_interpolated(turning.world_from_cam.numpy(), registered))
    still = bool(torch.equal(poses, torch.eye(4).to(poses).expand_as(poses)))
    return _finish(xy, visible, replace(turning, world_from_cam=poses), "still" if still else "rotation", registered)


def _finish(xy: np.ndarray, visible: np.ndarray, cameras: Cameras, method: str, registered: np.ndarray) -> StaticScene:
    points = triangulate(xy, visible & registered[:, None], cameras, flat=method in ("rotation", "still"))
    error = float(points.residual[points.agrees].mean()) if points.agrees.any() else float("nan")
    return StaticScene(cameras, points, method, registered, error)


def _map(
    xy: np.ndarray, visible: np.ndarray, width: int, height: int, seed: int, report: Callable[[str], None]
) -> tuple[Cameras, np.ndarray, str] | None:
    """The better of incremental and global mapping; the second runs only where the first is not convincing."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.db"
        _write_database(database, xy, visible, width, height)
        for method in ("incremental", "global"):
            model = _run_mapper(method, database, Path(folder), seed)
            if model is None:
                report(f"{method} mapping: no model")
                continue
            frames, length = model.num_reg_images(), model.compute_mean_track_length()
            error = model.compute_mean_reprojection_error()
            report(f"{method} mapping: {frames} of {len(xy)} frames, {error:.2f} px, {length:.0f} frames a point")
            results.append((frames, -error, model, method))
            if frames == len(xy) and error < 1.5 and length >= min(8, len(xy) / 3):
                break
    if not results:
        return None
    *_, model, method = max(results, key=lambda r: (round(20 * r[0] / len(xy)), r[1]))
    if model.num_reg_images() < max(2, len(xy) // 2):
        return None
    cameras, registered = _cameras_of(model, len(xy), width, height)
    return cameras, registered, method


def _write_database(path: Path, xy: np.ndarray, visible: np.ndarray, width: int, height: int) -> None:
    """One shared camera, each frame's visible points as keypoints, each shared track as a match."""
    database = pycolmap.Database.open(path)
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 1.2 * max(width, height), width, height)
    database.write_camera(camera, True)
    rig = pycolmap.Rig()
    rig.rig_id = 1
    rig.add_ref_sensor(camera.sensor_id)
    database.write_rig(rig, True)
    keypoints = []
    for t in range(len(xy)):
        image = pycolmap.Image(name=f"{t:05d}.png", camera_id=1, image_id=t + 1)
        database.write_image(image, True)
        frame = pycolmap.Frame()
        frame.frame_id, frame.rig_id = t + 1, 1
        frame.add_data_id(image.data_id)
        database.write_frame(frame, True)
        keypoints.append(xy[t, visible[t]].astype(np.float64))
        database.write_keypoints(t + 1, keypoints[t].astype(np.float32))
    index = np.cumsum(visible, 1) - 1
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = 0
    for a, b in _pairs(len(xy)):
        shared = visible[a] & visible[b]
        if shared.sum() < MIN_TRACKS:
            continue
        matches = np.stack([index[a, shared], index[b, shared]], 1).astype(np.uint32)
        geometry = pycolmap.estimate_two_view_geometry(camera, keypoints[a], camera, keypoints[b], matches, options)
        database.write_matches(a + 1, b + 1, matches)
        database.write_two_view_geometry(a + 1, b + 1, geometry)
    database.close()


def _pairs(num_frames: int) -> list[tuple[int, int]]:
    gaps = [2**k for k in range(7) if 2**k < num_frames]
    return [(t, t + gap) for gap in gaps for t in range(num_frames - gap)]


def _run_mapper(method: str, database: Path, folder: Path, seed: int) -> pycolmap.Reconstruction | None:
    """The largest model that a mapper finds, or None where it finds none."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value  # its log speaks of a database no user has seen
    out = folder / method
    out.mkdir()
    try:
        if method == "incremental":
            options = pycolmap.IncrementalPipelineOptions()
            options.multiple_models, options.extract_colors = False, False
            options.mapper.init_min_tri_angle = 4.0  # a video's baseline is short
            options.min_model_size = 3
            options.random_seed = seed
            models = pycolmap.incremental_mapping(database, folder, out, options)
        else:
            options = pycolmap.GlobalPipelineOptions()
            options.random_seed = seed
            models = pycolmap.global_mapping(database, folder, out, options)
    except RuntimeError:
        return None
    finally:
        pycolmap.logging.minloglevel = level
    return max(models.values(), key=lambda m: m.num_reg_images(), default=None)


def _cameras_of(
    model: pycolmap.Reconstruction, num_frames: int, width: int, height: int
) -> tuple[Cameras, Bool[np.ndarray, "F"]]:
    """Cameras in the scene's own scale: median point depth 1, first registered camera as the world's axes."""
    registered = np.zeros(num_frames, bool)
    world_from_cam = np.tile(np.eye(4), (num_frames, 1, 1))
    for i in model.reg_image_ids():
        pose = model.image(i).cam_from_world().inverse().matrix()
        world_from_cam[i - 1, :3], registered[i - 1] = pose, True
    world_from_cam = _interpolated(world_from_cam, registered)
    K = next(iter(model.cameras.values())).calibration_matrix()
    points = np.array([p.xyz for p in model.points3D.values()])
    first = np.linalg.inv(world_from_cam[np.flatnonzero(registered)[0]])
    local = points @ first[:3, :3].T + first[:3, 3]
    ahead = local[:, 2][local[:, 2] > 0]
    world_from_cam = first @ world_from_cam
    world_from_cam[:, :3, 3] /= np.median(ahead) if len(ahead) else 1.0
    shared = torch.from_numpy(np.tile(K, (num_frames, 1, 1)))
    return Cameras(shared, torch.from_numpy(world_from_cam), width, height), registered


def _interpolated(poses: Float[np.ndarray, "F 4 4"], registered: Bool[np.ndarray, "F"]) -> Float[np.ndarray, "F 4 4"]:
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


def read_cameras(path: Path, names: list[str], indices: list[int], width: int, height: int) -> Cameras:
    """Known cameras from a transforms.json or a COLMAP model folder, one for each frame, at the frames' size.

    Frames are found by file name, or else by their number in the file.

    Raises:
        InputError: not such a file, or a frame has no camera.
    """
    path = Path(path)
    if path.is_dir():
        try:
            model = pycolmap.Reconstruction(path)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: not a COLMAP model (cameras, images, points3D as .bin or .txt)") from error
        images = sorted((model.image(i) for i in model.reg_image_ids()), key=lambda image: natural_key(image.name))
        if not images:
            raise InputError(f"{path}: the COLMAP model has no registered image")
        known_names = [image.name for image in images]
        size = images[0].camera
        K = torch.from_numpy(np.stack([image.camera.calibration_matrix() for image in images]))
        pose = np.tile(np.eye(4), (len(images), 1, 1))
        pose[:, :3] = [image.cam_from_world().inverse().matrix() for image in images]
        cameras = Cameras(K, torch.from_numpy(pose), size.width, size.height)
    else:
        cameras, _, known_names = load_transforms(path)
    rows = _match_frames(known_names, names, indices, path)
    return cameras[rows].resized(width, height)


def _match_frames(known: list[str], names: list[str], indices: list[int], path: Path) -> list[int]:
    by_stem = {Path(name).stem: i for i, name in enumerate(known)}
    stems = [Path(name).stem for name in names]
    if all(stem in by_stem for stem in stems):
        return [by_stem[stem] for stem in stems]
    if max(indices) < len(known):
        return list(indices)
    raise InputError(
        f"{path}: has {len(known)} cameras, but frame {max(indices)} (counted from 0) is asked for; "
        "give one camera for each frame"
    )


def with_cameras(scene: StaticScene, cameras: Cameras) -> StaticScene:
    """The same scene seen by other (refined) cameras."""
    return replace(scene, cameras=cameras)
