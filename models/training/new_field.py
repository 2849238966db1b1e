"""The untrained colour field of a layer: how fine its grids must be, and its renderer."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.cameras import Cameras
from models.clip import choose_evenly
from models.field import (
    ChangeOptions,
    ColorField,
    FieldOptions,
    HashGrid,
    Viewpoints,
    transform_points,
)
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.training.options import TrainingOptions

# Frames whose pixels are measured in the box, and the image size at which they are drawn for it.
_MEASURED_FRAMES = 16
_MEASURED_SIZE = (32, 18)


@dataclass(frozen=True)
class FieldSize:
    """Measures of a layer that its grids must fit."""

    normalized_from_world: Float[Tensor, "4 4"]
    """Map into the field's box."""
    finest: int
    """Cells along an axis of the grid of space's finest level."""
    num_pixels: int
    """Training pixels."""
    changes: ChangeOptions


def build_renderer(
    size: FieldSize,
    cameras: Cameras,
    generator: torch.Generator,
    options: FieldOptions = FieldOptions(),
    training: TrainingOptions = TrainingOptions(),
) -> WorldSpaceTrianglePipeline:
    """The renderer of an untrained colour field, on the CPU.

    Args:
        cameras: of the clip; colours may depend on the camera's position and the time.
        generator: draws the field's first weights.
    """
    # A power of 2: the spatial hash takes its lowest bits.
    wanted = round(math.log2(max(1, size.num_pixels / training.pixels_per_entry)))
    entries = min(max(wanted, training.log2_entries_least), training.log2_entries_most)

    def build_grid(levels: int, finest: int) -> HashGrid:
        sizes = levels, options.features, entries, options.base_resolution, finest
        return HashGrid(*sizes, generator=generator)

    grid = build_grid(options.levels, size.finest)
    cells = max(options.change_cells_least, round(size.changes.cells * size.finest))
    changes = build_grid(size.changes.levels, cells)
    field = ColorField(grid, generator=generator, code_width=Viewpoints.WIDTH, changes=changes)
    viewpoints = Viewpoints.of(cameras, 2 / (size.changes.frames * cells))
    return WorldSpaceTrianglePipeline(field, size.normalized_from_world, viewpoints)


def measure_finest_resolution(
    meshes: TriangleMeshPipeline,
    normalized_from_world: Float[Tensor, "4 4"],
    options: FieldOptions = FieldOptions(),
) -> int:
    """Cells along an axis of [-1, 1]^3 at which a cell is as large as a pixel, by the median over
    frames.

    If the camera pans, the box spans many images: a grid sized for a single image would leave five
    pixels to a cell.
    """
    frames = list(meshes.faces)
    chosen = choose_evenly(len(frames), _MEASURED_FRAMES)
    sizes = torch.cat([_pixel_sizes(meshes, frames[i], normalized_from_world) for i in chosen])
    pixel = float(sizes.median()) if len(sizes) else 0.0
    return round(min(max(2 / max(pixel, 1e-9), options.finest_least), options.finest_most))


def _pixel_sizes(
    meshes: TriangleMeshPipeline, t: int, normalized_from_world: Float[Tensor, "4 4"]
) -> Float[Tensor, "n"]:
    """Sizes in the box, across its depth, of some of frame t's pixels on the surface."""
    camera = meshes.cameras[t]
    inverse = torch.from_numpy(meshes.inverse_depth(t, *_MEASURED_SIZE))
    rows, columns = torch.nonzero(inverse > 0, as_tuple=True)
    scale = torch.tensor([camera.width, camera.height]).double() / torch.tensor(_MEASURED_SIZE)
    xy = (torch.stack([columns, rows], 1) + 0.5) * scale
    # One pixel to the right, at the same depth.
    beside = xy + torch.tensor([1.0, 0.0]).double()
    depth = 1 / inverse[rows, columns]
    here, there = (
        transform_points(normalized_from_world, camera.unproject(at[None], depth[None])[0])
        for at in (xy, beside)
    )
    return (there - here)[:, :2].norm(dim=1)
