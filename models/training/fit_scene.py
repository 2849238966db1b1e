"""A clip with its tracks -> a trained scene: meshes, training pixels, and a colour field fitted to
each layer."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool

from models.clip import Exposure, dilate, estimate_exposure
from models.field import normalization
from models.movers import MovingMeshPipeline, fit_canonical_box, sample_movers
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render import Layer, MovingLayer, Scene, score_heldout
from models.run import ALONE, SILENT, Progress, Ranks, return_freed
from models.surface import StereoFrames, Surfaces, choose_matched_size
from models.tools import TrainingFrames, TrainingPixels, sample_points
from models.training.checkpoints import Checkpoint
from models.training.inputs import ClipInputs
from models.training.loop import History, LayerTraining, train
from models.training.new_field import FieldSize, build_renderer, measure_finest_resolution
from models.training.options import SceneOptions, Schedule
from models.training.shared_training import share_training


class Watcher(Protocol):
    """Shows the scene during training, such as the live viewer."""

    def show(self, scene: Scene) -> None:
        """Takes the scene to draw, which training changes in place."""

    def tell(self, text: str) -> None:
        """Takes a line of progress, and time to draw the scene in its present state."""


@dataclass(frozen=True)
class TrainingRun:
    """The circumstances of training a scene."""

    seed: int
    device: torch.device
    checkpoint: Checkpoint | None = None
    """The state from which stopped training goes on."""
    watcher: Watcher | None = None
    ranks: Ranks = ALONE
    """The processes that train together; this one is rank 0, the others are in
    ``help_training``."""
    folder: Path | None = None
    """Where layers are handed over to the other ranks; a folder that all of them see."""


class _WatchedProgress(Progress):
    """Progress that a watcher hears too."""

    def __init__(self, progress: Progress, watcher: Watcher):
        self._progress = progress
        self._watcher = watcher

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        self._progress.step(stage, done, total, note)
        self._watcher.tell(f"{stage}: {round(100 * done / max(total, 1))} %, {note}")

    def say(self, text: str) -> None:
        self._progress.say(text)


def train_scene(
    inputs: ClipInputs,
    schedule: Schedule,
    run: TrainingRun,
    progress: Progress = SILENT,
    options: SceneOptions = SceneOptions(),
) -> tuple[Scene, History]:
    """The trained scene, and the course of its background's training.

    Args:
        progress: hears the frames that are meshed and sampled, and the percents of training done.

    Raises:
        InputError: no frame has enough points for a mesh, or the checkpoint cannot be used.
        NumericalError: the loss is not finite.
    """
    fitting = _Fitting(inputs, run, progress, options)
    scene, history = fitting.fit_background(schedule)
    if inputs.movers is None or inputs.masks is None:
        return scene, history
    return_freed()
    return fitting.fit_movers(scene, schedule), history


class _Fitting:
    """Training of all layers of a scene in turn."""

    def __init__(
        self, inputs: ClipInputs, run: TrainingRun, progress: Progress, options: SceneOptions
    ):
        self.inputs = inputs
        self.run = run
        self.progress = progress
        self.options = options
        # One generator draws for all layers, so that the seed repeats the whole run.
        self.random = np.random.default_rng(run.seed)
        self.times = sorted(set(range(len(inputs.frames))) - set(inputs.held_out))
        """Frames that training learns from."""
        self.exposure = self._estimate_exposure()

    def _estimate_exposure(self) -> Exposure:
        tracks = self.inputs.unread_tracks()
        xy, visible = tracks.xy.numpy(), tracks.visible.numpy()
        options = self.options.exposure
        return estimate_exposure(self.inputs.frames, xy, visible, self.times, options)

    def fit_background(self, schedule: Schedule) -> tuple[Scene, History]:
        """The scene without movers, trained; its training pixels are not kept."""
        inputs = self.inputs
        meshes, size, pixels = self._prepare_background()
        renderer = self._build_renderer(size)
        return_freed()
        tracks = inputs.tracks
        layer = Layer(meshes, renderer)
        scene = Scene(
            tracks.cameras, tracks.fps, self.exposure, layer, thumbnails=tracks.thumbnails
        )
        score = None
        if inputs.held_out:
            given = scene, inputs.frames, inputs.masks, inputs.held_out
            score = partial(score_heldout, *given)
        # Refinement moves the meshes of the scene: the array shares their memory.
        vertices = meshes.shared_vertices()
        layer = LayerTraining(renderer, pixels, vertices, "background", score)
        return scene, self._fit(layer, size, scene, schedule)

    def _prepare_background(
        self,
    ) -> tuple[TriangleMeshPipeline, FieldSize, TrainingPixels]:
        """The background's meshes, the size of its field, and its training pixels; the grown masks
        are not kept."""
        inputs = self.inputs
        margin = self.options.training.mask_margin
        hidden = inputs.not_static
        grown = None if hidden is None else dilate(hidden, margin)
        meshes = self._build_meshes(grown)
        cameras = meshes.cameras
        field = self.options.field
        box = normalization(cameras, meshes.gather_used(), field)
        finest = measure_finest_resolution(meshes, box, field)
        num_pixels = len(self.times) * cameras.width * cameras.height
        size = FieldSize(box, finest, num_pixels, field.changes)
        footage = TrainingFrames(inputs.frames, self.times, grown, self.exposure)
        limit = self.options.training.max_samples
        pixels = sample_points(meshes, footage, limit, self.random, self.progress)
        return meshes, size, pixels

    def _build_meshes(self, grown: Bool[np.ndarray, "F H W"] | None) -> TriangleMeshPipeline:
        """Meshes of the tracks, refined by dense depth that starts from the meshes of the tracks
        alone."""
        tracks = self.inputs.tracks
        masks = self.inputs.masks
        mesh, stereo = self.options.mesh, self.options.stereo
        framed = self.progress.over(self.times, "coarse meshes")
        coarse = TriangleMeshPipeline.from_tracks(tracks, framed, masks, options=mesh)
        width, height = choose_matched_size(tracks.cameras, stereo)
        starts = partial(coarse.inverse_depth, width=width, height=height)
        visible = tracks.visible.numpy()
        clip = StereoFrames(self.inputs.frames, tracks.cameras, visible, grown)
        surface_of = Surfaces(clip, starts, list(coarse.faces), stereo)
        framed = self.progress.over(coarse.faces, "meshes")
        return TriangleMeshPipeline.from_tracks(tracks, framed, masks, surface_of, mesh)

    def fit_movers(self, scene: Scene, schedule: Schedule) -> Scene:
        """The scene with its movers, trained; unchanged if no frame has a mesh of them."""
        inputs = self.inputs
        mover_options = self.options.movers
        # The tracks' memory, mapped pages of their file, ends with this call.
        moving = MovingMeshPipeline.from_tracks(
            inputs.unread_tracks("foreground"),
            inputs.masks,
            self.times,
            self.progress,
            mover_options,
        )
        if not moving.meshes:
            return scene
        cameras = inputs.tracks.cameras
        footage = TrainingFrames(inputs.frames, self.times, inputs.masks, self.exposure)
        pixels = sample_movers(moving, cameras, footage, self.random, self.progress, mover_options)
        box, finest = fit_canonical_box(moving, mover_options)
        size = FieldSize(box, finest, len(pixels), self.options.field.mover_changes)
        renderer = self._build_renderer(size)
        scene = replace(scene, moving=MovingLayer(moving, renderer))
        layer = LayerTraining(renderer, pixels, name="movers")
        self._fit(layer, size, scene, self._schedule_movers(schedule))
        return scene

    def _schedule_movers(self, schedule: Schedule) -> Schedule:
        """The schedule of the movers' training."""
        training = self.options.training
        seconds = schedule.train_seconds
        return replace(
            schedule,
            # Movers have few pixels: they take more passes in little time.
            num_epochs=max(schedule.num_epochs, training.mover_epochs),
            train_seconds=None if seconds is None else training.mover_share * seconds,
        )

    def _build_renderer(self, size: FieldSize) -> WorldSpaceTrianglePipeline:
        # Seeded anew: a layer's first weights do not depend on the layers before it.
        generator = torch.Generator().manual_seed(self.run.seed)
        cameras = self.inputs.tracks.cameras
        given = size, cameras, generator, self.options.field, self.options.training
        return build_renderer(*given).to(self.run.device)

    def _fit(
        self, layer: LayerTraining, size: FieldSize, scene: Scene, schedule: Schedule
    ) -> History:
        """Trains a layer, and shows the scene meanwhile."""
        run = self.run
        progress = self.progress
        if run.watcher is not None:
            run.watcher.show(scene)
            progress = _WatchedProgress(progress, run.watcher)
        training = self.options.training
        if run.ranks.count == 1:
            return train(layer, schedule, self.random, run.checkpoint, progress, training)
        path = run.folder / f"{layer.name}_for_ranks.pt"
        layer = replace(layer, ranks=run.ranks)
        cameras = self.inputs.tracks.cameras
        try:
            layer = share_training(path, layer, size, cameras, schedule, run.checkpoint)
            with run.ranks.work_together():
                return train(layer, schedule, self.random, run.checkpoint, progress, training)
        finally:
            path.unlink(missing_ok=True)
