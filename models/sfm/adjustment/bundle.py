"""Bundle adjustment by COLMAP, with the intrinsics that a lens or a zoom needs.

Everything runs in a single thread: threads sum in any order, and the same tracks must give the same
cameras.
"""

from dataclasses import dataclass, replace

import numpy as np
import pycolmap
import torch
from jaxtyping import Float, Int

from models.cameras import Cameras
from models.sfm.colmap import MIN_SHARED, silence
from models.tracks import PointTracks

LOSS_SCALE = 0.1
"""Scale in pixels of the Cauchy loss of bundle adjustment. Tracks that slip by half a pixel agree
with some point; a loss that discounts them early keeps the focal length. Larger moves cameras that
are far off."""
_MAX_ITERATIONS = 30
# Relative fall of the cost in an iteration below which the adjustment ends: half the iterations are
# saved, and cameras move by less than 0.02 % of the path.
_SETTLED = 1e-4
# Frames over which the focal length of a zoom is smoothed by a parabola.
_SMOOTHED_FRAMES = 9


@dataclass(frozen=True)
class Freedom:
    """Intrinsics that bundle adjustment may change. The principal point stays."""

    focal_length: bool = True
    """The focal length, one for all frames."""
    each_frame: bool = False
    """A focal length for each frame, in place of one for all."""
    radial: tuple[float, float] | None = None
    """Start of COLMAP's RADIAL distortion (k1, k2); None for a camera without distortion."""


SHARED_FOCAL = Freedom()
"""A pinhole camera with one focal length for all frames."""


@dataclass(frozen=True)
class Adjusted:
    """The result of a bundle adjustment."""

    cameras: Cameras
    """Without distortion."""
    radial: tuple[float, float] | None = None
    """COLMAP's k1 and k2, if they were free."""


def bundle_adjust(
    cameras: Cameras,
    xyz: Float[np.ndarray, "N 3"],
    tracks: PointTracks,
    refine_focal_length: bool = True,
    loss_scale: float = LOSS_SCALE,
) -> Cameras:
    """Poses and focal length of least robust reprojection error; points move as well.

    Cameras of unlike focal lengths (a zoom) keep a focal length for each frame, smooth over time.
    Frames with fewer than ``MIN_SHARED`` observations keep their camera. The first camera's pose
    does not change, nor does its distance from the farthest camera.

    Args:
        loss_scale: of the Cauchy loss, in pixels.
    """
    zooms = bool((cameras.K[:1] != cameras.K).any())
    freedom = Freedom(refine_focal_length, each_frame=zooms)
    adjusted = adjust_freely(cameras, xyz, tracks, freedom, loss_scale).cameras
    if not (zooms and refine_focal_length):
        return adjusted
    smooth = replace(adjusted, K=smooth_focal_lengths(adjusted.K))
    fixed = Freedom(False, each_frame=True)
    return adjust_freely(smooth, xyz, tracks, fixed, loss_scale).cameras


def adjust_freely(
    cameras: Cameras,
    xyz: Float[np.ndarray, "N 3"],
    tracks: PointTracks,
    freedom: Freedom,
    loss_scale: float = LOSS_SCALE,
) -> Adjusted:
    """``bundle_adjust`` with the given intrinsics free; cameras stay if fewer than two frames have
    enough observations."""
    frames = np.flatnonzero(tracks.visible.sum(1) >= MIN_SHARED)
    if len(frames) < 2:
        return Adjusted(cameras, freedom.radial)
    model = _build_model(cameras, xyz, tracks, frames, freedom)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = freedom.focal_length
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss_scale
    options.ceres.solver_options.max_num_iterations = _MAX_ITERATIONS
    options.ceres.solver_options.function_tolerance = _SETTLED
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for t in frames:
        config.add_image(int(t) + 1)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    with silence():
        pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    return _read_adjusted(model, cameras, frames, freedom)


def smooth_focal_lengths(K: torch.Tensor) -> torch.Tensor:
    """Intrinsics whose focal lengths follow a parabola over a few frames: a lens zooms smoothly."""
    from scipy.signal import savgol_filter  # takes a second to import, and few clips zoom

    window = min(_SMOOTHED_FRAMES, len(K) - 1 + len(K) % 2)
    if window < 3:
        return K
    smooth = K.clone()
    for axis in range(2):
        log = np.log(K[:, axis, axis].double().numpy())
        smooth[:, axis, axis] = torch.from_numpy(np.exp(savgol_filter(log, window, 2))).to(K)
    return smooth


