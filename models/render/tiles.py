"""A view of several meshes in tiles of rows, on the CPU: each tile is drawn, blended and
coloured by a single thread.

Tiles bound the memory: only the final picture is ever whole. The result equals the plain path of
``rendering`` up to rounding.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from models.field import BLOCK, ColorField, FieldReader
from models.render import view_kernels
from models.render.options import RenderOptions
from models.run import run_tasks, split_range, take_scratch
from models.surface import setup_mesh


@dataclass(frozen=True)
class WorldMesh:
    """A mesh of a view."""

    vertices: Float[np.ndarray, "V 3"]
    """World positions; the faces use some of them."""
    faces: Int[np.ndarray, "T 3"]
    trust: Float[np.ndarray, "T"]
    """Trust in each face, 0 to 1."""
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


@dataclass(frozen=True)
class _Picture:
    """A view in the making."""

    view: View
    meshes: list[WorldMesh]
    triangles: list[tuple[np.ndarray, np.ndarray]]
    """Planes and bounding boxes of each mesh's faces in the image; see ``surface.setup_mesh``."""
    reader: FieldReader
    limits: Float[np.ndarray, "3"]
    """Agreement, least share, and distance in the field's box of points that are read together."""
    rgb: Float[np.ndarray, "H W 3"]
    depth: Float[np.ndarray, "H W"]

    def draw_tile(self, top: int, bottom: int) -> None:
        """Colours and depth of the rows [top, bottom)."""
        width = self.view.width
        count = len(self.meshes)
        size = (bottom - top) * width
        depth, weight = self._draw_meshes(top, bottom)
        # each mesh may have a point of its own in every pixel
        padded = -(-count * size // BLOCK) * BLOCK
        planes = take_scratch("planes", 3 * padded)
        part = take_scratch("part", padded)
        pixel = np.empty(padded, np.int32)
        flat = depth.reshape(count, size), weight.reshape(count, size)
        out = planes, padded, pixel, part, self.depth[top:bottom].reshape(-1)
        ray = self.view.box_from_pixel
        points = view_kernels.tile_points(*flat, width, top, ray, self.limits, *out)
        colors = self.reader.read_colors(planes, padded, points)
        rgb = self.rgb[top:bottom].reshape(-1, 3)
        view_kernels.add_colors(colors, pixel, part, points, rgb)

    def _draw_meshes(self, top: int, bottom: int) -> list[Float[np.ndarray, "M rows W"]]:
        """Depth and weight of each mesh in the rows [top, bottom)."""
        shape = len(self.meshes), bottom - top, self.view.width
        depth, weight = (take_scratch(name, *shape) for name in ("depth", "weight"))
        for k, (mesh, triangles) in enumerate(zip(self.meshes, self.triangles, strict=True)):
            fixed = mesh.trust, mesh.importance, self.view.near, top
            view_kernels.draw_depth(*triangles, *fixed, depth[k], weight[k])
        return [depth, weight]


def render_tiles(
    meshes: list[WorldMesh],
    field: ColorField,
    view: View,
    options: RenderOptions = RenderOptions(),
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Colours (0 without a surface) and depth (inf without a surface) of a view.

    Raises:
        ValueError: a face names a vertex that does not exist.
    """
    triangles: list = [None] * len(meshes)

    def prepare(k: int) -> None:
        triangles[k] = _set_up(meshes[k], view)

    run_tasks(prepare, len(meshes))
    reader = FieldReader(field)
    distance = options.merged_cells * reader.cell
    # float32, as the kernels compute
    limits = np.array([options.agreement, options.least_share, distance], np.float32)
    rgb = np.zeros((view.height, view.width, 3), np.float32)
    depth = np.empty((view.height, view.width), np.float32)
    picture = _Picture(view, meshes, triangles, reader, limits, rgb, depth)
    tiles = split_range(view.height, -(-view.height * view.width // options.tile_pixels))
    # tiles share no pixels: threads write without locks
    run_tasks(lambda i: picture.draw_tile(*tiles[i]), len(tiles))
    return rgb, depth


def _set_up(mesh: WorldMesh, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Planes (T, 4, 3) and bounding boxes (T, 4) of a mesh's faces in the image."""
    planes = np.empty((len(mesh.faces), 4, 3))
    boxes = np.empty((len(mesh.faces), 4), np.int32)
    size = view.width, view.height, view.near
    if not setup_mesh(mesh.vertices, mesh.faces, view.image_from_world, *size, planes, boxes):
        raise ValueError("render_tiles: a face names a vertex that does not exist")
    return planes, boxes
