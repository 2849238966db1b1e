"""Texture atlas: parts of meshes, each laid out in the image plane of a frame, packed side by side
in a texture.

A frame's mesh covers its own image without folds. The projection is therefore an unwrapping, and
texels are about as large as the pixels that recorded the surface. Between corners, texture
coordinates are affine on the face, as viewers interpolate them, not projective.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from models.cameras import Cameras
from models.export.options import ExportOptions
from models.export.world.world_mesh import WorldMesh
from models.surface import interpolate, rasterize

PADDING = 2
"""Texels around each chart, so that filtering does not read its neighbour."""
# Trials of the scale of all charts, each 0.9 times the one before.
_TRIALS = 50


@dataclass(frozen=True)
class Atlas:
    """A mesh whose faces have places in a texture."""

    vertices: Float[np.ndarray, "V 3"]
    """World positions; a vertex on a seam occurs for each chart."""
    uv: Float[np.ndarray, "V 2"]
    """Texels; (0, 0) is the outer corner of the top-left texel."""
    faces: Int[np.ndarray, "T 3"]
    width: int
    """Of the texture, in texels."""
    height: int

    def locate_texels(
        self, attributes: Float[np.ndarray, "V C"]
    ) -> tuple[Float[Tensor, "S C"], Int[np.ndarray, "S"], Bool[np.ndarray, "h w"]]:
        """Interpolates attributes of vertices at the texels whose centres lie on a face.

        Returns:
            Attributes and face of each such texel, row by row, and the flags of these texels.
        """
        flat = np.concatenate([self.uv, np.ones((len(self.uv), 1), np.float32)], 1)
        faces = torch.from_numpy(self.faces)
        # texels as pixels of a camera with K = 1: texture coordinates at depth 1
        camera = Cameras(torch.eye(3)[None], torch.eye(4)[None], self.width, self.height)
        drawn = rasterize(torch.from_numpy(flat), faces, camera)
        covered = drawn.face >= 0
        values = interpolate(drawn, faces, torch.from_numpy(attributes))[covered]
        return values, drawn.face[covered].numpy(), covered.numpy()


def build_world_atlas(
    mesh: WorldMesh, cameras: Cameras, options: ExportOptions = ExportOptions()
) -> Atlas:
    """An atlas of the mesh with the faces in the same order; each connected part of a key frame is
    a chart."""
    corners = np.stack([np.repeat(mesh.keyframe, 3), mesh.faces.ravel()], 1)
    # a vertex of several key frames occurs once for each
    pairs, faces = np.unique(corners, axis=0, return_inverse=True)
    faces = faces.reshape(-1, 3)
    xyz = mesh.vertices[pairs[:, 1]]
    xy = np.empty((len(pairs), 2))
    for k in np.unique(mesh.keyframe).tolist():
        members = pairs[:, 0] == k
        points = torch.from_numpy(xyz[members]).double()
        xy[members] = cameras[k].project(points)[0][0].numpy()
    side = options.texture_side
    return build_atlas(xyz, xy, faces, _find_components(faces, len(pairs)), side, side**2)


def build_atlas(
    vertices: Float[np.ndarray, "V 3"],
    xy: Float[np.ndarray, "V 2"],
    faces: Int[np.ndarray, "T 3"],
    chart: Int[np.ndarray, "V"],
    max_side: int,
    max_texels: int,
) -> Atlas:
    """Packs charts into a texture at a texel a pixel, or fewer if the texture would be too large.

    Args:
        xy: place of each vertex in the plane of its chart, in pixels.
        chart: number of each vertex's chart, from 0.
        max_side: texels along a side of the texture.
        max_texels: of the whole texture.
    """
    # corners of each chart in its plane
    low, high = (np.full((chart.max() + 1, 2), value) for value in (np.inf, -np.inf))
    np.minimum.at(low, chart, xy)
    np.maximum.at(high, chart, xy)
    # the largest scale at which all charts fit
    for scale in 0.9 ** np.arange(_TRIALS):
        size = np.ceil(scale * (high - low)).astype(np.int64) + 2 * PADDING + 1
        place, width, height = _pack(size)
        if max(width, height) <= max_side and width * height <= max_texels:
            break
    uv = scale * (xy - low[chart]) + place[chart] + PADDING + 0.5
    return Atlas(vertices.astype(np.float32), uv.astype(np.float32), faces, width, height)


def _find_components(faces: Int[np.ndarray, "T 3"], num_vertices: int) -> Int[np.ndarray, "V"]:
    """The number of the connected part that each vertex belongs to."""
    # two edges connect a triangle
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges), bool), edges.T), (num_vertices, num_vertices))
    return connected_components(graph, directed=False)[1]


def _pack(size: Int[np.ndarray, "C 2"]) -> tuple[Int[np.ndarray, "C 2"], int, int]:
    """Packs rectangles onto shelves, the highest first.

    Returns:
        The place of each rectangle, and the width and height of the whole.
    """
    # about square, if a tenth of the area stays empty
    width = int(max(size[:, 0].max(), np.ceil(np.sqrt(1.1 * size.prod(1).sum()))))
    place = np.empty_like(size)
    x = y = shelf = 0
    for i in np.argsort(-size[:, 1], kind="stable"):
        if x + size[i, 0] > width:
            x = 0
            y = y + shelf
            shelf = 0
        place[i] = x, y
        x = x + size[i, 0]
        shelf = max(shelf, size[i, 1])
    return place, width, int(y + shelf)
