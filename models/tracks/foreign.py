"""Track files of other programs, brought to the fields of ``Tracks``.

Both layouts come from 3D point trackers: the tensors that scripts around SpaTrackerV2 save, and the
.npz that TAPIP3D and SpaTrackerV2 share. Their pixel origin is the centre of the top-left pixel,
which is (0.5, 0.5) here.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.cameras import Cameras
from models.run import InputError
from models.tracks.archive import MAX_VALUES, read_archive

SPATRACKER_KEYS = ("track2d_pred", "vis_pred", "track3d_pred", "intrs", "c2w_traj")
"""Tensors that a file of a SpaTrackerV2 script must hold."""
_NPZ_KEYS = ("coords", "visibs", "intrinsics", "extrinsics")
# Frames per second; the files do not say.
_DEFAULT_FPS = 30.0
# Names of images in the files, whose shapes tell the image size.
_IMAGES = ("video", "depths", "conf_depth", "point_map")
# Relative distance of the principal point from the middle of an image of which it may be.
_OFF_CENTRE = 0.3
# Relative difference below which two image scales count as the same.
_SAME_SCALE = 0.02
# Largest difference of an entry of a rotation from the nearest exact rotation, for poses in half
# precision.
_ROTATION_TOLERANCE = 0.05
# Visibility, 0 to 1, above which a point counts as visible.
_VISIBLE = 0.5
# Smallest depth that is divided by, in the file's unit.
_TINY = 1e-9


def from_spatracker(data: dict, path: Path) -> dict:
    """Fields of a track file from SpaTrackerV2's tensors: points in camera axes, poses
    camera-to-world.

    Raises:
        InputError: a tensor is missing or has the wrong shape.
    """
    if "c2w_traj" not in data and "extrs" in data:
        # SpaTrackerV2 takes and returns extrs as camera-to-world.
        data = {**data, "c2w_traj": data["extrs"]}
    tensors = {key: _find_tensor(data, key, path) for key in SPATRACKER_KEYS}
    poses = _round_poses(tensors["c2w_traj"], path)
    local = _read_points(tensors["track3d_pred"], "track3d_pred", path)
    if len(local) != len(poses):
        raise InputError(
            f"{path}: track3d_pred has {len(local)} frames, c2w_traj {len(poses)}; save them from one run"
        )
    xyz = local.double() @ poses[:, :3, :3].transpose(1, 2) + poses[:, None, :3, 3]
    confidence = _read_confidence(data, "conf_pred", tensors["vis_pred"], path)
    K = _read_intrinsics(tensors["intrs"], path)
    xy = tensors["track2d_pred"]
    xy = xy.squeeze(0) if xy.ndim == 4 else xy
    if xy.ndim != 3 or xy.shape[-1] < 2:
        raise InputError(
            f"{path}: track2d_pred has shape {tuple(xy.shape)}, expected (frames, points, 2 or 3)"
        )
    xy = xy[..., :2].double() + 0.5
    K = _scale_to_tracks(K, local.double(), xy)
    shapes = {key: tuple(data[key].shape) for key in _IMAGES if isinstance(data.get(key), Tensor)}
    cameras = Cameras(K, poses, *_find_image_size(shapes, {}, K))
    return _make_content(xy, tensors["vis_pred"], confidence, xyz, cameras, path)


def from_npz(path: Path) -> dict:
    """Fields of a track file from a TAPIP3D or SpaTrackerV2 .npz: points in the world, poses
    world-to-camera.

    Raises:
        InputError: the file cannot be read, or an array is missing or has the wrong shape.
    """
    archive = read_archive(path, {*_NPZ_KEYS, "confs"})
    tensors = {key: _find_tensor(archive.arrays, key, path) for key in _NPZ_KEYS}
    extrinsics = tensors["extrinsics"].double()
    if extrinsics.ndim != 3 or extrinsics.shape[1:] not in ((3, 4), (4, 4)):
        raise InputError(
            f"{path}: extrinsics have shape {tuple(extrinsics.shape)}, expected (frames, 4, 4)"
        )
    cam_from_world = _round_poses(extrinsics, path)
    xyz = _read_points(tensors["coords"], "coords", path).double()
    K = _read_intrinsics(tensors["intrinsics"], path)
    if not len(xyz) == len(K) == len(cam_from_world):
        raise InputError(
            f"{path}: coords, intrinsics and extrinsics differ in frames "
            f"({len(xyz)}, {len(K)}, {len(cam_from_world)}); save them from one run"
        )
    local = xyz @ cam_from_world[:, :3, :3].transpose(1, 2) + cam_from_world[:, None, :3, 3]
    image = local @ K.transpose(1, 2)
    visible = _read_flags(tensors["visibs"], "visibs", path) & (local[..., 2] > 0)
    xy = image[..., :2] / local[..., 2:].clamp_min(_TINY)
    confidence = _read_confidence(archive.arrays, "confs", tensors["visibs"], path)
    size = _find_image_size(archive.shapes, archive.scalars, K)
    cameras = Cameras(K, torch.linalg.inv(cam_from_world), *size)
    return _make_content(xy, visible, confidence, xyz, cameras, path)


def _make_content(
    xy: Float[Tensor, "F N 2"],
    visible: Tensor,
    confidence: Float[Tensor, "F N"],
    xyz: Float[Tensor, "F N 3"],
    cameras: Cameras,
    path: Path,
) -> dict:
    """Fields of a track file; points at NaN or infinity are not visible."""
    visible = _read_flags(visible, "visibility", path)
    finite = torch.isfinite(xy).all(-1) & torch.isfinite(xyz).all(-1)
    if visible.shape == finite.shape:
        visible = visible & finite
    layer = "foreground" if "foreground" in path.stem.lower() else "background"
    return {
        "format_version": 1,
        "xy": xy.float(),
        "visible": visible,
        "confidence": confidence,
        "xyz": xyz.float(),
        "K": cameras.K,
        "world_from_cam": cameras.world_from_cam,
        "width": cameras.width,
        "height": cameras.height,
        "fps": _DEFAULT_FPS,
        "frame_indices": torch.arange(len(xy)),
        "layer": layer,
        "video_path": "",
    }


def _find_tensor(data: dict, key: str, path: Path) -> Tensor:
    """A tensor by its name, no larger than its storage."""
    value = data.get(key)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fbiu":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise InputError(
            f"{path}: holds no tensor '{key}'; save it from the tracker with all of its outputs"
        )
    size = value.numel() * value.element_size()
    if value.numel() > MAX_VALUES or size > value.untyped_storage().nbytes():
        raise InputError(
            f"{path}: '{key}' claims {value.numel()} values; save fewer frames or points"
        )
    return value


def _read_points(points: Tensor, name: str, path: Path) -> Float[Tensor, "F N 3"]:
    """Positions from (F, N, 3) or (1, F, N, 3); further columns, such as colours, are left out."""
    points = points.squeeze(0) if points.ndim == 4 else points
    if points.ndim != 3 or points.shape[-1] not in (3, 6):
        raise InputError(
            f"{path}: {name} has shape {tuple(points.shape)}, expected (frames, points, 3)"
        )
    return points[..., :3]


def _read_flags(visible: Tensor, name: str, path: Path) -> Bool[Tensor, "F N"]:
    """Flags, or numbers from 0 to 1, as flags."""
    visible = _read_matrix(visible, name, path)
    return visible if visible.dtype == torch.bool else visible > _VISIBLE


def _read_matrix(values: Tensor, name: str, path: Path) -> Tensor:
    """(F, N) from (F, N), (F, N, 1) or (1, F, N, 1)."""
    shape = tuple(values.shape)
    values = values.squeeze(0) if values.ndim == 4 else values
    values = values.squeeze(-1) if values.ndim == 3 else values
    if values.ndim != 2:
        raise InputError(f"{path}: {name} has shape {shape}, expected (frames, points)")
    return values


def _read_confidence(data: dict, key: str, visible: Tensor, path: Path) -> Float[Tensor, "F N"]:
    """The tracker's confidence, or its visibility if the file holds no confidence."""
    source = _find_tensor(data, key, path) if key in data else visible
    return torch.nan_to_num(_read_matrix(source, key, path).float()).clamp(0, 1)


