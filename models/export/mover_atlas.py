"""Movers for export: the mesh of each frame with its cut-out, all in one texture with alpha."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from models.export.atlas import Atlas, build_atlas
from models.export.texture import TexturedMesh, fill_borders
from models.render import MovingLayer, Scene

MAX_TEXELS = 2_500_000
"""Of the movers' texture, which must be a PNG: some 6 MB."""
LEAST_PULL = 0.02
"""Range of how much nearer a mover comes to the camera that saw it, as a share of its distance:
else the ground that it stands on would cut its feet. The renderer lets it show through as much."""
FREE_SHARE = 0.98
"""Share of a mover's pixels that nothing may hide in its own frame, if a pull within the range does
it."""


@dataclass(frozen=True)
class MoverMeshes:
    """Meshes of the frames that have one, in one texture."""

    times: list[int]
    meshes: list[Atlas]
    """One of each time; they share width and height of the texture."""
    texture: Float[np.ndarray, "h w 4"]
    """Colours as TexturedMesh has them, and alpha: 0 outside the mover's outline."""


def mover_meshes(scene: Scene, world: TexturedMesh) -> MoverMeshes | None:
    """The movers of each frame as its own camera saw them; None where there are none."""
    layer = scene.moving
    if layer is None or not layer.meshes.meshes:
        return None
    times = sorted(layer.meshes.meshes)
    parts = [layer.meshes.meshes[t] for t in times]
    pull = _pulls(scene, world, times)
    eyes = scene.cameras.centers[times].float()
    xyz = torch.cat(
        [m.xyz + p * (eye - m.xyz) for m, eye, p in zip(parts, eyes, pull, strict=True)]
    ).numpy()
    source = torch.cat([mesh.source for mesh in parts])
    offsets = np.cumsum([0, *(len(mesh.xyz) for mesh in parts)])
    faces = np.concatenate(
        [mesh.faces.numpy() + offset for mesh, offset in zip(parts, offsets, strict=False)]
    )
    chart = np.repeat(np.arange(len(parts)), np.diff(offsets))
    atlas = build_atlas(xyz, source[:, 3:].double().numpy(), faces, chart, MAX_TEXELS)
    texture = _bake(
        atlas, source, np.repeat(np.arange(len(parts)), [len(m.faces) for m in parts]), times, layer
    )
    return MoverMeshes(times, _apart(atlas, parts, offsets), texture)


def _pulls(scene: Scene, world: TexturedMesh, times: list[int]) -> list[float]:
    """How much nearer each frame's mover comes, changing slowly from frame to frame."""
    pulls = []
    for t in times:
        mesh = scene.moving.meshes.meshes[t]
        cameras = scene.cameras
        depth = mesh.fragments(cameras[t]).depth.numpy()
        shown = np.isfinite(depth)
        pixels = np.argwhere(shown)[:, ::-1] + 0.5
        shown[shown] = scene.moving.meshes.alpha[t].at(pixels) > 0.5
        ratio = depth[shown] / world.coordinates(cameras[t])[1][shown]
        pulls.append(
            1 - 1 / max(1.0, float(np.quantile(ratio, FREE_SHARE))) if shown.any() else 0.0
        )
    most = 1 - 1 / (1 + scene.options.mover_tolerance)
    wide = maximum_filter1d(np.clip(np.array(pulls) + LEAST_PULL, LEAST_PULL, most), 9)
    return gaussian_filter1d(wide, 2.0).tolist()


def _apart(atlas: Atlas, parts: list, offsets: Int[np.ndarray, "n"]) -> list[Atlas]:
    size = atlas.width, atlas.height
    return [
        Atlas(atlas.vertices[a:b], atlas.uv[a:b], mesh.faces.numpy(), *size)
        for mesh, a, b in zip(parts, offsets[:-1], offsets[1:], strict=True)
    ]


def _bake(
    atlas: Atlas,
    source: torch.Tensor,
    part: Int[np.ndarray, "T"],
    times: list[int],
    layer: MovingLayer,
) -> Float[np.ndarray, "h w 4"]:
    """Colour at each texel's canonical place, and alpha at its pixel in its frame."""
    place, face, covered = atlas.texels(source.numpy())
    own = part[face]
    alpha = np.zeros(len(place), np.float32)
    colors = np.zeros((len(place), 3), np.float32)
    for i, t in enumerate(times):
        alpha[own == i] = layer.meshes.alpha[t].at(place[own == i, 3:].numpy())
        then = layer.renderer.seen_from(layer.meshes.cameras.centers[t].double(), t)
        colors[own == i] = then.colors(torch.as_tensor(place[own == i, :3])).numpy()
    texture = np.zeros((atlas.height, atlas.width, 4), np.float32)
    texture[covered, :3] = colors
    texture[covered, 3] = alpha
    texture[..., :3] = fill_borders(np.ascontiguousarray(texture[..., :3]), covered)
    return texture
