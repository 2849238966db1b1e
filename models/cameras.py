"""Pinhole cameras of a clip: projection and its inverse, similarity alignment, transforms.json in
and out."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.run import MAX_PIXELS, MAX_SIDE, InputError, read_json, write_json

OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


@dataclass(frozen=True)
class Cameras:
    """F pinhole cameras that share an image size, without lens distortion."""

    K: Float[Tensor, "F 3 3"]
    """Intrinsics in pixels; the centre of the top-left pixel is (0.5, 0.5)."""
    world_from_cam: Float[Tensor, "F 4 4"]
    """Rigid poses, OpenCV camera axes (x right, y down, z forward) to world."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""

    def __len__(self) -> int:
        return len(self.K)

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> "Cameras":
        """Some of the cameras; an integer gives one camera, as ``Cameras`` of length 1."""
        if isinstance(index, (int, np.integer)):
            index = [int(index)]
        return Cameras(self.K[index], self.world_from_cam[index], self.width, self.height)

    @property
    def cam_from_world(self) -> Float[Tensor, "F 4 4"]:
        """Inverse poses; a rigid inverse is exact where a general one is not."""
        rotation = self.world_from_cam[:, :3, :3].transpose(1, 2)
        inverse = torch.zeros_like(self.world_from_cam)
        inverse[:, :3, :3] = rotation
        inverse[:, :3, 3] = -(rotation @ self.world_from_cam[:, :3, 3:])[..., 0]
        inverse[:, 3, 3] = 1
        return inverse

    @property
    def centers(self) -> Float[Tensor, "F 3"]:
        """Camera centres in the world."""
        return self.world_from_cam[:, :3, 3]

    def to_camera(self, xyz: Tensor) -> Float[Tensor, "F N 3"]:
        """World points, (N, 3) shared by all frames or (F, N, 3), in each camera's axes."""
        pose = self.cam_from_world.to(xyz)
        return xyz @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]

    def project(self, xyz: Tensor) -> tuple[Float[Tensor, "F N 2"], Float[Tensor, "F N"]]:
        """World points (N, 3) or (F, N, 3) -> pixels and z-depth (world units; not positive =
        behind)."""
        local = self.to_camera(xyz)
        image = local @ self.K.to(xyz).transpose(1, 2)
        depth = image[..., 2]
        tiny = torch.finfo(depth.dtype).tiny
        return image[..., :2] / torch.where(
            depth.abs() < tiny, torch.full_like(depth, tiny), depth
        )[..., None], depth

    def unproject(
        self, xy: Float[Tensor, "F N 2"], depth: Float[Tensor, "F N"]
    ) -> Float[Tensor, "F N 3"]:
        """Pixels and z-depth -> world points; the inverse of project."""
        homogeneous = torch.cat([xy, torch.ones_like(xy[..., :1])], -1)
        local = homogeneous @ torch.linalg.inv(self.K).to(xy).transpose(1, 2) * depth[..., None]
        pose = self.world_from_cam.to(xy)
        return local @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]

    def same_as(self, other: "Cameras") -> bool:
        """Whether both see the same, to the bit."""
        pairs = (self.K, other.K), (self.world_from_cam, other.world_from_cam)
        sizes = (self.width, self.height), (other.width, other.height)
        return sizes[0] == sizes[1] and all(torch.equal(a.double(), b.double()) for a, b in pairs)

    def resized(self, width: int, height: int) -> "Cameras":
        """The same cameras for images scaled to another size."""
        scale = torch.diag(
            torch.tensor([width / self.width, height / self.height, 1.0], dtype=self.K.dtype)
        )
        return Cameras(scale.to(self.K) @ self.K, self.world_from_cam, width, height)


def look_at(eye: Tensor, target: Tensor, up: Tensor) -> Float[Tensor, "4 4"]:
    """world_from_cam of a camera at ``eye`` that looks at ``target``, with ``up`` upwards in the
    image."""
    forward = torch.nn.functional.normalize(target - eye, dim=0)
    right = torch.linalg.cross(forward, up)
    if right.norm() < 1e-9 * up.norm():
        raise ValueError("look_at: up is parallel to the direction of view")
    right = torch.nn.functional.normalize(right, dim=0)
    pose = torch.eye(4, dtype=eye.dtype)
    pose[:3] = torch.stack([right, torch.linalg.cross(forward, right), forward, eye], 1)
    return pose


def similarity_between(
    source: Float[Tensor, "N 3"], target: Float[Tensor, "N 3"]
) -> tuple[float, Tensor, Tensor]:
    """Scale, rotation (3, 3) and shift (3,) with target ~ scale * rotation @ source + shift, least
    squares.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991.
    """
    source_mean = source.mean(0)
    target_mean = target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, singular, vt = torch.linalg.svd(b.T @ a)
    sign = torch.ones(3, dtype=source.dtype)
    sign[2] = torch.sign(torch.det(u) * torch.det(vt))
    rotation = u @ torch.diag(sign) @ vt
    scale = float((singular * sign).sum() / a.square().sum().clamp_min(1e-300))
    return scale, rotation, target_mean - scale * rotation @ source_mean


