"""What a run notes of itself: seconds of its stages, peak memory, settings and versions."""

import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

try:
    import resource
except ImportError:  # Windows
    resource = None


@contextmanager
def timed(table: dict[str, float], name: str) -> Iterator[None]:
    """Adds the seconds that a block takes to a table."""
    start = time.perf_counter()
    yield
    table[name] = round(time.perf_counter() - start, 2)


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
