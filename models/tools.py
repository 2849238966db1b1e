"""Rasterised frames -> training pixels, stored compactly and drawn without a copy of all of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from models.clip import Exposure
from models.field import transform_points
from models.pipeline import TriangleMeshPipeline
from models.run import SILENT, InputError, Progress, allocate, return_freed, run_tasks, split_range
from models.surface import draw_samples

SAMPLE = np.dtype(
    [("pixel", np.int32), ("face", np.int32), ("frame", np.uint16), ("rgb", np.float16, 3)]
)
"""A training pixel. Its values lie side by side: drawing a pixel at random waits for memory once, not
four times."""
WHOLE_PIXELS = 20_000_000
"""Training pixels up to which a pass draws from all of them. More pixels take more memory."""
GROUP_PIXELS = 5_000_000
"""Training pixels, beyond ``WHOLE_PIXELS``, that a pass draws from at a time. More pixels take more
memory."""
# Frames that the 16 bits of SAMPLE's frame number.
_FRAMES_LIMIT = 1 << 16
MOST_SAMPLES = 40_000_000
"""Training pixels that are kept at most, 20 bytes each; more keep more detail of a long clip."""
SAMPLE_BYTES = SAMPLE.itemsize + 4
"""Bytes of a training pixel, with its place in the order of a pass."""


@dataclass(frozen=True)
class TrainingFrames:
    """Frames of a clip that training learns from."""

    frames: UInt8[np.ndarray, "F H W 3"]
    """All frames of the clip."""
    times: Iterable[int]
    """Frames to take pixels from."""
    masks: Bool[np.ndarray, "F H W"] | None = None
    """Pixels of movers."""
    exposure: Exposure | None = None
    """Exposure to divide out of the colours."""


@dataclass(frozen=True)
class Batch:
    """B samples of a training step, on the field's device."""

    points: Float[Tensor, "B 3"]
    """Points in the field's box, [-1, 1]^3."""
    rgb: Float[Tensor, "B 3"]
    """Colours to learn, 0 to 1."""
    weight: Float[Tensor, "B"]
    """Weight in the loss: trust of the face, but not less than ``BatchSettings.least_weight``."""
    frame: Int[Tensor, "B"]
    """Frame of each sample, int64."""


