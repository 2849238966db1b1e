"""A folder of videos -> a scene of each, and an overview page, in results; on one machine, or on a
cluster by Ray."""

import os

from models import prepare_script

# Idle OpenMP threads must not spin beside numba's.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if __name__ == "__main__":
    prepare_script()

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import background_points
import demo_pipeline
import foreground_points
from models.batch import (
    FIXED,
    SCRIPTS,
    ClipPlan,
    MachineOptions,
    StateTable,
    count_threads,
    find_clips,
    has_ray,
    plan_clip,
    run_in_order,
    run_on_ray,
    sort_flags,
    write_overview,
)
from models.run import (
    InputError,
    Plain,
    ProgressBars,
    claim_output_dir,
    flag_names,
    parse_settings,
    run_script,
)

_ROOT = Path(__file__).resolve().parent
# Words for --only.
_ONLY = {script.split("_")[0]: script for script in SCRIPTS}


@dataclass(frozen=True)
class Settings:
    """Input, machines and output of process_folder.py. Flags of the three scripts, such as
    --max_size 640 --num_epochs 2, are handed on to each script that has them."""

    videos_dir: Path
    """Folder of the clips: video files, or a folder of images each. Masks in NAME/masks or
    NAME_masks are used."""
    results_dir: Path = Path("results")
    """Gets NAME, NAME_demo and logs/NAME for each clip, and index.html."""
    only: str = ""
    """Scripts to run, with commas between: background, foreground, demo; all if not given."""
    clips: str = ""
    """Names of the clips to process, with commas between; all if not given."""
    engine: str = "auto"
    """ray, in_order (one clip after the other), or auto: ray where it is installed."""
    machines: Annotated[MachineOptions, Plain()] = MachineOptions()
    """Machines and their cores."""


def main() -> None:
    kinds = (background_points.Settings, foreground_points.Settings, demo_pipeline.Settings)
    known = {script: flag_names(kind) for script, kind in zip(SCRIPTS, kinds, strict=True)}
    arguments, flags = sort_flags(sys.argv[1:], flag_names(Settings), known, FIXED)
    settings = parse_settings(
        Settings(
            videos_dir=Path("clips"),
            results_dir=Path("results"),
            only="",
            engine="auto",
            machines=MachineOptions(address=None, workers=None, threads=None, gpus=0.0),
        ),
        arguments,
    )
    check_settings(settings)
    plans = make_plans(settings, flags, check_flags(flags))
    claim_output_dir(settings.results_dir, __file__)
    table = StateTable(plans, ProgressBars())
    with table:
        run(settings, plans, table)
    page = write_overview(settings.results_dir, plans, table.failed)
    print(f"{len(plans) - len(table.failed)} of {len(plans)} clips done; look at {page}")
    if table.failed:
        clip, sentence = next(iter(table.failed.items()))
        more = f", and {len(table.failed) - 1} more" if len(table.failed) > 1 else ""
        raise InputError(f"{clip}: {sentence}{more}; the same command tries again")


def check_settings(settings: Settings) -> None:
    """Refuses settings that cannot work, before any work is spent."""
    if settings.engine not in ("auto", "ray", "in_order"):
        raise InputError(f"--engine {settings.engine}: give ray, in_order or auto")
    machines = settings.machines
    least = 1 if machines.threads is None else machines.threads
    if least < 1 or machines.gpus < 0 or machines.retries < 0:
        raise InputError("--threads must be at least 1, --gpus and --retries at least 0")
    if machines.workers is not None and machines.workers < 1:
        raise InputError("--workers must be at least 1")
    wants_ray = settings.engine == "ray" or machines.address is not None
    if wants_ray and not has_ray():
        raise InputError("Ray is not installed; pip install -r requirements-cluster.txt")
    if machines.address is not None and settings.engine == "in_order":
        raise InputError("--address is of a Ray cluster; leave out --engine in_order")
    choose_scripts(settings.only)


def choose_scripts(only: str) -> tuple[str, ...]:
    """The scripts that --only names, in their order; all for an empty text."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    if unknown := [word for word in words if word not in _ONLY]:
        raise InputError(f"--only {unknown[0]}: give {', '.join(_ONLY)}")
    return tuple(script for word, script in _ONLY.items() if not words or word in words)


def check_flags(flags: Mapping[str, Sequence[str]]) -> tuple[int | None, int, int]:
    """Has each script's parser read its flags; it ends this script on a value that cannot be used.

    Returns:
        max_frames, stride and max_size, which set the memory that a clip takes.

    Raises:
        InputError: one of them is below 1.
    """
    clip = ["--video_path", "clip"]
    tracked = background_points.Settings(Path())
    tracked = parse_settings(tracked, [*clip, *flags["background_points"]])
    parse_settings(foreground_points.Settings(Path()), [*clip, *flags["foreground_points"]])
    demo_pipeline.check_settings(
        parse_settings(demo_pipeline.Settings(), list(flags["demo_pipeline"]))
    )
    taken = tracked.max_frames, tracked.stride, tracked.max_size
    if min(value for value in taken if value is not None) < 1:
        raise InputError("--max_frames, --stride and --max_size must be at least 1")
    return taken


def make_plans(
    settings: Settings, flags: Mapping[str, Sequence[str]], taken: tuple[int | None, int, int]
) -> list[ClipPlan]:
    """The steps of each clip.

    Args:
        taken: see ``plan_clip``.
    """
    names = [name.strip() for name in settings.clips.split(",") if name.strip()]
    clips = find_clips(settings.videos_dir.resolve(), names, settings.results_dir.resolve())
    # machines of a cluster have other working directories
    results = settings.results_dir.resolve()
    scripts = choose_scripts(settings.only)
    return [plan_clip(clip, _ROOT, results, flags, scripts, taken) for clip in clips]


def run(settings: Settings, plans: Sequence[ClipPlan], table: StateTable) -> None:
    """Runs the steps of all clips by the chosen engine."""
    if settings.engine == "in_order" or not has_ray():
        if settings.engine == "auto":
            print("Ray is not installed: one clip after the other (requirements-cluster.txt)")
        threads = count_threads(settings.machines, in_order=True)
        run_in_order(plans, threads, settings.machines.retries, table.tell)
        return
    run_on_ray(plans, _ROOT, settings.machines, table.tell)


if __name__ == "__main__":
    run_script(main)
