"""A mesh given in the world, as one camera sees it."""

from jaxtyping import Float, Int
from torch import Tensor

from models.cameras import Cameras
from models.surface.rasterizer import Fragments, rasterize


def rasterize_world(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "T 3"],
    camera: Cameras,
    near: float | None = None,
    near_share: float = 1e-3,
    out: Fragments | None = None,
) -> Fragments:
    """Fragments of a mesh in the image of one camera.

    Args:
        vertices: world positions, on the device to draw on.
        camera: one camera.
        near: smallest depth that is drawn, in world units.
        near_share: without ``near``, the smallest depth as a share of the vertices' median depth.
        out: buffers to fill, see ``rasterize``.
    """
    local = camera.to_camera(vertices.double())[0]
    if near is None:
        near = near_share * float(local[:, 2].abs().median())
    return rasterize(local, faces, camera.K[0], camera.width, camera.height, near=near, out=out)
