"""transforms.json, the camera files of instant-ngp and nerfstudio: written, and read with every value
checked."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.cameras import OPENGL_FROM_OPENCV, Cameras
from models.clip.lens import Lens
from models.run import MAX_PIXELS, MAX_SIDE, InputError, read_json, write_json

# Largest entry of |R R^T - I| of a pose whose file rounds its numbers; a scale of 1 % is above it.
_ROTATION_TOLERANCE = 1e-2
# Names of camera models whose radius in the image grows as the tangent of the angle, and as the
# angle.
_PERSPECTIVE = (
    *("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL"),
    "FULL_OPENCV",
)
_FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "FISHEYE")
# Coefficients in nerfstudio's list, distortion_params.
_LISTED = ("k1", "k2", "k3", "k4", "p1", "p2")


def save_transforms(
    path: Path, cameras: Cameras, times: list[float], names: list[str] | None = None
) -> None:
    """Writes cameras in the layout of instant-ngp and nerfstudio (camera-to-world, OpenGL axes).

    The shared intrinsics are those of the first camera; a frame with other intrinsics carries its
    own.

    Args:
        times: time of each camera, in frames of the clip.
        names: file name of each frame's image; its number as five digits if not given.

    Raises:
        InputError: the file cannot be written.
    """
    poses = (cameras.world_from_cam.double() @ OPENGL_FROM_OPENCV).tolist()
    intrinsics = [_write_intrinsics(K) for K in cameras.K.double()]
    shared = intrinsics[0]
    frames = []
    for i, (pose, own) in enumerate(zip(poses, intrinsics, strict=True)):
        name = names[i] if names else f"{i:05d}.png"
        own = {} if own == shared else own
        frames.append({"file_path": name, "transform_matrix": pose, "time": float(times[i]), **own})
    meta = {"w": cameras.width, "h": cameras.height, **shared, "frames": frames}
    write_json(path, meta)


def load_transforms(
    path: Path, size: tuple[int, int] | None = None
) -> tuple[Cameras, list[float], list[str]]:
    """Reads a transforms.json.

    Args:
        size: width and height of the images in pixels, for a file that gives a field of view and no
            size.

    Returns:
        The cameras; the time of each, in frames of the clip (its index if the file gives none); and
        the file name of each frame's image.

    Raises:
        InputError: the file cannot be read, has no frames, or holds a pose, intrinsics or an image
            size that cannot be used.
    """
    meta = _read_file(path, size)
    frames = meta["frames"]
    try:
        width, height = (
            int(meta[side] if side in meta else frames[0][side]) for side in ("w", "h")
        )
        sizes = [(int(frame.get("w", width)), int(frame.get("h", height))) for frame in frames]
        K = torch.stack([_read_intrinsics({**meta, **frame}, width, height) for frame in frames])
        poses = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
        times = [float(frame.get("time", i)) for i, frame in enumerate(frames)]
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path}: needs w, h, fl_x and a 4x4 transform_matrix for each frame ({error})"
        ) from error
    _check_poses(path, poses, times)
    _check_sizes(path, (width, height), sizes)
    world_from_cam = torch.from_numpy(poses) @ OPENGL_FROM_OPENCV
    names = [str(frame.get("file_path", f"{i:05d}.png")) for i, frame in enumerate(frames)]
    return Cameras(K, world_from_cam, width, height), times, names


def load_lenses(path: Path, size: tuple[int, int] | None = None) -> list[Lens]:
    """The lens of each frame of a transforms.json that ``load_transforms`` can read.

    Args:
        size: as for ``load_transforms``.

    Raises:
        InputError: a camera model is not known, or a coefficient is no number.
    """
    meta = _read_file(path, size)
    return [_read_lens({**meta["frames"][0], **meta, **frame}, path) for frame in meta["frames"]]


def _read_file(path: Path, size: tuple[int, int] | None) -> dict:
    """The entries of the file; with ``size`` where it gives a field of view and no size."""
    meta = read_json(path, "transforms.json")
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(
            f"{path}: holds no frames; a camera path needs at least one entry in 'frames'"
        )
    shared = {**frames[0], **meta} if isinstance(frames[0], dict) else meta
    # Pixels of an unknown size tell no field of view; angles do.
    in_pixels = {"w", "h", "fl_x", "fl_y", "cx", "cy"} & set(shared)
    if size is not None and "camera_angle_x" in shared and not in_pixels:
        meta = {**meta, "w": size[0], "h": size[1]}
    return meta


def _check_poses(path: Path, poses: np.ndarray, times: list[float]) -> None:
    """Refuses poses that are no finite rigid 4x4 matrices, and times that are not finite."""
    finite = np.isfinite(poses).all() and all(map(math.isfinite, times))
    if poses.shape[1:] != (4, 4) or not finite:
        raise InputError(
            f"{path}: every transform_matrix must be 4x4 and finite, and every time finite"
        )
    rotation = poses[:, :3, :3]
    skew = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max()
    if skew > _ROTATION_TOLERANCE:
        raise InputError(
            f"{path}: a transform_matrix is not a rotation and a shift (scaled or sheared)"
        )
    if (np.linalg.det(rotation) < 0).any():
        raise InputError(
            f"{path}: a transform_matrix is mirrored (determinant -1), and no camera is; negate one axis "
            "of the poses where they are written"
        )


def _check_sizes(path: Path, size: tuple[int, int], sizes: list[tuple[int, int]]) -> None:
    """Refuses frames of another image size than the file's, and sizes beyond the limits on images."""
    width, height = size
    if any(own != size for own in sizes):
        raise InputError(f"{path}: has frames of unlike sizes; give cameras of images of one size")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise InputError(
            f"{path}: image size {width}x{height} is out of range (sides 1 to {MAX_SIDE}, 67 Mpixel)"
        )


