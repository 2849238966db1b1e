"""Which pixel of a frame shows the surface of each pixel of a view."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras
from models.movers import MovingMeshPipeline
from models.surface import interpolate

# A pixel far outside every image.
_NOWHERE = -1e4


@dataclass(frozen=True)
class SourceMap:
    """The pixels of a frame that show the surfaces of a view's pixels."""

    x: Float[np.ndarray, "H W"]
    """In pixels; the centre of the first pixel is 0, as in OpenCV. Far outside the image where the
    view has no surface."""
    y: Float[np.ndarray, "H W"]
    z: Float[np.ndarray, "H W"]
    """z-depth of the surface in the frame, in world units."""

    def read(self, image: np.ndarray, how: int = cv2.INTER_LINEAR) -> np.ndarray:
        """An image of the frame at these pixels; the border continues outside.

        Args:
            how: OpenCV's interpolation.
        """
        return cv2.remap(image, self.x, self.y, how, borderMode=cv2.BORDER_REPLICATE)

    def is_inside(self, width: int, height: int) -> Bool[np.ndarray, "H W"]:
        """True at pixels inside the frame's image."""
        x, y = self.x, self.y
        return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def map_surface(camera: Cameras, view: Cameras, depth: Float[np.ndarray, "H W"]) -> SourceMap:
    """Pixels of a frame in which the static surface of a view lies, seen there or hidden.

    Args:
        camera: of the frame.
        view: a single camera.
        depth: z-depth of the view, inf without a surface.
    """
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
    return SourceMap(x.astype(np.float32), y.astype(np.float32), z)


def map_mover(meshes: MovingMeshPipeline, view: Cameras, time: float, t: int) -> SourceMap:
    """Pixels of frame t that show the movers of a view at a time, as frame t's mesh carries them.

    Args:
        view: a single camera.
        time: in frames of the clip; the mesh knows its place then.
    """
    mesh = meshes.meshes[t]
    fragments = mesh.fragments(view, mesh.place(time, meshes.cameras.centers.double()))
    xy = interpolate(fragments, mesh.faces, mesh.source[:, 3:]).numpy()
    drawn = (fragments.face >= 0).numpy()
    # OpenCV's first pixel centre is at 0.
    x, y = (np.where(drawn, xy[..., i] - np.float32(0.5), _NOWHERE) for i in (0, 1))
    return SourceMap(x.astype(np.float32), y.astype(np.float32), fragments.depth.numpy())
