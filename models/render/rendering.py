"""A camera's picture of the scene: the meshes of the frames nearest to it, drawn, coloured and
joined."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render import tiles
from models.render.blending import blend_surfaces_torch, fill_holes
from models.render.view_choice import ViewOptions, choose_drawn, mean_time, weigh_changes


@dataclass(frozen=True)
class Rendering:
    """One rendered view."""

    rgb: UInt8[np.ndarray, "H W 3"]
    depth: Float[np.ndarray, "H W"]
    """z-depth in world units; inf where no mesh was."""
    covered: Bool[np.ndarray, "H W"]
    """True where a surface of some mesh was seen; elsewhere the colour was filled in."""


def render_view(
    meshes: TriangleMeshPipeline,
    renderer: WorldSpaceTrianglePipeline,
    view: Cameras,
    options: ViewOptions = ViewOptions(),
) -> Rendering:
    """One camera's picture from the meshes of the frames nearest to it.

    Where the meshes' depths agree their colours are averaged by weight; where they do not, the
    surface that most weight agrees on wins. Faces that are hardly trusted are seen only where
    nothing else is; what is left is filled.
    """
    chosen = choose_drawn(meshes, view, options)
    moment = mean_time(chosen.frames, chosen.weights, options)
    changes = weigh_changes(meshes, view, options)
    renderer = renderer.seen_from(view.world_from_cam[0, :3, 3], moment, changes)
    on_cpu = renderer.field.grid.choose_backend(renderer.field.grid.tables) == "numba"
    draw = _render_fast if on_cpu else _render_plain
    drawn = list(zip(chosen.frames, chosen.weights, strict=True))
    rgb, surface = draw(meshes, renderer, view, drawn)
    covered = np.isfinite(surface)
    rgb = fill_holes(rgb, covered)
    return Rendering(cv2.convertScaleAbs(rgb, alpha=255), surface, covered)


def _render_fast(
    meshes: TriangleMeshPipeline,
    renderer: WorldSpaceTrianglePipeline,
    view: Cameras,
    drawn: list[tuple[int, float]],
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Colours and depth by the CPU kernels."""
    K = view.K[0].double()
    pose = view.world_from_cam[0].double()
    image_from_world = K @ view.cam_from_world[0, :3].double()
    unproject = torch.eye(4, dtype=torch.float64)
    unproject[:3, :3] = torch.linalg.inv(K)
    box_from_pixel = renderer.normalized_from_world @ pose @ unproject
    matrices = image_from_world.numpy(), box_from_pixel.numpy()
    camera = tiles.View(*matrices, view.width, view.height, meshes.near)
    vertices = meshes.vertices.numpy()
    world = [
        tiles.WorldMesh(vertices, meshes.faces[t].numpy(), meshes.trust[t].numpy(), w)
        for t, w in drawn
    ]
    return tiles.render_tiles(world, renderer.field, camera)


@torch.no_grad()
def _render_plain(
    meshes: TriangleMeshPipeline,
    renderer: WorldSpaceTrianglePipeline,
    view: Cameras,
    drawn: list[tuple[int, float]],
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Colours and depth in plain torch, on the renderer's device; reads the field once for each
    mesh and pixel."""
    device = renderer.normalized_from_world.device
    layers = [meshes.fragments(t, view, device=device) for t, _ in drawn]
    depth = torch.stack([layer.depth for layer in layers])
    weight = [
        w * meshes.trust[t].to(device)[f.face.clamp_min(0).long()]
        for f, (t, w) in zip(layers, drawn, strict=True)
    ]
    share, surface = blend_surfaces_torch(depth, torch.stack(weight))
    rgb = torch.zeros((view.height, view.width, 3), device=device)
    for k in range(len(drawn)):
        rows, columns = torch.nonzero(share[k], as_tuple=True)
        xy = torch.stack([columns, rows], 1).double() + 0.5
        points = view.unproject(xy[None], depth[k, rows, columns].double()[None])[0]
        rgb[rows, columns] += share[k, rows, columns, None] * renderer.colors(points).float()
    return rgb.cpu().numpy(), surface.cpu().numpy()
