"""Rims of near surfaces, where tracks end before the surface does: small faces, kept where the
clip's frames show them.

Between the last point of a near surface and the first one of what lies behind it, a frame's mesh
has faces that are no surface. Here their near corners' depth is carried outwards over them, and
their far corners' depth inwards, in small faces painted with the key frame's pixels. Each stays if
the frames that would see it look more like the scene with it than without.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float, Int

from models.cameras import Cameras
from models.export.footage import Footage
from models.pipeline import TriangleMeshPipeline
from models.surface import JUMP_TRUST, interpolate, rasterize_world

SPLIT = 4
"""Parts into which each edge of a face is cut."""
BEFORE = 0.002
"""A rim must be nearer than what is behind it by this share."""
LEAST_GAIN = 0.02
"""Mean gain in colour (0 to 1) a pixel that keeps a face."""

Picture = Callable[[int], tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]]
"""Colours, 0 to 1, and depth of the scene so far as frame t's camera sees it."""


def find_rims(
    meshes: TriangleMeshPipeline,
    footage: Footage,
    keyframes: Iterable[int],
    witnesses: list[int],
    picture: Picture,
) -> dict[int, Float[np.ndarray, "T 3 3"]]:
    """World corners of the small faces to add, by the key frame that paints them."""
    candidates = {k: _unmasked(_split(_sides(meshes, k)), footage, k) for k in keyframes}
    candidates = {k: corners for k, corners in candidates.items() if len(corners)}
    images = {k: footage.colors(k) for k in candidates}
    gain = {k: np.zeros(len(corners)) for k, corners in candidates.items()}
    for t in witnesses:
        world, depth = picture(t)
        truth = footage.colors(t)
        still = footage.still(t)
        for k, corners in candidates.items():
            rgb, z, face = _paint(meshes, corners, images[k], k, t)
            shown = (face >= 0) & (z < (1 - BEFORE) * depth) & still
            better = np.abs(world[shown] - truth[shown]).mean(1) - np.abs(
                rgb[shown] - truth[shown]
            ).mean(1)
            gain[k] += np.bincount(face[shown], better - LEAST_GAIN, len(corners))
    return {k: corners[gain[k] > 0] for k, corners in candidates.items()}


def pixels_of(
    image: Float[np.ndarray, "H W 3"], cameras: Cameras, k: int, points: Float[np.ndarray, "S 3"]
) -> Float[np.ndarray, "S 3"]:
    """Colours of the pixels of camera k's image that world points fall on; the nearest pixel for
    those outside."""
    xy = cameras[[k]].project(torch.from_numpy(points).double())[0][0].numpy()
    column, row = np.floor(xy).astype(np.int64).T
    return image[row.clip(0, len(image) - 1), column.clip(0, image.shape[1] - 1)]


def _sides(meshes: TriangleMeshPipeline, k: int) -> Float[np.ndarray, "T 3 3"]:
    """Corners of frame k's faces over depth jumps, at their near corners' depth, then at their far
    ones'."""
    faces = meshes.faces[k][meshes.trust[k] == np.float32(JUMP_TRUST)].numpy()
    if not len(faces):
        return np.zeros((0, 3, 3))
    used, local = np.unique(faces, return_inverse=True)
    local = local.reshape(-1, 3)
    xy, depth = meshes.cameras[[k]].project(meshes.vertices[torch.from_numpy(used)].double())
    sides = []
    for extreme in (np.minimum, np.maximum):
        side = depth[0].numpy().copy()
        extreme.at(side, local, extreme.reduce(side[local], 1, keepdims=True).repeat(3, 1))
        sides.append(
            meshes.cameras[[k]].unproject(xy, torch.from_numpy(side)[None])[0].numpy()[local]
        )
    return np.concatenate(sides)


def _split(corners: Float[np.ndarray, "T 3 3"]) -> Float[np.ndarray, "S 3 3"]:
    """Each face cut into SPLIT^2 like it."""
    parts = []
    for i in range(SPLIT):
        for j in range(SPLIT - i):
            parts.append([(i, j), (i + 1, j), (i, j + 1)])
            if i + j < SPLIT - 1:
                parts.append([(i + 1, j), (i + 1, j + 1), (i, j + 1)])
    at = np.array(parts, float) / SPLIT
    weight = np.concatenate([1 - at.sum(2, keepdims=True), at], 2)
    return np.einsum("pck,tkx->tpcx", weight, corners).reshape(-1, 3, 3)


def _unmasked(
    corners: Float[np.ndarray, "T 3 3"], footage: Footage, k: int
) -> Float[np.ndarray, "T 3 3"]:
    """Faces whose middle lies in frame k's image, and not on a mover."""
    if not len(corners):
        return corners
    cameras = footage.cameras
    xy = cameras[[k]].project(torch.from_numpy(corners.mean(1)))[0][0].numpy()
    column, row = np.floor(xy).astype(np.int64).T
    inside = (column >= 0) & (row >= 0) & (column < cameras.width) & (row < cameras.height)
    inside[inside] = footage.still(k)[row[inside], column[inside]]
    return corners[inside]


def _paint(
    meshes: TriangleMeshPipeline,
    corners: Float[np.ndarray, "T 3 3"],
    image: Float[np.ndarray, "H W 3"],
    k: int,
    t: int,
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"], Int[np.ndarray, "H W"]]:
    """Faces painted with frame k's pixels as frame t's camera sees them: colour, depth and face."""
    cameras = meshes.cameras
    vertices = torch.from_numpy(corners.reshape(-1, 3)).double()
    faces = torch.arange(len(vertices)).reshape(-1, 3)
    seen = rasterize_world(vertices, faces, cameras[t], near=meshes.near)
    face = seen.face.numpy()
    points = interpolate(seen, faces, vertices.float()).numpy()[face >= 0]
    rgb = np.zeros((*face.shape, 3), np.float32)
    rgb[face >= 0] = pixels_of(image, cameras, k, points)
    return rgb, seen.depth.numpy(), face
