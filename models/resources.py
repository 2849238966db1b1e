"""Memory and time of a stage, and what the machine has."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None

GIB = 2**30


def peak_memory() -> float | None:
    """Largest resident size of this process, in GiB, since it began or since ``Meter`` reset it; None on Windows."""
    with suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) * 1024 / GIB, 2)
    if resource is None:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 2)


class Meter:
    """Seconds and peak memory of a block; the peak of the whole process where the system cannot reset it."""

    def __enter__(self) -> "Meter":
        self.start = time.perf_counter()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: sets the peak to what is held now
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = round(time.perf_counter() - self.start, 2)
        self.peak_gib = peak_memory()


@contextmanager
def bounded_memory(extra: int) -> Iterator[None]:
    """Lets the block take at most so many bytes more: past that an allocation fails, not the machine (on Linux)."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [used + extra, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def machine_memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or its container's; None where it is not told."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return total
