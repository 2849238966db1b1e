"""Rasterised frames -> training pixels, kept compact and drawn without a copy of everything."""

from collections.abc import Iterable
from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from models.exposure import Exposure
from models.pipeline import TriangleMeshPipeline


@dataclass(frozen=True)
class TrainingPixels:
    """S pixels of the training frames: which face each one sees and its colour."""

    frame: Int[np.ndarray, "S"]
    pixel: Int[np.ndarray, "S"]
    """Row-major index in the image."""
    vertices: Int[np.ndarray, "T 3"]
    """Vertex indices of all faces of all frames."""
    face: Int[np.ndarray, "S"]
    """Row of ``vertices``."""
    trust: Float[np.ndarray, "T"]
    """How far to believe each face, see ``FrameMesh``."""
    rgb: Float[np.ndarray, "S 3"]
    """The scene's own colour, 0 to 1 (half precision): the video's without the frame's exposure."""
    inverse_K: Float[np.ndarray, "F 3 3"]
    world_from_cam: Float[np.ndarray, "F 4 4"]
    width: int

    def __len__(self) -> int:
        return len(self.face)

    def points(self, index: Int[np.ndarray, "B"], positions: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "B 3"]:
        """World points where the pixels' rays meet the planes of their faces, under the vertices' positions."""
        out = np.empty((len(index), 3), np.float32)
        _intersect(
            index, self.frame, self.pixel, self.vertices, self.face, self.inverse_K, self.world_from_cam,
            self.width, positions, out,
        )  # fmt: skip
        return out


def sample_points(
    meshes: TriangleMeshPipeline,
    frames: UInt8[np.ndarray, "F H W 3"],
    masks: Bool[np.ndarray, "F H W"] | None,
    times: Iterable[int],
    exposure: Exposure | None = None,
    limit: int = 40_000_000,
    generator: np.random.Generator | None = None,
) -> TrainingPixels:
    """All pixels of the given frames that see their frame's mesh and are not masked.

    Args:
        limit: at most so many pixels are kept, the same share of every frame, chosen by ``generator``.
    """
    times = [t for t in times if t in meshes.faces]
    generator = generator or np.random.default_rng(0)
    height, width = frames.shape[1:3]
    share = min(1.0, limit / max(1, len(times) * height * width))
    offset = 0
    parts: dict[str, list[np.ndarray]] = {key: [] for key in ("frame", "pixel", "face", "rgb", "vertices", "trust")}
    for t in times:
        face = meshes.fragments(t, meshes.cameras, t).face.numpy().ravel()
        wanted = face >= 0 if masks is None else (face >= 0) & ~masks[t].ravel()
        if share < 1.0:
            wanted &= generator.random(len(wanted)) < share
        pixel = np.flatnonzero(wanted).astype(np.int32)
        parts["frame"].append(np.full(len(pixel), t, np.int32))
        parts["pixel"].append(pixel)
        parts["face"].append(face[pixel] + np.int32(offset))
        color = frames[t] / (255 * exposure.factor(t)) if exposure else frames[t] / np.float32(255)
        parts["rgb"].append(color.clip(0, 1).reshape(-1, 3)[pixel].astype(np.float16))
        parts["vertices"].append(meshes.faces[t].numpy().astype(np.int32))
        parts["trust"].append(meshes.trust[t].numpy())
        offset += len(meshes.faces[t])
    joined = {key: np.concatenate(value) for key, value in parts.items()}
    cameras = meshes.cameras
    return TrainingPixels(
        **joined,
        inverse_K=torch.linalg.inv(cameras.K.double()).numpy(),
        world_from_cam=cameras.world_from_cam.double().numpy(),
        width=width,
    )


@numba.njit(cache=True)
def _ray(frame, pixel, inverse_K, pose, width):
    """Origin and direction (z-depth 1) of a pixel's ray in the world."""
    px, py = pixel % width + 0.5, pixel // width + 0.5
    u = inverse_K[frame, 0, 0] * px + inverse_K[frame, 0, 1] * py + inverse_K[frame, 0, 2]
    v = inverse_K[frame, 1, 0] * px + inverse_K[frame, 1, 1] * py + inverse_K[frame, 1, 2]
    R = pose[frame]
    dx = R[0, 0] * u + R[0, 1] * v + R[0, 2]
    dy = R[1, 0] * u + R[1, 1] * v + R[1, 2]
    dz = R[2, 0] * u + R[2, 1] * v + R[2, 2]
    return R[0, 3], R[1, 3], R[2, 3], dx, dy, dz


@numba.njit(cache=True)
def _normal(a, b, c):
    """(b - a) x (c - a)."""
    ex, ey, ez = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    fx, fy, fz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return ey * fz - ez * fy, ez * fx - ex * fz, ex * fy - ey * fx


@numba.njit(cache=True, parallel=True)
def _intersect(index, frame, pixel, vertices, face, inverse_K, pose, width, positions, out):
    for i in numba.prange(len(index)):
        s = index[i]
        corner = vertices[face[s]]
        a = positions[corner[0]].astype(np.float64)
        nx, ny, nz = _normal(a, positions[corner[1]], positions[corner[2]])
        ox, oy, oz, dx, dy, dz = _ray(frame[s], pixel[s], inverse_K, pose, width)
        depth = (nx * (a[0] - ox) + ny * (a[1] - oy) + nz * (a[2] - oz)) / (nx * dx + ny * dy + nz * dz)
        out[i, 0], out[i, 1], out[i, 2] = ox + depth * dx, oy + depth * dy, oz + depth * dz
