"""A world mesh with its texture: baked from the colour field, fitted to the clip's frames, and
drawn."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras
from models.export.footage import Footage, read_pixels, spread
from models.export.options import ExportOptions
from models.export.world.atlas import PADDING, Atlas, build_world_atlas
from models.export.world.silhouettes import find_rims
from models.export.world.world_mesh import WorldMesh, build_world_mesh, choose_keyframes
from models.pipeline import WorldSpaceTrianglePipeline
from models.render import Layer, fill_holes
from models.run import PAIR, SILENT, Progress, njit, run_ahead
from models.surface import interpolate, rasterize_world

# Smallest depth that is drawn, as a share of the median depth of the mesh.
_NEAR = 1e-4
# Rows of texels handled at a time, to bound memory.
_BAND = 512
# Observations that the former colour of a texel counts as.
_PRIOR = 0.3


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh and its texture, as viewers and other programs take them."""

    atlas: Atlas
    texture: Float[np.ndarray, "h w 3"]
    """Colours 0 to 1, as encoded in the video (sRGB), without any frame's exposure."""

    def coordinates(
        self, view: Cameras
    ) -> tuple[Float[np.ndarray, "H W 2"], Float[np.ndarray, "H W"]]:
        """Texture coordinates, in texels, and depth (inf without a surface) at each pixel of a
        camera."""
        faces = torch.from_numpy(self.atlas.faces)
        vertices = torch.from_numpy(self.atlas.vertices)
        drawn = rasterize_world(vertices, faces, view, near_share=_NEAR)
        uv = interpolate(drawn, faces, torch.from_numpy(self.atlas.uv))
        return uv.numpy(), drawn.depth.numpy()

    def render(self, view: Cameras) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
        """Colours 0 to 1, black without a surface, and depth, as a viewer with bilinear filtering
        draws them."""
        uv, depth = self.coordinates(view)
        return _sample(self.texture, uv) * np.isfinite(depth)[..., None], depth


def build_textured_world(
    layer: Layer,
    footage: Footage,
    progress: Progress = SILENT,
    options: ExportOptions = ExportOptions(),
) -> TexturedMesh:
    """The static mesh of the world, its colours baked from the field and fitted to the frames."""
    stage = "world mesh", 2 + options.fit_rounds
    progress.step(stage[0], 0, stage[1])
    mesh = build_world_mesh(layer.meshes, options)
    world = _bake_world(mesh, layer.renderer, footage, options)
    progress.step(stage[0], 1, stage[1])
    keyframes = choose_keyframes(layer.meshes, options)

    def draw(t: int) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
        return world.render(footage.cameras[t])

    # rims are tested against the textured scene, and baked with it again
    rims = find_rims(layer.meshes, footage, keyframes, draw, options)
    textured = _bake_world(mesh.add(rims, painted=True), layer.renderer, footage, options)
    progress.step(stage[0], 2, stage[1])
    for done in range(options.fit_rounds):
        textured = fit_texture(textured, footage, options)
        progress.step(stage[0], 3 + done, stage[1])
    return textured


def _bake_world(
    mesh: WorldMesh,
    renderer: WorldSpaceTrianglePipeline,
    footage: Footage,
    options: ExportOptions,
) -> TexturedMesh:
    atlas = build_world_atlas(mesh, footage.cameras, options)
    return TexturedMesh(atlas, bake(atlas, mesh, renderer, footage))


def bake(
    atlas: Atlas, mesh: WorldMesh, renderer: WorldSpaceTrianglePipeline, footage: Footage
) -> Float[np.ndarray, "h w 3"]:
    """The field's colour at each texel's world point, 0 to 1, or the key frame's colour on painted
    faces; carried on past the borders of charts."""
    points, face, covered = atlas.locate_texels(atlas.vertices)
    colors = renderer.colors(points).numpy()
    for k in np.unique(mesh.keyframe[mesh.painted]).tolist():
        painted = mesh.painted[face] & (mesh.keyframe[face] == k)
        image = footage.colors(k)
        colors[painted] = read_pixels(image, footage.cameras[k], points.numpy()[painted])
    texture = np.zeros((atlas.height, atlas.width, 3), np.float32)
    texture[covered] = colors
    return fill_borders(texture, covered)


def fill_borders(
    texture: Float[np.ndarray, "h w 3"], covered: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 3"]:
    """Colours carried on past the borders of charts, a band of rows at a time to spare memory."""
    filled = np.empty_like(texture)
    reach = 4 * PADDING
    for top in range(0, len(texture), _BAND):
        begin = max(0, top - reach)
        end = min(len(texture), top + _BAND + reach)
        rows = fill_holes(texture[begin:end], covered[begin:end])
        filled[top : top + _BAND] = rows[top - begin : top - begin + _BAND]
    return filled


def fit_texture(
    world: TexturedMesh, footage: Footage, options: ExportOptions = ExportOptions()
) -> TexturedMesh:
    """One step towards the texture whose pictures are nearest the frames: each texel moves by the
    mean error of its pixels.

    Simultaneous iterative reconstruction, robust against pixels that show another surface.
    Source: Gilbert, "Iterative methods for the three-dimensional reconstruction of an object from
    projections", 1972.
    """
    texture = world.texture
    total = np.zeros_like(texture)
    count = np.full(texture.shape[:2], _PRIOR, np.float32)

    def measure(t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        uv, depth = world.coordinates(footage.cameras[t])
        error = footage.colors(t) - _sample(texture, uv)
        used: Bool[np.ndarray, "H W"] = np.isfinite(depth) & footage.still(t)
        # a pixel of another surface has a large error
        weight = used / (1 + (np.abs(error).max(2) / options.outlier) ** 2)
        return uv, error, weight.astype(np.float32)

    for errors in run_ahead(measure, spread(footage.times, options.fitted), PAIR):
        _splat(*errors, total, count)
    return TexturedMesh(world.atlas, np.clip(texture + total / count[..., None], 0, 1))


def _sample(
    texture: Float[np.ndarray, "h w 3"], uv: Float[np.ndarray, "H W 2"]
) -> Float[np.ndarray, "H W 3"]:
    """Bilinear colours at texture coordinates."""
    # OpenCV's (0, 0) is the centre of a texel
    x, y = (np.ascontiguousarray(uv[..., i] - np.float32(0.5)) for i in (0, 1))
    return cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@njit(nogil=True, cache=True, error_model="numpy")
def _splat(uv, error, weight, total, count):
    """Adds each pixel's error to the four texels that the pixel reads, by their bilinear shares."""
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
