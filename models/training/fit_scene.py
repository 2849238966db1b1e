"""A clip with its tracks -> a trained scene: meshes, training pixels, and a colour field fitted to
each layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from models.cameras import Cameras
from models.clip import Exposure, dilate, estimate_exposure
from models.field import ColorField, HashGrid, Viewpoints, normalization
from models.movers import MovingMeshPipeline, fit_canonical_box, sample_movers
from models.pipeline import (
    TriangleMeshPipeline,
    WorldSpaceTrianglePipeline,
)
from models.render import Layer, MovingLayer, Scene, score_heldout
from models.run import Checkpoint, ProgressBars, return_freed, stage_bars
from models.surface import StereoFrames, Surfaces, choose_matched_size
from models.tools import TrainingPixels, sample_points
from models.tracks import Tracks
from models.training.grid_size import measure_finest_resolution
from models.training.inputs import ClipInputs
from models.training.loop import History, Schedule, train


@dataclass(frozen=True)
class Changes:
    """How fine a grid of what changes with time is."""

    levels: int
    cells: float
    """Along an axis of its finest level, as a share of those of the grid of space."""
    frames: float
    """To a cell of that level."""


LOG2_ENTRIES = 18, 20
"""Least and most entries of each level of the hash grid, as powers of 2."""
PIXELS_PER_ENTRY = 16
"""Training pixels for each entry between those."""
CHANGES = Changes(levels=8, cells=1.0, frames=3)
MOVER_CHANGES = Changes(levels=12, cells=1.5, frames=1)
"""Canonical places are less exact than surfaces: a frame's own colours make up for it."""
LEAST_CHANGE_CELLS = 64
MOVER_EPOCHS = 40
"""Passes over the movers' pixels, which are few."""
MOVER_SHARE = 0.3
"""Seconds of training for the movers as a share of those given."""
MASK_MARGIN = 3
"""Pixels by which masks are grown before background colours are learned."""
_BAR = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"


class Watcher(Protocol):
    """Whoever looks at the scene while it is trained, such as the live viewer."""

    def show(self, scene: Scene) -> None:
        """Takes the scene to draw; training changes it in place."""

    def tell(self, text: str) -> None:
        """Takes one line of progress, and time to draw the scene as it is now."""


def train_scene(
    inputs: ClipInputs,
    schedule: Schedule,
    seed: int,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    watcher: Watcher | None = None,
) -> tuple[Scene, History]:
    """The scene, and how training of its background went.

    Args:
        checkpoint: where training that was stopped goes on from.
        watcher: shows the scene while it is trained.
    """
    tracks = inputs.tracks
    frames = inputs.frames
    masks = inputs.masks
    training = sorted(set(range(len(frames))) - set(inputs.held_out))
    fitting = _Fitting(seed, device, checkpoint, watcher)
    exposure = _exposure(inputs, training)
    scene, history = _background(inputs, training, exposure, schedule, fitting)
    if inputs.movers is None or masks is None:
        return scene, history
    return_freed()
    progress = ProgressBars()
    movers = inputs.unread_tracks("foreground")
    moving = MovingMeshPipeline.from_tracks(movers, masks, training, progress)
    del movers  # and with them the memory of all that was looked at
    if not moving.meshes:
        return scene, history
    drawn = {"generator": fitting.random, "progress": progress}
    pixels = sample_movers(moving, tracks.cameras, frames, masks, exposure, **drawn)
    renderer = fitting.renderer(
        *fit_canonical_box(moving), len(pixels), tracks.cameras, MOVER_CHANGES
    )
    scene = replace(scene, moving=MovingLayer(moving, renderer))
    seconds = None if schedule.train_seconds is None else MOVER_SHARE * schedule.train_seconds
    schedule = replace(
        schedule, num_epochs=max(schedule.num_epochs, MOVER_EPOCHS), train_seconds=seconds
    )
    fitting.fit("movers", scene, renderer, pixels, None, schedule)
    return scene, history


def _background(
    inputs: ClipInputs,
    training: list[int],
    exposure: Exposure,
    schedule: Schedule,
    fitting: "_Fitting",
) -> tuple[Scene, History]:
    """The scene without movers, trained; the pixels that it was trained on are not kept."""
    tracks = inputs.tracks
    frames = inputs.frames
    masks = inputs.masks
    meshes, renderer, pixels = _prepared(inputs, training, exposure, fitting)
    return_freed()
    scene = Scene(tracks.cameras, tracks.fps, exposure, Layer(meshes, renderer))
    scored = (
        partial(score_heldout, scene, frames, masks, inputs.held_out) if inputs.held_out else None
    )
    return scene, fitting.fit(
        "background", scene, renderer, pixels, meshes.vertices.numpy(), schedule, scored
    )


