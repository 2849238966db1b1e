"""What a run tells of itself: progress, seconds of its stages, peak memory, settings, versions, a summary."""

import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

try:
    import resource
except ImportError:  # Windows
    resource = None


_EXPORTED = (".glb", ".ply", ".obj")


@contextmanager
def timed(table: dict[str, float], name: str) -> Iterator[None]:
    """Adds the seconds that a block takes to a table."""
    start = time.perf_counter()
    yield
    table[name] = round(time.perf_counter() - start, 2)


def stage_bars() -> Callable[[str, int, int], None]:
    """Progress bars of stages that come one after the other, a bar each."""
    bars: dict[str, tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            bars[stage] = tqdm(total=total, desc=stage, unit="frame")
        bar = bars[stage]
        bar.update(done - bar.n)
        if done >= total:
            bars.pop(stage).close()

    return progress


def configuration(settings: object, device: torch.device) -> dict:
    """All settings (a dataclass), versions and the commit: enough to repeat the run."""
    try:
        here = Path(__file__).parent
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()}
    return {"settings": plain, "device": str(device), "versions": versions, "commit": commit}


def peak_memory() -> float | None:
    """Largest resident size of this process so far, in GiB; None on Windows, where it is not known."""
    if resource is None:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def summary(output_dir: Path, metrics: dict, page: Path) -> str:
    """One block to end a run with: figures, and where to look."""
    told = {}
    for name, key in (("training frames", "training_frames"), ("held-out frames", "heldout_frames")):
        if key in metrics:
            told[name] = ", ".join(f"{key} {value:.3f}" for key, value in metrics[key].items())
    for key, scores in metrics.get("exported_mesh", {}).items():
        frames = key.removesuffix("_frames")
        told["exported mesh"] = f"{frames} frames, " + ", ".join(f"{name} {v:.3f}" for name, v in scores.items())
    told["seconds"] = ", ".join(f"{name} {value:.1f}" for name, value in metrics["seconds"].items())
    told["peak memory"] = f"{metrics['peak_memory_gib']} GiB"
    files = sorted(path.name for path in output_dir.iterdir() if path.is_file() and path != page)
    for kind, suffix in (
        ("model", ".pt"),
        ("videos", ".mp4"),
        ("charts", ".png"),
        ("data", ".json"),
        ("exported", _EXPORTED),
    ):
        if chosen := [name for name in files if name.endswith(suffix)]:
            told[kind] = ", ".join(chosen)
    told["look at"] = page
    return "\n".join([f"\nresults are in {output_dir}/", *(f"  {name + ':':<17}{text}" for name, text in told.items())])