def _round_poses(poses: Tensor, path: Path) -> Float[Tensor, "F 4 4"]:
    """(F, 4, 4) poses with the nearest exact rotation; networks return them in half precision."""
    poses = poses.squeeze(0) if poses.ndim == 4 else poses
    is_stack = poses.ndim == 3 and poses.shape[1:] in ((3, 4), (4, 4))
    if not is_stack or not torch.isfinite(poses).all():
        raise InputError(
            f"{path}: the poses have shape {tuple(poses.shape)}, expected finite (frames, 4, 4)"
        )
    u, _, vt = torch.linalg.svd(poses[:, :3, :3].double())
    rigid = torch.eye(4, dtype=torch.float64).repeat(len(poses), 1, 1)
    rigid[:, :3, :3] = u @ vt
    rigid[:, :3, 3] = poses[:, :3, 3].double()
    if (rigid[:, :3, :3] - poses[:, :3, :3]).abs().max() > _ROTATION_TOLERANCE:
        raise InputError(
            f"{path}: a pose is not a rotation and a shift; save camera poses without scale"
        )
    return rigid


def _read_intrinsics(K: Tensor, path: Path) -> Float[Tensor, "F 3 3"]:
    """Intrinsics, moved to the pixel origin used here."""
    K = K.squeeze(0) if K.ndim == 4 else K
    if K.ndim != 3 or K.shape[1:] != (3, 3):
        raise InputError(
            f"{path}: the intrinsics have shape {tuple(K.shape)}, expected (frames, 3, 3)"
        )
    K = K.double().clone()
    K[:, :2, 2] += 0.5
    return K


