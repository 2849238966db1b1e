"""A view of several meshes in tiles of rows, on the CPU: each tile is drawn, blended and coloured
by one thread.

Memory is bounded by the tile, and no picture but the last one is ever whole. Equals pipeline's
plain path up to rounding.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from models.field import BLOCK, ColorField, FieldReader
from models.render import view_kernels
from models.render.blending import AGREEMENT, LEAST_SHARE
from models.run import run_tasks, split_range, take_scratch
from models.surface import setup_mesh

PIXELS_PER_TILE = 1 << 13
CELL_SHARE = 0.25
"""Surfaces nearer to each other than this share of the finest cell of the hash grid are one."""


@dataclass(frozen=True)
class WorldMesh:
    """One of the meshes of a view."""

    vertices: Float[np.ndarray, "V 3"]
    """World positions; faces use some of them."""
    faces: Int[np.ndarray, "T 3"]
    trust: Float[np.ndarray, "T"]
    """How far to believe each face."""
    importance: float
    """Of this mesh among the others; the weight of a pixel is importance * trust."""


@dataclass(frozen=True)
class View:
    """The camera of a view, as the kernels need it."""

    image_from_world: Float[np.ndarray, "3 4"]
    """World points to homogeneous pixels."""
    box_from_pixel: Float[np.ndarray, "4 4"]
    """(x d, y d, d, 1) of a pixel centre (x, y) at z-depth d to a homogeneous point of the field's
    box."""
    width: int
    height: int
    near: float
    """Smallest z-depth drawn."""


def render_tiles(
    meshes: list[WorldMesh], field: ColorField, view: View
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Colours (0 where there is no surface) and depth (inf there) of a view.

    Raises:
        ValueError: a face names a vertex that does not exist.
    """
    drawn: list = [None] * len(meshes)

    def prepare(k: int) -> None:
        drawn[k] = _triangles(meshes[k], view)

    run_tasks(prepare, len(meshes))
    rgb = np.zeros((view.height, view.width, 3), np.float32)
    surface = np.empty((view.height, view.width), np.float32)
    reader = FieldReader(field)
    tiles = split_range(view.height, -(-view.height * view.width // PIXELS_PER_TILE))
    run_tasks(
        lambda i: _render_tile(*tiles[i], meshes, drawn, reader, view, rgb, surface), len(tiles)
    )
    return rgb, surface


def _triangles(mesh: WorldMesh, view: View) -> tuple[np.ndarray, np.ndarray]:
    planes = np.empty((len(mesh.faces), 4, 3))
    boxes = np.empty((len(mesh.faces), 4), np.int32)
    size = view.width, view.height, view.near
    if not setup_mesh(mesh.vertices, mesh.faces, view.image_from_world, *size, planes, boxes):
        raise ValueError("render_tiles: a face names a vertex that does not exist")
    return planes, boxes


def _render_tile(
    top: int, bottom: int, meshes, drawn, reader: FieldReader, view: View, rgb, surface
) -> None:
    rows = bottom - top
    size = (bottom - top) * view.width
    depth, weight = (
        take_scratch(name, len(meshes), rows, view.width) for name in ("depth", "weight")
    )
    for k, (mesh, triangles) in enumerate(zip(meshes, drawn, strict=True)):
        view_kernels.draw_depth(
            *triangles, mesh.trust, mesh.importance, view.near, top, depth[k], weight[k]
        )
    padded = -(-len(meshes) * size // BLOCK) * BLOCK
    planes = take_scratch("planes", 3 * padded)
    part = take_scratch("part", padded)
    pixel = np.empty(padded, np.int32)
    limits = np.array([AGREEMENT, LEAST_SHARE, CELL_SHARE * reader.cell], np.float32)
    flat = (array.reshape(len(meshes), size) for array in (depth, weight))
    out = planes, padded, pixel, part, surface[top:bottom].reshape(-1)
    count = view_kernels.tile_points(*flat, view.width, top, view.box_from_pixel, limits, *out)
    colors = reader.read_colors(planes, padded, count)
    view_kernels.add_colors(colors, pixel, part, count, rgb[top:bottom].reshape(-1, 3))