def save_transforms(
    path: Path, cameras: Cameras, times: list[float], names: list[str] | None = None
) -> None:
    """Writes cameras in the layout of instant-ngp and nerfstudio (camera-to-world, OpenGL axes).

    The shared intrinsics are those of the first camera; a frame whose own differ carries them
    itself.
    """
    poses = (cameras.world_from_cam.double() @ OPENGL_FROM_OPENCV).tolist()
    intrinsics = [_intrinsics(K) for K in cameras.K.double()]
    shared = intrinsics[0]
    frames = []
    for i, (pose, own) in enumerate(zip(poses, intrinsics, strict=True)):
        name = names[i] if names else f"{i:05d}.png"
        own = {} if own == shared else own
        frames.append({"file_path": name, "transform_matrix": pose, "time": float(times[i]), **own})
    meta = {"w": cameras.width, "h": cameras.height, **shared, "frames": frames}
    write_json(path, meta)


def load_transforms(path: Path) -> tuple[Cameras, list[float], list[str]]:
    """Reads a transforms.json: cameras, the time of each (its index where none is given), and file
    names.

    Raises:
        InputError: the file cannot be read, has no frames, or holds a pose or intrinsics that
            cannot be used.
    """
    meta = read_json(path, "transforms.json")
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(
            f"{path}: holds no frames; a camera path needs at least one entry in 'frames'"
        )
    try:
        width, height = (
            int(meta[side] if side in meta else frames[0][side]) for side in ("w", "h")
        )
        sizes = [(int(frame.get("w", width)), int(frame.get("h", height))) for frame in frames]
        K = torch.stack([_intrinsic_matrix({**meta, **frame}, width, height) for frame in frames])
        poses = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
        times = [float(frame.get("time", i)) for i, frame in enumerate(frames)]
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path}: needs w, h, fl_x and a 4x4 transform_matrix for each frame ({error})"
        ) from error
    if (
        poses.shape[1:] != (4, 4)
        or not np.isfinite(poses).all()
        or not all(map(math.isfinite, times))
    ):
        raise InputError(
            f"{path}: every transform_matrix must be 4x4 and finite, and every time finite"
        )
    rotation = poses[:, :3, :3]
    if np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() > 1e-2:
        raise InputError(
            f"{path}: a transform_matrix is not a rotation and a shift (scaled or sheared)"
        )
    if any(size != (width, height) for size in sizes):
        raise InputError(f"{path}: has frames of unlike sizes; give cameras of images of one size")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise InputError(
            f"{path}: image size {width}x{height} is out of range (sides 1 to {MAX_SIDE}, 67 Mpixel)"
        )
    world_from_cam = torch.from_numpy(poses) @ OPENGL_FROM_OPENCV
    names = [str(frame.get("file_path", f"{i:05d}.png")) for i, frame in enumerate(frames)]
    return Cameras(K, world_from_cam, width, height), times, names


def load_lenses(path: Path) -> list[tuple[str, int, int, list[float]]]:
    """Lens models of a transforms.json, each once: COLMAP's name of the model, width, height and
    its parameters.

    Raises:
        InputError: a camera model or a coefficient that is not known.
    """
    meta = read_json(path, "transforms.json")
    lenses = []
    for frame in meta["frames"]:
        lens = _lens({**meta["frames"][0], **meta, **frame}, path)
        if lens not in lenses:
            lenses.append(lens)
    return lenses


def _lens(meta: dict, path: Path) -> tuple[str, int, int, list[float]]:
    named = str(meta.get("camera_model", "OPENCV")).upper()
    if named not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "OPENCV_FISHEYE"):
        raise InputError(
            f"{path}: camera_model {named} has no straight lines; give images of a pinhole camera"
        )
    width, height = int(meta["w"]), int(meta["h"])
    K = _intrinsic_matrix(meta, width, height)
    straight = [float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])]
    try:
        k = [float(meta.get(f"k{i}", 0)) for i in range(1, 7)]
        p = [float(meta.get(f"p{i}", 0)) for i in (1, 2)]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: a coefficient of lens distortion (k1 to k6, p1, p2) is no number"
        ) from error
    if named == "OPENCV_FISHEYE" or meta.get("is_fisheye"):
        return "OPENCV_FISHEYE", width, height, [*straight, *k[:4]]
    return "FULL_OPENCV", width, height, [*straight, *k[:2], *p, *k[2:]]


def _intrinsics(K: Float[Tensor, "3 3"]) -> dict[str, float]:
    return {
        "fl_x": float(K[0, 0]),
        "fl_y": float(K[1, 1]),
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
    }


def _intrinsic_matrix(meta: dict, width: int, height: int) -> Float[Tensor, "3 3"]:
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
