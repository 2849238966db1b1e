"""TAP-Vid scores, seconds and memory of each tracker on clips whose tracks are known.

    python benchmarks/tracking.py [--folders DIR ...] [--trackers lucas_kanade dis_flow] [--json
    FILE]

Clips are rendered rooms, and folders with frames/ beside a truth.npz that holds track_xy (F, N, 2),
track_query (N) and track_visible (F, N). A learned tracker is measured where its code and
checkpoint are found; without --trackers those that are not are left out. Each run has a process of
its own, so that its peak memory is its own: that is of the whole process, frames included, and of
the GPU where there is one.
"""

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.track_scores import score_tracks
from models.clip import read_video
from models.learned import LEARNED
from models.run import InputError, run_script
from models.synthetic import RoomOptions, render_room
from models.tracking import TRACKERS, open_tracker, track_points

ROOMS = {
    "still room": {"num_movers": 0},
    "cart": {"num_movers": 1},
    "turning camera": {"num_movers": 1, "motion": "turn", "seed": 5},
}


@dataclass(frozen=True)
class Settings:
    folders: tuple[Path, ...] = ()
    """Clips with frames/ and truth.npz to measure besides the rendered rooms."""
    trackers: tuple[str, ...] = ()
    """Names of trackers; all that are found if none is given."""
    num_frames: int = 48
    """Frames of the rendered rooms."""
    rooms: bool = True
    """Whether to render rooms."""
    json: Path | None = None
    """Where to write the figures."""
    device: str = "cpu"
    """Where learned trackers run."""


@dataclass(frozen=True)
class Clip:
    """Frames and true tracks."""

    name: str
    frames: np.ndarray
    xy: np.ndarray
    visible: np.ndarray
    query: np.ndarray

    @property
    def queries(self) -> np.ndarray:
        """Rows [t, x, y]."""
        return np.c_[self.query, self.xy[self.query, np.arange(len(self.query))]].astype(np.float32)


def main() -> None:
    settings = tyro.cli(Settings)
    trackers = settings.trackers or found(settings.device)
    rows = []
    for clip in clips(settings):
        for tracker in trackers:
            rows.append(in_own_process(tracker, clip, settings.device))
            print(
                line(rows[-1]) if len(rows) > 1 else f"{line(None)}\n{line(rows[-1])}", flush=True
            )
    if settings.json is not None:
        settings.json.write_text(json.dumps(rows, indent=1))


def found(device: str) -> list[str]:
    """The trackers that can run here; says why the others cannot."""
    names = list(TRACKERS)
    for name in LEARNED:
        try:
            open_tracker(name, None, device)
            names.append(name)
        except InputError as error:
            print(f"left out: {error}")
    return names


def clips(settings: Settings) -> Iterator[Clip]:
    """Rendered rooms, then folders."""
    for name, room in ROOMS.items() if settings.rooms else ():
        scene = render_room(RoomOptions(settings.num_frames, **room))
        yield Clip(name, scene.frames, scene.track_xy, scene.track_visible, scene.track_query)
    for folder in settings.folders:
        yield read_clip(folder)


def read_clip(folder: Path) -> Clip:
    """A clip in the layout named above."""
    frames = read_video(folder / "frames").frames
    try:
        with np.load(folder / "truth.npz", allow_pickle=False) as truth:
            tracks = truth["track_xy"], truth["track_visible"], truth["track_query"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{folder / 'truth.npz'}: holds no true tracks ({error}); see --help"
        ) from error
    return Clip(folder.name, frames, *tracks)


def in_own_process(tracker: str, clip: Clip, device: str) -> dict:
    """Scores, seconds and peak memory of one run."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (tracker, clip, device))


def measure(tracker: str, clip: Clip, device: str) -> dict:
    """The same in this process; a first run on a few frames pays for what is compiled and read
    once."""
    follow = open_tracker(tracker, None, device)
    few = clip.queries[clip.query == 0][:8]
    if len(few):
        track_points(clip.frames[:3], few, follow)
    start = time.perf_counter()
    xy, visible = track_points(clip.frames, clip.queries, follow)
    seconds = time.perf_counter() - start
    height, width = clip.frames.shape[1:3]
    scores = asdict(score_tracks(xy, visible, clip.xy, clip.visible, clip.query, width, height))
    peak = {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.startswith("cuda"):
        peak["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    size = {"frames": len(clip.frames), "width": width, "height": height, "points": len(clip.query)}
    figures = {k: round(v, 2) for k, v in {**scores, "seconds": seconds, **peak}.items()}
    return {"clip": clip.name, "tracker": tracker, **size, **figures}


def line(row: dict | None) -> str:
    """A row of the table; its head for None."""
    wanted = ("delta_avg", "average_jaccard", "occlusion_accuracy", "seconds", "memory_mb")
    if row is None:
        return f"{'clip':<16}{'tracker':<14}" + "".join(f"{name:>20}" for name in wanted)
    return f"{row['clip']:<16}{row['tracker']:<14}" + "".join(
        f"{row[name]:>20.2f}" for name in wanted
    )


if __name__ == "__main__":
    run_script(main)
