"""The optimisation loop of one layer's colour field."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.field import FieldOptimizer, ViewCode
from models.pipeline import WorldSpaceTrianglePipeline
from models.run import (
    Checkpoint,
    InputError,
    NumericalError,
    checkpoints,
    pack_generator,
    restore_generator,
    trim_heap,
)
from models.tools import DevicePixels, TrainingPixels, batch_plain
from models.training.refinement import REFINED_FROM, PlainRefinement, Refinement

FINAL_RATE = 0.03
"""Learning rate at the end, as a share of that at the start."""
LEAST_WEIGHT = 1.0
"""Weight of a pixel whose face is hardly trusted: it counts only where nothing else says what is
there."""
SCORED = (0.1, 0.25, 0.5, 0.75)
"""Shares of the training after which held-out frames are scored; they are at the end too."""
HOLD_SHARE = 0.2
"""Share of the training in which the learning rate stays at its start."""
UNCHANGED = 0.2
"""Share of a batch that is learned without what changes with time, which counts less off the
path."""
RECORD_STEPS = 20
"""Steps between points of the training curve."""


@dataclass(frozen=True)
class Schedule:
    """How long to train: whole passes over the pixels, or seconds where those are given."""

    num_epochs: float = 6.0
    train_seconds: float | None = None
    batch_size: int = 1 << 15
    refine: bool = True
    """Move the meshes' vertices as well."""

    def share_done(self, step: int, num_pixels: int, seconds: float) -> float:
        """0 at the start, 1 when training is over."""
        if self.train_seconds is not None:
            return seconds / max(self.train_seconds, 1e-9)
        return step / max(1, math.ceil(self.num_epochs * num_pixels / self.batch_size))


@dataclass
class History:
    """Training PSNR over steps, averaged between points, and that of held-out frames."""

    steps: list[int] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    heldout_steps: list[int] = field(default_factory=list)
    heldout_psnr: list[float] = field(default_factory=list)
    seconds: float = 0.0
    samples: int = 0


CURVES = ("steps", "psnr", "heldout_steps", "heldout_psnr")
"""What of the history a checkpoint keeps."""


def train(
    renderer: WorldSpaceTrianglePipeline,
    pixels: TrainingPixels,
    positions: Float[np.ndarray, "V 3"],
    schedule: Schedule,
    generator: np.random.Generator,
    progress: Callable[[float, str], None] = lambda share, text: None,
    checkpoint: Checkpoint | None = None,
    layer: str = "background",
    heldout_psnr: Callable[[], float] | None = None,
) -> History:
    """Fits the colour field to the training pixels, at the points where their rays meet the mesh,
    and the mesh to it.

    With a checkpoint, training that was interrupted goes on from there; on the CPU, and with epochs
    for a schedule, the result is to the bit that of training without interruption.

    Args:
        positions: world positions of the meshes' vertices; changed in place unless the schedule
            says otherwise.
        generator: draws the batches.
        progress: is told the share done (0 to 1) and a line with PSNR and samples per second.
        checkpoint: where the state is kept, under the name ``layer``.
        heldout_psnr: renders held-out frames as they look so far and scores them; called a few
            times.

    Raises:
        NumericalError: the loss is not finite; the step and the likely cause are named.
    """
    run = _Run(renderer, pixels, positions, schedule, generator)
    if checkpoint is not None and _taken_up(run, checkpoint, layer):
        return run.finished()
    start = time.perf_counter() - run.seconds
    saved = time.perf_counter()
    while (share := schedule.share_done(run.step, len(pixels), time.perf_counter() - start)) < 1:
        run.advance(
            FINAL_RATE ** (max(0.0, share - HOLD_SHARE) / (1 - HOLD_SHARE)), share >= REFINED_FROM
        )
        run.seconds = time.perf_counter() - start
        if run.step % RECORD_STEPS == 0:
            run.record()
            progress(
                share,
                f"{run.history.psnr[-1]:.2f} dB, {run.samples / run.seconds / 1e6:.2f} M samples/s",
            )
        if heldout_psnr and run.unscored and share >= run.unscored[0]:
            run.unscored = [later for later in run.unscored if later > share]
            run.score(heldout_psnr)
        if checkpoint is not None and time.perf_counter() - saved > checkpoints.CHECKPOINT_SECONDS:
            trim_heap()  # batches fill what meshes left between them, until all of that is held again
            checkpoint.save(layer, run.state(done=False))
            saved = time.perf_counter()
    run.record()
    if heldout_psnr:
        run.score(heldout_psnr)
    run.seconds = time.perf_counter() - start
    if checkpoint is not None:
        checkpoint.save(layer, run.state(done=True))
    return run.finished()


