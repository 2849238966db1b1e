"""Rasterised frames -> training pixels, kept compact and drawn without a copy of everything."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from models.clip import Exposure
from models.field import transform_points
from models.pipeline import TriangleMeshPipeline
from models.run import InputError, return_freed, run_tasks, split_range
from models.surface import draw_samples

SAMPLE = np.dtype(
    [("pixel", np.int32), ("face", np.int32), ("frame", np.uint16), ("rgb", np.float16, 3)]
)
"""A training pixel, side by side in memory: to draw one at random is then one wait for memory, not
four."""
MOST_FRAMES = 1 << 16
MOST_SAMPLES = 40_000_000
"""Training pixels that are kept at most."""


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

    def points(
        self, index: Int[np.ndarray, "B"], positions: Float[np.ndarray, "V 3"]
    ) -> Float[np.ndarray, "B 3"]:
        """World points where the pixels' rays meet the planes of their faces, under the vertices'
        positions."""
        return self.batch(index, positions, np.eye(4)).points

    def batch(
        self,
        index: Int[np.ndarray, "B"],
        positions: Float[np.ndarray, "V 3"],
        normalized_from_world: Float[np.ndarray, "4 4"],
        least_weight: float = 0.0,
    ) -> "Batch":
        """The pixels of the given indices as the colour field needs them, in one pass."""
        points = np.empty((len(index), 3), np.float32)
        rgb = np.empty((len(index), 3), np.float32)
        weight = np.empty(len(index), np.float32)
        matrix = np.ascontiguousarray(normalized_from_world, np.float64)
        mesh = self.vertices, self.trust, positions
        cameras = self.inverse_K, self.world_from_cam, self.width, matrix
        samples, half = (
            (self.frame, self.pixel, self.face, self.rgb.view(np.uint16)),
            _half_values(),
        )
        parts = split_range(len(index), 16)
        fixed = index, samples, half, *mesh, *cameras, np.float32(least_weight), points, rgb, weight
        run_tasks(lambda i: draw_samples(*parts[i], *fixed), len(parts))
        return Batch(points, rgb, weight)


@dataclass(frozen=True)
class Batch:
    """B samples of a training step."""

    points: Float[np.ndarray, "B 3"]
    """Where their rays meet their faces, normalised."""
    rgb: Float[np.ndarray, "B 3"]
    weight: Float[np.ndarray, "B"]
    """Trust of the face, but not less than asked for."""


def batch_plain(
    pixels,
    index: np.ndarray,
    positions: np.ndarray,
    normalized_from_world: np.ndarray,
    least_weight: float = 0.0,
) -> Batch:
    """Plain form of ``TrainingPixels.batch``, for whatever has points(), rgb, face and trust."""
    points = torch.from_numpy(pixels.points(index, positions)).double()
    points = transform_points(torch.from_numpy(normalized_from_world), points).float().numpy()
    return Batch(
        points,
        pixels.rgb[index].astype(np.float32),
        pixels.trust[pixels.face[index]].clip(least_weight),
    )


class DevicePixels:
    """Training pixels kept and drawn on a device, in plain torch: a GPU does not wait for the CPU's
    memory."""

    def __init__(
        self, pixels: TrainingPixels, positions: Float[np.ndarray, "V 3"], device: torch.device
    ):
        def move(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        self.frame = move(
            pixels.frame.astype(np.int32)
        )  # torch does little with 16 bits without sign
        self.pixel = move(pixels.pixel)
        self.face = move(pixels.face)
        self.rgb, self.trust, self.vertices = (
            move(x) for x in (pixels.rgb, pixels.trust, pixels.vertices)
        )
        self.inverse_K = move(pixels.inverse_K)
        self.world_from_cam = move(pixels.world_from_cam)
        self.positions = move(positions)
        self.width = pixels.width

    def __len__(self) -> int:
        return len(self.face)

    def batch(
        self,
        index: Int[Tensor, "B"],
        normalized_from_world: Float[Tensor, "4 4"],
        least_weight: float = 0.0,
    ) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 3"], Float[Tensor, "B"]]:
        """Points, rgb and weight, as ``TrainingPixels.batch`` gives them."""
        points = ray_meets_plane(self.positions[self.corners(index)].double(), *self.rays(index))
        weight = self.trust[self.face[index].long()].clamp_min(least_weight)
        return (
            transform_points(normalized_from_world, points).float(),
            self.rgb[index].float(),
            weight,
        )

    def corners(self, index: Int[Tensor, "B"]) -> Int[Tensor, "B 3"]:
        """Vertices of the faces that pixels see."""
        return self.vertices[self.face[index].long()].long()

    def rays(self, index: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 3"]]:
        """Origin and direction (z-depth 1) of the pixels' rays in the world."""
        frame = self.frame[index].long()
        pixel = self.pixel[index].long()
        center = torch.stack(
            [pixel % self.width + 0.5, pixel // self.width + 0.5, torch.ones_like(pixel)], 1
        ).double()
        pose = self.world_from_cam[frame]
        return pose[:, :3, 3], (pose[:, :3, :3] @ (self.inverse_K[frame] @ center[..., None]))[
            ..., 0
        ]


def ray_meets_plane(
    corners: Float[Tensor, "B 3 3"], origin: Float[Tensor, "B 3"], ray: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 3"]:
    """Where rays meet the planes through three corners; differentiable in all."""
    a, b, c = corners.unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    depth = (normal * (a - origin)).sum(1) / (normal * ray).sum(1)
    return origin + depth[:, None] * ray


def sample_points(
    meshes: TriangleMeshPipeline,
    frames: UInt8[np.ndarray, "F H W 3"],
    masks: Bool[np.ndarray, "F H W"] | None,
    times: Iterable[int],
    exposure: Exposure | None = None,
    limit: int = MOST_SAMPLES,
    generator: np.random.Generator | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingPixels:
    """All pixels of the given frames that see their frame's mesh and are not masked.

    Args:
        limit: at most so many pixels are kept, the same share of every frame, chosen by
            ``generator``.
        progress: is told how many frames are done, of how many.

    Raises:
        InputError: there are more frames than the pixels' 16 bits can number.
    """
    if len(frames) > MOST_FRAMES:
        raise InputError(
            f"the clip has {len(frames)} frames, of which {MOST_FRAMES} can be learned; give a --stride"
        )
    times = [t for t in times if t in meshes.faces]
    generator = generator or np.random.default_rng(0)
    height, width = frames.shape[1:3]
    kept, (share, store) = 0, share_and_room(len(times) * height * width, limit, SAMPLE)
    offsets = np.cumsum([0, *(len(meshes.faces[t]) for t in times)])
    vertices, trust = (values.numpy() for values in meshes.joined(times))
    return_freed()
    for done, (t, offset) in enumerate(zip(times, offsets, strict=False), 1):
        face = meshes.fragments(t, meshes.cameras[t]).face.numpy().ravel()
        wanted = face >= 0 if masks is None else (face >= 0) & ~masks[t].ravel()
        if share < 1.0:
            wanted &= generator.random(len(wanted), np.float32) < share
        pixel = np.flatnonzero(wanted)[: len(store) - kept]
        own = store[kept : kept + len(pixel)]
        own["frame"] = t
        own["pixel"] = pixel
        own["face"] = face[pixel] + offset
        own["rgb"] = _scene_colors(frames[t], pixel, exposure, t)
        kept += len(pixel)
        progress(done, len(times))
    cameras = meshes.cameras
    return TrainingPixels(
        **{name: store[name][:kept] for name in ("frame", "pixel", "face", "rgb")},
        vertices=vertices,
        trust=trust,
        inverse_K=torch.linalg.inv(cameras.K.double()).numpy(),
        world_from_cam=cameras.world_from_cam.double().numpy(),
        width=width,
    )


def share_and_room(most: int, limit: int, sample: np.dtype) -> tuple[float, np.ndarray]:
    """What share of at most so many samples to keep that about ``limit`` are, and room for them,
    unfilled.

    The system gives memory only to what is written, so that room for the most there can be costs
    nothing.
    """
    return min(1.0, limit / max(1, most)), np.empty(
        min(most, int(limit + 8 * limit**0.5) + 64), sample
    )


def _scene_colors(
    frame: UInt8[np.ndarray, "H W 3"],
    pixel: Int[np.ndarray, "P"],
    exposure: Exposure | None,
    t: int,
) -> Float[np.ndarray, "P 3"]:
    """Colours of some pixels without the frame's exposure, 0 to 1."""
    color = frame.reshape(-1, 3)[pixel] / np.float32(255)
    if exposure is not None:
        color /= exposure.factor(t).reshape(-1, 3)[pixel]
    return np.clip(color, 0, 1, out=color)


@cache
def _half_values() -> Float[np.ndarray, "65536"]:
    """What each half-precision number is: numba has none on the CPU."""
    return np.arange(1 << 16).astype(np.uint16).view(np.float16).astype(np.float32)
