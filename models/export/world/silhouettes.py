"""Rims of near surfaces, where tracks end before the surface does: small faces, kept if the clip's
frames agree with them.

A frame's mesh spans the gap between the last point of a near surface and the first point behind,
with faces off any surface. Two sets of small faces replace them: the depth of their near
corners is carried outwards, and the depth of their far corners inwards. The key frame's pixels
paint the small faces. A face stays if the frames look more like the scene with
the face than without.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from models.export.footage import Footage, find_pixels, read_pixels, spread
from models.export.options import ExportOptions
from models.pipeline import TriangleMeshPipeline
from models.surface import JUMP_TRUST, interpolate, rasterize_world

# Parts into which each edge of a face is cut.
_SPLIT = 4
# Relative depth by which a rim must be nearer than the scene behind it to be seen.
_BEFORE = 0.002

Picture = Callable[[int], tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]]
"""Colours, 0 to 1, and depth of the scene without rims as frame t's camera sees it."""


def find_rims(
    meshes: TriangleMeshPipeline,
    footage: Footage,
    keyframes: Iterable[int],
    draw: Picture,
    options: ExportOptions = ExportOptions(),
) -> dict[int, Float[np.ndarray, "T 3 3"]]:
    """World corners of the small faces to add, by the key frame that paints them.

    Args:
        draw: draws the scene without rims.
    """
    rims = [_Rims.propose(meshes, footage, k) for k in keyframes]
    rims = [rim for rim in rims if len(rim.corners)]
    gain = {rim.keyframe: np.zeros(len(rim.corners)) for rim in rims}
    for t in spread(footage.times, options.witnesses):
        world, depth = draw(t)
        truth = footage.colors(t)
        still = footage.still(t)
        for rim in rims:
            rgb, z, face = rim.draw(meshes, t)
            shown = (face >= 0) & (z < (1 - _BEFORE) * depth) & still
            error = np.abs(rgb[shown] - truth[shown]).mean(1)
            better = np.abs(world[shown] - truth[shown]).mean(1) - error
            # a face must beat the scene by rim_gain in the mean
            votes = np.bincount(face[shown], better - options.rim_gain, len(rim.corners))
            gain[rim.keyframe] += votes
    return {rim.keyframe: rim.corners[gain[rim.keyframe] > 0] for rim in rims}


@dataclass(frozen=True)
class _Rims:
    """Small faces at the depth jumps of a key frame."""

    keyframe: int
    corners: Float[np.ndarray, "T 3 3"]
    """World positions."""
    image: Float[np.ndarray, "H W 3"]
    """Colours of the key frame, 0 to 1."""

    @staticmethod
    def propose(meshes: TriangleMeshPipeline, footage: Footage, k: int) -> "_Rims":
        """All small faces of key frame k outside movers."""
        corners = _drop_movers(_split(_extend_sides(meshes, k)), footage, k)
        return _Rims(k, corners, footage.colors(k))

    def draw(
        self, meshes: TriangleMeshPipeline, t: int
    ) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"], Int[np.ndarray, "H W"]]:
        """Colour, depth and face of the painted faces as frame t's camera sees them."""
        vertices = torch.from_numpy(self.corners.reshape(-1, 3)).double()
        faces = torch.arange(len(vertices)).reshape(-1, 3)
        drawn = rasterize_world(vertices, faces, meshes.cameras[t], near=meshes.near)
        face = drawn.face.numpy()
        points = interpolate(drawn, faces, vertices.float()).numpy()[face >= 0]
        rgb = np.zeros((*face.shape, 3), np.float32)
        rgb[face >= 0] = read_pixels(self.image, meshes.cameras[self.keyframe], points)
        return rgb, drawn.depth.numpy(), face


def _extend_sides(meshes: TriangleMeshPipeline, k: int) -> Float[np.ndarray, "T 3 3"]:
    """Corners of frame k's faces over depth jumps: once at the depth of the nearest corner, once
    at the depth of the farthest corner."""
    faces = meshes.faces[k][meshes.trust[k] == np.float32(JUMP_TRUST)].numpy()
    if not len(faces):
        return np.zeros((0, 3, 3))
    camera = meshes.cameras[k]
    used, local = np.unique(faces, return_inverse=True)
    local = local.reshape(-1, 3)
    xy, depth = camera.project(meshes.vertices[torch.from_numpy(used)].double())
    sides = []
    for extreme in (np.minimum, np.maximum):
        # a corner of several faces takes the most extreme depth
        side = depth[0].numpy().copy()
        extreme.at(side, local, extreme.reduce(side[local], 1, keepdims=True).repeat(3, 1))
        sides.append(camera.unproject(xy, torch.from_numpy(side)[None])[0].numpy()[local])
    return np.concatenate(sides)


def _split(corners: Float[np.ndarray, "T 3 3"]) -> Float[np.ndarray, "S 3 3"]:
    """Each face cut into _SPLIT^2 similar faces."""
    parts = []
    for i in range(_SPLIT):
        for j in range(_SPLIT - i):
            parts.append([(i, j), (i + 1, j), (i, j + 1)])
            if i + j < _SPLIT - 1:
                parts.append([(i + 1, j), (i + 1, j + 1), (i, j + 1)])
    # barycentric coordinates of the parts' corners
    at = np.array(parts, float) / _SPLIT
    weight = np.concatenate([1 - at.sum(2, keepdims=True), at], 2)
    return np.einsum("pck,tkx->tpcx", weight, corners).reshape(-1, 3, 3)


def _drop_movers(
    corners: Float[np.ndarray, "T 3 3"], footage: Footage, k: int
) -> Float[np.ndarray, "T 3 3"]:
    """Faces whose middle lies in frame k's image, outside movers."""
    if not len(corners):
        return corners
    cameras = footage.cameras
    row, column = find_pixels(cameras[k], corners.mean(1))
    inside = (column >= 0) & (row >= 0) & (column < cameras.width) & (row < cameras.height)
    inside[inside] = footage.still(k)[row[inside], column[inside]]
    return corners[inside]