def _exposure(inputs: ClipInputs, training: list[int]) -> Exposure:
    tracks = inputs.unread_tracks()
    return estimate_exposure(inputs.frames, tracks.xy.numpy(), tracks.visible.numpy(), training)


def _prepared(
    inputs: ClipInputs, training: list[int], exposure: Exposure, fitting: "_Fitting"
) -> tuple[TriangleMeshPipeline, WorldSpaceTrianglePipeline, TrainingPixels]:
    """The background's meshes, what is trained and what it learns from; the grown masks needed here
    are not kept."""
    grown = None if inputs.masks is None else dilate(inputs.masks, MASK_MARGIN)
    meshes = _meshes(inputs.tracks, inputs.frames, inputs.masks, grown, training)
    box = normalization(meshes.cameras, meshes.vertices[meshes.used])
    num_pixels = len(training) * meshes.cameras.width * meshes.cameras.height
    renderer = fitting.renderer(
        box, measure_finest_resolution(meshes, box), num_pixels, meshes.cameras
    )
    own = {"generator": fitting.random, "progress": partial(stage_bars(), "pixels")}
    return meshes, renderer, sample_points(meshes, inputs.frames, grown, training, exposure, **own)


def _meshes(
    tracks: Tracks,
    frames: np.ndarray,
    masks: np.ndarray | None,
    grown: np.ndarray | None,
    training: list[int],
) -> TriangleMeshPipeline:
    """Meshes of the tracks, and with them as a start those whose outlines the frames themselves
    tell."""
    coarse = TriangleMeshPipeline.from_tracks(
        tracks, tqdm(training, desc="coarse meshes", unit="frame"), masks
    )
    framed = tqdm(coarse.faces, desc="meshes", unit="frame")
    width, height = choose_matched_size(tracks.cameras)
    starts = partial(coarse.inverse_depth, width=width, height=height)
    clip = StereoFrames(frames, tracks.cameras, tracks.visible.numpy(), grown)
    surface_of = Surfaces(clip, starts, list(coarse.faces))
    return TriangleMeshPipeline.from_tracks(tracks, framed, masks, surface_of)


class _Fitting:
    """What training of all layers shares."""

    def __init__(
        self,
        seed: int,
        device: torch.device,
        checkpoint: Checkpoint | None,
        watcher: Watcher | None,
    ):
        self.seed = seed
        self.device = device
        self.checkpoint = checkpoint
        self.watcher = watcher
        self.random = np.random.default_rng(seed)

    def renderer(
        self,
        to_box: Float[Tensor, "4 4"],
        finest: int,
        num_pixels: int,
        cameras: Cameras,
        fineness: Changes = CHANGES,
    ) -> WorldSpaceTrianglePipeline:
        """An untrained colour field over the box that ``to_box`` maps to, with room for so many
        training pixels.

        Args:
            cameras: of the clip; colours may depend on the place of the camera and the time.
        """
        generator = torch.Generator().manual_seed(self.seed)
        wanted = round(math.log2(max(1, num_pixels / PIXELS_PER_ENTRY)))
        entries = min(max(wanted, LOG2_ENTRIES[0]), LOG2_ENTRIES[1])
        grid = HashGrid(log2_entries=entries, finest_resolution=finest, generator=generator)
        cells = max(LEAST_CHANGE_CELLS, round(fineness.cells * finest))
        changes = HashGrid(
            fineness.levels, log2_entries=entries, finest_resolution=cells, generator=generator
        )
        field = ColorField(grid, generator=generator, code_width=Viewpoints.WIDTH, changes=changes)
        viewpoints = Viewpoints.of(cameras, 2 / (fineness.frames * cells))
        return WorldSpaceTrianglePipeline(field, to_box, viewpoints).to(self.device)

    def fit(
        self,
        name: str,
        scene: Scene,
        renderer: WorldSpaceTrianglePipeline,
        pixels: TrainingPixels,
        positions: Float[np.ndarray, "V 3"] | None,
        schedule: Schedule,
        scored: Callable[[], float] | None = None,
    ) -> History:
        """Trains one layer's renderer on its pixels under a progress bar, and shows the scene
        meanwhile."""
        if self.watcher is not None:
            self.watcher.show(scene)
        with tqdm(total=100, desc=f"training {name}", unit="%", bar_format=_BAR) as bar:

            def progress(share: float, text: str) -> None:
                bar.update(100 * share - bar.n)
                bar.set_postfix_str(text)
                if self.watcher is not None:
                    self.watcher.tell(f"training {name}: {100 * share:.0f} %, {text}")

            given = renderer, pixels, positions, schedule, self.random, progress
            return train(*given, self.checkpoint, name, scored)
