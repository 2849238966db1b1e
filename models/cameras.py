"""Pinhole cameras of a clip: projection and its inverse, checks, similarity alignment."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
"""Turns camera axes of OpenCV into camera axes of OpenGL (x right, y up, z backward)."""
LARGEST = 1e12
"""Largest coordinate of a scene, in world units; products of larger ones would leave the range of
single precision."""
# Largest entry of |R R^T - I| of a pose that counts as rigid.
_RIGID_TOLERANCE = 1e-3


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


def camera_problem(K: Float[Tensor, "F 3 3"], poses: Float[Tensor, "F 4 4"]) -> str | None:
    """Why intrinsics and world_from_cam poses in float64 are no cameras, as a clause; None if they
    are."""
    if not (torch.isfinite(K).all() and torch.isfinite(poses).all()):
        return "a camera holds NaN or infinity"
    if (
        not (K.diagonal(dim1=1, dim2=2) > 0).all()
        or (K[:, [1, 2, 2], [0, 0, 1]] != 0).any()
        or (K[:, 2, 2] != 1).any()
    ):
        return "K is no matrix of intrinsics (positive focal lengths, last row 0 0 1)"
    rotation = poses[:, :3, :3]
    skew = (rotation @ rotation.transpose(1, 2) - torch.eye(3, dtype=torch.float64)).abs().max()
    last = poses[:, 3] - torch.tensor([0, 0, 0, 1.0], dtype=torch.float64)
    if skew > _RIGID_TOLERANCE or last.abs().max() > 1e-6 or (torch.det(rotation) < 0).any():
        return "a pose in world_from_cam is not rigid (a rotation and a shift)"
    if max(K.abs().max(), poses.abs().max()) > LARGEST:
        return f"a camera holds values above {LARGEST:.0e}"
    return None


def middle_frame(cameras: Cameras) -> int:
    """Index of the camera whose centre is nearest the mean of all centres."""
    centers = cameras.centers
    return int((centers - centers.mean(0)).norm(dim=1).argmin())
