"""How fine the colour field's hash grid must be."""

import torch
from jaxtyping import Float
from torch import Tensor

from models.clip import choose_evenly
from models.field import transform_points
from models.pipeline import TriangleMeshPipeline

RESOLUTIONS = 256, 16384
"""Least and most cells along an axis of the hash grid's finest level."""
MEASURED_FRAMES, MEASURED_SIZE = 16, (32, 18)
"""Frames that are asked how large their pixels are in the box, and at how many of their pixels."""


def measure_finest_resolution(
    meshes: TriangleMeshPipeline, normalized_from_world: Float[Tensor, "4 4"]
) -> int:
    """Cells along an axis of [-1, 1]^3 at which one cell is as large as a pixel, by the median over
    frames.

    Where the camera pans the box spans many images: a grid made for one would leave pixels five to
    a cell.
    """
    frames = list(meshes.faces)
    sizes = []
    for i in choose_evenly(len(frames), MEASURED_FRAMES):
        camera = meshes.cameras[[frames[i]]]
        inverse = torch.from_numpy(meshes.inverse_depth(frames[i], *MEASURED_SIZE))
        rows, columns = torch.nonzero(inverse > 0, as_tuple=True)
        scale = torch.tensor([camera.width, camera.height]).double() / torch.tensor(MEASURED_SIZE)
        xy = (torch.stack([columns, rows], 1) + 0.5) * scale
        depth = 1 / inverse[rows, columns]
        beside = xy + torch.tensor([1.0, 0.0]).double()
        here, there = (camera.unproject(at[None], depth[None])[0] for at in (xy, beside))
        step = transform_points(normalized_from_world, there) - transform_points(
            normalized_from_world, here
        )
        sizes.append(step[:, :2].norm(dim=1))
    pixel = float(torch.cat(sizes).median()) if any(len(own) for own in sizes) else 0.0
    return round(min(max(2 / max(pixel, 1e-9), RESOLUTIONS[0]), RESOLUTIONS[1]))
