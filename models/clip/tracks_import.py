"""Track files that other programs write, brought to the fields of models.tracks.

Both layouts come from 3D point trackers: the tensors that scripts around SpaTrackerV2 save, and the
.npz that TAPIP3D and SpaTrackerV2 share. Their pixel origin is the centre of the top-left pixel,
half a pixel off ours.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.run import HEADROOM, InputError, bound_memory

SPATRACKER_KEYS = ("track2d_pred", "vis_pred", "track3d_pred", "intrs", "c2w_traj")
NPZ_KEYS = ("coords", "visibs", "intrinsics", "extrinsics")
_DEFAULT_FPS = 30.0
_IMAGES = ("video", "depths", "conf_depth", "point_map")
_OFF_CENTRE = 0.3
_SAME_SCALE = 0.02
_ROTATION_TOLERANCE = 0.05
_MAX_VALUES = 1 << 31
_HEADER = 1 << 14
"""Bytes in which the header of an array must end."""
_PACKED_LEAST = 1 << 28
_PACKED_MOST = 50
"""An archive that unpacks to more bytes than the first, and to more than so many times its size, is
a bomb."""


def from_spatracker(data: dict, path: Path) -> dict:
    """Fields of a track file from SpaTrackerV2's tensors: points in camera axes, poses
    camera-to-world.

    Raises:
        InputError: a tensor is missing or has the wrong shape.
    """
    if "c2w_traj" not in data and "extrs" in data:
        data = {
            **data,
            "c2w_traj": data["extrs"],
        }  # SpaTrackerV2 takes and returns extrs as camera-to-world
    tensors = {key: _tensor(data, key, path) for key in SPATRACKER_KEYS}
    poses = _rigid(tensors["c2w_traj"], path)
    local = _points(tensors["track3d_pred"], "track3d_pred", path)
    if len(local) != len(poses):
        raise InputError(
            f"{path}: track3d_pred has {len(local)} frames, c2w_traj {len(poses)}; save them from one run"
        )
    xyz = local.double() @ poses[:, :3, :3].transpose(1, 2) + poses[:, None, :3, 3]
    confidence = _confidence(data, "conf_pred", tensors["vis_pred"], path)
    K = _shifted(tensors["intrs"], path)
    xy = (
        tensors["track2d_pred"].squeeze(0)
        if tensors["track2d_pred"].ndim == 4
        else tensors["track2d_pred"]
    )
    if xy.ndim != 3 or xy.shape[-1] < 2:
        raise InputError(
            f"{path}: track2d_pred has shape {tuple(xy.shape)}, expected (frames, points, 2 or 3)"
        )
    xy = xy[..., :2].double() + 0.5
    K = _of_the_tracks(K, local.double(), xy)
    width, height = _image_size({key: tuple(data[key].shape) for key in _image_keys(data)}, {}, K)
    return _fields(xy, tensors["vis_pred"], confidence, xyz, K, poses, width, height, path)


def from_npz(path: Path) -> dict:
    """Fields of a track file from a TAPIP3D or SpaTrackerV2 .npz: points in the world, poses
    world-to-camera.

    Raises:
        InputError: the file cannot be read, an array is missing or has the wrong shape.
    """
    arrays, shapes, scalars = _read_npz(path)
    tensors = {key: _tensor(arrays, key, path) for key in NPZ_KEYS}
    extrinsics = tensors["extrinsics"].double()
    if extrinsics.ndim != 3 or extrinsics.shape[1:] not in ((3, 4), (4, 4)):
        raise InputError(
            f"{path}: extrinsics have shape {tuple(extrinsics.shape)}, expected (frames, 4, 4)"
        )
    cam_from_world = _rigid(extrinsics, path)
    xyz = _points(tensors["coords"], "coords", path).double()
    K = _shifted(tensors["intrinsics"], path)
    if not len(xyz) == len(K) == len(cam_from_world):
        raise InputError(
            f"{path}: coords, intrinsics and extrinsics differ in frames "
            f"({len(xyz)}, {len(K)}, {len(cam_from_world)}); save them from one run"
        )
    local = xyz @ cam_from_world[:, :3, :3].transpose(1, 2) + cam_from_world[:, None, :3, 3]
    image = local @ K.transpose(1, 2)
    visible = _flags(tensors["visibs"], "visibs", path) & (local[..., 2] > 0)
    xy = image[..., :2] / local[..., 2:].clamp_min(1e-9)
    confidence = _confidence(arrays, "confs", tensors["visibs"], path)
    width, height = _image_size(shapes, scalars, K)
    poses = torch.linalg.inv(cam_from_world)
    return _fields(xy, visible, confidence, xyz, K, poses, width, height, path)


def _fields(
    xy: Tensor,
    visible: Tensor,
    confidence: Tensor,
    xyz: Tensor,
    K: Tensor,
    poses: Tensor,
    w: int,
    h: int,
    path: Path,
) -> dict:
    visible = _flags(visible, "visibility", path)
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
        "K": K,
        "world_from_cam": poses,
        "width": w,
        "height": h,
        "fps": _DEFAULT_FPS,
        "frame_indices": torch.arange(len(xy)),
        "layer": layer,
        "video_path": "",
    }


def _read_npz(
    path: Path,
) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]], dict[str, int]]:
    """The arrays wanted, the shapes of all, and the whole numbers; the video itself is not read,
    only its header."""
    wanted = {*NPZ_KEYS, "confs"}
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
            shapes = {name: _npy_shape(archive, name) for name in names}
            sizes = {
                name: archive.getinfo(f"{name}.npy").file_size for name in names if name in wanted
            }
        if sum(int(np.prod(shapes[n], dtype=object)) for n in sizes) > _MAX_VALUES:
            raise InputError(
                f"{path}: claims more values than can be worked on; save fewer frames or points"
            )
        if sum(sizes.values()) > max(_PACKED_LEAST, _PACKED_MOST * path.stat().st_size):
            raise InputError(
                f"{path}: unpacks to far more than tracks ever would; save it again, uncompressed"
            )
        with (
            bound_memory(2 * sum(sizes.values()) + HEADROOM),
            np.load(path, allow_pickle=False) as data,
        ):
            arrays = {name: data[name] for name in names if name in wanted}
            scalars = {n: int(data[n]) for n in ("width", "height") if shapes.get(n) == ()}
    except InputError:
        raise
    except Exception as error:  # a damaged archive can fail anywhere in the decoders
        raise InputError(
            f"{path}: is no readable .npz of arrays ({type(error).__name__}); save it again"
        ) from error
    return arrays, shapes, scalars


def _npy_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(f"{name}.npy") as start:
        stream = io.BytesIO(start.read(_HEADER))  # a header may claim to be of any length
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        return read(stream)[0]


def _tensor(data: dict, key: str, path: Path) -> Tensor:
    value = data.get(key)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fbiu":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise InputError(
            f"{path}: holds no tensor '{key}'; save it from the tracker with all of its outputs"
        )
    if (
        value.numel() > _MAX_VALUES
        or value.numel() * value.element_size() > value.untyped_storage().nbytes()
    ):
        raise InputError(
            f"{path}: '{key}' claims {value.numel()} values; save fewer frames or points"
        )
    return value


def _points(points: Tensor, name: str, path: Path) -> Float[Tensor, "F N 3"]:
    points = points.squeeze(0) if points.ndim == 4 else points
    if points.ndim != 3 or points.shape[-1] not in (3, 6):
        raise InputError(
            f"{path}: {name} has shape {tuple(points.shape)}, expected (frames, points, 3)"
        )
    return points[..., :3]


def _flags(visible: Tensor, name: str, path: Path) -> Tensor:
    visible = _frames_by_points(visible, name, path)
    return visible if visible.dtype == torch.bool else visible > 0.5


def _frames_by_points(values: Tensor, name: str, path: Path) -> Tensor:
    """(F, N) from (F, N), (F, N, 1) or (1, F, N, 1)."""
    shape = tuple(values.shape)
    values = values.squeeze(0) if values.ndim == 4 else values
    values = values.squeeze(-1) if values.ndim == 3 else values
    if values.ndim != 2:
        raise InputError(f"{path}: {name} has shape {shape}, expected (frames, points)")
    return values


def _confidence(data: dict, key: str, visible: Tensor, path: Path) -> Float[Tensor, "F N"]:
    """The tracker's confidence where it wrote one, else its visibility."""
    source = _tensor(data, key, path) if key in data else visible
    return torch.nan_to_num(_frames_by_points(source, key, path).float()).clamp(0, 1)


