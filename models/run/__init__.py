"""A run ends in a result or in one sentence: errors, whole files, bounded reading, memory, threads,
resume, record."""

from models.run.errors import InputError, NumericalError, name_input, run_script
from models.run.files import (
    check_output_dir,
    make_subfolder,
    make_write_error,
    name_unfinished,
    replace_file,
    take_place,
    write_bytes,
    write_json,
    write_tensors,
)
from models.run.fingerprint import fingerprint, hash_content, hash_fingerprint
from models.run.memory import (
    Meter,
    bound_memory,
    find_memory_limit,
    return_freed,
    trim_heap,
    warn_of_need,
    watch_memory,
)
from models.run.outputs import (
    OUTPUTS,
    clear_numbered,
    clear_outputs,
    find_output,
    find_shown,
    group_by_kind,
    stage_outputs,
)
from models.run.process.kernels import njit
from models.run.process.lock import claim_output_dir, release_folders
from models.run.process.signals import restore_handlers, settle_stop
from models.run.progress import SILENT, Progress, ProgressBars, ProgressPart
from models.run.reading import (
    HEADROOM,
    MAX_PIXELS,
    MAX_SIDE,
    check_storage,
    is_file,
    load_tensors,
    read_claimed_size,
    read_json,
    read_limited,
)
from models.run.record import check_owner, describe_run, read_figures, summarise_run
from models.run.settings import Plain, apply_preset, flag_names, flatten_settings, parse_settings
from models.run.stages import Origin, Stages
from models.run.threads import run_tasks, split_range, take_scratch

__all__ = [
    "HEADROOM",
    "MAX_PIXELS",
    "MAX_SIDE",
    "OUTPUTS",
    "SILENT",
    "InputError",
    "Meter",
    "NumericalError",
    "Origin",
    "Plain",
    "Progress",
    "ProgressBars",
    "ProgressPart",
    "Stages",
    "apply_preset",
    "bound_memory",
    "check_output_dir",
    "check_owner",
    "check_storage",
    "claim_output_dir",
    "clear_numbered",
    "clear_outputs",
    "describe_run",
    "find_memory_limit",
    "find_output",
    "find_shown",
    "fingerprint",
    "flag_names",
    "flatten_settings",
    "group_by_kind",
    "hash_content",
    "hash_fingerprint",
    "is_file",
    "load_tensors",
    "make_subfolder",
    "make_write_error",
    "name_input",
    "name_unfinished",
    "njit",
    "parse_settings",
    "read_claimed_size",
    "read_figures",
    "read_json",
    "read_limited",
    "release_folders",
    "replace_file",
    "restore_handlers",
    "return_freed",
    "run_script",
    "run_tasks",
    "settle_stop",
    "split_range",
    "stage_outputs",
    "summarise_run",
    "take_place",
    "take_scratch",
    "trim_heap",
    "warn_of_need",
    "watch_memory",
    "write_bytes",
    "write_json",
    "write_tensors",
]
