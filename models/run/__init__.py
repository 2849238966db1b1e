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
from models.run.fingerprint import content_of, digest, fingerprint
from models.run.memory import (
    Meter,
    bounded_memory,
    memory_limit,
    return_freed,
    trim_heap,
    warn_of_need,
    watched_memory,
)
from models.run.outputs import (
    OUTPUTS,
    clear_numbered,
    clear_outputs,
    find_output,
    find_shown,
    names_by_kind,
    stage_outputs,
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
from models.run.record import configuration, read_figures, stage_bars, summary
from models.run.settings import Plain, flatten_settings, parse_settings
from models.run.stages import Origin, Stages
from models.run.threads import run_tasks, scratch, split_range

__all__ = [
    "HEADROOM",
    "MAX_PIXELS",
    "MAX_SIDE",
    "OUTPUTS",
    "SILENT",
    "Checkpoint",
    "InputError",
    "Meter",
    "NumericalError",
    "Origin",
    "Plain",
    "Progress",
    "ProgressBars",
    "Stages",
    "bounded_memory",
    "check_output_dir",
    "check_storage",
    "claimed_size",
    "clear_numbered",
    "clear_outputs",
    "configuration",
    "content_of",
    "digest",
    "find_output",
    "find_shown",
    "fingerprint",
    "flatten_settings",
    "generator_state",
    "is_file",
    "load_tensors",
    "memory_limit",
    "names_by_kind",
    "parse_settings",
    "read_figures",
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
    "stage_outputs",
    "subfolder",
    "summary",
    "take_place",
    "trim_heap",
    "warn_of_need",
    "watched_memory",
    "write_bytes",
    "write_error",
    "write_json",
    "write_tensors",
]
