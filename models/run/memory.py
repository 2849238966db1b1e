"""Memory and time of a stage, memory of the machine, and limits on both."""

import _thread
import ctypes
import gc
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from models.run.errors import InputError
from models.run.process.paged import release_pages
from models.run.process.signals import may_raise
from models.run.progress import SILENT, Progress

try:
    import resource
except ImportError:  # Windows
    resource = None

GIB = 2**30
"""Bytes in a GiB."""
# Share of the machine's memory that a run may take; the rest is for the system and its file cache.
_DEFAULT_SHARE = 0.8
# Seconds between two measurements of the held memory: short beside the time that filling it takes.
_WATCH_SECONDS = 0.5
# Bytes of files in memory from which pages of large arrays are released. Smaller reads pages again
# from the system's file cache more often.
_MOST_MAPPED = 1 << 28


def measure_peak_memory() -> float | None:
    """Peak resident memory of this process in GiB, since its start or the last reset by ``Meter``;
    None on Windows."""
    # VmHWM is the high-water mark of resident memory (proc(5)).
    with suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) * 1024 / GIB, 2)
    if resource is None:
        return None
    # ru_maxrss is in bytes on macOS and in KiB elsewhere
    unit = 1 if platform.system() == "Darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 2)


def return_freed() -> None:
    """Returns unused memory to the system.

    Exceptions that numba catches while it compiles form reference cycles. They hold the stack frames
    of all callers, and so their arrays, until Python's next collection, which counts objects, not
    bytes.
    """
    gc.collect()
    trim_heap()


def trim_heap() -> None:
    """Returns freed memory to the system: glibc keeps freed blocks below 32 MiB."""
    with suppress(OSError, AttributeError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


class Meter:
    """Seconds and peak memory of a block; without Linux's reset the peak of the whole process."""

    def __enter__(self) -> "Meter":
        self.start = time.perf_counter()
        return_freed()
        with suppress(OSError):
            # Linux: "5" resets the peak to the memory that is held now (proc(5))
            Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = round(time.perf_counter() - self.start, 2)
        self.peak_gib = measure_peak_memory()


@contextmanager
def bound_memory(extra: int) -> Iterator[None]:
    """Limits the memory that a block may allocate, on Linux: a larger allocation raises MemoryError.

    Args:
        extra: bytes beside those that the process holds now.
    """
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        yield
        return
    # RLIMIT_AS bounds address space: a larger allocation fails at once, on any thread.
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [used + extra, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class MemoryLimitError(MemoryError):
    """The process holds more memory than it may."""


@contextmanager
def watch_memory(limit: int | None, seconds: float = _WATCH_SECONDS) -> Iterator[None]:
    """Ends the block with MemoryLimitError soon after the process holds more than ``limit`` bytes,
    on Linux.

    Pages of files do not count: the system reclaims them by itself, and pages of large arrays are
    released here.

    Args:
        seconds: between two measurements.
    """
    if limit is None or measure_held_memory() is None:
        yield
        return
    done = threading.Event()
    over = threading.Event()

    def watch() -> None:
        while not done.wait(seconds):
            if measure_mapped_memory() > _MOST_MAPPED:
                release_pages()
            if over.is_set() or measure_held_memory() > limit:
                over.set()
                _thread.interrupt_main(signal.SIGUSR1)  # again where the error was dropped

    # not SIGINT, which a script in the background may ignore
    before = signal.signal(signal.SIGUSR1, _raise_over_limit)
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
    """Raised in the main thread for the thread that watches memory; no Exception, so that no other
    handler catches it."""


def _raise_over_limit(_: int, frame: FrameType | None) -> None:
    if may_raise(_OverLimit, frame):
        raise _OverLimit


def measure_held_memory() -> int | None:
    """Bytes that this process holds without pages of files; None on other systems than Linux."""
    # RssAnon leaves out pages of files, which the system can reclaim.
    return _read_status("RssAnon")


def measure_mapped_memory() -> int:
    """Bytes of files that this process holds in memory; 0 on other systems than Linux."""
    return _read_status("RssFile") or 0


def _read_status(name: str) -> int | None:
    """A number of bytes in Linux's status of this process, see proc(5)."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024
    return None


def find_memory_limit(max_memory: float | None) -> int | None:
    """Bytes that a run may hold; None if neither a limit nor the machine's memory is known.

    Args:
        max_memory: GiB; most of the machine's memory if not given.

    Raises:
        InputError: ``max_memory`` is no positive number.
    """
    if max_memory is not None:
        if not 0 < max_memory < float("inf"):
            raise InputError(f"--max_memory is {max_memory}; give a positive number of GiB")
        return int(max_memory * GIB)
    total = find_machine_memory()
    return None if total is None else int(_DEFAULT_SHARE * total)


def warn_of_need(need: int, limit: int | None, progress: Progress = SILENT) -> None:
    """Says that a run needs more memory than it may hold.

    Args:
        need: bytes, by an estimate.
        limit: see ``find_memory_limit``.
    """
    if limit is not None and need > limit:
        progress.say(
            f"warning: this run needs about {need / GIB:.1f} GiB, more than the "
            f"{limit / GIB:.1f} GiB allowed; give a smaller --max_size or --max_frames, a larger "
            "--stride, or more by --max_memory"
        )


def find_machine_memory() -> int | None:
    """Bytes of memory of the machine, or of the container if that has less; None on Windows."""
    try:
        # Pages of the whole machine, whatever a container allows.
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return total
