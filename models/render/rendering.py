"""A camera's picture of the static scene: the meshes of the nearest frames, drawn, coloured and
joined."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.blending import blend_surfaces, fill_holes
from models.render.options import RenderOptions
from models.render.seen import find_seen
from models.render.tiles import View, WorldMesh, render_tiles
from models.render.view_choice import DrawnFrames, average_times, choose_drawn, weigh_changes


@dataclass(frozen=True)
class Rendering:
    """A rendered view."""

    rgb: UInt8[np.ndarray, "H W 3"]
    depth: Float[np.ndarray, "H W"]
    """z-depth in world units; inf without a surface."""
    covered: Bool[np.ndarray, "H W"]
    """True if a mesh covers the pixel inside some frame's image; other pixels have colours of
    their surroundings."""


def render_view(
    meshes: TriangleMeshPipeline,
    renderer: WorldSpaceTrianglePipeline,
    view: Cameras,
    options: RenderOptions = RenderOptions(),
) -> Rendering:
    """The picture of a camera (``view`` of length 1) from the meshes of the frames nearest to it.

    Meshes that agree in depth at a pixel vote with their weights for their surface; the colours of
    the winners are averaged by weight. Faces of little trust show only if no other face
    covers the pixel. Uncovered pixels, and surfaces past the images of all frames, are filled.
    """
    drawn = choose_drawn(meshes, view, options)
    moment = average_times(drawn.frames, drawn.weights, options)
    changes = weigh_changes(meshes, view, options)
    renderer = renderer.seen_from(view.world_from_cam[0, :3, 3], moment, changes)
    # tensors on a GPU have no numba kernels
    on_cpu = renderer.field.grid.choose_backend(renderer.field.grid.tables) == "numba"
    draw = _render_fast if on_cpu else _render_plain
    rgb, depth = draw(meshes, renderer, view, drawn, options)
    covered = find_seen(meshes, view, depth)
    rgb = fill_holes(rgb, covered)
    return Rendering(cv2.convertScaleAbs(rgb, alpha=255), depth, covered)


def _render_fast(
    meshes: TriangleMeshPipeline,
    renderer: WorldSpaceTrianglePipeline,
    view: Cameras,
    drawn: DrawnFrames,
    options: RenderOptions,
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Colours and depth by the CPU kernels."""
    K = view.K[0].double()
    pose = view.world_from_cam[0].double()
    image_from_world = K @ view.cam_from_world[0, :3].double()
    # (x d, y d, d, 1) -> camera axes
    unproject = torch.eye(4, dtype=torch.float64)
    unproject[:3, :3] = torch.linalg.inv(K)
    box_from_pixel = renderer.normalized_from_world @ pose @ unproject
    matrices = image_from_world.numpy(), box_from_pixel.numpy()
    vertices = meshes.vertices.numpy()
    world = [
        WorldMesh(vertices, meshes.faces[t].numpy(), meshes.trust[t].numpy(), weight)
        for t, weight in zip(drawn.frames, drawn.weights, strict=True)
    ]
    camera = View(*matrices, view.width, view.height, meshes.near)
    return render_tiles(world, renderer.field, camera, options)


@torch.no_grad()
def _render_plain(
    meshes: TriangleMeshPipeline,
    renderer: WorldSpaceTrianglePipeline,
    view: Cameras,
    drawn: DrawnFrames,
    options: RenderOptions,
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Colours and depth in plain torch, on the renderer's device; reads the field for each mesh of
    a pixel."""
    device = renderer.normalized_from_world.device
    layers = [meshes.fragments(t, view, device=device) for t in drawn.frames]
    depth = torch.stack([layer.depth for layer in layers])
    weight = [
        importance * meshes.trust[t].to(device)[layer.face.clamp_min(0).long()]
        for layer, t, importance in zip(layers, drawn.frames, drawn.weights, strict=True)
    ]
    share, surface = blend_surfaces(depth, torch.stack(weight), options)
    # a mesh at a time: the field is read only for pixels that the mesh has a share of
    rgb = torch.zeros((view.height, view.width, 3), device=device)
    for k in range(len(layers)):
        rows, columns = torch.nonzero(share[k], as_tuple=True)
        xy = torch.stack([columns, rows], 1).double() + 0.5
        points = view.unproject(xy[None], depth[k, rows, columns].double()[None])[0]
        rgb[rows, columns] += share[k, rows, columns, None] * renderer.colors(points).float()
    return rgb.cpu().numpy(), surface.cpu().numpy()
