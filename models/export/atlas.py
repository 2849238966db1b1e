"""Texture atlas: parts of meshes, each laid out in the image plane of one frame, packed side by
side in one texture.

A frame's mesh lies in its own image without folds, so that projection is its unwrapping and texels
are about as large as the pixels that saw the surface. Between corners, texture coordinates are
affine on the face, as viewers interpolate them, not projective.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from models.cameras import Cameras
from models.export.world_mesh import WorldMesh
from models.surface import interpolate, rasterize

PADDING = 2
"""Texels round each chart, so that filtering does not read its neighbour."""
MAX_SIZE = 4096
"""Texels along a side: what every viewer takes."""


@dataclass(frozen=True)
class Atlas:
    """A mesh with a place for each face in one texture."""

    vertices: Float[np.ndarray, "V 3"]
    """World positions; a vertex on a seam stands once for each chart."""
    uv: Float[np.ndarray, "V 2"]
    """Texels; (0, 0) is the outer corner of the top-left texel."""
    faces: Int[np.ndarray, "T 3"]
    width: int
    """Of the texture, in texels."""
    height: int

    def texels(
        self, attributes: Float[np.ndarray, "V C"]
    ) -> tuple[Float[Tensor, "S C"], Int[np.ndarray, "S"], Bool[np.ndarray, "h w"]]:
        """Vertices' attributes at each texel whose centre is on a face, row by row; which face; and
        which texels."""
        flat = np.concatenate([self.uv, np.ones((len(self.uv), 1), np.float32)], 1)
        faces = torch.from_numpy(self.faces)
        # texels as pixels of a camera with K = 1: texture coordinates at depth 1
        camera = Cameras(torch.eye(3)[None], torch.eye(4)[None], self.width, self.height)
        seen = rasterize(torch.from_numpy(flat), faces, camera)
        covered = seen.face >= 0
        values = interpolate(seen, faces, torch.from_numpy(attributes))[covered]
        return values, seen.face[covered].numpy(), covered.numpy()


def world_atlas(mesh: WorldMesh, cameras: Cameras) -> Atlas:
    """An atlas of the mesh, face by face in the same order; each connected part of a key frame is a
    chart."""
    corners = np.stack([np.repeat(mesh.keyframe, 3), mesh.faces.ravel()], 1)
    pairs, faces = np.unique(corners, axis=0, return_inverse=True)
    faces = faces.reshape(-1, 3)
    xyz = mesh.vertices[pairs[:, 1]]
    xy = np.empty((len(pairs), 2))
    for k in np.unique(mesh.keyframe):
        own = pairs[:, 0] == k
        xy[own] = cameras[[int(k)]].project(torch.from_numpy(xyz[own]).double())[0][0].numpy()
    return build_atlas(xyz, xy, faces, _components(faces, len(pairs)))


def build_atlas(
    vertices: Float[np.ndarray, "V 3"],
    xy: Float[np.ndarray, "V 2"],
    faces: Int[np.ndarray, "T 3"],
    chart: Int[np.ndarray, "V"],
    max_texels: int = MAX_SIZE**2,
) -> Atlas:
    """Packs charts into a texture at a texel a pixel, or fewer where they would not fit.

    Args:
        xy: place of each vertex in the plane of its chart, in pixels.
        chart: number of the chart that each vertex belongs to, from 0.
    """
    low, high = (np.full((chart.max() + 1, 2), value) for value in (np.inf, -np.inf))
    np.minimum.at(low, chart, xy)
    np.maximum.at(high, chart, xy)
    for scale in 0.9 ** np.arange(50):
        place, width, height = _pack(
            np.ceil(scale * (high - low)).astype(np.int64) + 2 * PADDING + 1
        )
        if max(width, height) <= MAX_SIZE and width * height <= max_texels:
            break
    uv = scale * (xy - low[chart]) + place[chart] + PADDING + 0.5
    return Atlas(vertices.astype(np.float32), uv.astype(np.float32), faces, width, height)


def _components(faces: Int[np.ndarray, "T 3"], num_vertices: int) -> Int[np.ndarray, "V"]:
    """Which connected part of the mesh each vertex belongs to."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges), bool), edges.T), (num_vertices, num_vertices))
    return connected_components(graph, directed=False)[1]


def _pack(size: Int[np.ndarray, "C 2"]) -> tuple[Int[np.ndarray, "C 2"], int, int]:
    """Rectangles onto shelves, the highest first: places, and the width and height that hold them
    all."""
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
