"""Triangle mesh + camera -> Fragments: the nearest face at each pixel, its barycentrics and depth.

Homogeneous rasterisation: no triangle is clipped at the near plane, and triangles that cross the
camera plane are drawn correctly. With p_k = K v_k and M = [p_0 p_1 p_2], a pixel centre
q = (x, y, 1) meets the face where M lambda = q: it is covered if all lambda >= 0, its depth is
z = 1 / sum(lambda), and lambda z are perspective-correct barycentrics. All of them are affine in
the pixel. Source: Olano & Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997.

Two backends give the same bits: scanlines in numba (``raster_kernels``, CPU) and plain torch
(``plain_rasterizer``, any device).
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.cameras import Cameras
from models.run import run_tasks, split_range
from models.surface import raster_kernels
from models.surface.fragments import Fragments, check_faces, count_bands
from models.surface.plain_rasterizer import project_points, rasterize_torch


def rasterize(
    vertices_cam: Float[Tensor, "V 3"],
    faces: Int[Tensor, "T 3"],
    camera: Cameras,
    near: float = 1e-3,
    backend: str = "auto",
    out: Fragments | None = None,
) -> Fragments:
    """Draws both sides of each face of a mesh, as a pinhole camera sees them.

    A pixel is covered if its centre lies in the projected face or on its border, so faces that
    share an edge leave no crack. The nearest face wins; at equal depth (as float32 of 1/z) the face
    of lower index wins, whatever the number of threads. Skipped are faces wholly nearer than
    ``near``, faces seen edge-on (an image of less than about 1e-7 square pixels) and faces that are
    not finite.

    Args:
        vertices_cam: vertices in camera axes (x right, y down, z forward); any z, also behind the
            camera.
        faces: three vertex indices each, in either orientation.
        camera: ``Cameras`` of length 1; only intrinsics and image size are used, because the
            vertices are in camera axes already.
        near: smallest z that is drawn, in units of the vertices.
        backend: "numba" (CPU tensors only), "torch" (any device), or "auto": numba for CPU tensors.
        out: buffers to fill and return in place of new ones; see ``Fragments.buffers``.

    Raises:
        ValueError: a face names a vertex that does not exist, sizes or ``near`` are not positive,
            ``out`` has another shape, or the backend does not fit the device.
    """
    device = vertices_cam.device
    width = camera.width
    height = camera.height
    _check_input(vertices_cam, faces, camera, near)
    backend = _choose_backend(backend, device)
    out = Fragments.buffers(width, height, device) if out is None else out
    if out.face.shape != (height, width) or out.face.device != device:
        raise ValueError(
            f"rasterize: out is {tuple(out.face.shape)} on {out.face.device}, not {(height, width)}"
        )
    faces = faces.to(device=device, dtype=torch.int64).contiguous()
    points = vertices_cam.detach().to(torch.float64)
    draw = _rasterize_numba if backend == "numba" else rasterize_torch
    draw(points, camera.K[0].detach(), faces, float(near), out)
    return out


def rasterize_world(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "T 3"],
    camera: Cameras,
    near: float | None = None,
    near_share: float = 1e-3,
    out: Fragments | None = None,
) -> Fragments:
    """Fragments of a mesh in world space in the image of a camera; see ``rasterize``.

    Args:
        vertices: world positions, on the device to draw on.
        camera: ``Cameras`` of length 1.
        near: smallest depth that is drawn, in world units.
        near_share: without ``near``, the smallest depth as a share of the vertices' median depth.
        out: buffers to fill and return in place of new ones.
    """
    local = camera.to_camera(vertices.double())[0]
    if near is None:
        near = near_share * float(local[:, 2].abs().median())
    return rasterize(local, faces, camera, near=near, out=out)


def _check_input(vertices: Tensor, faces: Tensor, camera: Cameras, near: float) -> None:
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"rasterize: vertices must be (V, 3), not {tuple(vertices.shape)}")
    if len(camera) != 1:
        raise ValueError(f"rasterize: give one camera, not {len(camera)}")
    if camera.width <= 0 or camera.height <= 0 or not near > 0:
        raise ValueError(
            "rasterize: width, height and near must be positive, "
            f"not {camera.width}, {camera.height}, {near}"
        )
    check_faces(faces, len(vertices))


def _choose_backend(backend: str, device: torch.device) -> str:
    if backend not in ("auto", "numba", "torch"):
        raise ValueError(f"rasterize: backend must be auto, numba or torch, not {backend!r}")
    if backend == "numba" and device.type != "cpu":
        raise ValueError(f"rasterize: the numba backend needs CPU tensors, not {device}")
    return ("numba" if device.type == "cpu" else "torch") if backend == "auto" else backend


def _rasterize_numba(
    vertices: Tensor, K: Tensor, faces: Tensor, near: float, out: Fragments
) -> None:
    # numpy around the kernels, not torch: waking torch's own threads costs more than the work
    height, width = out.face.shape
    with np.errstate(invalid="ignore", over="ignore"):
        points = np.stack(project_points(*vertices.numpy().T, K), 1)
    planes = np.empty((len(faces), 4, 3))
    boxes = np.empty((len(faces), 4), np.int32)
    parts = split_range(len(faces), count_bands())
    bands = split_range(height, count_bands())
    given = points, faces.numpy()
    fixed = width, height, near, planes, boxes
    run_tasks(lambda i: raster_kernels.setup_triangles(*given, *parts[i], *fixed), len(parts))
    buffers = out.face.numpy(), out.barycentric.numpy(), out.depth.numpy()
    run_tasks(lambda i: raster_kernels.fill(planes, boxes, near, *bands[i], *buffers), len(bands))
