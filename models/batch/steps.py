"""The scripts that make a scene of a clip, as commands with the cores and the memory they need."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.batch.clips import SCENE, FolderClip
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
"""Flags of the scripts that differ for each clip, or that open the live viewer."""
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
    taken: tuple[int | None, int, int] = (None, 1, _MAX_SIZE),
) -> ClipPlan:
    """The steps of a clip.

    Args:
        root: folder of the scripts.
        results_dir: gets ``NAME`` with the tracks, ``NAME_demo`` with the scene, and ``logs``.
        flags: arguments of each script that are the same for all clips.
        only: scripts to run.
        taken: max_frames, stride and max_size of the scripts, for the memory that they need.
    """
    tracks = results_dir / clip.name
    scene = results_dir / f"{clip.name}{SCENE}"
    video = ["--video_path", str(clip.video_path)]
    masks = ["--mask_path", str(clip.mask_path)] if clip.mask_path else []
    file = str(tracks / "background_points.pt")
    own = {
        "background_points": [*video, *masks, "--output_dir", str(tracks)],
        "foreground_points": [*video, "--background_path", file],
        "demo_pipeline": ["--background_path", file, "--output_dir", str(scene)],
    }
    size = measure_clip(clip.video_path, *taken)
    steps = []
    for script in only:
        command = (sys.executable, str(root / f"{script}.py"), *own[script], *flags[script])
        log = results_dir / "logs" / clip.name / f"{script}.log"
        need = estimate_need(size, script, with_motion=clip.mask_path is None)
        steps.append(Step(clip.name, script, command, log, need))
    return ClipPlan(clip, tuple(steps), tracks, scene)


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
