"""The scripts that make a scene of a clip, as commands with the cores and the memory they need."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.batch.clips import FolderClip
from models.clip import ClipSize, measure_clip
from models.motion import estimate_memory, estimate_num_tracks
from models.training import needed_memory

SCRIPTS = ("background_points", "foreground_points", "demo_pipeline")
"""The scripts in the order in which a clip needs them, without ``.py``."""
FIXED = frozenset(
    {
        "video_path",
        "mask_path",
        "output_dir",
        "background_path",
        "foreground_path",
        "checkpoint",
        "import_path",
        "cameras_path",
        "depth_path",
        "view",
        "view_host",
        "view_port",
    }
)
"""Flags of the scripts that differ for each clip, or that need a person at the screen."""
# Side in pixels of the grid cells of tracks, for the estimate of memory; see TrackingOptions.
_SPACING = 8
# Bytes for a clip whose headers do not tell its size.
_UNKNOWN_NEED = 4 << 30
# Longer side of frames in pixels unless --max_size is given; see read_video.
_MAX_SIZE = 960


@dataclass(frozen=True)
class Step:
    """One script of one clip."""

    clip: str
    """Name of the clip."""
    script: str
    """A member of ``SCRIPTS``."""
    command: tuple[str, ...]
    """The program and its arguments."""
    log: Path
    """File that takes what the script prints."""
    memory: int
    """Bytes that the script is expected to hold."""


@dataclass(frozen=True)
class ClipPlan:
    """A clip and the steps that make its scene."""

    clip: FolderClip
    steps: tuple[Step, ...]
    tracks_dir: Path
    """Results of the first two scripts."""
    scene_dir: Path
    """Results of demo_pipeline.py."""


def plan_clip(
    clip: FolderClip,
    root: Path,
    results_dir: Path,
    flags: Mapping[str, Sequence[str]],
    only: Sequence[str] = SCRIPTS,
) -> ClipPlan:
    """The steps of a clip.

    Args:
        root: folder of the scripts.
        results_dir: gets ``NAME`` with the tracks, ``NAME_demo`` with the scene, and ``logs``.
        flags: arguments of each script that are the same for all clips.
        only: scripts to run.
    """
    tracks = results_dir / clip.name
    scene = results_dir / f"{clip.name}_demo"
    video = ["--video_path", str(clip.video_path)]
    masks = ["--mask_path", str(clip.mask_path)] if clip.mask_path else []
    file = str(tracks / "background_points.pt")
    own = {
        "background_points": [*video, *masks, "--output_dir", str(tracks)],
        "foreground_points": [*video, "--background_path", file],
        "demo_pipeline": ["--background_path", file, "--output_dir", str(scene)],
    }
    size = measure_taken(clip.video_path, flags["background_points"])
    steps = []
    for script in only:
        command = (sys.executable, str(root / f"{script}.py"), *own[script], *flags[script])
        log = results_dir / "logs" / clip.name / f"{script}.log"
        need = estimate_need(size, script, with_motion=clip.mask_path is None)
        steps.append(Step(clip.name, script, command, log, need))
    return ClipPlan(clip, tuple(steps), tracks, scene)


def measure_taken(path: Path, flags: Sequence[str]) -> ClipSize | None:
    """The size of the frames that the scripts take of a clip, by its headers and the flags that
    reduce it; None where the headers do not tell."""
    return measure_clip(
        path,
        read_flag(flags, "max_frames", int),
        read_flag(flags, "stride", int) or 1,
        read_flag(flags, "max_size", int) or _MAX_SIZE,
    )


def estimate_need(size: ClipSize | None, script: str, with_motion: bool) -> int:
    """Bytes that a script will hold.

    Args:
        with_motion: masks are made from motion.
    """
    if size is None:
        return _UNKNOWN_NEED
    if script == "demo_pipeline":
        return needed_memory(size)
    with_motion = with_motion and script == "background_points"
    return estimate_memory(size, estimate_num_tracks(size, _SPACING), with_motion)


def read_flag(flags: Sequence[str], name: str, kind: Callable[[str], int]) -> int | None:
    """The last value of a flag of a command line; None if it is not given."""
    value = None
    for place, argument in enumerate(flags):
        if argument == f"--{name}" and place + 1 < len(flags):
            value = kind(flags[place + 1])
        elif argument.startswith(f"--{name}="):
            value = kind(argument.split("=", 1)[1])
    return value
