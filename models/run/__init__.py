"""A run ends in a result or in one sentence: errors, whole files, bounded reading, memory, threads,
resume, record."""

from models.run.checkpoints import Checkpoint, generator_state, restore_generator
from models.run.errors import InputError, NumericalError, run_script
from models.run.files import (
    check_output_dir,
    replacing,
    subfolder,
    take_place,
    write_bytes,
    write_error,
    write_json,
    write_tensors,
)
from models.run.memory import (
    Meter,
    bounded_memory,
    memory_limit,
    return_freed,
    trim_heap,
    warn_of_need,
    watched_memory,
)
from models.run.progress import SILENT, Progress, ProgressBars
from models.run.reading import (
    HEADROOM,
    MAX_PIXELS,
    MAX_SIDE,
    check_storage,
    claimed_size,
    is_file,
    load_tensors,
    read_json,
    read_limited,
)
from models.run.record import configuration, stage_bars, summary, told_by
from models.run.stages import Stages, digest, fingerprint, own_settings
from models.run.threads import run_tasks, scratch, split_range

__all__ = [
    "HEADROOM",
    "MAX_PIXELS",
    "MAX_SIDE",
    "SILENT",
    "Checkpoint",
    "InputError",
    "Meter",
    "NumericalError",
    "Progress",
    "ProgressBars",
    "Stages",
    "bounded_memory",
    "check_output_dir",
    "check_storage",
    "claimed_size",
    "configuration",
    "digest",
    "fingerprint",
    "generator_state",
    "is_file",
    "load_tensors",
    "memory_limit",
    "own_settings",
    "read_json",
    "read_limited",
    "replacing",
    "restore_generator",
    "return_freed",
    "run_script",
    "run_tasks",
    "scratch",
    "split_range",
    "stage_bars",
    "subfolder",
    "summary",
    "take_place",
    "told_by",
    "trim_heap",
    "warn_of_need",
    "watched_memory",
    "write_bytes",
    "write_error",
    "write_json",
    "write_tensors",
]
