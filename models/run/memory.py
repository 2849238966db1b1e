"""Memory and time of a stage, and what the machine has."""

import _thread
import ctypes
import gc
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.run.errors import InputError

try:
    import resource
except ImportError:  # Windows
    resource = None

GIB = 2**30
DEFAULT_SHARE = 0.8
"""Share of the machine's memory that a run may take."""
WATCH_SECONDS = 0.5
"""Time between looks at the memory held."""


def peak_memory() -> float | None:
    """Largest resident size of this process, in GiB, since it began or since ``Meter`` reset it;
    None on Windows."""
    with suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) * 1024 / GIB, 2)
    if resource is None:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 2)


def return_freed() -> None:
    """Gives memory that the program needs no more back to the system.

    Errors that numba meets and drops while it compiles are cycles that hold the frames of all
    callers, hence their arrays, until Python collects, which it does by number, not by size.
    """
    gc.collect()
    trim_heap()


def trim_heap() -> None:
    """Gives memory that was freed back to the system: glibc keeps blocks below 32 MiB for
    itself."""
    with suppress(OSError, AttributeError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


class Meter:
    """Seconds and peak memory of a block; the peak of the whole process where the system cannot
    reset it."""

    def __enter__(self) -> "Meter":
        self.start = time.perf_counter()
        return_freed()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text(
                "5"
            )  # Linux: sets the peak to what is held now
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = round(time.perf_counter() - self.start, 2)
        self.peak_gib = peak_memory()


@contextmanager
def bounded_memory(extra: int) -> Iterator[None]:
    """Lets the block take at most so many bytes more: past that an allocation fails, not the
    machine (on Linux)."""
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


class MemoryLimitError(MemoryError):
    """The process has grown past what it was allowed."""


@contextmanager
def watched_memory(limit: int | None) -> Iterator[None]:
    """Ends the block with MemoryLimitError soon after the process holds more bytes than ``limit``
    (on Linux).

    Pages of files do not count: the system takes those back by itself.
    """
    if limit is None or held_memory() is None:
        yield
        return
    done = threading.Event()
    over = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            if held_memory() > limit:
                over.set()
                _thread.interrupt_main(signal.SIGUSR1)
                return

    before = signal.signal(
        signal.SIGUSR1, _over_limit
    )  # not SIGINT: a script in the background may ignore that
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except _OverLimit:
        if not over.is_set():
            raise
        raise MemoryLimitError(f"more than the {limit / GIB:.1f} GiB allowed") from None
    finally:
        done.set()
        signal.signal(signal.SIGUSR1, before)


class _OverLimit(BaseException):
    """Raised in the main thread by the one that watches memory; not an Exception, so that nothing
    else catches it."""


def _over_limit(*_: object) -> None:
    raise _OverLimit


def held_memory() -> int | None:
    """Bytes that this process holds, files' pages left out; None where the system does not tell."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024
    return None


def memory_limit(max_memory: float | None) -> int | None:
    """Bytes to stay within: so many GiB, or most of the machine's where nothing is given.

    Raises:
        InputError: not a positive number.
    """
    if max_memory is not None:
        if not 0 < max_memory < float("inf"):
            raise InputError(f"--max_memory is {max_memory}; give a positive number of GiB")
        return int(max_memory * GIB)
    total = machine_memory()
    return None if total is None else int(DEFAULT_SHARE * total)


def warn_of_need(need: int, limit: int | None, report: Callable[[str], None]) -> None:
    """Says so where a run will hardly fit."""
    if limit is not None and need > limit:
        report(
            f"warning: this run needs about {need / GIB:.1f} GiB, more than the {limit / GIB:.1f} GiB allowed; "
            "give a smaller --max_size or --max_frames, a larger --stride, or more by --max_memory"
        )


def machine_memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or its container's; None where it
    is not told."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return total