@dataclass(frozen=True)
class BatchSettings:
    """The values that a store needs beside its pixels to make batches."""

    normalized_from_world: Float[Tensor, "4 4"]
    """Map into the field's box, float64, on the field's device."""
    vertices: Float[np.ndarray, "V 3"] | None = None
    """World positions of the meshes' vertices, read anew for each batch; None for pixels that store
    their points."""
    least_weight: float = 0.0
    """Least weight of a sample, whatever the trust in its face."""

    def normalize(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3"]:
        """float32 positions in the field's box of float64 points, computed on their device."""
        return transform_points(self.normalized_from_world.to(points.device), points).float()


class PixelStore(Protocol):
    """Training pixels that batches are drawn from."""

    device: torch.device
    """Where the pixels are, and the numbers that ``batch`` takes."""

    def __len__(self) -> int: ...

    def batch(self, index: Int[Tensor, "B"]) -> Batch:
        """The samples of some pixels."""


class PixelSource(Protocol):
    """Training pixels as they are sampled from a clip, before a device is chosen."""

    frame: Int[np.ndarray, "S"]
    rgb: Float[np.ndarray, "S 3"]
    world_from_cam: Float[np.ndarray, "F 4 4"]

    def __len__(self) -> int: ...

    def select(self, members: Bool[np.ndarray, "S"]) -> "PixelSource":
        """A copy of some of the pixels."""

    def open_store(self, settings: BatchSettings) -> PixelStore:
        """The pixels in the memory of the field's device, or near it."""


@dataclass(frozen=True)
class TrainingPixels:
    """S pixels of the training frames: the face that each of them sees, and its colour."""

    frame: Int[np.ndarray, "S"]
    pixel: Int[np.ndarray, "S"]
    """Row-major index in the image."""
    vertices: Int[np.ndarray, "T 3"]
    """Vertex indices of all faces of all frames."""
    face: Int[np.ndarray, "S"]
    """Row of ``vertices``."""
    trust: Float[np.ndarray, "T"]
    """Trust in each face, 0 to 1; see ``FrameMesh``."""
    rgb: Float[np.ndarray, "S 3"]
    """Colours of the scene, 0 to 1 (half precision): of the video, without the frame's exposure."""
    inverse_K: Float[np.ndarray, "F 3 3"]
    world_from_cam: Float[np.ndarray, "F 4 4"]
    width: int
    """Image width in pixels."""

    def __len__(self) -> int:
        return len(self.face)

    def open_store(self, settings: BatchSettings) -> PixelStore:
        """The pixels on the field's device."""
        on_cpu = settings.normalized_from_world.device.type == "cpu"
        return HostPixels(self, settings) if on_cpu else DevicePixels(self, settings)

    def select(self, members: Bool[np.ndarray, "S"]) -> "TrainingPixels":
        """A copy of some of the pixels."""
        own = np.empty(np.count_nonzero(members), SAMPLE)
        for name in SAMPLE.names:
            own[name] = getattr(self, name)[members]
        return replace(self, **{name: own[name] for name in SAMPLE.names})

    def points(
        self, index: Int[np.ndarray, "B"], vertices: Float[np.ndarray, "V 3"]
    ) -> Float[np.ndarray, "B 3"]:
        """World points where the pixels' rays meet the planes of their faces.

        Args:
            vertices: world positions of the meshes' vertices.
        """
        world = BatchSettings(torch.eye(4).double(), vertices)
        return HostPixels(self, world).batch(torch.from_numpy(index)).points.numpy()


class PixelOrder:
    """The order in which training takes the pixels: each pass over them in a random order of its
    own. Every pixel is learned equally often, which independent draws do not give.

    Beyond ``WHOLE_PIXELS`` a pass takes the frames in groups, each drawn at random from the whole
    clip, and finishes the pixels of a group before the next, so that memory holds one group.
    """

    def __init__(
        self,
        frame: Int[np.ndarray, "S"],
        seed: int,
        device: torch.device,
        group: int | None = None,
    ):
        """
        Args:
            frame: of each pixel, in rising order.
            seed: of all passes, at most 2^62.
            device: of the numbers that ``draw`` returns.
            group: about the pixels of a group; chosen by the number of pixels if not given.
        """
        self.count = len(frame)
        self.seed = seed
        self.drawn = 0
        """Pixels drawn up to now."""
        self._device = device
        if group is None:
            group = GROUP_PIXELS if self.count > WHOLE_PIXELS else self.count
        self._groups = -(-self.count // max(group, 1))
        # Pixels lie by frames.
        borders = np.flatnonzero(np.diff(frame)) + 1 if self._groups > 1 else []
        self._starts = np.array([0, *borders, self.count])
        self._pass = -1
        self._parts: list[np.ndarray] = []
        """Frames of each group of the pass, as rows of ``_starts``."""
        self._begins = np.zeros(1, np.int64)
        """Pixels of the pass before each group."""
        self._group = -1
        self._numbers = torch.empty(0, dtype=torch.int32, device=device)
        """Pixels of the present group in their order."""

    def draw(self, count: int) -> Int[Tensor, "B"]:
        """Numbers of the next ``count`` pixels, int64."""
        parts = []
        while count:
            number, place = divmod(self.drawn, self.count)
            self._begin_pass(number)
            group = int(np.searchsorted(self._begins, place, "right")) - 1
            self._shuffle(group)
            begin = place - int(self._begins[group])
            parts.append(self._numbers[begin : begin + count].long())
            self.drawn += len(parts[-1])
            count -= len(parts[-1])
        return torch.cat(parts)

    def _begin_pass(self, number: int) -> None:
        """Parts the frames into the groups of a pass."""
        if number == self._pass:
            return
        rows = np.random.default_rng([self.seed, number]).permutation(len(self._starts) - 1)
        self._parts = np.array_split(rows, min(self._groups, len(rows)))
        sizes = np.diff(self._starts)
        self._begins = np.cumsum([0, *(sizes[own].sum() for own in self._parts[:-1])])
        self._pass, self._group = number, -1

    def _shuffle(self, group: int) -> None:
        """Brings the pixels of a group of the present pass into their order."""
        if group == self._group:
            return
        generator = torch.Generator(self._device).manual_seed(self.seed + self._pass)
        kind = {"dtype": torch.int32, "device": self._device}  # half the memory of int64
        rows = np.sort(self._parts[group])
        size = int(np.diff(self._starts)[rows].sum())
        order = torch.randperm(size, generator=generator, **kind)
        if len(self._parts) > 1:
            spans = zip(self._starts[rows].tolist(), self._starts[rows + 1].tolist(), strict=True)
            every = torch.cat([torch.arange(*span, **kind) for span in spans])
            order = every[order.long()]
        self._numbers, self._group = order, group


class HostPixels:
    """Training pixels in the CPU's memory; batches are made by a kernel."""

    device = torch.device("cpu")

    def __init__(self, pixels: TrainingPixels, settings: BatchSettings):
        self.pixels = pixels
        self.settings = settings
        matrix = settings.normalized_from_world.numpy()
        self._matrix = np.ascontiguousarray(matrix, np.float64)

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index: Int[Tensor, "B"]) -> Batch:
        """See ``PixelStore``."""
        index = index.numpy()
        pixels = self.pixels
        points = np.empty((len(index), 3), np.float32)
        rgb = np.empty((len(index), 3), np.float32)
        weight = np.empty(len(index), np.float32)
        # Half precision as its bits: numba has no such type on the CPU.
        samples = pixels.frame, pixels.pixel, pixels.face, pixels.rgb.view(np.uint16)
        mesh = pixels.vertices, pixels.trust, self.settings.vertices
        cameras = pixels.inverse_K, pixels.world_from_cam, pixels.width, self._matrix
        least = np.float32(self.settings.least_weight)
        fixed = index, samples, _half_values(), *mesh, *cameras, least, points, rgb, weight
        parts = split_range(len(index), 16)
        run_tasks(lambda i: draw_samples(*parts[i], *fixed), len(parts))
        frame = pixels.frame[index].astype(np.int64)
        return Batch(*map(torch.from_numpy, (points, rgb, weight, frame)))


class DevicePixels:
    """Training pixels on a device, drawn in plain torch, so that a GPU does not wait for the CPU's
    memory."""

    def __init__(self, pixels: TrainingPixels, settings: BatchSettings):
        self.settings = settings
        self.device = settings.normalized_from_world.device

        def move(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(self.device)

        # int32: torch can do little with unsigned 16-bit numbers.
        self.frame = move(pixels.frame.astype(np.int32))
        self.pixel = move(pixels.pixel)
        self.face = move(pixels.face)
        self.rgb = move(pixels.rgb)
        self.trust = move(pixels.trust)
        # Vertex indices of faces; their positions follow below.
        self.vertices = move(pixels.vertices)
        self.inverse_K = move(pixels.inverse_K)
        self.world_from_cam = move(pixels.world_from_cam)
        self.positions = move(settings.vertices)
        """World positions of the meshes' vertices: on a GPU a copy, see
        ``PlainRefinement.publish``."""
        self.width = pixels.width

    def __len__(self) -> int:
        return len(self.face)

    def batch(self, index: Int[Tensor, "B"]) -> Batch:
        """See ``PixelStore``."""
        points = find_plane_hits(self.positions[self.corners(index)].double(), *self.rays(index))
        weight = self.trust[self.face[index].long()].clamp_min(self.settings.least_weight)
        normalized = self.settings.normalize(points)
        return Batch(normalized, self.rgb[index].float(), weight, self.frame[index].long())

    def corners(self, index: Int[Tensor, "B"]) -> Int[Tensor, "B 3"]:
        """Vertices of the faces that the pixels see."""
        return self.vertices[self.face[index].long()].long()

    def rays(self, index: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 3"]]:
        """Origin and direction (z-depth 1) of the pixels' rays in the world."""
        frame = self.frame[index].long()
        pixel = self.pixel[index].long()
        center = torch.stack(
            [pixel % self.width + 0.5, pixel // self.width + 0.5, torch.ones_like(pixel)], 1
        ).double()
        pose = self.world_from_cam[frame]
        local = self.inverse_K[frame] @ center[..., None]
        return pose[:, :3, 3], (pose[:, :3, :3] @ local)[..., 0]


def find_plane_hits(
    corners: Float[Tensor, "B 3 3"], origin: Float[Tensor, "B 3"], ray: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 3"]:
    """Points where rays meet the planes through three corners; differentiable in all arguments."""
    a, b, c = corners.unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    depth = (normal * (a - origin)).sum(1) / (normal * ray).sum(1)
    return origin + depth[:, None] * ray


def sample_points(
    meshes: TriangleMeshPipeline,
    footage: TrainingFrames,
    limit: int = MOST_SAMPLES,
    generator: np.random.Generator | None = None,
    progress: Progress = SILENT,
) -> TrainingPixels:
    """All pixels of the footage's frames that see their frame's mesh and are not masked.

    The faces of these frames are joined in place, see ``TriangleMeshPipeline.join_in_place``.

    Args:
        limit: at most this many pixels are kept, the same share of every frame.
        generator: chooses the pixels that are kept.

    Raises:
        InputError: the clip has more frames than a training pixel can number.
    """
    frames = footage.frames
    if len(frames) > _FRAMES_LIMIT:
        raise InputError(
            f"the clip has {len(frames)} frames, of which {_FRAMES_LIMIT} can be learned; "
            "give a --stride"
        )
    times = [t for t in footage.times if t in meshes.faces]
    generator = generator or np.random.default_rng(0)
    height, width = frames.shape[1:3]
    share, store = allocate_samples(len(times) * height * width, limit, SAMPLE)
    kept = 0
    offsets = np.cumsum([0, *(len(meshes.faces[t]) for t in times)])
    vertices, trust = (values.numpy() for values in meshes.join_in_place(times))
    # The frames' own arrays of faces are free now.
    return_freed()
    for i, t in enumerate(progress.over(times, "pixels")):
        face = meshes.fragments(t, meshes.cameras[t]).face.numpy().ravel()
        wanted = face >= 0
        if footage.masks is not None:
            wanted &= ~footage.masks[t].ravel()
        if share < 1.0:
            wanted &= generator.random(len(wanted), np.float32) < share
        pixel = np.flatnonzero(wanted)[: len(store) - kept]
        own = store[kept : kept + len(pixel)]
        own["frame"] = t
        own["pixel"] = pixel
        own["face"] = face[pixel] + offsets[i]
        own["rgb"] = _scene_colors(footage, t, pixel)
        kept += len(pixel)
    cameras = meshes.cameras
    return TrainingPixels(
        **{name: store[name][:kept] for name in ("frame", "pixel", "face", "rgb")},
        vertices=vertices,
        trust=trust,
        inverse_K=torch.linalg.inv(cameras.K.double()).numpy(),
        world_from_cam=cameras.world_from_cam.double().numpy(),
        width=width,
    )


def allocate_samples(most: int, limit: int, sample: np.dtype) -> tuple[float, np.ndarray]:
    """Share of at most ``most`` samples to keep, about ``limit`` in all, and unfilled memory for
    them.

    The system gives memory only to pages that are written: room for more samples than come costs
    nothing.
    """
    # The number kept varies by the root of its expectation; 8 of these are never exceeded.
    room = min(most, int(limit + 8 * limit**0.5) + 64)
    # Pixels that are drawn in groups lie in a file.
    store = allocate([room], sample) if room > WHOLE_PIXELS else np.empty(room, sample)
    return min(1.0, limit / max(1, most)), store


def _scene_colors(
    footage: TrainingFrames, t: int, pixel: Int[np.ndarray, "P"]
) -> Float[np.ndarray, "P 3"]:
    """Colours of some pixels of frame t without its exposure, 0 to 1."""
    # float32 is exact for bytes, and half the memory of numpy's float64.
    color = footage.frames[t].reshape(-1, 3)[pixel] / np.float32(255)
    if footage.exposure is not None:
        color /= footage.exposure.factor(t).reshape(-1, 3)[pixel]
    return np.clip(color, 0, 1, out=color)


@cache
def _half_values() -> Float[np.ndarray, "65536"]:
    """float32 value of each half-precision bit pattern: numba has no half precision on the CPU."""
    return np.arange(1 << 16).astype(np.uint16).view(np.float16).astype(np.float32)
