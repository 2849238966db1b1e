"""Mapping of 2D tracks by COLMAP.

Tracks are handed over as matches between frames at gaps 1, 2, 4, ..., without descriptors.
Each mapper runs in a single thread: threads sum in any order, and the same seed must give the same
cameras.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool, Float, Int

from models.cameras import Cameras
from models.run import restore_handlers, run_ahead
from models.sfm.triangulation import UNSURE, Points
from models.tracks import PointTracks, find_lifetimes

# Its log library takes SIGTERM over.
restore_handlers()

MIN_SHARED = 30
"""Tracks that two frames must share to be matched, and points that a pose must explain. Larger
leaves frames with few tracks without a camera."""
# Largest gap between matched frames, as a power of two.
_LARGEST_GAP = 6
# Frames between two frames that are matched for the tracks that come back into view.
_LEAST_ABSENCE = 8
# Focal length of an unknown camera, in longer sides of the image.
_USUAL_FOCAL = 1.2
# Least angle in degrees between the rays of the first pair of frames: a video's baseline is short.
_LEAST_ANGLE = 4.0


def write_database(path: Path, tracks: PointTracks, focal_length: float | None = None) -> None:
    """A COLMAP database: a shared camera, visible points as keypoints, shared tracks as matches.

    Args:
        focal_length: in pixels, if known; the principal point is the image's centre.
    """
    database = pycolmap.Database.open(path)
    size = tracks.width, tracks.height
    guess = focal_length or _USUAL_FOCAL * max(size)
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", guess, *size)
    camera.has_prior_focal_length = focal_length is not None
    database.write_camera(camera, True)
    rig = pycolmap.Rig()
    rig.rig_id = 1
    rig.add_ref_sensor(camera.sensor_id)
    database.write_rig(rig, True)
    keypoints = _write_frames(database, tracks)
    _write_matches(database, camera, tracks.visible, keypoints)
    database.close()


def _write_frames(
    database: pycolmap.Database, tracks: PointTracks
) -> list[Float[np.ndarray, "n 2"]]:
    """Writes an image with its keypoints for each frame; returns the keypoints."""
    keypoints = []
    for t in range(len(tracks)):
        # COLMAP's numbers begin at 1.
        image = pycolmap.Image(name=f"{t:05d}.png", camera_id=1, image_id=t + 1)
        database.write_image(image, True)
        frame = pycolmap.Frame()
        frame.frame_id = t + 1
        frame.rig_id = 1
        frame.add_data_id(image.data_id)
        database.write_frame(frame, True)
        keypoints.append(tracks.xy[t, tracks.visible[t]].astype(np.float64))
        database.write_keypoints(t + 1, keypoints[t].astype(np.float32))
    return keypoints


def _write_matches(
    database: pycolmap.Database,
    camera: pycolmap.Camera,
    visible: Bool[np.ndarray, "F N"],
    keypoints: list[Float[np.ndarray, "n 2"]],
) -> None:
    """Writes the shared tracks of each pair of frames as verified matches."""
    # Index of each observation among its frame's keypoints.
    index = np.cumsum(visible, 1) - 1
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = 0
    pairs = list(dict.fromkeys(_pair_frames(len(visible)) + _pair_returns(visible)))

    def estimate(pair: tuple[int, int]) -> tuple[np.ndarray, pycolmap.TwoViewGeometry] | None:
        a, b = pair
        shared = visible[a] & visible[b]
        if shared.sum() < MIN_SHARED:
            return None
        matches = np.stack([index[a, shared], index[b, shared]], 1).astype(np.uint32)
        given = camera, keypoints[a], camera, keypoints[b], matches, options
        return matches, pycolmap.estimate_two_view_geometry(*given)

    for (a, b), found in zip(pairs, run_ahead(estimate, pairs), strict=True):
        if found is not None:
            database.write_matches(a + 1, b + 1, found[0])
            database.write_two_view_geometry(a + 1, b + 1, found[1])


def _pair_frames(num_frames: int) -> list[tuple[int, int]]:
    """Pairs of frames at gaps 1, 2, 4, ..."""
    gaps = [2**k for k in range(_LARGEST_GAP + 1) if 2**k < num_frames]
    return [(t, t + gap) for gap in gaps for t in range(num_frames - gap)]


def _pair_returns(visible: Bool[np.ndarray, "F N"]) -> list[tuple[int, int]]:
    """Pairs of frames that share ``MIN_SHARED`` tracks which are out of view between them: the
    camera comes back."""
    # Tracks that are absent for most of the time from their first frame to their last.
    first, last = find_lifetimes(visible)
    own = visible[:, 2 * visible.sum(0) < last - first + 1]
    shared = own.astype(np.float32) @ own.T.astype(np.float32)
    until = np.cumsum(own, 0)
    pairs = []
    for a, b in np.argwhere(np.triu(shared >= MIN_SHARED, _LEAST_ABSENCE)):
        quarter = (b - a) // 4
        absent = until[b - quarter] == until[a + quarter]
        if (own[a] & own[b] & absent).sum() >= MIN_SHARED:
            pairs.append((int(a), int(b)))
    return pairs


def run_mapper(
    method: str,
    database: Path,
    folder: Path,
    seed: int,
    refine_focal_length: bool = True,
    placed: Callable[[], None] = lambda: None,
) -> pycolmap.Reconstruction | None:
    """The largest model that a mapper finds; None if it finds none, or no points.

    Args:
        method: "incremental" or "global".
        folder: for the mapper's files.
        placed: is called for each frame that incremental mapping registers; global mapping
            registers all at once.
    """
    out = folder / method
    out.mkdir()
    try:
        with silence():
            if method == "incremental":
                options = _choose_incremental(seed, refine_focal_length)
                given = database, folder, out, options
                models = pycolmap.incremental_mapping(*given, next_image_callback=placed)
            else:
                options = pycolmap.GlobalPipelineOptions()
                options.random_seed = seed
                options.num_threads = 1
                models = pycolmap.global_mapping(database, folder, out, options)
    # COLMAP raises this if it cannot even begin.
    except RuntimeError:
        return None
    best = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
    # Poses without points explain no track, and their error counts as 0.
    return None if best is None or best.num_points3D() == 0 else best


def _choose_incremental(
    seed: int, refine_focal_length: bool
) -> pycolmap.IncrementalPipelineOptions:
    """Options of incremental mapping for the frames of a video."""
    options = pycolmap.IncrementalPipelineOptions()
    options.multiple_models = False
    options.extract_colors = False
    options.mapper.init_min_tri_angle = _LEAST_ANGLE
    options.min_model_size = 3
    options.ba_refine_focal_length = refine_focal_length
    options.random_seed = seed
    options.num_threads = 1
    return options


@contextmanager
def silence() -> Iterator[None]:
    """A block without the log of COLMAP, which names a database that the user does not know."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def read_poses(
    model: pycolmap.Reconstruction, num_frames: int
) -> tuple[
    Float[np.ndarray, "F 4 4"],
    Bool[np.ndarray, "F"],
    Float[np.ndarray, "3 3"],
    Float[np.ndarray, "P 3"],
]:
    """world_from_cam of each frame (identity if not registered), True for registered frames, K, and
    the points."""
    registered = np.zeros(num_frames, bool)
    world_from_cam = np.tile(np.eye(4), (num_frames, 1, 1))
    for i in model.reg_image_ids():
        world_from_cam[i - 1, :3] = model.image(i).cam_from_world().inverse().matrix()
        registered[i - 1] = True
    K = next(iter(model.cameras.values())).calibration_matrix()
    points = np.array([p.xyz for p in model.points3D.values()]).reshape(-1, 3)
    return world_from_cam, registered, K, points


