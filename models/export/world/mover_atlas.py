"""Movers for export: the mesh of each frame with its cut-out, in a common texture with alpha."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from models.export.options import ExportOptions
from models.export.world.atlas import Atlas, build_atlas
from models.export.world.texture import TexturedMesh, fill_borders
from models.render import MovingLayer, Scene

# Shares of its distance by which a mover comes nearer to the camera: the ground under a mover
# would cut off its feet otherwise. This is the least; the most is the renderer's tolerance.
_LEAST_PULL = 0.02
# Share of a mover's pixels that nothing may hide in its own frame, if a pull in range does it.
_FREE_SHARE = 0.98
# Frames over which the largest pull counts, and sigma in frames of the smoothing after that.
_PULL_WINDOW = 9
_PULL_SIGMA = 2.0
# A mover shows at pixels with a larger alpha.
_OPAQUE = 0.5


@dataclass(frozen=True)
class MoverMeshes:
    """Meshes of the frames with movers, in a common texture."""

    times: list[int]
    meshes: list[Atlas]
    """The mesh of each time; all share the width and height of the texture."""
    texture: Float[np.ndarray, "h w 4"]
    """Colours as in TexturedMesh, and alpha: 0 outside the mover's outline."""


def build_mover_meshes(
    scene: Scene, world: TexturedMesh, options: ExportOptions = ExportOptions()
) -> MoverMeshes | None:
    """The movers of each frame as its own camera saw them; None without movers.

    Args:
        world: the static mesh, in front of which the movers are pulled.
    """
    layer = scene.moving
    if layer is None or not layer.meshes.meshes:
        return None
    times = sorted(layer.meshes.meshes)
    parts = [layer.meshes.meshes[t] for t in times]
    pulls = _measure_pulls(scene, world, times)
    # towards the camera of its own frame, where the picture stays the same
    eyes = scene.cameras.centers[times].float()
    pulled = [m.xyz + p * (eye - m.xyz) for m, eye, p in zip(parts, eyes, pulls, strict=True)]
    xyz = torch.cat(pulled).numpy()
    source = torch.cat([mesh.source for mesh in parts])
    offsets = np.cumsum([0, *(len(mesh.xyz) for mesh in parts)])
    shifted = zip(parts, offsets[:-1], strict=True)
    faces = np.concatenate([mesh.faces.numpy() + offset for mesh, offset in shifted])
    chart = np.repeat(np.arange(len(parts)), np.diff(offsets))
    xy = source[:, 3:].double().numpy()
    atlas = build_atlas(xyz, xy, faces, chart, options.texture_side, options.mover_texels)
    part = np.repeat(np.arange(len(parts)), [len(m.faces) for m in parts])
    texture = _bake(atlas, source, part, times, layer)
    return MoverMeshes(times, _split_atlas(atlas, parts, offsets), texture)


def _measure_pulls(scene: Scene, world: TexturedMesh, times: list[int]) -> list[float]:
    """Share of its distance by which each frame's mover comes nearer, smooth over time."""
    movers = scene.moving.meshes
    pulls = []
    for t in times:
        camera = scene.cameras[t]
        depth = movers.meshes[t].fragments(camera).depth.numpy()
        shown = np.isfinite(depth)
        pixels = np.argwhere(shown)[:, ::-1] + 0.5
        shown[shown] = movers.alpha[t].at(pixels) > _OPAQUE
        ratio = depth[shown] / world.coordinates(camera)[1][shown]
        farthest = float(np.quantile(ratio, _FREE_SHARE)) if shown.any() else 1.0
        pulls.append(1 - 1 / max(1.0, farthest))
    most = 1 - 1 / (1 + scene.options.mover_tolerance)
    limited = np.clip(np.array(pulls) + _LEAST_PULL, _LEAST_PULL, most)
    wide = maximum_filter1d(limited, _PULL_WINDOW)
    return gaussian_filter1d(wide, _PULL_SIGMA).tolist()


def _split_atlas(atlas: Atlas, parts: list, offsets: Int[np.ndarray, "n"]) -> list[Atlas]:
    """The mesh of each part in the common texture."""
    size = atlas.width, atlas.height
    return [
        Atlas(atlas.vertices[a:b], atlas.uv[a:b], mesh.faces.numpy(), *size)
        for mesh, a, b in zip(parts, offsets[:-1], offsets[1:], strict=True)
    ]


def _bake(
    atlas: Atlas,
    source: Float[torch.Tensor, "V 5"],
    part: Int[np.ndarray, "T"],
    times: list[int],
    layer: MovingLayer,
) -> Float[np.ndarray, "h w 4"]:
    """Colour at each texel's canonical place, and alpha at the texel's pixel in its frame.

    Args:
        source: canonical place (3) and pixel (2) of each vertex.
        part: index into ``times`` of each face.
    """
    place, face, covered = atlas.locate_texels(source.numpy())
    frame = part[face]
    alpha = np.zeros(len(place), np.float32)
    colors = np.zeros((len(place), 3), np.float32)
    for i, t in enumerate(times):
        members = frame == i
        alpha[members] = layer.meshes.alpha[t].at(place[members, 3:].numpy())
        center = layer.meshes.cameras.centers[t].double()
        renderer = layer.renderer.seen_from(center, t)
        colors[members] = renderer.colors(torch.as_tensor(place[members, :3])).numpy()
    texture = np.zeros((atlas.height, atlas.width, 4), np.float32)
    texture[covered, :3] = colors
    texture[covered, 3] = alpha
    # filtering at the outline must not read black
    texture[..., :3] = fill_borders(np.ascontiguousarray(texture[..., :3]), covered)
    return texture
