"""Another program's 3D tracks of this clip, brought to its frames: tracks, cameras and depth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.clip import Video
from models.depth.options import ImportOptions
from models.run import SILENT, InputError, Progress
from models.sfm import triangulate
from models.tracks import PointTracks, Tracks, load_tracks

# Pairs of an imported and a background point that a frame needs to compare their depth.
_MIN_PAIRS = 12
# Distance of the two points of a pair in the image, as a share of the reach of imported points.
_PAIR_REACH = 1 / 4
# Clause of error messages that says what to do with a file of another clip.
_ADVICE = (
    "import the result for this clip, not cropped, and set --max_frames and --stride as for it"
)


@dataclass(frozen=True)
class Imported:
    """Another program's result at the size of the frames."""

    path: Path
    xy: Float[np.ndarray, "F N 2"]
    """Pixels of the frames worked on."""
    visible: Bool[np.ndarray, "F N"]
    """Visible and inside the image."""
    depth: Float[np.ndarray, "F N"]
    """z-depth in the other program's unit."""
    cameras: Cameras
    """The other program's cameras, in its own world."""
    options: ImportOptions = ImportOptions()
    """How the result is used."""

    @property
    def tracks(self) -> PointTracks:
        """Its 2D tracks."""
        return PointTracks(self.xy, self.visible, self.cameras.width, self.cameras.height)


def read_imported(path: Path, video: Video, options: ImportOptions = ImportOptions()) -> Imported:
    """The file of TAPIP3D, SpaTrackerV2 or a script around it for the frames taken; see
    ``load_tracks``.

    The file holds the frames taken, or all frames of the clip. Trackers shrink images; the result is
    brought to the size of the frames.

    Raises:
        InputError: the file cannot be read, or belongs to another clip.
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
    xy = np.where(np.isfinite(xy), xy, 0).astype(np.float32)
    return Imported(path, xy, visible, depth, cameras, options)


def fitting_cameras(imported: Imported, progress: Progress = SILENT) -> Cameras | None:
    """The imported cameras if they explain the imported tracks; None if cameras must be solved."""
    points = triangulate(imported.tracks, imported.cameras)
    share = float(points.agrees.sum() / max(imported.visible.sum(), 1))
    used = share > imported.options.min_explained
    progress.say(
        f"imported cameras explain {100 * share:.0f} % of the imported tracks: "
        + ("used as they are" if used else "solved anew")
    )
    return imported.cameras if used else None


@dataclass(frozen=True)
class SparseDepth:
    """Depth at the points of an imported tracker, in the scale of the background."""

    imported: Imported
    scale: Float[np.ndarray, "F"]
    """World units of the background per unit of the imported file, in each frame."""
    trusted: bool = True
    """Every file that can be aligned is used."""

    def at(
        self, t: int, xy: Float[np.ndarray, "N 2"]
    ) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """z-depth at pixels of frame t, the weighted mean of the nearest imported points, and its
        relative standard deviation; NaN if no imported point is near."""
        options = self.imported.options
        own = np.flatnonzero(self.imported.visible[t])
        depth = np.full(len(xy), np.nan)
        spread = np.full(len(xy), np.nan)
        if not len(own) or not len(xy):
            return depth, spread
        reach = options.reach * max(self.imported.cameras.width, self.imported.cameras.height)
        k = list(range(1, min(options.neighbours, len(own)) + 1))
        distance, index = cKDTree(self.imported.xy[t, own]).query(xy, k)
        near = np.log(self.scale[t] * self.imported.depth[t, own])[index]
        weight = np.where(distance < reach, 1 / (distance + 0.5) ** 2, 0)
        known = weight.sum(1) > 0
        weight = weight[known] / weight[known].sum(1, keepdims=True)
        mean = (weight * near[known]).sum(1)
        depth[known] = np.exp(mean)
        variance = (weight * (near[known] - mean[:, None]) ** 2).sum(1)
        spread[known] = np.sqrt(variance + options.uncertainty**2)
        return depth, spread

    def describe(self) -> str:
        """A sentence on the alignment."""
        low, middle, high = np.percentile(self.scale, [0, 50, 100])
        return f"imported depth aligned to the background: scale {middle:.3g} ({low:.3g} to {high:.3g})"


def align_imported(imported: Imported, background: Tracks) -> SparseDepth:
    """Imported depth in the scale of a background, by background points beside imported points in
    the image.

    A frame with too few pairs takes a scale between those of its neighbours in time.

    Raises:
        InputError: no frame has enough pairs.
    """
    reach = imported.options.reach * _PAIR_REACH * max(background.width, background.height)
    ratios = [_compare_depth(imported, background, t, reach) for t in range(len(background))]
    good = np.array([len(r) >= _MIN_PAIRS for r in ratios])
    if not good.any():
        raise InputError(
            f"{imported.path}: hardly any of its points lie on the background of this clip, so that its depth has no "
            "scale here; track a grid over the whole image, not the mover alone"
        )
    middle = [float(np.median(r)) for r, used in zip(ratios, good, strict=True) if used]
    scale = np.exp(np.interp(np.arange(len(good)), np.flatnonzero(good), np.log(middle)))
    return SparseDepth(imported, scale)


def _compare_depth(
    imported: Imported, background: Tracks, t: int, reach: float
) -> Float[np.ndarray, "P"]:
    """Background depth over imported depth in frame t, at imported points with a background point
    within ``reach`` pixels."""
    seen = background.visible[t].numpy()
    own = np.flatnonzero(imported.visible[t])
    if not seen.any() or not len(own):
        return np.zeros(0)
    projected = background.cameras[t].project(background.xyz[t].double())
    image, depth = (v[0].numpy() for v in projected)
    distance, index = cKDTree(image[seen]).query(imported.xy[t, own])
    near = distance < reach
    return depth[seen][index[near]] / imported.depth[t, own[near]]
