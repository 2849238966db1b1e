"""A world mesh with its texture: baked from the colour field, fitted to the clip's frames, and
drawn."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numba import njit
from tqdm import tqdm

from models.cameras import Cameras
from models.export.atlas import PADDING, Atlas, world_atlas
from models.export.footage import Footage, spread
from models.export.silhouettes import find_rims, pixels_of
from models.export.world_mesh import WorldMesh, build_world_mesh, keyframes
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render import fill_holes
from models.surface import interpolate, rasterize_world

# Smallest depth that is drawn, as a share of the median depth of the mesh.
_NEAR = 1e-4
ROUNDS = 2
MAX_FITTED = 48
"""Frames, evenly spread, that a texture is fitted to."""
MAX_WITNESSES = 24
"""Frames that vote on the rims of near surfaces."""
BAND = 512
"""Rows of texels handled at a time."""
OUTLIER = 0.2
"""Error in colour (0 to 1) at which a pixel counts half: another surface may have been seen
there."""
PRIOR = 0.3
"""Sightings' worth of belief in what a texel was before."""


@dataclass(frozen=True)
class TexturedMesh:
    """What viewers and other tools take."""

    atlas: Atlas
    texture: Float[np.ndarray, "h w 3"]
    """Colours 0 to 1, as encoded in the video (sRGB), without any frame's exposure."""

    def coordinates(
        self, view: Cameras
    ) -> tuple[Float[np.ndarray, "H W 2"], Float[np.ndarray, "H W"]]:
        """Texture coordinates, in texels, and depth (inf where nothing is) at each pixel of one
        camera."""
        faces = torch.from_numpy(self.atlas.faces)
        seen = rasterize_world(torch.from_numpy(self.atlas.vertices), faces, view, near_share=_NEAR)
        return interpolate(seen, faces, torch.from_numpy(self.atlas.uv)).numpy(), seen.depth.numpy()

    def render(self, view: Cameras) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
        """Colours 0 to 1, black where nothing is, and depth, as a viewer with bilinear filtering
        would draw them."""
        uv, depth = self.coordinates(view)
        return _sample(self.texture, uv) * np.isfinite(depth)[..., None], depth


def textured_world(
    meshes: TriangleMeshPipeline, renderer: WorldSpaceTrianglePipeline, footage: Footage
) -> TexturedMesh:
    """The static mesh of the world, its colours baked from the field and fitted to the frames."""
    with tqdm(total=2 + ROUNDS, desc="world mesh", unit="step") as bar:
        mesh = build_world_mesh(meshes)
        world = _baked(mesh, renderer, footage)
        bar.update()
        witnesses = spread(footage.times, MAX_WITNESSES)
        rims = find_rims(
            meshes,
            footage,
            keyframes(meshes),
            witnesses,
            lambda t: world.render(footage.cameras[t]),
        )
        world = _baked(mesh.with_painted(rims), renderer, footage)
        bar.update()
        for _ in range(ROUNDS):
            world = refine(world, footage)
            bar.update()
    return world


def _baked(mesh: WorldMesh, renderer: WorldSpaceTrianglePipeline, footage: Footage) -> TexturedMesh:
    atlas = world_atlas(mesh, footage.cameras)
    return TexturedMesh(atlas, bake(atlas, mesh, renderer, footage))


def bake(
    atlas: Atlas, mesh: WorldMesh, renderer: WorldSpaceTrianglePipeline, footage: Footage
) -> Float[np.ndarray, "h w 3"]:
    """The field's colour at each texel's world point, 0 to 1, or its key frame's; carried on past
    charts' borders."""
    points, face, covered = atlas.texels(atlas.vertices)
    colors = renderer.colors(points).numpy()
    for k in np.unique(mesh.keyframe[mesh.painted]).tolist():
        own = mesh.painted[face] & (mesh.keyframe[face] == k)
        colors[own] = pixels_of(footage.colors(k), footage.cameras, k, points.numpy()[own])
    texture = np.zeros((atlas.height, atlas.width, 3), np.float32)
    texture[covered] = colors
    return fill_borders(texture, covered)


def fill_borders(
    texture: Float[np.ndarray, "h w 3"], covered: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 3"]:
    """Colours carried on past the charts' borders, a band of rows at a time to spare memory."""
    filled = np.empty_like(texture)
    reach = 4 * PADDING
    for top in range(0, len(texture), BAND):
        begin = max(0, top - reach)
        end = min(len(texture), top + BAND + reach)
        rows = fill_holes(texture[begin:end], covered[begin:end])
        filled[top : top + BAND] = rows[top - begin : top - begin + BAND]
    return filled


def refine(world: TexturedMesh, footage: Footage) -> TexturedMesh:
    """One step towards the texture whose pictures are nearest the frames: a texel moves by what its
    pixels lack.

    Simultaneous iterative reconstruction, robust against pixels that see another surface in truth.
    Source: Gilbert, "Iterative methods for the three-dimensional reconstruction of an object from
    projections", 1972.
    """
    texture = world.texture
    total = np.zeros_like(texture)
    count = np.full(texture.shape[:2], PRIOR, np.float32)
    for t in spread(footage.times, MAX_FITTED):
        uv, depth = world.coordinates(footage.cameras[t])
        error = footage.colors(t) - _sample(texture, uv)
        seen: Bool[np.ndarray, "H W"] = np.isfinite(depth) & footage.still(t)
        weight = seen / (1 + (np.abs(error).max(2) / OUTLIER) ** 2)
        _splat(uv, error, weight.astype(np.float32), total, count)
    return TexturedMesh(world.atlas, np.clip(texture + total / count[..., None], 0, 1))


def _sample(
    texture: Float[np.ndarray, "h w 3"], uv: Float[np.ndarray, "H W 2"]
) -> Float[np.ndarray, "H W 3"]:
    """Bilinear colours at texture coordinates."""
    x, y = (
        np.ascontiguousarray(uv[..., i] - np.float32(0.5)) for i in (0, 1)
    )  # OpenCV's (0, 0) is a texel's centre
    return cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@njit(nogil=True, cache=True, error_model="numpy")
def _splat(uv, error, weight, total, count):
    """Adds each pixel's error to the four texels that it reads, by their shares in it."""
    height, width = count.shape
    half = np.float32(0.5)
    for row in range(uv.shape[0]):
        for column in range(uv.shape[1]):
            w = weight[row, column]
            if w <= 0:
                continue
            x, y = uv[row, column, 0] - half, uv[row, column, 1] - half
            left = int(np.floor(x))
            top = int(np.floor(y))
            fx = x - left
            fy = y - top
            for k in range(4):
                i, j = top + k // 2, left + k % 2
                if i < 0 or j < 0 or i >= height or j >= width:
                    continue
                share = w * (fy if k // 2 else 1 - fy) * (fx if k % 2 else 1 - fx)
                count[i, j] += share
                for c in range(3):
                    total[i, j, c] += share * error[row, column, c]
