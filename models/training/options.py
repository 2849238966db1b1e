"""Settings of training: its length and rates, and the options of all parts of a scene."""

import math
from dataclasses import dataclass

from models.clip import ExposureOptions
from models.field import FieldOptions
from models.movers import MoverOptions
from models.surface import MeshOptions, StereoOptions

# Samples of a step at least and at most, as powers of 2: each step has work of its own beside its
# samples, and beyond a size of batch a sample teaches less.
_SMALLEST_BATCH = 13
_LARGEST_BATCH = 15


@dataclass(frozen=True)
class RateOptions:
    """Learning rates of the colour field. Processes that train together learn from N times the samples
    in a step, and take the root of N times these."""

    tables: float = 3e-2
    """Of the grid of space; larger learns faster and leaves more noise."""
    changes: float = 0.5
    """Of the grid of changes, as a share of ``tables``; larger lets time explain more."""
    mlp: float = 6e-3
    """Of the MLP."""
    hold: float = 0.6
    """Share of the training in which the rates stay at their start; they fall exponentially after
    this share."""
    final: float = 0.02
    """Rates at the end of training, as a share of the rates at the start."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a layer's colour field and the vertices of its meshes are trained."""

    rates: RateOptions = RateOptions()
    least_weight: float = 1.0
    """Least weight of a pixel, whatever the trust in its face, 0 to 1. A pixel of a hardly trusted
    face teaches its colour wherever no other frame does."""
    unchanged: float = 0.2
    """Share of a batch that is learned with weight 0 of the grid of changes, so that views off the
    path, where changes have less weight, keep their colours."""
    scored: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    """Shares of the training after which held-out frames are scored; they are scored at the end
    too."""
    refined_from: float = 0.15
    """Share of the training after which vertices move; earlier, colours are too rough to tell
    the right place of a vertex."""
    refine_rate: float = 1e-4
    """Largest step of a vertex at the start's learning rate, as a share of its distance from the
    cameras; larger follows the pixels faster and shakes more."""
    mover_epochs: int = 12
    """Least passes over the movers' pixels, which are few."""
    mover_share: float = 0.3
    """Seconds of training for the movers, as a share of ``Schedule.train_seconds``."""
    mask_margin: int = 3
    """Pixels by which masks of movers are grown before background colours are learned."""
    log2_entries_least: int = 18
    """Least entries of each level of a hash grid, as a power of 2; memory doubles with each step."""
    log2_entries_most: int = 20
    """Most entries of each level, as a power of 2; more keep more detail and take more memory."""
    pixels_per_entry: float = 16
    """Training pixels for each entry, between these limits."""
    average_samples: int = 1 << 20
    """Samples of all processes between two averages of their parameters, where torchrun starts several;
    more send less and learn a little less from each pixel."""
    max_samples: int = 40_000_000
    """Training pixels of the background that are kept at most, 20 bytes each."""
    least_steps: int = 800
    """Steps of a layer's training at least: a short clip has smaller batches, which learn more from each
    pixel and take longer."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints: an interruption loses at most this much training."""


@dataclass(frozen=True)
class SceneOptions:
    """Options of every part of a trained scene."""

    exposure: ExposureOptions = ExposureOptions()
    mesh: MeshOptions = MeshOptions()
    stereo: StereoOptions = StereoOptions()
    movers: MoverOptions = MoverOptions()
    field: FieldOptions = FieldOptions()
    training: TrainingOptions = TrainingOptions()


@dataclass(frozen=True)
class Schedule:
    """How long to train: whole passes over the pixels, or seconds if these are given."""

    num_epochs: float = 2.5
    """Passes over the training pixels."""
    train_seconds: float | None = None
    """Seconds of training, in place of ``num_epochs``."""
    batch_size: int | None = None
    """Samples of a step; see ``choose_batch_size`` if not given."""
    refine: bool = True
    """Move the meshes' vertices too."""

    def choose_batch_size(self, num_pixels: int, least_steps: int, processes: int = 1) -> int:
        """Samples of a step: a power of 2 that leaves at least ``least_steps`` steps, within bounds.

        Two processes share these steps. More processes take as many steps each, of smaller batches:
        the fewer steps, the less a sample teaches.

        Args:
            num_pixels: training pixels of all processes.
            processes: that train together.
        """
        if self.batch_size is not None:
            return self.batch_size
        most = self.num_epochs * num_pixels / max(least_steps, 1) / max(1, processes / 2)
        return 1 << min(_LARGEST_BATCH, max(_SMALLEST_BATCH, math.floor(math.log2(max(most, 1)))))
