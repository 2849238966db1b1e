"""The optimisation loop of one layer's colour field."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.encoding import FieldOptimizer
from models.pipeline import WorldSpaceTrianglePipeline
from models.tools import DevicePixels, TrainingPixels, batch_plain

FINAL_RATE = 0.03
"""Learning rate at the end, as a share of that at the start."""
LEAST_WEIGHT = 1.0
"""Weight of a pixel whose face is hardly trusted: it counts only where nothing else says what is there."""
SCORED = (0.1, 0.25, 0.5, 0.75)
"""Shares of the training after which held-out frames are scored; they are at the end too."""
HOLD_SHARE = 0.2
"""Share of the training in which the learning rate stays at its start."""


@dataclass(frozen=True)
class Schedule:
    """How long to train: whole passes over the pixels, or seconds where those are given."""

    num_epochs: float = 6.0
    train_seconds: float | None = None
    batch_size: int = 1 << 16

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


def train(
    renderer: WorldSpaceTrianglePipeline,
    pixels: TrainingPixels,
    positions: Float[np.ndarray, "V 3"],
    schedule: Schedule,
    generator: np.random.Generator,
    progress: Callable[[float, str], None] = lambda share, text: None,
    heldout_psnr: Callable[[], float] | None = None,
) -> History:
    """Fits the colour field to the training pixels, at the points where their rays meet the mesh.

    Args:
        positions: world positions of the meshes' vertices.
        generator: draws the batches.
        progress: is told the share done (0 to 1) and a line with PSNR and samples per second.
        heldout_psnr: renders held-out frames as they look so far and scores them; called a few times.

    Raises:
        FloatingPointError: the loss is not finite; the step and the likely cause are named.
    """
    draw = _sampler(renderer, pixels, positions, schedule.batch_size, generator)
    optimizer = FieldOptimizer(renderer.field)
    history, start, recent, step = History(), time.perf_counter(), [], 0
    scored_after = list(SCORED) if heldout_psnr else []
    while (share := schedule.share_done(step, len(pixels), time.perf_counter() - start)) < 1:
        optimizer.lr = FINAL_RATE ** (max(0.0, share - HOLD_SHARE) / (1 - HOLD_SHARE))
        points, rgb, weight = draw()
        with torch.autocast(points.device.type, torch.float16, enabled=points.device.type == "cuda"):
            loss, _ = renderer.field.loss_and_grad(points, rgb, weight)
        optimizer.step()
        recent.append(loss)
        step += 1
        if step % 20 == 0:
            _record(history, step, recent)
            rate = step * schedule.batch_size / (time.perf_counter() - start)
            progress(share, f"{history.psnr[-1]:.2f} dB, {rate / 1e6:.2f} M samples/s")
        if scored_after and share >= scored_after[0]:
            scored_after = [later for later in scored_after if later > share]
            _score(history, step, heldout_psnr)
    if recent:
        _record(history, step, recent)
    if heldout_psnr:
        _score(history, step, heldout_psnr)
    history.seconds, history.samples = time.perf_counter() - start, step * schedule.batch_size
    return history


def _sampler(
    renderer: WorldSpaceTrianglePipeline,
    pixels: TrainingPixels,
    positions: Float[np.ndarray, "V 3"],
    batch_size: int,
    generator: np.random.Generator,
) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """Draws batches (points, rgb, weight) on the renderer's device."""
    matrix = renderer.normalized_from_world
    if matrix.device.type != "cpu" and isinstance(pixels, TrainingPixels):
        store = DevicePixels(pixels, positions, matrix.device)
        random = torch.Generator(matrix.device).manual_seed(int(generator.integers(1 << 62)))

        def draw_there() -> tuple[Tensor, Tensor, Tensor]:
            index = torch.randint(len(store), (batch_size,), generator=random, device=matrix.device)
            return store.batch(index, matrix, LEAST_WEIGHT)

        return draw_there
    batch_of = pixels.batch if isinstance(pixels, TrainingPixels) else partial(batch_plain, pixels)

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        index = generator.integers(0, len(pixels), batch_size)
        batch = batch_of(index, positions, matrix.cpu().numpy(), LEAST_WEIGHT)
        return tuple(torch.from_numpy(x).to(matrix.device) for x in (batch.points, batch.rgb, batch.weight))

    return draw


def _record(history: History, step: int, recent: list[Tensor]) -> None:
    """Adds the mean of recent losses; only here does the host wait for the device."""
    loss = float(torch.stack(recent).mean())
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} before step {step}: the mesh or the tracks hold bad values")
    history.steps.append(step)
    history.psnr.append(-10 * math.log10(max(loss, 1e-12)))
    recent.clear()


def _score(history: History, step: int, heldout_psnr: Callable[[], float]) -> None:
    history.heldout_steps.append(step)
    history.heldout_psnr.append(heldout_psnr())
