"""Time and peak memory of training and rendering when a clip has twice the frames, where the pixel
limit binds.

    python benchmarks/scaling.py [--frames 60] [--limit 4000000]

Each length runs in a process of its own, since a process never tells a lower peak than it once had.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.clip import make_clip
from models.render import render_view
from models.tools import TrainingFrames, sample_points
from models.training import LayerTraining, Schedule, train


@dataclass(frozen=True)
class Settings:
    frames: int = 60
    """Of the shorter clip."""
    limit: int = 4_000_000
    """Training pixels kept."""
    alone: bool = False
    """Measure one length and print it as JSON."""


def measure(settings: Settings) -> dict[str, float]:
    """Seconds of sampling, training and rendering every frame, and this process's peak memory in
    MB."""
    clip, random = make_clip(settings.frames), np.random.default_rng(0)
    renderer, seconds, start = clip.renderer(), {}, time.perf_counter()
    footage = TrainingFrames(clip.frames, range(settings.frames))
    pixels = sample_points(clip.meshes, footage, settings.limit)
    seconds["sample"] = time.perf_counter() - start
    layer = LayerTraining(renderer, pixels, clip.meshes.shared_vertices())
    train(layer, Schedule(num_epochs=1.0), random)
    seconds["train"] = time.perf_counter() - start - seconds["sample"]
    for t in range(settings.frames):
        render_view(clip.meshes, renderer, clip.meshes.cameras[t])
    seconds["all"] = time.perf_counter() - start
    return seconds | {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    if settings.alone:
        print(json.dumps(measure(settings)))
        return
    rows = []
    for frames in (settings.frames, 2 * settings.frames):
        command = [
            sys.executable,
            __file__,
            "--alone",
            "--frames",
            str(frames),
            "--limit",
            str(settings.limit),
        ]
        rows.append(
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        )
        print(
            f"{frames} frames: "
            + ", ".join(f"{key} {value:.1f}" for key, value in rows[-1].items())
        )
    print("ratio: " + ", ".join(f"{key} {rows[1][key] / rows[0][key]:.2f}" for key in rows[0]))


if __name__ == "__main__":
    main()