def _taken_up(run: "_Run", checkpoint: Checkpoint, layer: str) -> bool:
    """Puts training where a checkpoint left it, if there is one; whether it was done then."""
    try:
        state = checkpoint.load(layer)
        if state is None:
            return False
        run.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"{checkpoint.path}: is not of this program; remove it to train anew"
        ) from error
    checkpoint.progress.say(
        f"training {layer}: goes on from step {run.step}, {run.seconds:.0f} s in"
    )
    return state["done"]


class _Run:
    """Training under way: all that a checkpoint must hold."""

    def __init__(
        self,
        renderer: WorldSpaceTrianglePipeline,
        pixels: TrainingPixels,
        positions: Float[np.ndarray, "V 3"],
        schedule: Schedule,
        generator: np.random.Generator,
    ):
        self.field = renderer.field
        self.pixels = pixels
        self.positions = positions
        self.generator = generator
        self.matrix = renderer.normalized_from_world
        self.batch_size = schedule.batch_size
        self.optimizer = FieldOptimizer(renderer.field)
        self.step = 0
        self.seconds = 0.0
        self.history = History()
        self.recent = []
        self.unscored = list(SCORED)
        self.store = self.random = None
        if self.matrix.device.type != "cpu" and isinstance(pixels, TrainingPixels):
            self.store = DevicePixels(pixels, positions, self.matrix.device)
            self.random = torch.Generator(self.matrix.device).manual_seed(
                int(generator.integers(1 << 62))
            )
        self.refinement: Refinement | PlainRefinement | None = None
        if schedule.refine and isinstance(pixels, TrainingPixels):
            on_device = self.store is not None
            self.refinement = (
                PlainRefinement(self.store, positions)
                if on_device
                else Refinement(pixels, positions)
            )
        self.codes: ViewCode | None = None
        if renderer.viewpoints is not None:
            centers = torch.from_numpy(pixels.world_from_cam[:, :3, 3]).to(self.matrix)
            self.codes = renderer.viewpoints(
                centers, torch.arange(len(centers), device=centers.device)
            )

    @property
    def samples(self) -> int:
        """Samples seen so far."""
        return self.step * self.batch_size

    def advance(self, rate: float, refining: bool) -> None:
        """One step at a share of the learning rates; of the vertices too if ``refining``."""
        self.optimizer.lr = rate
        refining = refining and self.refinement is not None
        index = self._drawn()
        points, rgb, weight = self._batch(index)
        with torch.autocast(
            points.device.type, torch.float16, enabled=points.device.type == "cuda"
        ):
            code = self._codes_of(index)
            loss, slope = self.field.loss_and_grad(
                points, rgb, weight, want_point_grad=refining, code=code
            )
        self.step += 1
        self.recent.append(loss)
        if loss.device.type == "cpu":  # elsewhere the host would have to wait: there record() looks
            self._check(self.recent[-1:])
        self.optimizer.step()
        if refining:
            self.refinement.step(index, self.matrix, slope, rate)

    def _drawn(self) -> Tensor | np.ndarray:
        """Indices of a batch's pixels, where they are kept."""
        if self.store is None:
            return self.generator.integers(0, len(self.pixels), self.batch_size)
        return torch.randint(
            len(self.store), (self.batch_size,), generator=self.random, device=self.matrix.device
        )

    def _codes_of(self, index: Tensor | np.ndarray) -> ViewCode | None:
        """What else the colours of a batch's pixels may depend on."""
        if self.codes is None:
            return None
        if self.store is not None:
            frame = self.store.frame[index].long()
        else:
            frame = torch.from_numpy(self.pixels.frame[index].astype(np.int64))
        # The first samples are as random as all of the batch.
        return self.codes.select(frame).without_changes(round(UNCHANGED * len(frame)))

    def _batch(self, index: Tensor | np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Points, rgb and weight on the renderer's device."""
        device = self.matrix.device
        if self.store is not None:
            return self.store.batch(index, self.matrix, LEAST_WEIGHT)
        matrix = self.matrix.cpu().numpy()
        if isinstance(self.pixels, TrainingPixels):
            batch = self.pixels.batch(index, self.positions, matrix, LEAST_WEIGHT)
        else:
            batch = batch_plain(self.pixels, index, self.positions, matrix, LEAST_WEIGHT)
        return tuple(
            torch.from_numpy(x).to(device) for x in (batch.points, batch.rgb, batch.weight)
        )

    def record(self) -> None:
        """Adds the mean of recent losses to the history; on a device the host waits for it here
        only."""
        if self.refinement is not None:
            self.refinement.publish()
        if not self.recent:
            return
        self._check(self.recent)
        self.history.steps.append(self.step)
        self.history.psnr.append(
            -10 * math.log10(max(float(torch.stack(self.recent).mean()), 1e-12))
        )
        self.recent.clear()

    def score(self, heldout_psnr: Callable[[], float]) -> None:
        """Adds the PSNR of held-out frames to the history."""
        if self.refinement is not None:
            self.refinement.publish()
        self.history.heldout_steps.append(self.step)
        self.history.heldout_psnr.append(heldout_psnr())

    def _check(self, losses: list[Tensor]) -> None:
        values = torch.stack(losses).tolist() if losses else []
        for i, loss in enumerate(values):
            if not math.isfinite(loss):
                step = self.step - len(values) + i + 1
                raise NumericalError(
                    f"training stopped at step {step}: the loss is {loss}, {self._cause()}"
                )

    def _cause(self) -> str:
        """What is likely to have made the loss bad."""
        if not np.isfinite(self.pixels.rgb).all():
            return "the colours of the training pixels hold bad values; look at the video and its exposure"
        if (
            self.step > 1
            and np.isfinite(self.positions if self.positions is not None else 0.0).all()
        ):
            return "though it began well: training has diverged; give another --seed and report the clip"
        return "the mesh or the tracks hold bad values; make the track files again"

    def finished(self) -> History:
        """The history once training is over; what only steps need is let go."""
        self.field.zero_grad(set_to_none=True)
        self.history.seconds = self.seconds
        self.history.samples = self.samples
        return self.history

    def state(self, done: bool) -> dict:
        """Tensors, numbers and strings from which ``restore`` goes on; what is over needs no
        optimizer.

        Raises:
            NumericalError: a weight is not finite, and the earlier checkpoint must stay.
        """
        self._check(self.recent)
        if not all(
            math.isfinite(p.detach().sum()) for p in self.field.parameters()
        ):  # isfinite(p) would be another p
            raise NumericalError(
                f"training stopped at step {self.step}: a weight is not finite, {self._cause()}"
            )
        return {
            "done": done,
            "step": self.step,
            "seconds": self.seconds,
            "field": {key: value.cpu() for key, value in self.field.state_dict().items()},
            "optimizer": None if done else self.optimizer.state_dict(),
            "refinement": None if self.refinement is None else self.refinement.state_dict(done),
            "generator": pack_generator(self.generator),
            "device_generator": None if self.random is None else self.random.get_state(),
            "unscored": self.unscored,
            **{name: getattr(self.history, name) for name in CURVES},
            "recent": [float(loss) for loss in self.recent],
        }

    def restore(self, state: dict) -> None:
        """Takes over what ``state`` gave."""
        self.field.load_state_dict(state["field"])
        if state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.refinement is not None:
            self.refinement.load_state_dict(state["refinement"])
        restore_generator(self.generator, state["generator"])
        if self.random is not None:
            self.random.set_state(state["device_generator"])
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.unscored = list(state["unscored"])
        self.history = History(**{name: list(state[name]) for name in CURVES})
        self.recent = [torch.tensor(loss, device=self.matrix.device) for loss in state["recent"]]
