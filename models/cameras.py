"""Pinhole cameras of a clip: projection and its inverse, checks, similarity alignment.

A matrix ``a_from_b`` maps coordinates of frame b to frame a.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
"""Maps OpenCV's camera axes to OpenGL's (x right, y up, z backward); its own inverse."""
LARGEST = 1e12
"""Largest coordinate of a scene, in world units; products of larger values leave the range of
float32."""
# largest entry of |R R^T - I| of a pose that counts as rigid
_RIGID_TOLERANCE = 1e-3
# largest error of a pose's last row, and smallest sine of the angle between up and the view direction
_ROW_TOLERANCE = 1e-6
_PARALLEL = 1e-9


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
        """Some of the cameras; an integer gives ``Cameras`` of length 1."""
        if isinstance(index, (int, np.integer)):
            index = [int(index)]
        return Cameras(self.K[index], self.world_from_cam[index], self.width, self.height)

    @property
    def cam_from_world(self) -> Float[Tensor, "F 4 4"]:
        """Inverse poses, by transposing rotations: unlike a general inverse exactly rigid."""
        rotation = self.world_from_cam[:, :3, :3].transpose(1, 2)
        inverse = torch.zeros_like(self.world_from_cam)
        inverse[:, :3, :3] = rotation
        inverse[:, :3, 3] = -(rotation @ self.world_from_cam[:, :3, 3:])[..., 0]
        inverse[:, 3, 3] = 1
        return inverse

    @property
    def centers(self) -> Float[Tensor, "F 3"]:
        """Camera centres, in world units."""
        return self.world_from_cam[:, :3, 3]

    def to_camera(self, xyz: Tensor) -> Float[Tensor, "F N 3"]:
        """World points in each camera's axes.

        Args:
            xyz: (N, 3) shared by all frames, or (F, N, 3).
        """
        pose = self.cam_from_world.to(xyz)
        return xyz @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]

    def project(self, xyz: Tensor) -> tuple[Float[Tensor, "F N 2"], Float[Tensor, "F N"]]:
        """World points -> pixels and z-depth (world units; not positive behind the camera).

        Args:
            xyz: (N, 3) shared by all frames, or (F, N, 3).
        """
        image = self.to_camera(xyz) @ self.K.to(xyz).transpose(1, 2)
        depth = image[..., 2]
        tiny = torch.finfo(depth.dtype).tiny
        # a point in the camera plane gets a huge pixel rather than NaN
        divisor = torch.where(depth.abs() < tiny, torch.full_like(depth, tiny), depth)
        return image[..., :2] / divisor[..., None], depth

    def shows(self, xyz: Float[Tensor, "*F N 3"]) -> Bool[Tensor, "F N"]:
        """Points in front of a camera that lie inside its image; see ``project``."""
        pixels, depth = self.project(xyz)
        size = torch.tensor([self.width, self.height], dtype=pixels.dtype, device=pixels.device)
        return ((pixels >= 0) & (pixels <= size)).all(-1) & (depth > 0)

    def unproject(
        self, xy: Float[Tensor, "F N 2"], depth: Float[Tensor, "F N"]
    ) -> Float[Tensor, "F N 3"]:
        """Pixels and z-depth (world units) -> world points; the inverse of ``project``."""
        homogeneous = torch.cat([xy, torch.ones_like(xy[..., :1])], -1)
        local = homogeneous @ torch.linalg.inv(self.K).to(xy).transpose(1, 2) * depth[..., None]
        pose = self.world_from_cam.to(xy)
        return local @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]

    def same_as(self, other: "Cameras") -> bool:
        """True if intrinsics, poses and image size are equal to the bit."""
        pairs = (self.K, other.K), (self.world_from_cam, other.world_from_cam)
        sizes = (self.width, self.height), (other.width, other.height)
        return sizes[0] == sizes[1] and all(torch.equal(a.double(), b.double()) for a, b in pairs)

    def resized(self, width: int, height: int) -> "Cameras":
        """The same cameras for images scaled to another size in pixels."""
        scale = torch.diag(
            torch.tensor([width / self.width, height / self.height, 1.0], dtype=self.K.dtype)
        )
        return Cameras(scale.to(self.K) @ self.K, self.world_from_cam, width, height)


def look_at(eye: Tensor, target: Tensor, up: Tensor) -> Float[Tensor, "4 4"]:
    """world_from_cam of a camera at ``eye`` that looks at ``target``.

    Args:
        eye: camera centre (3,) in the world.
        target: world point (3,) on the optical axis.
        up: direction (3,) in the world that points upwards in the image.

    Raises:
        ValueError: up is parallel to the direction of view.
    """
    forward = torch.nn.functional.normalize(target - eye, dim=0)
    right = torch.linalg.cross(forward, up)
    if right.norm() < _PARALLEL * up.norm():
        raise ValueError("look_at: up is parallel to the direction of view")
    right = torch.nn.functional.normalize(right, dim=0)
    pose = torch.eye(4, dtype=eye.dtype)
    pose[:3] = torch.stack([right, torch.linalg.cross(forward, right), forward, eye], 1)
    return pose


def estimate_similarity(
    source: Float[Tensor, "N 3"], target: Float[Tensor, "N 3"]
) -> tuple[float, Tensor, Tensor]:
    """Scale, rotation (3, 3) and shift (3,) of the least-squares fit of
    target = scale * rotation @ source + shift.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991.
    """
    source_mean = source.mean(0)
    target_mean = target.mean(0)
    a = source - source_mean
    b = target - target_mean
    u, singular, vt = torch.linalg.svd(b.T @ a)
    # a mirrored fit is turned into the nearest rotation
    sign = torch.ones(3, dtype=source.dtype)
    sign[2] = torch.sign(torch.det(u) * torch.det(vt))
    rotation = u @ torch.diag(sign) @ vt
    scale = float((singular * sign).sum() / a.square().sum().clamp_min(1e-300))
    return scale, rotation, target_mean - scale * rotation @ source_mean


def interpolate_poses(
    poses: Float[np.ndarray, "F 4 4"], registered: Bool[np.ndarray, "F"]
) -> Float[np.ndarray, "F 4 4"]:
    """Poses of unregistered frames from their neighbours in time, held constant at the ends."""
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


def find_camera_problem(K: Float[Tensor, "F 3 3"], poses: Float[Tensor, "F 4 4"]) -> str | None:
    """A clause that says why matrices are no cameras; None if they are cameras.

    Args:
        K: intrinsics, float64.
        poses: world_from_cam, float64.
    """
    if not (torch.isfinite(K).all() and torch.isfinite(poses).all()):
        return "a camera holds NaN or infinity"
    positive = (K.diagonal(dim1=1, dim2=2) > 0).all()
    triangular = (K[:, [1, 2, 2], [0, 0, 1]] == 0).all()
    if not (positive and triangular and (K[:, 2, 2] == 1).all()):
        return "K is no matrix of intrinsics (positive focal lengths, last row 0 0 1)"
    rotation = poses[:, :3, :3]
    skew = (rotation @ rotation.transpose(1, 2) - torch.eye(3, dtype=torch.float64)).abs().max()
    last = poses[:, 3] - torch.tensor([0, 0, 0, 1.0], dtype=torch.float64)
    mirrored = (torch.det(rotation) < 0).any()
    if skew > _RIGID_TOLERANCE or last.abs().max() > _ROW_TOLERANCE or mirrored:
        return "a pose in world_from_cam is not rigid (a rotation and a shift)"
    if max(K.abs().max(), poses.abs().max()) > LARGEST:
        return f"a camera holds values above {LARGEST:.0e}"
    return None


def find_middle_frame(cameras: Cameras) -> int:
    """Frame whose camera centre is nearest the mean of all centres."""
    centers = cameras.centers
    return int((centers - centers.mean(0)).norm(dim=1).argmin())