def _scale_to_tracks(
    K: Float[Tensor, "F 3 3"], local: Float[Tensor, "F N 3"], xy: Float[Tensor, "F N 2"]
) -> Float[Tensor, "F 3 3"]:
    """Intrinsics of the images in which the 2D tracks lie: scripts shrink the video and may scale
    only the tracks or only the intrinsics.

    Args:
        local: points in camera axes.
    """
    if len(K) != len(local) or xy.shape[:2] != local.shape[:2]:
        return K
    image = local @ K.transpose(1, 2)
    ratio = xy / (image[..., :2] / image[..., 2:])
    ratio = ratio[(image[..., 2:] > 0).expand_as(ratio) & torch.isfinite(ratio)]
    if not len(ratio):
        return K
    middle = ratio.median()
    steady = (ratio / middle - 1).abs().median() < _SAME_SCALE
    if not steady or (middle - 1).abs() < _SAME_SCALE:
        return K
    return torch.diag(torch.tensor([middle, middle, 1.0], dtype=K.dtype)) @ K


def _find_image_size(
    shapes: dict[str, tuple[int, ...]], scalars: dict[str, int], K: Float[Tensor, "F 3 3"]
) -> tuple[int, int]:
    """Width and height of the images of the intrinsics: stated, or of images in the file, or else
    twice the principal point.

    A file may hold images of several sizes (the video as it was, depth as it was shrunk); the
    principal point lies near the middle of the right ones.
    """
    if {"width", "height"} <= scalars.keys():
        return scalars["width"], scalars["height"]
    middle = 2 * K[0, :2, 2] if K[0, :2, 2].isfinite().all() else torch.zeros(2)
    sizes = [_read_size(shapes[key]) for key in _IMAGES if len(shapes.get(key, ())) >= 3]
    fitting = [
        size for size in sizes if (torch.tensor(size) / middle - 1).abs().max() < _OFF_CENTRE
    ]
    width, height = (fitting or sizes or [(middle - 1).round().tolist()])[0]
    return int(width), int(height)


def _read_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """(width, height) of images stacked as (..., H, W, 3) or (..., H, W)."""
    height, width = shape[-3:-1] if shape[-1] == 3 and len(shape) >= 4 else shape[-2:]
    return int(width), int(height)
