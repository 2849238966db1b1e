"""What the movers' colour field learns from: pixels inside the masks and where on its mover each of
them is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from models.cameras import Cameras
from models.clip import Exposure
from models.movers.moving_pipeline import MovingMeshPipeline
from models.movers.options import MoverOptions
from models.run import SILENT, Progress, return_freed
from models.surface import interpolate
from models.tools import share_and_room

SAMPLE = np.dtype([("place", np.float32, 3), ("frame", np.int32), ("rgb", np.float16, 3)])
"""A pixel of a mover."""


@dataclass(frozen=True)
class MovingPixels:
    """S pixels of the movers, with the canonical coordinate that each one sees; stands in for
    TrainingPixels."""

    places: Float[np.ndarray, "S 3"]
    rgb: Float[np.ndarray, "S 3"]
    frame: Int[np.ndarray, "S"]
    face: Int[np.ndarray, "S"]
    """All 0: they are trusted alike."""
    trust: Float[np.ndarray, "1"]
    world_from_cam: Float[np.ndarray, "F 4 4"]

    def __len__(self) -> int:
        return len(self.places)

    def points(
        self, index: Int[np.ndarray, "B"], positions: object = None
    ) -> Float[np.ndarray, "B 3"]:
        """Canonical coordinates of the pixels."""
        return self.places[index]


def sample_movers(
    meshes: MovingMeshPipeline,
    cameras: Cameras,
    frames: UInt8[np.ndarray, "F H W 3"],
    masks: Bool[np.ndarray, "F H W"],
    exposure: Exposure,
    generator: np.random.Generator | None = None,
    progress: Progress = SILENT,
    options: MoverOptions = MoverOptions(),
) -> MovingPixels:
    """The pixels inside the masks of the frames that have a mesh.

    Args:
        generator: chooses the pixels that are kept, the same share of every frame, if there are
            more than ``options.max_samples``.
    """
    generator = generator or np.random.default_rng(0)
    most = sum(int(masks[t].sum()) for t in meshes.meshes)
    share, store = share_and_room(most, options.max_samples, SAMPLE)
    kept = 0
    for t, mesh in progress.over(meshes.meshes.items(), "mover pixels"):
        fragments = mesh.fragments(cameras[t])
        wanted = (fragments.face.numpy() >= 0) & masks[t]
        if share < 1.0:
            wanted &= generator.random(wanted.shape, np.float32) < share
        rows, columns = (places[: len(store) - kept] for places in np.nonzero(wanted))
        own = store[kept : kept + len(rows)]
        own["place"] = interpolate(fragments, mesh.faces, mesh.source)[rows, columns, :3].numpy()
        own["rgb"] = (frames[t] / (255 * exposure.factor(t))).clip(0, 1)[rows, columns]
        own["frame"] = t
        kept += len(rows)
    pixels = store[:kept]
    return_freed()
    alike = np.broadcast_to(np.int32(0), len(pixels)), np.ones(1, np.float32)
    poses = cameras.world_from_cam.double().numpy()
    return MovingPixels(pixels["place"], pixels["rgb"], pixels["frame"], *alike, poses)