def resect(
    intrinsics: Cameras,
    xyz: Float[np.ndarray, "n 3"],
    xy: Float[np.ndarray, "n 2"],
    max_error: float,
) -> Float[np.ndarray, "4 4"] | None:
    """world_from_cam of a frame that sees known points at pixels xy; None if fewer than
    ``MIN_SHARED`` agree.

    Args:
        intrinsics: a single camera, whose pose is not used.
        max_error: reprojection error in pixels up to which a point agrees.
    """
    if len(xyz) < MIN_SHARED:
        return None
    K = intrinsics.K[0].double().numpy()
    square = K[0, 0] == K[1, 1]
    camera = pycolmap.Camera(
        model="SIMPLE_PINHOLE" if square else "PINHOLE",
        width=intrinsics.width,
        height=intrinsics.height,
        params=[K[0, 0], *([] if square else [K[1, 1]]), K[0, 2], K[1, 2]],
    )
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = max_error
    options.ransac.random_seed = 0
    with silence():
        found = pycolmap.estimate_and_refine_absolute_pose(
            xy.astype(np.float64), xyz, camera, options
        )
    if found is None or found["num_inliers"] < MIN_SHARED:
        return None
    pose = np.eye(4)
    pose[:3] = found["cam_from_world"].inverse().matrix()
    return pose


def resect_frames(
    intrinsics: Cameras,
    tracks: PointTracks,
    points: Points,
    frames: Int[np.ndarray, "f"],
    max_error: float,
) -> dict[int, Float[np.ndarray, "4 4"]]:
    """world_from_cam of the frames whose pose the sure points tell, see ``resect``, by number.

    Args:
        intrinsics: of every frame of the tracks; poses are not used.
        points: of the tracks.
    """
    sure = np.isfinite(points.xyz).all(1) & (points.uncertainty < UNSURE)
    poses = {}
    for t in frames:
        seen = np.flatnonzero(tracks.visible[t] & sure)
        pose = resect(intrinsics[t], points.xyz[seen], tracks.xy[t, seen], max_error)
        if pose is not None:
            poses[int(t)] = pose
    return poses
