"""Which pixel of a frame shows the surface of each pixel of a view."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float

from models.cameras import Cameras
from models.detail.options import DetailOptions
from models.movers import MovingMeshPipeline
from models.surface import interpolate

# A pixel far outside every image.
_NOWHERE = -1e4


@dataclass(frozen=True)
class SourceMap:
    """The pixels of a frame that show the surfaces of a view's pixels."""

    x: Float[np.ndarray, "H W"]
    """In pixels; the centre of the first pixel is 0, as in OpenCV."""
    y: Float[np.ndarray, "H W"]
    weight: Float[np.ndarray, "H W"]
    """Trust in each, 0 to 1; 0 where the frame does not see the surface."""


def map_static(
    camera: Cameras,
    view: Cameras,
    depth: Float[np.ndarray, "H W"],
    own_depth: Float[np.ndarray, "h w"],
    options: DetailOptions = DetailOptions(),
) -> SourceMap:
    """Pixels of a frame that show the static surfaces of a view.

    Args:
        camera: of the frame.
        view: a single camera.
        depth: z-depth of the view, inf without a surface.
        own_depth: z-depth of the frame.
    """
    x, y, z = _project_surface(camera, view, depth)
    outside = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": np.inf}
    seen = cv2.remap(own_depth, x, y, cv2.INTER_NEAREST, **outside)
    with np.errstate(invalid="ignore"):
        # inf beside the mesh and outside the image: the weight is 0
        apart = np.abs(z / seen - 1) / np.float32(options.depth_tolerance)
    weight = np.where(np.isfinite(seen), np.clip(2 - 2 * apart, 0, 1), 0)
    return SourceMap(x, y, weight.astype(np.float32))


def map_mover(meshes: MovingMeshPipeline, view: Cameras, time: float, t: int) -> SourceMap:
    """Pixels of frame t that show the movers of a view at a time, as frame t's mesh carries them.

    Args:
        view: a single camera.
        time: in frames of the clip; the mesh knows its place then.
    """
    mesh = meshes.meshes[t]
    fragments = mesh.fragments(view, mesh.place(time, meshes.cameras.centers.double()))
    xy = interpolate(fragments, mesh.faces, mesh.source[:, 3:]).numpy()
    weight = (fragments.face >= 0).numpy().astype(np.float32)
    # OpenCV's first pixel centre is at 0.
    x, y = (np.where(weight > 0, xy[..., i] - np.float32(0.5), _NOWHERE) for i in (0, 1))
    return SourceMap(x.astype(np.float32), y.astype(np.float32), weight)


def _project_surface(
    camera: Cameras, view: Cameras, depth: Float[np.ndarray, "H W"]
) -> list[Float[np.ndarray, "H W"]]:
    """x and y in OpenCV's pixels, and z-depth, in a camera, of the surface at each pixel of a
    view; far outside the image where there is no surface."""
    unproject = torch.eye(4, dtype=torch.float64)
    unproject[:3, :3] = torch.linalg.inv(view.K[0].double())
    moved = camera.cam_from_world[0, :3].double() @ view.world_from_cam[0].double()
    matrix = (camera.K[0].double() @ moved @ unproject).float().numpy()
    rows, columns = (i + np.float32(0.5) for i in np.indices(depth.shape, np.float32))
    known = np.isfinite(depth)
    d = np.where(known, depth, 1)
    # (x d, y d, d, 1) -> homogeneous pixels
    u, v, z = ((m[0] * columns + m[1] * rows + m[2]) * d + m[3] for m in matrix)
    front = known & (z > 0)
    divisor = np.where(front, z, 1)
    # OpenCV's first pixel centre is at 0.
    x, y = (np.where(front, i / divisor - np.float32(0.5), _NOWHERE) for i in (u, v))
    return [x.astype(np.float32), y.astype(np.float32), z]