def _read_lens(meta: dict, path: Path) -> Lens:
    """The lens model of a frame, whose own entries and the shared entries are joined in ``meta``."""
    model = str(meta.get("camera_model", "OPENCV")).upper()
    if model not in _PERSPECTIVE + _FISHEYE:
        raise InputError(
            f"{path}: camera_model {model} has no straight lines; give images of a pinhole camera"
        )
    width, height = int(meta["w"]), int(meta["h"])
    K = _read_intrinsics(meta, width, height)
    straight = [float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])]
    k, p = _read_coefficients(meta, path)
    if model in _FISHEYE or meta.get("is_fisheye"):
        return Lens("OPENCV_FISHEYE", (*straight, *k[:4]), width, height)
    # Only OpenCV's rational model has k5 and k6; nerfstudio's k4 is a fourth radial coefficient.
    if model == "FULL_OPENCV" or any(k[4:]):
        return Lens("FULL_OPENCV", (*straight, *k[:2], *p, *k[2:]), width, height)
    if any(k[2:]):
        return Lens("NERFSTUDIO", (*straight, *k[:2], *p, *k[2:4]), width, height)
    return Lens("OPENCV", (*straight, *k[:2], *p), width, height)


def _read_coefficients(meta: dict, path: Path) -> tuple[list[float], list[float]]:
    """k1 to k6, and p1 and p2, of entries of these names or of nerfstudio's list."""
    try:
        if meta.get("distortion_params") is not None:
            meta = dict(zip(_LISTED, meta["distortion_params"], strict=True))
        k = [float(meta.get(f"k{i}", 0)) for i in range(1, 7)]
        p = [float(meta.get(f"p{i}", 0)) for i in (1, 2)]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: a coefficient of lens distortion (k1 to k6, p1, p2, or the six of "
            "distortion_params) is no number"
        ) from error
    if not all(map(math.isfinite, [*k, *p])):
        raise InputError(f"{path}: a coefficient of lens distortion is infinite")
    return k, p


def _write_intrinsics(K: Float[Tensor, "3 3"]) -> dict[str, float]:
    """The entries of the file that hold a camera's intrinsics, in pixels."""
    return {
        "fl_x": float(K[0, 0]),
        "fl_y": float(K[1, 1]),
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
    }


def _read_intrinsics(meta: dict, width: int, height: int) -> Float[Tensor, "3 3"]:
    """K in pixels; the principal point is the middle of the image if the file gives none.

    Raises:
        KeyError, TypeError, ValueError, ArithmeticError: the entries give no usable intrinsics.
    """
    if "fl_x" not in meta and "camera_angle_x" in meta:
        meta = {**meta, "fl_x": width / 2 / math.tan(float(meta["camera_angle_x"]) / 2)}
    fl_x = float(meta["fl_x"])
    fl_y = float(meta.get("fl_y", fl_x))
    cx, cy = float(meta.get("cx", width / 2)), float(meta.get("cy", height / 2))
    if not all(map(math.isfinite, (fl_x, fl_y, cx, cy))) or fl_x <= 0 or fl_y <= 0:
        raise ValueError(
            "focal length and principal point must be finite, the focal length positive"
        )
    return torch.tensor([[fl_x, 0, cx], [0, fl_y, cy], [0, 0, 1]], dtype=torch.float64)
