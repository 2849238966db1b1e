"""Fragments: what each pixel sees of a mesh, and vertex attributes read at the pixels."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.run import run_tasks, split_range
from models.surface import raster_kernels

# parts of a mesh or an image for each thread, so that no thread waits long for the others
_BANDS_PER_THREAD = 8
# vertices per face corner from which sorting the corners is faster than marking all vertices: a
# long clip's pool holds the vertices of thousands of frames
_LARGE_POOL = 16


@dataclass(frozen=True)
class Fragments:
    """Face, barycentric coordinates and depth at each pixel centre of an image."""

    face: Int[Tensor, "H W"]
    """int32; index of the nearest face whose projection covers the pixel centre, or -1."""
    barycentric: Float[Tensor, "H W 3"]
    """Weights b of the face's vertices v in camera space: the surface point is sum_k b_k v_k; 0 in
    empty pixels."""
    depth: Float[Tensor, "H W"]
    """z of the surface point in camera axes, in units of the vertices; inf in empty pixels."""

    @staticmethod
    def buffers(width: int, height: int, device: torch.device | str = "cpu") -> "Fragments":
        """Uninitialised tensors, to be filled by ``rasterize`` as ``out``, any number of times."""
        face = torch.empty((height, width), dtype=torch.int32, device=device)
        barycentric = torch.empty((height, width, 3), device=device)
        return Fragments(face, barycentric, torch.empty((height, width), device=device))


def interpolate(
    fragments: Fragments, faces: Int[Tensor, "T 3"], attributes: Float[Tensor, "V C"]
) -> Float[Tensor, "H W C"]:
    """Vertex attributes at each pixel, perspective-correct, float32: sum_k b_k attribute_k; 0 in
    empty pixels.

    Raises:
        ValueError: a face names a vertex without attributes, or the fragments name a face that is
            not in ``faces``.
    """
    check_faces(faces, len(attributes))
    if _find_range(fragments.face)[1] >= len(faces):
        raise ValueError("interpolate: these fragments were drawn with other faces")
    faces = faces.to(attributes.device, torch.int64)
    attributes = attributes.detach().to(torch.float32)
    if attributes.device.type != "cpu":
        return interpolate_torch(fragments, faces, attributes)
    result = torch.empty((*fragments.face.shape, attributes.shape[1]))
    tensors = fragments.face, fragments.barycentric, faces.contiguous(), attributes.contiguous()
    arrays = [tensor.numpy() for tensor in tensors]
    out = result.numpy()
    bands = split_range(len(out), count_bands())
    run_tasks(lambda i: raster_kernels.interpolate(*arrays, *bands[i], out), len(bands))
    return result


def interpolate_torch(
    fragments: Fragments, faces: Int[Tensor, "T 3"], attributes: Float[Tensor, "V C"]
) -> Float[Tensor, "H W C"]:
    """Plain form of ``interpolate`` for any device, differentiable in the attributes."""
    result = attributes.new_zeros((*fragments.face.shape, attributes.shape[1]))
    drawn = fragments.face >= 0
    corners = attributes[faces[fragments.face[drawn].long()]]
    result[drawn] = (fragments.barycentric[drawn][..., None] * corners).sum(1)
    return result


def find_used_vertices(
    faces: Int[Tensor, "T 3"], num_vertices: int
) -> tuple[Int[Tensor, "U"], Int[Tensor, "T 3"]]:
    """Vertices that faces name, in ascending order, and the faces as indices into them.

    Extracts a mesh from a vertex pool that many meshes share.

    Raises:
        ValueError: a face names a vertex that does not exist.
    """
    check_faces(faces, num_vertices)
    if num_vertices > _LARGE_POOL * faces.numel():
        used, own = torch.unique(faces, return_inverse=True)
        return used.long(), own.reshape(faces.shape)
    used = torch.zeros(num_vertices, dtype=torch.bool, device=faces.device)
    used[faces.flatten().long()] = True
    return used.nonzero()[:, 0], (used.cumsum(0) - 1)[faces.long()]


def check_faces(faces: Tensor, num_vertices: int) -> None:
    """Raises ValueError unless ``faces`` are integers (T, 3) below ``num_vertices``."""
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise ValueError(f"faces must be integers (T, 3), not {faces.dtype} {tuple(faces.shape)}")
    if len(faces):
        low, high = _find_range(faces)
        if low < 0 or high >= num_vertices:
            raise ValueError(f"faces name vertices {low} to {high}, but there are {num_vertices}")


def count_bands() -> int:
    """Parts that work on a mesh or an image is split into, for the threads."""
    return _BANDS_PER_THREAD * torch.get_num_threads()


def _find_range(indices: Tensor) -> tuple[int, int]:
    """Smallest and largest index; numpy is faster than torch on small CPU tensors."""
    indices = indices.numpy() if indices.device.type == "cpu" else indices
    return int(indices.min()), int(indices.max())
