"""2D tracks of movers -> for each track its mover, its canonical coordinates, its z-depth and its
world positions."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from models.cameras import Cameras
from models.clip import Video, at_points
from models.movers.canonical import canonical_coordinates
from models.movers.depth import (
    RelativeDepth,
    find_scale,
    follow_size,
    read_cues,
    solve_rigid,
)
from models.movers.options import MoverOptions
from models.movers.rigid_places import rigid_places
from models.pipeline import TriangleMeshPipeline
from models.run import SILENT, Progress
from models.tracks import PointTracks, Tracks


@dataclass(frozen=True)
class MoverShapes:
    """Shapes of all movers of a clip, track by track."""

    label: Int[np.ndarray, "N"]
    """Number of the mover that each track belongs to, from 1."""
    canonical: Float[np.ndarray, "N 3"]
    """Place on the mover in pixels of the mover's reference frame, constant in time; the third
    coordinate is its relief away from that frame's camera, 0 where that is not known."""
    depth: Float[np.ndarray, "F N"]
    """z-depth in world units, in every frame."""
    figures: list[dict] = field(default_factory=list)
    """For each mover what ``foreground_metrics.json`` says of it."""

    @staticmethod
    def none(num_frames: int) -> "MoverShapes":
        """Shapes of a clip without tracks of movers."""
        return MoverShapes(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((num_frames, 0)))

    def to_values(self) -> dict:
        """The fields by name, for a file."""
        return vars(self)

    @staticmethod
    def from_values(values: dict) -> "MoverShapes":
        """The inverse of ``to_values``."""
        return MoverShapes(**values)


@dataclass(frozen=True)
class FoundDepth:
    """How a mover got its depth."""

    shape: str
    """rigid; flat: it moves as a rigid thing whose relief is not known; or not rigid."""
    source: str
    """The cue of its scale, in the words that a person reads."""
    uncertainty: float | None
    """Standard deviation of the scale, as a share of the depth; None for a depth that is a guess."""

    def describe(self) -> str:
        """A part of a sentence."""
        text = f"{self.shape}, depth from {self.source}"
        if self.uncertainty is None:
            return text
        return f"{text}, standard deviation {round(100 * self.uncertainty)} %"


def label_tracks(tracks: PointTracks, labels: UInt8[np.ndarray, "F H W"]) -> Int[np.ndarray, "N"]:
    """Number of the mover, from 1, on which each track lies in most of its visible frames."""
    at = at_points(labels, tracks.xy)
    movers = range(1, int(labels.max()) + 1)
    votes = np.stack([((at == mover) & tracks.visible).sum(0) for mover in movers])
    return votes.argmax(0) + 1


def solve_mover_shapes(
    background: Tracks,
    tracks: PointTracks,
    labels: UInt8[np.ndarray, "F H W"],
    seed: int = 0,
    progress: Progress = SILENT,
    options: MoverOptions = MoverOptions(),
) -> MoverShapes:
    """Canonical coordinates and z-depths of the tracks of all movers.

    Args:
        background: the static layer, which scales the movers.
        tracks: inside the masks of the movers; one or more.
        labels: number of the mover of each pixel, 0 on the background.
        seed: of the mapper.
        progress: hears how each mover got its depth.
    """
    label = label_tracks(tracks, labels)
    # The meshes behind the depth maps end with this call: they are larger than the result.
    surface = _BackgroundDepth(background, labels > 0, progress)
    canonical = np.zeros((tracks.num_tracks, 3))
    depth = np.ones(tracks.visible.shape)
    figures = []
    for mover in np.unique(label):
        members = label == mover
        own = tracks.select(members)
        mask = labels == mover
        shape = solve_rigid(own, background.cameras, seed, options)
        canonical[members] = _find_places(own, mask, shape, background.cameras)
        depth[:, members], how = _solve_depth(
            background.cameras, own, mask, surface, shape, options
        )
        figures.append(_measure_mover(int(mover), own, how))
        life = f"{figures[-1]['median_life_frames']:.0f} frames long"
        progress.say(f"mover {mover}: {members.sum()} tracks, {life}, {how.describe()}")
    return MoverShapes(label, canonical, depth, figures)


def _measure_mover(mover: int, tracks: PointTracks, how: FoundDepth) -> dict:
    """What ``foreground_metrics.json`` says of a mover."""
    return {
        "mover": mover,
        "tracks": tracks.num_tracks,
        "median_life_frames": float(np.median(tracks.visible.sum(0))),
        "frames": int(tracks.visible.any(1).sum()),
        "shape": how.shape,
        "depth_from": how.source,
        "depth_standard_deviation": how.uncertainty,
    }


