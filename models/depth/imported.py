"""What another program's 3D tracker found for this clip, brought to its frames: tracks, cameras and
depth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.clip import Video
from models.run import SILENT, InputError, Progress
from models.sfm import triangulate
from models.tracks import PointTracks, Tracks, load_tracks

FITTING = 0.6
"""Share of the sightings, movers among them, that imported cameras must explain to be used."""
MIN_PAIRS = 12
"""Background points beside imported ones below which their depth cannot be compared."""
NEIGHBOURS = 4
REACH = 0.05
"""How many imported points tell the depth of a pixel, and how far they reach as a share of the
longer side."""
SPREAD = 0.03
"""Relative standard deviation that imported depth is credited with."""
_ADVICE = (
    "import the result for this clip, not cropped, and set --max_frames and --stride as for it"
)


@dataclass(frozen=True)
class Imported:
    """Another program's result at the frames' size."""

    path: Path
    xy: Float[np.ndarray, "F N 2"]
    """Pixels of the frames worked on."""
    visible: Bool[np.ndarray, "F N"]
    """Inside the image and seen."""
    depth: Float[np.ndarray, "F N"]
    """z-depth in the other program's unit."""
    cameras: Cameras
    """Its cameras, in its own world."""


def read_imported(path: Path, video: Video) -> Imported:
    """The file of TAPIP3D, SpaTrackerV2 or a script around it for the frames taken; see
    ``load_tracks``.

    It has one frame for each frame taken or for each of the clip; images of another size (trackers
    shrink them) are brought to the frames'.

    Raises:
        InputError: the file cannot be read, or is of another clip.
    """
    if not Path(path).is_file():
        raise InputError(
            f"{path}: there is no such file; give the .npz or .pt that the other program saved"
        )
    found = load_tracks(path)
    rows = video.clip_frames.choose_rows(path, len(found), "frames", _ADVICE).tolist()
    size = found.width, found.height
    video.clip_frames.check_aspect(path, size, "was made from images of", _ADVICE)
    scale = torch.tensor([video.width / found.width, video.height / found.height])
    xy = (found.xy[rows] * scale).numpy()
    visible = found.visible[rows].numpy()
    inside = ((xy >= 0) & (xy < [video.width, video.height])).all(-1)
    cameras = found.cameras[rows].resized(video.width, video.height)
    depth = cameras.to_camera(found.xyz[rows].double())[..., 2].numpy()
    visible = visible & inside & (depth > 0)
    return Imported(
        path, np.where(np.isfinite(xy), xy, 0).astype(np.float32), visible, depth, cameras
    )


def fitting_cameras(imported: Imported, progress: Progress = SILENT) -> Cameras | None:
    """The imported cameras where they explain the imported tracks, else None, for cameras to be
    solved anew."""
    cameras = imported.cameras
    tracks = PointTracks(imported.xy, imported.visible, cameras.width, cameras.height)
    points = triangulate(tracks, cameras)
    share = float(points.agrees.sum() / max(imported.visible.sum(), 1))
    used = share > FITTING
    progress.say(
        f"imported cameras explain {100 * share:.0f} % of the imported tracks: "
        + ("used as they are" if used else "solved anew")
    )
    return imported.cameras if used else None


@dataclass(frozen=True)
class SparseDepth:
    """Depth at an imported tracker's points, in the background's scale."""

    imported: Imported
    scale: Float[np.ndarray, "F"]
    """World units of the background for one of the imported file, in each frame."""
    trusted: bool = True
    """Every file that can be aligned is used."""

    def at(
        self, t: int, xy: Float[np.ndarray, "N 2"]
    ) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """z-depth at pixels of frame t from the nearest imported points, and its relative standard
        deviation.

        NaN where none is near.
        """
        own = np.flatnonzero(self.imported.visible[t])
        depth = np.full(len(xy), np.nan)
        spread = np.full(len(xy), np.nan)
        if not len(own) or not len(xy):
            return depth, spread
        reach = REACH * max(self.imported.cameras.width, self.imported.cameras.height)
        k = list(range(1, min(NEIGHBOURS, len(own)) + 1))
        distance, index = cKDTree(self.imported.xy[t, own]).query(xy, k)
        near = np.log(self.scale[t] * self.imported.depth[t, own])[index]
        weight = np.where(distance < reach, 1 / (distance + 0.5) ** 2, 0)
        told = weight.sum(1) > 0
        weight = weight[told] / weight[told].sum(1, keepdims=True)
        middle = (weight * near[told]).sum(1)
        depth[told] = np.exp(middle)
        spread[told] = np.sqrt((weight * (near[told] - middle[:, None]) ** 2).sum(1) + SPREAD**2)
        return depth, spread

    def describe(self) -> str:
        """One line on how the file's depth was aligned."""
        low, middle, high = np.percentile(self.scale, [0, 50, 100])
        return f"imported depth aligned to the background: scale {middle:.3g} ({low:.3g} to {high:.3g})"


def align_imported(imported: Imported, background: Tracks) -> SparseDepth:
    """Imported depth in the scale of a background, by its points that lie beside imported ones in
    the image.

    Raises:
        InputError: hardly any imported point lies beside one of the background.
    """
    reach = REACH / 4 * max(background.width, background.height)
    ratios = [_ratios(imported, background, t, reach) for t in range(len(background))]
    good = np.array([len(r) >= MIN_PAIRS for r in ratios])
    if not good.any():
        raise InputError(
            f"{imported.path}: hardly any of its points lie on the background of this clip, so that its depth has no "
            "scale here; track a grid over the whole image, not the mover alone"
        )
    middle = [float(np.median(r)) for r, used in zip(ratios, good, strict=True) if used]
    return SparseDepth(
        imported, np.exp(np.interp(np.arange(len(good)), np.flatnonzero(good), np.log(middle)))
    )


def _ratios(imported: Imported, background: Tracks, t: int, reach: float) -> Float[np.ndarray, "P"]:
    """Background depth over imported depth at imported points with a background point close by."""
    seen = background.visible[t].numpy()
    own = np.flatnonzero(imported.visible[t])
    if not seen.any() or not len(own):
        return np.zeros(0)
    image, depth = (
        v[0].numpy() for v in background.cameras[[t]].project(background.xyz[t].double())
    )
    distance, index = cKDTree(image[seen]).query(imported.xy[t, own])
    near = distance < reach
    return depth[seen][index[near]] / imported.depth[t, own[near]]
