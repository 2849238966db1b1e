"""The cube that a colour field lives in, the projective map into the cube from the world, and the sizes of
the field's grids."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.cameras import Cameras

# Vertices that are measured at a time, and of which a median is taken at most.
_PART = 1 << 21


@dataclass(frozen=True)
class ChangeOptions:
    """Size of a grid of changes, over (x, y, time)."""

    levels: int = 8
    """Levels; more spread its resolutions more finely."""
    cells: float = 1.0
    """Resolution of its finest level relative to the grid of space; larger lets smaller details
    change."""
    frames: float = 3
    """Frames in a cell of its finest level; fewer let colours change faster, and learn more
    noise."""


@dataclass(frozen=True)
class FieldOptions:
    """Sizes of a colour field's hash grids and of its box."""

    levels: int = 12
    """Levels of the grid of space."""
    features: int = 2
    """Features of a level; the fast backends need 2."""
    base_resolution: int = 16
    """Cells along an axis of the coarsest level."""
    finest_least: int = 256
    """Least cells along an axis of the finest level, whose cells are as large as pixels."""
    finest_most: int = 16384
    """Most cells along an axis of the finest level; indices beyond lose precision."""
    changes: ChangeOptions = ChangeOptions()
    """Grid of changes of the background."""
    mover_changes: ChangeOptions = ChangeOptions(levels=12, cells=1.5, frames=1)
    """Grid of changes of the movers. Canonical places are less exact than surfaces: each frame's
    own colours make up for the difference."""
    change_cells_least: int = 64
    """Least cells along an axis of the finest level of a grid of changes."""
    depth_cells: float = 4.0
    """Cells of the finest level along depth for each pixel of parallax; more separate surfaces that
    parallax hardly tells apart."""
    depth_share_least: float = 1e-3
    """Least share of the box's depth that the scene takes."""


def normalization(
    cameras: Cameras,
    vertices: Float[Tensor, "V 3"],
    options: FieldOptions = FieldOptions(),
) -> Float[Tensor, "4 4"]:
    """Projective map from world to [-1, 1]^3: the view frustum of a camera behind all others becomes
    a cube.

    Cells of the hash grid are thereby about as large as pixels at any depth; a uniform scale would
    give near surfaces too few cells. A camera that hardly moved measures depth coarsely: the scene
    takes less of the cube's depth, so that meshes which disagree by less than the error of
    measurement share cells. Source: normalised device coordinates as in Mildenhall et al., "NeRF",
    2020, appendix C.
    """
    # A common camera: mean position and direction, upright as the middle frame.
    pose = cameras.world_from_cam[len(cameras) // 2].double().clone()
    forward = torch.nn.functional.normalize(
        cameras.world_from_cam[:, :3, 2].double().mean(0), dim=0
    )
    right = torch.nn.functional.normalize(torch.linalg.cross(-pose[:3, 1], -forward), dim=0)
    pose[:3, 0] = right
    pose[:3, 1] = torch.linalg.cross(forward, right)
    pose[:3, 2] = forward
    pose[:3, 3] = cameras.centers.double().mean(0)
    # Moved back until all vertices are in front of it, at 0.3 of the median depth or more.
    step = max(1, -(-len(vertices) // _PART))
    parts = [local[:, 2] for local in _to_local(vertices, pose)]
    need = torch.quantile(torch.cat([z[::step] for z in parts]).clamp_min(0), 0.5) * 0.3
    back = max(0.0, float(need - min(z.min() for z in parts if len(z))))
    lows, highs = [], []
    for local in _to_local(vertices, pose):
        local[:, 2] += back
        tangents = torch.cat([local[:, :2] / local[:, 2:], 1 / local[:, 2:]], 1)
        lows.append(tangents.amin(0))
        highs.append(tangents.amax(0))
    pose[:3, 3] -= back * pose[:3, 2]
    low, high = torch.stack(lows).amin(0), torch.stack(highs).amax(0)
    # Tangents have no unit; inverse depth has that of the world.
    one = torch.ones_like(high[2])
    least = 1e-6 * torch.stack([one, one, high[2].abs()])
    center = (low + high) / 2
    half = torch.maximum((high - low) / 2, least)
    # Square cells across the image.
    half[:2] = half[:2].max()
    half[2] /= _depth_share(float(half[2]), float(half[0]), cameras, options)
    cam_from_world = torch.linalg.inv(pose)
    # (x, y, z, 1) -> (x, y, 1, z): x / z, y / z and inverse depth.
    project = torch.tensor(
        [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.float64
    )
    scale = torch.diag(torch.cat([1 / half, torch.ones(1).double()]))
    scale[:3, 3] = -center / half
    return scale @ project @ cam_from_world


def _to_local(
    vertices: Float[Tensor, "V 3"], pose: Float[Tensor, "4 4"]
) -> Iterator[Float[Tensor, "v 3"]]:
    """Finite vertices in a camera's axes, some at a time: a long clip has tens of millions."""
    for part in vertices.split(_PART):
        own = part[torch.isfinite(part).all(1)].double()
        if len(own):
            own -= pose[:3, 3]
            yield own @ pose[:3, :3]


def _depth_share(
    inverse_depth: float, tangent: float, cameras: Cameras, options: FieldOptions
) -> float:
    """Share of the cube's depth that the scene takes.

    The scene spans ``depth_cells`` cells for each pixel of parallax between its nearest and farthest
    points over the camera path.

    Args:
        inverse_depth: half the range of inverse depth.
        tangent: half the range of the tangent of the angle of view.
    """
    centers = cameras.centers.double()
    path = 2 * float((centers - centers.mean(0)).norm(dim=1).max())
    share = options.depth_cells * inverse_depth * path / tangent
    return min(1.0, max(options.depth_share_least, share))


def transform_points(
    matrix: Float[Tensor, "4 4"], points: Float[Tensor, "S 3"]
) -> Float[Tensor, "S 3"]:
    """Images of points under a projective map."""
    image = points @ matrix[:3, :3].T.to(points) + matrix[:3, 3].to(points)
    return image / (points @ matrix[3, :3].to(points) + matrix[3, 3].to(points))[:, None]