def lift_tracks(
    cameras: Cameras, tracks: PointTracks, depth: Float[np.ndarray, "F N"]
) -> Float[np.ndarray, "F N 3"]:
    """World positions of tracks at their z-depths; in frames that do not see a track, its position
    in the nearest frame that does.

    Args:
        cameras: of the frames.
        tracks: each visible in some frame.
        depth: z-depth in world units.
    """
    xyz = np.empty((*tracks.visible.shape, 3))
    # Frame by frame: all frames at once take several times the memory of the result.
    for t in range(len(tracks)):
        xy = torch.from_numpy(tracks.xy[[t]]).double()
        xyz[t] = cameras[t].unproject(xy, torch.from_numpy(depth[[t]]))[0].numpy()
    times = np.arange(len(tracks))
    for n in range(tracks.num_tracks):
        seen = np.flatnonzero(tracks.visible[:, n])
        nearest = seen[np.abs(times[:, None] - seen[None]).argmin(1)]
        xyz[:, n] = xyz[nearest, n]
    return xyz


class _BackgroundDepth(Sequence):
    """The background's depth map (H, W) in each frame, also behind the movers; inf at holes.

    Maps are drawn when they are read: the maps of all frames would fill the memory.
    """

    def __init__(
        self, background: Tracks, hidden: Bool[np.ndarray, "F H W"], progress: Progress
    ) -> None:
        """Builds the background's meshes.

        Args:
            hidden: pixels that movers cover.
        """
        times = progress.over(range(len(background)), "depth")
        self.meshes = TriangleMeshPipeline.from_tracks(background, times, hidden)

    def __len__(self) -> int:
        return len(self.meshes.cameras)

    def __getitem__(self, t: int) -> Float[np.ndarray, "H W"]:
        if not 0 <= t < len(self):
            raise IndexError(t)
        meshes = self.meshes
        source = t if t in meshes.faces else meshes.nearest_frame(meshes.cameras[t])
        return meshes.fragments(source, meshes.cameras[t]).depth.numpy()


def _find_places(
    tracks: PointTracks,
    mask: Bool[np.ndarray, "F H W"],
    shape: RelativeDepth | None,
    cameras: Cameras,
) -> Float[np.ndarray, "n 3"]:
    """Canonical coordinates of a mover's tracks: in 3D if its shape is known. In 2D, sides of it that
    come into view as it turns would lie on one another."""
    if shape is not None and shape.mover_from_cam is not None:
        return rigid_places(tracks, mask, shape, cameras)
    flat = canonical_coordinates(tracks, mask)
    return np.concatenate([flat, np.zeros((len(flat), 1))], 1)


def _solve_depth(
    cameras: Cameras,
    tracks: PointTracks,
    mask: Bool[np.ndarray, "F H W"],
    surface: Sequence[Float[np.ndarray, "H W"]],
    shape: RelativeDepth | None,
    options: MoverOptions,
) -> tuple[Float[np.ndarray, "F n"], FoundDepth]:
    """z-depths of a mover's tracks in world units, 1 without background, and how they were found.

    Args:
        shape: of a mover that moves as a rigid thing.
    """
    cues = read_cues(mask, tracks, surface, options)
    name = "rigid"
    if shape is None or shape.is_flat:
        name = "not rigid" if shape is None else "flat"
        shape = follow_size(tracks, cues, options, moved=shape)
    scale = find_scale(shape, tracks, cameras, cues, options)
    if scale is None:
        guess = FoundDepth(name, "no background behind it (depth 1)", None)
        return np.ones(tracks.visible.shape), guess
    how = FoundDepth(name, scale.source, scale.uncertainty)
    return scale.value * fill_depth(shape.depth), how


def fill_depth(depth: Float[np.ndarray, "F n"]) -> Float[np.ndarray, "F n"]:
    """Depths with those that are not known (NaN) set to the median of their frame; in frames
    without any, to the median interpolated over time."""
    known = np.isfinite(depth).any(1)
    times = np.arange(len(depth))
    median = np.log(np.nanmedian(depth[known], 1))
    middle = np.exp(np.interp(times, times[known], median))
    return np.where(np.isfinite(depth), depth, middle[:, None])


def make_foreground_tracks(
    video: Video,
    background: Tracks,
    tracks: PointTracks,
    shapes: MoverShapes,
    xyz: Float[np.ndarray, "F N 3"],
) -> Tracks:
    """The moving layer of a clip.

    Args:
        background: the static layer, whose cameras are those of the moving layer.
        tracks: of the movers; there may be none.
        shapes: of the same tracks.
        xyz: their world positions.
    """
    return replace(
        Tracks.of("foreground", video, background.cameras, tracks, xyz),
        canonical=torch.from_numpy(shapes.canonical).float(),
        label=torch.as_tensor(shapes.label, dtype=torch.int64),
    )
