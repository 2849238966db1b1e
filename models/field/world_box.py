"""The cube that a colour field lives in, and projective maps such as the one from the world to
it."""

import torch
from jaxtyping import Float
from torch import Tensor

from models.cameras import Cameras

DEPTH_CELLS = 4.0
LEAST_DEPTH_SHARE = 1e-3
"""Cells of the hash grid along depth for each pixel of parallax, and the least part of them that
depth gets."""


def normalization(cameras: Cameras, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "4 4"]:
    """Projective map from world to [-1, 1]^3: the view frustum of a camera behind all others, made
    a cube.

    Cells of the hash grid are then about as large as pixels at any depth, near or far, where a
    uniform scale would give near surfaces too few. (Normalised device coordinates, as in NeRF,
    Mildenhall et al. 2020, appendix C.) A camera that hardly moved cannot tell depths apart so
    finely; depth then takes less of the cube, so that frames whose meshes disagree by what cannot
    be measured still share cells.
    """
    local = vertices[torch.isfinite(vertices).all(1)].double()
    pose = cameras.world_from_cam[len(cameras) // 2].double().clone()
    forward = torch.nn.functional.normalize(
        cameras.world_from_cam[:, :3, 2].double().mean(0), dim=0
    )
    right = torch.nn.functional.normalize(torch.linalg.cross(-pose[:3, 1], -forward), dim=0)
    pose[:3, 0] = right
    pose[:3, 1] = torch.linalg.cross(forward, right)
    pose[:3, 2] = forward
    pose[:3, 3] = cameras.centers.double().mean(0)
    local -= pose[:3, 3]  # in place, as these are all vertices of a clip
    local = local @ pose[:3, :3]
    z = local[:, 2]
    need = torch.quantile(z.clamp_min(0), 0.5) * 0.3
    back = max(0.0, float(need - z.min()))
    local[:, 2] += back
    pose[:3, 3] -= back * pose[:3, 2]
    image = local[:, :2] / local[:, 2:]
    inverse = 1 / local[:, 2]
    low = torch.cat([image.min(0).values, inverse.min()[None]])
    high = torch.cat([image.max(0).values, inverse.max()[None]])
    least = 1e-6 * torch.stack(
        [torch.ones_like(high[2]), torch.ones_like(high[2]), high[2].abs()]
    )  # in any unit
    center = (low + high) / 2
    half = torch.maximum((high - low) / 2, least)
    half[:2] = half[:2].max()
    half[2] /= _depth_share(float(half[2]), float(half[0]), cameras)
    cam_from_world = torch.linalg.inv(pose)
    project = torch.tensor(
        [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.float64
    )
    scale = torch.diag(torch.cat([1 / half, torch.ones(1).double()]))
    scale[:3, 3] = -center / half
    return scale @ project @ cam_from_world


def _depth_share(inverse_depth: float, tangent: float, cameras: Cameras) -> float:
    """Part of the cube's depth to use, from half the ranges of inverse depth and of the tangent of
    the angle of view.

    Depth gets DEPTH_CELLS times as many cells as points at its two ends part in pixels over the
    camera's path.
    """
    centers = cameras.centers.double()
    path = 2 * float((centers - centers.mean(0)).norm(dim=1).max())
    return min(1.0, max(LEAST_DEPTH_SHARE, DEPTH_CELLS * inverse_depth * path / tangent))


def transform_points(
    matrix: Float[Tensor, "4 4"], points: Float[Tensor, "S 3"]
) -> Float[Tensor, "S 3"]:
    """Points through a projective map."""
    image = points @ matrix[:3, :3].T.to(points) + matrix[:3, 3].to(points)
    return image / (points @ matrix[3, :3].to(points) + matrix[3, 3].to(points))[:, None]