def _read_adjusted(
    model: pycolmap.Reconstruction, cameras: Cameras, frames: Int[np.ndarray, "f"], freedom: Freedom
) -> Adjusted:
    """The adjusted poses, in the frame of reference and scale of the old, and intrinsics."""
    moved = np.tile(np.eye(4), (len(cameras), 1, 1))
    for t in frames:
        moved[t, :3] = model.image(int(t) + 1).cam_from_world().inverse().matrix()
    old = cameras.world_from_cam.double().numpy()
    moved = _fix_gauge(moved, old, frames)
    poses = old.copy()
    poses[frames] = moved[frames]
    first = model.image(int(frames[0]) + 1).camera
    if freedom.each_frame:
        K = cameras.K.double().numpy().copy()
        for t in frames:
            K[t] = model.image(int(t) + 1).camera.calibration_matrix()
    else:
        K = np.tile(first.calibration_matrix(), (len(cameras), 1, 1))
    radial = None if freedom.radial is None else (float(first.params[3]), float(first.params[4]))
    adjusted = Cameras(torch.from_numpy(K), torch.from_numpy(poses), cameras.width, cameras.height)
    return Adjusted(adjusted, radial)


def _fix_gauge(
    moved: Float[np.ndarray, "F 4 4"],
    old: Float[np.ndarray, "F 4 4"],
    frames: Int[np.ndarray, "f"],
) -> Float[np.ndarray, "F 4 4"]:
    """Adjusted poses in the frame of reference and scale of the old poses."""
    first = frames[0]
    moved = old[first] @ np.linalg.inv(moved[first]) @ moved
    far = frames[np.linalg.norm(old[frames, :3, 3] - old[first, :3, 3], axis=1).argmax()]
    before = np.linalg.norm(old[far, :3, 3] - old[first, :3, 3])
    after = np.linalg.norm(moved[far, :3, 3] - moved[first, :3, 3])
    if after > 0:
        offset = moved[:, :3, 3] - old[first, :3, 3]
        moved[:, :3, 3] = old[first, :3, 3] + (before / after) * offset
    return moved


def _build_model(
    cameras: Cameras,
    xyz: Float[np.ndarray, "N 3"],
    tracks: PointTracks,
    frames: Int[np.ndarray, "f"],
    freedom: Freedom,
) -> pycolmap.Reconstruction:
    """The tracks in some frames as a COLMAP model."""
    visible = tracks.visible
    used = np.isin(np.arange(len(visible)), frames)
    model = pycolmap.Reconstruction()
    numbers = _add_cameras(model, cameras, frames, freedom)
    poses = cameras.cam_from_world.double().numpy()
    for t in frames:
        keypoints = np.ascontiguousarray(tracks.xy[t, visible[t]], np.float64)
        image = pycolmap.Image(
            name=f"{t:05d}.png", keypoints=keypoints, camera_id=numbers[t], image_id=int(t) + 1
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(poses[t, :3]))
    row = np.cumsum(visible, 1) - 1
    for n in np.flatnonzero((visible & used[:, None]).sum(0) >= 2):
        seen = np.flatnonzero(visible[:, n] & used)
        track = pycolmap.Track([pycolmap.TrackElement(int(t) + 1, int(row[t, n])) for t in seen])
        model.add_point3D(xyz[n], track)
    return model


def _add_cameras(
    model: pycolmap.Reconstruction, cameras: Cameras, frames: Int[np.ndarray, "f"], freedom: Freedom
) -> dict[int, int]:
    """Adds a shared camera, or a camera for each frame; returns the number of each frame's camera."""
    K = cameras.K.double().numpy()
    kind = "SIMPLE_PINHOLE" if freedom.radial is None else "RADIAL"
    own = freedom.each_frame
    numbers = {int(t): int(t) + 1 if own else 1 for t in frames}
    for number in sorted(set(numbers.values())):
        of = [number - 1] if own else frames
        values = [K[of, 0, 0].mean(), K[of, 0, 2].mean(), K[of, 1, 2].mean()]
        camera = pycolmap.Camera(
            model=kind,
            width=cameras.width,
            height=cameras.height,
            params=[*values, *(freedom.radial or ())],
            camera_id=number,
        )
        model.add_camera_with_trivial_rig(camera)
    return numbers
