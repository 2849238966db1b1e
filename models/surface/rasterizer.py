"""Triangle mesh + camera -> Fragments: which face a pixel sees, where on it, and how deep.

Homogeneous rasterisation: no triangle is cut at the near plane, yet those that cross the camera
plane come out right. With p_k = K v_k and M = [p_0 p_1 p_2], a pixel centre q = (x, y, 1) meets the
face where M lambda = q: it is covered where all lambda >= 0, its depth is z = 1 / sum(lambda), and
lambda z are perspective-correct barycentrics. All of them are affine in the pixel. Source: Olano &
Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997.

Two paths give the same bits: scanlines in numba (models/surface/raster_kernels.py) and plain torch,
on any device.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.run import run_tasks, split_range
from models.surface import raster_kernels

PAIRS_PER_CHUNK = 1 << 22
FACE_BITS = 0x7FFFFFFF
BANDS_PER_THREAD = 8
"""Parts of a mesh or an image for each thread, so that none waits long for the others."""
LARGE_POOL = 16
"""Vertices for each corner from which on it takes less to sort the corners than to look at all
vertices, which in a long clip are those of thousands of frames."""


@dataclass(frozen=True)
class Fragments:
    """What each pixel centre of an image sees of a mesh."""

    face: Int[Tensor, "H W"]
    """int32; index of the nearest face whose projection holds the pixel centre, -1 where there is
    none."""
    barycentric: Float[Tensor, "H W 3"]
    """Weights b of the face's vertices v in camera space: the point seen is sum_k b_k v_k; 0 where
    empty."""
    depth: Float[Tensor, "H W"]
    """z of that point in camera axes, in units of the vertices; inf where empty."""

    @staticmethod
    def buffers(width: int, height: int, device: torch.device | str = "cpu") -> "Fragments":
        """Unfilled tensors, to be handed to ``rasterize`` again and again as ``out``."""
        face = torch.empty((height, width), dtype=torch.int32, device=device)
        barycentric = torch.empty((height, width, 3), device=device)
        return Fragments(face, barycentric, torch.empty((height, width), device=device))


def rasterize(
    vertices_cam: Float[Tensor, "V 3"],
    faces: Int[Tensor, "T 3"],
    K: Float[Tensor, "3 3"],
    width: int,
    height: int,
    near: float = 1e-3,
    backend: str = "auto",
    out: Fragments | None = None,
) -> Fragments:
    """Draws a mesh, both sides of each face, as seen by a pinhole camera.

    A pixel is covered where its centre lies in the projected face or on its border, so that faces
    which share an edge leave no crack. The nearest face wins; at the same depth (as float32 of 1/z)
    the one of lower index, whatever the number of threads. Faces that are wholly nearer than
    ``near``, seen edge-on (an image of less than about 1e-7 square pixels), or not finite are
    skipped.

    Args:
        vertices_cam: vertices in camera axes (x right, y down, z forward); any z, also behind the
            camera.
        faces: three vertex indices each, in either orientation.
        K: intrinsics in pixels, last row (0, 0, 1); the centre of the top-left pixel is (0.5, 0.5).
        width: image width in pixels.
        height: image height in pixels.
        near: smallest z that is drawn, absolute, in units of the vertices.
        backend: "numba" (CPU tensors only), "torch" (any device), or "auto": numba where it can be
            used.
        out: buffers to fill and return in place of new ones; see ``Fragments.buffers``.

    Raises:
        ValueError: a face names a vertex that does not exist, sizes or ``near`` are not positive,
            ``out`` has another shape, or the backend does not fit the device.
    """
    device = vertices_cam.device
    _check(vertices_cam, faces, width, height, near)
    backend = _choose_backend(backend, device)
    out = Fragments.buffers(width, height, device) if out is None else out
    if out.face.shape != (height, width) or out.face.device != device:
        raise ValueError(
            f"rasterize: out is {tuple(out.face.shape)} on {out.face.device}, not {(height, width)}"
        )
    faces = faces.to(device=device, dtype=torch.int64).contiguous()
    draw = _rasterize_numba if backend == "numba" else _rasterize_torch
    draw(vertices_cam.detach().to(torch.float64), K.detach(), faces, float(near), out)
    return out


def used_vertices(
    faces: Int[Tensor, "T 3"], num_vertices: int
) -> tuple[Int[Tensor, "U"], Int[Tensor, "T 3"]]:
    """The vertices that faces name, in order, and the faces in terms of those: a mesh out of a
    shared pool.

    Raises:
        ValueError: a face names a vertex that does not exist.
    """
    _check_faces(faces, num_vertices)
    if num_vertices > LARGE_POOL * faces.numel():
        used, own = torch.unique(faces, return_inverse=True)
        return used.long(), own.reshape(faces.shape)
    used = torch.zeros(num_vertices, dtype=torch.bool, device=faces.device)
    used[faces.flatten().long()] = True
    return used.nonzero()[:, 0], (used.cumsum(0) - 1)[faces.long()]


def interpolate(
    fragments: Fragments, faces: Int[Tensor, "T 3"], attributes: Float[Tensor, "V C"]
) -> Float[Tensor, "H W C"]:
    """Attributes of vertices at each pixel, perspective-correct, float32: sum_k b_k attribute_k; 0
    where empty."""
    _check_faces(faces, len(attributes))
    if _index_range(fragments.face)[1] >= len(faces):
        raise ValueError("interpolate: these fragments were drawn with other faces")
    faces = faces.to(attributes.device, torch.int64)
    attributes = attributes.detach().to(torch.float32)
    if attributes.device.type == "cpu":
        result = torch.empty((*fragments.face.shape, attributes.shape[1]))
        arrays = (
            fragments.face,
            fragments.barycentric,
            faces.contiguous(),
            attributes.contiguous(),
        )
        arrays = [array.numpy() for array in arrays]
        out = result.numpy()
        bands = split_range(len(out), _bands())
        run_tasks(lambda i: raster_kernels.interpolate(*arrays, *bands[i], out), len(bands))
        return result
    return interpolate_torch(fragments, faces, attributes)


def interpolate_torch(
    fragments: Fragments, faces: Int[Tensor, "T 3"], attributes: Float[Tensor, "V C"]
) -> Float[Tensor, "H W C"]:
    """Plain form of ``interpolate``, on any device; also differentiable in the attributes."""
    result = attributes.new_zeros((*fragments.face.shape, attributes.shape[1]))
    drawn = fragments.face >= 0
    corners = attributes[faces[fragments.face[drawn].long()]]
    result[drawn] = (fragments.barycentric[drawn][..., None] * corners).sum(1)
    return result


def _check(vertices: Tensor, faces: Tensor, width: int, height: int, near: float) -> None:
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"rasterize: vertices must be (V, 3), not {tuple(vertices.shape)}")
    if width <= 0 or height <= 0 or not near > 0:
        raise ValueError(
            f"rasterize: width, height and near must be positive, not {width}, {height}, {near}"
        )
    _check_faces(faces, len(vertices))


def _check_faces(faces: Tensor, num_vertices: int) -> None:
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise ValueError(f"faces must be integers (T, 3), not {faces.dtype} {tuple(faces.shape)}")
    if len(faces):
        low, high = _index_range(faces)
        if low < 0 or high >= num_vertices:
            raise ValueError(f"faces name vertices {low} to {high}, but there are {num_vertices}")


def _index_range(indices: Tensor) -> tuple[int, int]:
    indices = indices.numpy() if indices.device.type == "cpu" else indices
    return int(indices.min()), int(indices.max())


def _choose_backend(backend: str, device: torch.device) -> str:
    if backend not in ("auto", "numba", "torch"):
        raise ValueError(f"rasterize: backend must be auto, numba or torch, not {backend!r}")
    if backend == "numba" and device.type != "cpu":
        raise ValueError(f"rasterize: the numba backend needs CPU tensors, not {device}")
    return ("numba" if device.type == "cpu" else "torch") if backend == "auto" else backend


def _bands() -> int:
    return BANDS_PER_THREAD * torch.get_num_threads()


def _image_points(x, y, z, K: Tensor) -> list:
    """Homogeneous pixels K v, of arrays or tensors; sums written out, as matrix products round in
    their own ways."""
    return [x * row[0] + y * row[1] + z * row[2] for row in K.double().cpu().tolist()]


def _rasterize_numba(
    vertices: Tensor, K: Tensor, faces: Tensor, near: float, out: Fragments
) -> None:
    # numpy around the kernels, not torch: waking torch's own threads in between costs more than the work
    height, width = out.face.shape
    with np.errstate(invalid="ignore", over="ignore"):
        points = np.stack(_image_points(*vertices.numpy().T, K), 1)
    planes = np.empty((len(faces), 4, 3))
    boxes = np.empty((len(faces), 4), np.int32)
    parts = split_range(len(faces), _bands())
    bands = split_range(height, _bands())
    fixed = width, height, near, planes, boxes
    run_tasks(
        lambda i: raster_kernels.setup_triangles(points, faces.numpy(), *parts[i], *fixed),
        len(parts),
    )
    buffers = (out.face.numpy(), out.barycentric.numpy(), out.depth.numpy())
    run_tasks(lambda i: raster_kernels.fill(planes, boxes, near, *bands[i], *buffers), len(bands))


def _rasterize_torch(
    vertices: Tensor, K: Tensor, faces: Tensor, near: float, out: Fragments
) -> None:
    """Tests every pixel of every triangle's box; one integer key per hit orders them by depth, then
    by index."""
    height, width = out.face.shape
    points = torch.stack(_image_points(*vertices.unbind(1), K), 1)
    planes, boxes = _setup_torch(points[faces], width, height, near)
    keys = torch.zeros(height * width, dtype=torch.int64, device=points.device)
    for triangle, column, row in _pixels_of_boxes(boxes):
        edges, inverse = _evaluate(planes[triangle], column, row)
        drawn = (
            (edges >= 0).all(1)
            & (inverse > 0)
            & (inverse <= torch.tensor(1 / near, dtype=torch.float32))
        )
        # bits of positive floats sort as the floats do
        key = (inverse.view(torch.int32).long() << 32) | (FACE_BITS - triangle)
        keys.scatter_reduce_(0, (row * width + column)[drawn], key[drawn], "amax")
    face = torch.where(keys > 0, FACE_BITS - (keys & 0xFFFFFFFF), -1)
    out.face.copy_(face.view(height, width))
    _resolve_torch(planes, out)


def _resolve_torch(planes: Tensor, out: Fragments) -> None:
    """Barycentrics and depth of the winning faces."""
    out.barycentric.zero_()
    out.depth.fill_(float("inf"))
    drawn = out.face >= 0
    row, column = drawn.nonzero(as_tuple=True)
    winners = planes[out.face[drawn].long()]
    values = _affine(winners, column, row)
    total = values[:, 0] + values[:, 1] + values[:, 2]
    scale = torch.where(total > 0, 1 / total, torch.zeros_like(total))
    out.barycentric[drawn] = (values[:, :3] * scale[:, None]).float()
    out.depth[drawn] = (1 / values[:, 3]).float()


def _affine(planes: Float[Tensor, "S 4 3"], column: Tensor, row: Tensor) -> Float[Tensor, "S 4"]:
    px, py = column[:, None] + 0.5, row[:, None] + 0.5
    return planes[..., 0] * px.double() + (planes[..., 1] * py.double() + planes[..., 2])


def _evaluate(
    planes: Tensor, column: Tensor, row: Tensor
) -> tuple[Float[Tensor, "S 3"], Float[Tensor, "S"]]:
    values = _affine(planes, column, row)
    return values[:, :3], values[:, 3].float()


def _pixels_of_boxes(boxes: Int[Tensor, "T 4"]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields (triangle, column, row) for all pixels of all boxes, in chunks of bounded size or one
    triangle."""
    wide = boxes[:, 1] - boxes[:, 0] + 1
    high = boxes[:, 3] - boxes[:, 2] + 1
    ids = ((wide > 0) & (high > 0)).nonzero()[:, 0]
    counts = (wide * high)[ids]
    chunk_of = (counts.cumsum(0) - 1) // PAIRS_PER_CHUNK
    for part, count in zip(*(_split(x, chunk_of) for x in (ids, counts)), strict=True):
        triangle = part.repeat_interleave(count)
        start = (count.cumsum(0) - count).repeat_interleave(count)
        offset = torch.arange(len(triangle), device=boxes.device) - start
        across = wide[triangle]
        yield triangle, boxes[triangle, 0] + offset % across, boxes[triangle, 2] + offset // across


