"""The rasteriser in plain torch, for any device: gives the same bits as ``raster_kernels``."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.surface import raster_kernels
from models.surface.fragments import Fragments

# pairs of a pixel and a triangle that are tested at a time; memory grows with it, about 150 bytes
# a pair
_PAIRS_PER_CHUNK = 1 << 22
# largest int32: faces are numbered downwards from it, so that the larger key has the lower index
_FACE_BITS = 0x7FFFFFFF


def project_points(x, y, z, K: Tensor) -> list:
    """Homogeneous pixels K v, of arrays or tensors.

    The sums are written out because matrix products of different libraries round differently.
    """
    return [x * row[0] + y * row[1] + z * row[2] for row in K.double().cpu().tolist()]


def rasterize_torch(
    vertices: Tensor, K: Tensor, faces: Tensor, near: float, out: Fragments
) -> None:
    """Fills ``out`` with the mesh; vertices (V, 3) in camera axes, float64.

    Every pixel of each triangle's box is tested. Each hit becomes an integer key that sorts by
    depth first and by face index second.
    """
    height, width = out.face.shape
    points = torch.stack(project_points(*vertices.unbind(1), K), 1)
    planes, boxes = _setup_triangles(points[faces], width, height, near)
    # 0: no hit yet
    keys = torch.zeros(height * width, dtype=torch.int64, device=points.device)
    largest = torch.tensor(1 / near, dtype=torch.float32)
    for triangle, column, row in _list_box_pixels(boxes):
        values = _evaluate_planes(planes[triangle], column, row)
        inverse = values[:, 3].float()
        drawn = (values[:, :3] >= 0).all(1) & (inverse > 0) & (inverse <= largest)
        # bits of positive floats sort as the floats do
        key = (inverse.view(torch.int32).long() << 32) | (_FACE_BITS - triangle)
        keys.scatter_reduce_(0, (row * width + column)[drawn], key[drawn], "amax")
    face = torch.where(keys > 0, _FACE_BITS - (keys & 0xFFFFFFFF), -1)
    out.face.copy_(face.view(height, width))
    _resolve_winners(planes, out)


def _resolve_winners(planes: Float[Tensor, "T 4 3"], out: Fragments) -> None:
    """Fills in barycentrics and depth of the faces in ``out``."""
    out.barycentric.zero_()
    out.depth.fill_(float("inf"))
    drawn = out.face >= 0
    row, column = drawn.nonzero(as_tuple=True)
    winners = planes[out.face[drawn].long()]
    values = _evaluate_planes(winners, column, row)
    total = values[:, 0] + values[:, 1] + values[:, 2]
    scale = torch.where(total > 0, 1 / total, torch.zeros_like(total))
    out.barycentric[drawn] = (values[:, :3] * scale[:, None]).float()
    out.depth[drawn] = (1 / values[:, 3]).float()


def _evaluate_planes(
    planes: Float[Tensor, "S 4 3"], column: Int[Tensor, "S"], row: Int[Tensor, "S"]
) -> Float[Tensor, "S 4"]:
    """Three edge functions and the inverse depth at pixel centres."""
    px = column[:, None] + 0.5
    py = row[:, None] + 0.5
    return planes[..., 0] * px.double() + (planes[..., 1] * py.double() + planes[..., 2])


def _list_box_pixels(boxes: Int[Tensor, "T 4"]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields (triangle, column, row) for all pixels of all boxes, in chunks of bounded size or of
    a single triangle."""
    wide = boxes[:, 1] - boxes[:, 0] + 1
    high = boxes[:, 3] - boxes[:, 2] + 1
    ids = ((wide > 0) & (high > 0)).nonzero()[:, 0]
    counts = (wide * high)[ids]
    chunk_of = (counts.cumsum(0) - 1) // _PAIRS_PER_CHUNK
    for part, count in zip(*(_split(x, chunk_of) for x in (ids, counts)), strict=True):
        triangle = part.repeat_interleave(count)
        start = (count.cumsum(0) - count).repeat_interleave(count)
        offset = torch.arange(len(triangle), device=boxes.device) - start
        across = wide[triangle]
        yield triangle, boxes[triangle, 0] + offset % across, boxes[triangle, 2] + offset // across


def _split(values: Tensor, chunk_of: Tensor) -> tuple[Tensor, ...]:
    return values.split(chunk_of.unique_consecutive(return_counts=True)[1].tolist())


def _setup_triangles(
    corners: Float[Tensor, "T 3 3"], width: int, height: int, near: float
) -> tuple[Float[Tensor, "T 4 3"], Int[Tensor, "T 4"]]:
    """Planes and boxes of ``raster_kernels.setup_triangles``, in the same order of operations."""
    p0, p1, p2 = corners.unbind(1)
    edges = torch.stack([_cross(p1, p2), _cross(p2, p0), _cross(p0, p1)], 1)
    det = p0[:, 0] * edges[:, 0, 0] + p0[:, 1] * edges[:, 0, 1] + p0[:, 2] * edges[:, 0, 2]
    size = (corners.abs() / corners.new_tensor([width, height, 1])).amax(2)
    s0, s1, s2 = size.unbind(1)
    flat = det.abs() <= raster_kernels._DEGENERATE * (width * height) * (s0 * s1 * s2)
    usable = (corners[..., 2] >= near).any(1) & ~flat & det.isfinite()
    inverse_depth = ((edges[:, 0] + edges[:, 1]) + edges[:, 2]) / det[:, None]
    # edge functions are positive inside, for either orientation
    sign = torch.where(det > 0, 1.0, -1.0).to(edges)[:, None, None]
    planes = torch.cat([sign * edges, inverse_depth[:, None]], 1)
    rounding = raster_kernels._EDGE_ROUNDING * (width * height)
    planes[:, :3, 2] += rounding * torch.stack([s1 * s2, s2 * s0, s0 * s1], 1)
    columns = _clip_range(corners[..., 0], corners[..., 2], near, width)
    rows = _clip_range(corners[..., 1], corners[..., 2], near, height)
    boxes = torch.stack([*columns, *rows], 1)
    return planes, torch.where(usable[:, None], boxes, boxes.new_tensor([0, -1, 0, -1]))


def _cross(a: Float[Tensor, "T 3"], b: Float[Tensor, "T 3"]) -> Float[Tensor, "T 3"]:
    """Cross product of rounded products: swapping a and b flips the sign exactly, which keeps
    shared edges closed."""
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)


def _clip_range(
    a: Float[Tensor, "T 3"], z: Float[Tensor, "T 3"], near: float, size: int
) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"]]:
    """First and last pixel of the part with depth >= near along an image axis, padded for
    rounding."""
    front = z >= near
    next_a = a.roll(-1, 1)
    next_z = z.roll(-1, 1)
    # edges that cross the plane at depth near
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
