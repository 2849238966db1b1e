"""Training pixels of the movers' colour field: pixels inside the masks, with their canonical
coordinates."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.cameras import Cameras
from models.movers.moving_pipeline import MovingMeshPipeline
from models.movers.options import MoverOptions
from models.run import SILENT, Progress, return_freed
from models.surface import interpolate
from models.tools import Batch, BatchSettings, TrainingFrames, allocate_samples

# A pixel of a mover. Its values lie side by side: to draw a pixel at random waits for memory once.
_SAMPLE = np.dtype([("place", np.float32, 3), ("frame", np.int32), ("rgb", np.float16, 3)])


@dataclass(frozen=True)
class MovingPixels:
    """S pixels of the movers, each with the canonical coordinate of its mover's point."""

    places: Float[np.ndarray, "S 3"]
    """Canonical coordinates (u, v, w)."""
    rgb: Float[np.ndarray, "S 3"]
    """Colours without the frame's exposure, 0 to 1 (half precision)."""
    frame: Int[np.ndarray, "S"]
    """Frame of each pixel."""
    world_from_cam: Float[np.ndarray, "F 4 4"]
    """Poses of all frames' cameras."""

    def __len__(self) -> int:
        return len(self.places)

    def select(self, members: Bool[np.ndarray, "S"]) -> "MovingPixels":
        """A copy of some of the pixels."""
        own = np.empty(np.count_nonzero(members), _SAMPLE)
        own["place"] = self.places[members]
        own["frame"] = self.frame[members]
        own["rgb"] = self.rgb[members]
        return replace(self, places=own["place"], frame=own["frame"], rgb=own["rgb"])

    def open_store(self, settings: BatchSettings) -> "MovingStore":
        """The pixels in the CPU's memory: they are few."""
        return MovingStore(self, settings)


class MovingStore:
    """Movers' pixels in the CPU's memory, see ``PixelStore``."""

    device = torch.device("cpu")

    def __init__(self, pixels: MovingPixels, settings: BatchSettings):
        self.pixels = pixels
        self.settings = settings

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index: Int[Tensor, "B"]) -> Batch:
        """See ``PixelStore``; all pixels are trusted alike."""
        index = index.numpy()
        pixels = self.pixels
        places = torch.from_numpy(pixels.places[index]).double()
        points = self.settings.normalize(places)
        rgb = torch.from_numpy(pixels.rgb[index].astype(np.float32))
        weight = torch.full((len(index),), max(1.0, self.settings.least_weight))
        frame = torch.from_numpy(pixels.frame[index].astype(np.int64))
        device = self.settings.normalized_from_world.device
        return Batch(*(part.to(device) for part in (points, rgb, weight, frame)))


def sample_movers(
    meshes: MovingMeshPipeline,
    cameras: Cameras,
    footage: TrainingFrames,
    generator: np.random.Generator | None = None,
    progress: Progress = SILENT,
    options: MoverOptions = MoverOptions(),
) -> MovingPixels:
    """The pixels inside the masks of the frames that have a mesh.

    Args:
        cameras: of the clip.
        footage: with masks and exposure.
        generator: chooses the pixels that are kept, the same share of every frame, if there are
            more than ``options.max_samples``.
    """
    generator = generator or np.random.default_rng(0)
    most = sum(int(footage.masks[t].sum()) for t in meshes.meshes)
    share, store = allocate_samples(most, options.max_samples, _SAMPLE)
    kept = 0
    for t, mesh in progress.over(meshes.meshes.items(), "mover pixels"):
        fragments = mesh.fragments(cameras[t])
        wanted = (fragments.face.numpy() >= 0) & footage.masks[t]
        if share < 1.0:
            wanted &= generator.random(wanted.shape, np.float32) < share
        rows, columns = (places[: len(store) - kept] for places in np.nonzero(wanted))
        own = store[kept : kept + len(rows)]
        own["place"] = interpolate(fragments, mesh.faces, mesh.source)[rows, columns, :3].numpy()
        rgb = footage.frames[t] / (255 * footage.exposure.factor(t))
        own["rgb"] = rgb.clip(0, 1)[rows, columns]
        own["frame"] = t
        kept += len(rows)
    pixels = store[:kept]
    # The fragments of all frames, each as large as an image, leave much freed memory.
    return_freed()
    poses = cameras.world_from_cam.double().numpy()
    return MovingPixels(pixels["place"], pixels["rgb"], pixels["frame"], poses)