def _split(values: Tensor, chunk_of: Tensor) -> tuple[Tensor, ...]:
    return values.split(chunk_of.unique_consecutive(return_counts=True)[1].tolist())


def _setup_torch(
    corners: Float[Tensor, "T 3 3"], width: int, height: int, near: float
) -> tuple[Tensor, Tensor]:
    """Planes (T, 4, 3) and boxes (T, 4) of raster_kernels.setup_triangles, in the same order of
    operations."""
    p0, p1, p2 = corners.unbind(1)
    edges = torch.stack([_cross(p1, p2), _cross(p2, p0), _cross(p0, p1)], 1)
    det = p0[:, 0] * edges[:, 0, 0] + p0[:, 1] * edges[:, 0, 1] + p0[:, 2] * edges[:, 0, 2]
    size = (corners.abs() / corners.new_tensor([width, height, 1])).amax(2)
    s0, s1, s2 = size.unbind(1)
    flat = det.abs() <= raster_kernels.DEGENERATE * (width * height) * (s0 * s1 * s2)
    usable = (corners[..., 2] >= near).any(1) & ~flat & det.isfinite()
    inverse_depth = ((edges[:, 0] + edges[:, 1]) + edges[:, 2]) / det[:, None]
    sign = torch.where(det > 0, 1.0, -1.0).to(edges)[:, None, None]
    planes = torch.cat([sign * edges, inverse_depth[:, None]], 1)
    rounding = raster_kernels.EDGE_ROUNDING * (width * height)
    planes[:, :3, 2] += rounding * torch.stack([s1 * s2, s2 * s0, s0 * s1], 1)
    columns = _clipped_range(corners[..., 0], corners[..., 2], near, width)
    rows = _clipped_range(corners[..., 1], corners[..., 2], near, height)
    boxes = torch.stack([*columns, *rows], 1)
    return planes, torch.where(usable[:, None], boxes, boxes.new_tensor([0, -1, 0, -1]))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product of rounded products: swapping a and b flips the sign exactly, which keeps
    shared edges closed."""
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)


def _clipped_range(a: Tensor, z: Tensor, near: float, size: int) -> tuple[Tensor, Tensor]:
    """First and last pixel (T,) of the part with depth >= near along one image axis, padded for
    rounding."""
    front = z >= near
    next_a = a.roll(-1, 1)
    next_z = z.roll(-1, 1)
    cut = (a + (near - z) / (next_z - z) * (next_a - a)) / near
    crossing = front != front.roll(-1, 1)
    candidates = torch.cat([a / z, cut], 1)
    valid = torch.cat([front, crossing], 1)
    low = candidates.where(valid, torch.inf).amin(1)
    high = candidates.where(valid, -torch.inf).amax(1)
    pad = 1e-3 + torch.where(front.all(1), 0.0, 4e-15 * a.abs().amax(1) / near)
    first = (low - pad - 0.5).ceil().nan_to_num(0).clamp(0, size)
    last = (high + pad - 0.5).floor().nan_to_num(-1).clamp(-1, size - 1)
    return first.long(), last.long()
