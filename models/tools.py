"""Rasterised frames -> training pixels, kept compact and drawn without a copy of everything."""

from collections.abc import Iterable
from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

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
    rgb: UInt8[np.ndarray, "S 3"]
    """Colour in the video."""
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
    limit: int = 40_000_000,
    generator: np.random.Generator | None = None,
) -> TrainingPixels:
    """All pixels of the given frames that see their frame's mesh and are not masked.

    Args:
        limit: at most so many pixels are kept, the same share of every frame, chosen by ``generator``.
    """
    times = [t for t in times if t in meshes.faces]
    height, width = frames.shape[1:3]
    share = min(1.0, limit / max(1, len(times) * height * width))
    offset = 0
    parts: dict[str, list[np.ndarray]] = {key: [] for key in ("frame", "pixel", "face", "rgb", "vertices")}
    for t in times:
        face = meshes.fragments(t, meshes.cameras, t).face.numpy().ravel()
        wanted = face >= 0 if masks is None else (face >= 0) & ~masks[t].ravel()
        if share < 1.0:
            wanted &= (generator or np.random.default_rng(0)).random(len(wanted)) < share
        pixel = np.flatnonzero(wanted).astype(np.int32)
        parts["frame"].append(np.full(len(pixel), t, np.int32))
        parts["pixel"].append(pixel)
        parts["face"].append(face[pixel] + np.int32(offset))
        parts["rgb"].append(frames[t].reshape(-1, 3)[pixel])
        parts["vertices"].append(meshes.faces[t].numpy().astype(np.int32))
        offset += len(meshes.faces[t])
    joined = {key: np.concatenate(value) for key, value in parts.items()}
    cameras = meshes.cameras
    return TrainingPixels(
        **joined,
        inverse_K=torch.linalg.inv(cameras.K.double()).numpy(),
        world_from_cam=cameras.world_from_cam.double().numpy(),
        width=width,
    )


@numba.njit(cache=True, parallel=True)
def _intersect(index, frame, pixel, vertices, face, inverse_K, pose, width, positions, out):
    for i in numba.prange(len(index)):
        s = index[i]
        t = frame[s]
        px, py = pixel[s] % width + 0.5, pixel[s] // width + 0.5
        a, b, c = vertices[face[s]]
        ex, ey, ez = positions[b, 0] - positions[a, 0], positions[b, 1] - positions[a, 1], positions[b, 2] - positions[a, 2]
        fx, fy, fz = positions[c, 0] - positions[a, 0], positions[c, 1] - positions[a, 1], positions[c, 2] - positions[a, 2]
        nx, ny, nz = ey * fz - ez * fy, ez * fx - ex * fz, ex * fy - ey * fx
        u = inverse_K[t, 0, 0] * px + inverse_K[t, 0, 1] * py + inverse_K[t, 0, 2]
        v = inverse_K[t, 1, 0] * px + inverse_K[t, 1, 1] * py + inverse_K[t, 1, 2]
        dx = pose[t, 0, 0] * u + pose[t, 0, 1] * v + pose[t, 0, 2]
        dy = pose[t, 1, 0] * u + pose[t, 1, 1] * v + pose[t, 1, 2]
        dz = pose[t, 2, 0] * u + pose[t, 2, 1] * v + pose[t, 2, 2]
        ox, oy, oz = pose[t, 0, 3], pose[t, 1, 3], pose[t, 2, 3]
        along = nx * dx + ny * dy + nz * dz
        depth = (nx * (positions[a, 0] - ox) + ny * (positions[a, 1] - oy) + nz * (positions[a, 2] - oz)) / along
        out[i, 0], out[i, 1], out[i, 2] = ox + depth * dx, oy + depth * dy, oz + depth * dz
