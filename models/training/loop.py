"""The optimisation loop of a layer's colour field."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.field import BETAS, ColorField, FieldOptimizer, ViewCode
from models.pipeline import WorldSpaceTrianglePipeline
from models.run import ALONE, SILENT, InputError, NumericalError, Progress, Ranks, trim_heap
from models.tools import Batch, BatchSettings, PixelOrder, PixelSource
from models.training.averaging import Averaging
from models.training.checkpoints import Checkpoint
from models.training.options import RateOptions, Schedule, TrainingOptions
from models.training.refinement import PlainRefinement, Refinement

# Steps between points of the training curve.
_RECORD_STEPS = 20
# Parts of the history that a checkpoint keeps.
_CURVES = ("steps", "psnr", "heldout_steps", "heldout_psnr")


@dataclass
class History:
    """Training PSNR in dB over steps, averaged between points, and PSNR of held-out frames."""

    steps: list[int] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    heldout_steps: list[int] = field(default_factory=list)
    heldout_psnr: list[float] = field(default_factory=list)
    seconds: float = 0.0
    samples: int = 0


@dataclass(frozen=True)
class LayerTraining:
    """A layer of a scene, as training takes layers."""

    renderer: WorldSpaceTrianglePipeline
    """Its colour field is changed in place."""
    pixels: PixelSource
    vertices: Float[np.ndarray, "V 3"] | None = None
    """World positions of the meshes' vertices, moved in place: given
    ``TriangleMeshPipeline.shared_vertices``, the meshes move with them. None for meshes that
    stay."""
    name: str = "background"
    """Of the layer, for progress and checkpoint."""
    score: Callable[[], float] | None = None
    """Renders held-out frames with the present weights and returns their PSNR; called a few
    times."""
    ranks: Ranks = ALONE
    """The processes that train the layer, each with pixels of its own."""
    total_pixels: int | None = None
    """Training pixels of all ranks; ``len(pixels)`` if not given."""


def train(
    layer: LayerTraining,
    schedule: Schedule,
    generator: np.random.Generator,
    checkpoint: Checkpoint | None = None,
    progress: Progress = SILENT,
    options: TrainingOptions = TrainingOptions(),
) -> History:
    """Fits the colour field to the training pixels, at the points where their rays meet the mesh,
    and the mesh to the pixels. All ranks of the layer call it together.

    With a checkpoint, interrupted training goes on from there. On the CPU, if the schedule counts
    epochs, the result equals that of training without interruption to the bit.

    Args:
        generator: draws the batches.
        checkpoint: keeps the state under the layer's name; each rank has a file of its own.
        progress: hears the share done in percent, with PSNR and samples per second.

    Raises:
        NumericalError: the loss is not finite; the message names the step and the likely cause.
        LostRank: another rank has ended.
    """
    run = _Run(layer, schedule, generator, options)
    if checkpoint is not None and _resume(run, checkpoint):
        return run.finish()
    clock = time.perf_counter
    # A resumed run counts the seconds of the run before it.
    start = clock() - run.seconds
    saved = clock()
    stage = f"training {layer.name}"
    while (share := run.share_done()) < 1:
        run.advance(_learning_rate(share, options), share >= options.refined_from)
        run.seconds = clock() - start
        is_late = checkpoint is not None and clock() - saved > options.checkpoint_seconds
        must_save = run.meet(is_late)
        if run.is_due(_RECORD_STEPS):
            run.record()
            progress.step(stage, min(99, round(100 * share)), 100, run.describe())
        if layer.score and run.unscored and share >= run.unscored[0]:
            # Several marks may have passed since the last step: they are scored once.
            run.unscored = [later for later in run.unscored if later > share]
            run.score()
        if must_save:
            # Batches fill the gaps that building the meshes left in the heap: give these back.
            trim_heap()
            checkpoint.save(layer.name, run.state(done=False))
            saved = clock()
    if run.averaging is not None:
        run.averaging.settle()
    # The losses since the last point of the curve.
    run.record()
    if layer.score:
        run.score()
    run.seconds = clock() - start
    if checkpoint is not None and layer.ranks.leads:
        checkpoint.save(layer.name, run.state(done=True))
    progress.step(stage, 100, 100, run.describe())
    return run.finish()


def _learning_rate(share: float, options: TrainingOptions) -> float:
    """Learning rate after a share of the training, as a share of the rate at the start."""
    hold = options.rates.hold
    return options.rates.final ** (max(0.0, share - hold) / (1 - hold))


def _resume(run: "_Run", checkpoint: Checkpoint) -> bool:
    """Restores training from the checkpoint, if the layer is there; returns whether training was over."""
    name = run.layer.name
    try:
        state = checkpoint.load(name)
        if state is None:
            return False
        run.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"{checkpoint.path}: is not of this program; remove it to train anew"
        ) from error
    checkpoint.progress.say(
        f"training {name}: goes on from step {run.step}, {run.seconds:.0f} s in"
    )
    return state["done"]


def _build_optimizer(field: ColorField, rates: RateOptions, larger: float) -> FieldOptimizer:
    """The optimizer for batches that are larger by a factor than those of one process.

    Moments decay as fast by the sample, and rates follow Malladi et al., "On the SDEs and scaling
    rules for adaptive gradient algorithms", 2022.
    """
    growth = math.sqrt(larger)
    return FieldOptimizer(
        field,
        growth * rates.tables,
        growth * rates.mlp,
        betas=(BETAS[0] ** larger, BETAS[1] ** larger),
        change_rate=rates.changes,
    )


class _Run:
    """Training under way, with the state that a checkpoint holds."""

    def __init__(
        self,
        layer: LayerTraining,
        schedule: Schedule,
        generator: np.random.Generator,
        options: TrainingOptions,
    ):
        renderer = layer.renderer
        self.layer = layer
        self.schedule = schedule
        self.options = options
        self.field = renderer.field
        self.matrix = renderer.normalized_from_world
        total = layer.total_pixels or len(layer.pixels)
        alone, self.batch_size = (
            schedule.choose_batch_size(total, options.least_steps, processes)
            for processes in (1, layer.ranks.count)
        )
        self.num_steps = max(1, math.ceil(schedule.num_epochs * total / self.batch_size))
        """Steps of all ranks together, unless the schedule ends by time."""
        larger = layer.ranks.count * self.batch_size / alone
        self.optimizer = _build_optimizer(renderer.field, options.rates, larger)
        self.step = 0
        """Steps of all ranks together."""
        self.seconds = 0.0
        self.agreed_seconds = 0.0
        """``seconds``, or those of rank 0 when the ranks last met: all must end at one step."""
        self.history = History()
        self.recent: list[Float[Tensor, ""]] = []
        """Losses since the last point of the training curve."""
        self.unscored = list(options.scored)
        settings = BatchSettings(self.matrix, layer.vertices, options.least_weight)
        self.store = layer.pixels.open_store(settings)
        seed = int(generator.integers(1 << 62))
        self.order = PixelOrder(layer.pixels.frame, seed, self.store.device)
        self.refinement: Refinement | PlainRefinement | None = None
        if schedule.refine and layer.vertices is not None:
            # The kernel needs the pixels in the CPU's memory; the plain form runs on any device.
            on_cpu = self.matrix.device.type == "cpu"
            refine, pixels = (Refinement, layer.pixels) if on_cpu else (PlainRefinement, self.store)
            rate = math.sqrt(larger) * options.refine_rate
            self.refinement = refine(pixels, layer.vertices, rate)
        self.averaging: Averaging | None = None
        if layer.ranks.count > 1:
            tensors = [*renderer.field.parameters()]
            tensors += [] if self.refinement is None else [self.refinement.moved]
            self.averaging = Averaging(tensors, layer.ranks)
        self.codes: ViewCode | None = None
        """Codes of the clip's frames."""
        if renderer.viewpoints is not None:
            # Cameras do not move in training, so the codes of all frames are computed once.
            centers = torch.from_numpy(layer.pixels.world_from_cam[:, :3, 3]).to(self.matrix)
            frames = torch.arange(len(centers), device=centers.device)
            self.codes = renderer.viewpoints(centers, frames)

    def share_done(self) -> float:
        """0 at the start, 1 when training is over."""
        if self.schedule.train_seconds is not None:
            return self.agreed_seconds / max(self.schedule.train_seconds, 1e-9)
        return self.step / self.num_steps

    @property
    def samples(self) -> int:
        """Samples learned up to now."""
        return self.step * self.batch_size

    def advance(self, rate: float, refining: bool) -> None:
        """A step at a share of the learning rates; of the vertices too if ``refining``."""
        self.optimizer.lr = rate
        refining = refining and self.refinement is not None
        index = self.order.draw(self.batch_size)
        batch = self.store.batch(index)
        device = batch.points.device.type
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            loss, slope = self.field.loss_and_grad(
                batch.points,
                batch.rgb,
                batch.weight,
                want_point_grad=refining,
                code=self._codes_of(batch),
            )
        self.step += self.layer.ranks.count
        self.recent.append(loss)
        # On a device the host would wait for the loss here: record() looks there.
        if loss.device.type == "cpu":
            self._check(self.recent[-1:])
        self.optimizer.step()
        if refining:
            self.refinement.step(index, self.matrix, slope, rate)

    def is_due(self, every: int) -> bool:
        """Whether the last step of all ranks reached a multiple of ``every`` steps."""
        return self.step % every < self.layer.ranks.count

    def meet(self, is_late: bool) -> bool:
        """Brings the ranks together, every few steps; returns whether all save their state now.

        Args:
            is_late: it is time for a checkpoint; rank 0's word decides.
        """
        if self.averaging is None:
            self.agreed_seconds = self.seconds
            return is_late
        word = self.averaging.finish()
        must_save = False
        if word:
            self.agreed_seconds, must_save = word[0], bool(word[1])
        if must_save:
            self.averaging.settle()
        steps = self.options.average_samples // self.batch_size
        if self.is_due(max(self.layer.ranks.count, steps)):
            self.averaging.start([self.seconds, is_late and not must_save])
        return must_save

    def _codes_of(self, batch: Batch) -> ViewCode | None:
        """The view codes of a batch's samples; some samples are learned without changes."""
        if self.codes is None:
            return None
        # The first samples of a batch are as random as all of it.
        count = round(self.options.unchanged * len(batch.frame))
        return self.codes.select(batch.frame).without_changes(count)

    def record(self) -> None:
        """Adds the mean of recent losses to the history; only here the host waits for a device."""
        self._publish()
        if not self.recent:
            return
        self._check(self.recent)
        mean = float(torch.stack(self.recent).mean())
        self.history.steps.append(self.step)
        # Colours are in [0, 1], so the peak of the PSNR is 1.
        self.history.psnr.append(-10 * math.log10(max(mean, 1e-12)))
        self.recent.clear()

    def describe(self) -> str:
        """PSNR and speed, for a progress bar."""
        psnr = self.history.psnr[-1] if self.history.psnr else math.nan
        rate = self.samples / max(self.seconds, 1e-9)
        return f"{psnr:.2f} dB, {rate / 1e6:.2f} M samples/s"

    def score(self) -> None:
        """Adds the PSNR of held-out frames to the history."""
        self._publish()
        self.history.heldout_steps.append(self.step)
        self.history.heldout_psnr.append(self.layer.score())

    def _publish(self) -> None:
        """Brings the refined vertices to the meshes."""
        if self.refinement is not None:
            self.refinement.publish()

    def _check(self, losses: list[Float[Tensor, ""]]) -> None:
        """Raises: NumericalError: a loss among the last is not finite."""
        values = torch.stack(losses).tolist() if losses else []
        for i, loss in enumerate(values):
            if not math.isfinite(loss):
                step = self.step - len(values) + i + 1
                raise NumericalError(
                    f"training stopped at step {step}: the loss is {loss}, {self._guess_cause()}"
                )

    def _guess_cause(self) -> str:
        """The likely cause of a loss that is not finite."""
        if not np.isfinite(self.layer.pixels.rgb).all():
            return (
                "the colours of the training pixels hold bad values; look at the video and its "
                "exposure"
            )
        vertices = self.layer.vertices
        if self.step > 1 and (vertices is None or np.isfinite(vertices).all()):
            return (
                "though it began well: training has diverged; give another --seed and report the "
                "clip"
            )
        return "the mesh or the tracks hold bad values; make the track files again"

    def finish(self) -> History:
        """The history of finished training; gradients are released."""
        # Gradients take as much memory as the tables.
        self.field.zero_grad(set_to_none=True)
        self.history.seconds = self.seconds
        self.history.samples = self.samples
        return self.history

    def state(self, done: bool) -> dict:
        """Tensors, numbers and strings that ``restore`` takes; without the optimizer if ``done``.

        Raises:
            NumericalError: a weight is not finite, and the earlier checkpoint must stay.
        """
        self._check(self.recent)
        # The sum, as isfinite of a table would take another table's memory.
        if not all(math.isfinite(p.detach().sum()) for p in self.field.parameters()):
            raise NumericalError(
                f"training stopped at step {self.step}: a weight is not finite, "
                f"{self._guess_cause()}"
            )
        return {
            "done": done,
            "step": self.step,
            "batch_size": self.batch_size,
            "seconds": self.seconds,
            "field": {key: value.cpu() for key, value in self.field.state_dict().items()},
            "optimizer": None if done else self.optimizer.state_dict(),
            "refinement": None if self.refinement is None else self.refinement.state_dict(done),
            "unscored": self.unscored,
            **{name: getattr(self.history, name) for name in _CURVES},
            # Kept so that the curve of a resumed run is the same to the bit.
            "recent": [float(loss) for loss in self.recent],
        }

    def restore(self, state: dict) -> None:
        """Takes over the result of ``state``."""
        self.field.load_state_dict(state["field"])
        # A finished layer is kept without the optimizer's moments.
        if state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.refinement is not None:
            self.refinement.load_state_dict(state["refinement"])
        if self.averaging is not None:
            self.averaging.begin()
        # Another number of ranks may have other batches.
        self.step = state["step"] * state["batch_size"] // self.batch_size
        # Each rank took an equal part of all steps.
        self.order.drawn = self.step // self.layer.ranks.count * self.batch_size
        self.seconds = self.agreed_seconds = state["seconds"]
        self.unscored = list(state["unscored"])
        self.history = History(**{name: list(state[name]) for name in _CURVES})
        self.recent = [torch.tensor(loss, device=self.matrix.device) for loss in state["recent"]]