def _rigid(poses: Tensor, path: Path) -> Float[Tensor, "F 4 4"]:
    """(F, 4, 4) poses with the nearest exact rotation; networks return them in half precision."""
    poses = poses.squeeze(0) if poses.ndim == 4 else poses
    if (
        poses.ndim != 3
        or poses.shape[1:] not in ((3, 4), (4, 4))
        or not torch.isfinite(poses).all()
    ):
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


def _shifted(K: Tensor, path: Path) -> Float[Tensor, "F 3 3"]:
    """Intrinsics moved from pixel centres at whole numbers to ours at halves."""
    K = K.squeeze(0) if K.ndim == 4 else K
    if K.ndim != 3 or K.shape[1:] != (3, 3):
        raise InputError(
            f"{path}: the intrinsics have shape {tuple(K.shape)}, expected (frames, 3, 3)"
        )
    K = K.double().clone()
    K[:, :2, 2] += 0.5
    return K


def _of_the_tracks(K: Tensor, local: Tensor, xy: Tensor) -> Float[Tensor, "F 3 3"]:
    """Intrinsics of the images that the 2D tracks are in; scripts shrink the video and leave one of
    the two behind."""
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


def _image_keys(data: dict) -> list[str]:
    return [key for key in _IMAGES if isinstance(data.get(key), Tensor)]


def _image_size(
    shapes: dict[str, tuple[int, ...]], scalars: dict[str, int], K: Tensor
) -> tuple[int, int]:
    """Width and height from whatever the file holds; at worst the principal point is taken as the
    middle.

    Of several sizes (the video as it was, depth as it was shrunk) that of the intrinsics is the
    one.
    """
    if {"width", "height"} <= scalars.keys():
        return scalars["width"], scalars["height"]
    middle = 2 * K[0, :2, 2] if K[0, :2, 2].isfinite().all() else torch.zeros(2)
    sizes = [_last_two(shapes[key]) for key in _IMAGES if len(shapes.get(key, ())) >= 3]
    known = [size for size in sizes if (torch.tensor(size) / middle - 1).abs().max() < _OFF_CENTRE]
    width, height = (known or sizes or [(middle - 1).round().tolist()])[0]
    return int(width), int(height)


def _last_two(shape: tuple[int, ...]) -> tuple[int, int]:
    """(width, height) of images stacked as (..., H, W, 3) or (..., H, W)."""
    height, width = shape[-3:-1] if shape[-1] == 3 and len(shape) >= 4 else shape[-2:]
    return int(width), int(height)
