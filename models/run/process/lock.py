"""One run for each output folder: a lock that the system drops when the process ends, however it ends.

The lock file names its holder, for the sentence that a second run ends with. File systems without
locks, and folders that cannot be written, are used without one.
"""

import json
import os
import re
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

from models.run.errors import InputError, call_at_end
from models.run.files import check_output_dir

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NAME = ".lock"
# Bytes of a lock file that are read; Windows locks the byte behind them.
_SIZE = 4096
# Unfinished files of a process, see ``name_unfinished``.
_UNFINISHED = re.compile(r".+\.\d+\.part")
# Depth of the folders that hold results, below the output folder.
_DEPTH = 2

_held: dict[tuple[int, int], tuple[int, Path]] = {}


def claim_output_dir(path: str | Path, script: str | Path) -> Path:
    """Creates an output folder, checks it (see ``check_output_dir``), and keeps other runs out of it
    until ``release_folders``; returns the folder.

    Args:
        script: the program that writes to the folder.

    Raises:
        InputError: the folder cannot be written, or another run writes to it.
    """
    folder = check_output_dir(path)
    while (number := _open_lock(folder / _NAME)) is not None:
        place = os.fstat(number)[1:3]
        if place in _held or not _is_free(number, folder):
            os.close(number)
            break
        with suppress(OSError):
            if os.stat(folder / _NAME)[1:3] == place:
                _held[place] = number, folder / _NAME
                call_at_end(release_folders)
                _tell_holder(number, script)
                _remove_unfinished(folder)
                break
        os.close(number)  # the other run has removed its file meanwhile
    return folder


def release_folders() -> None:
    """Lets other runs into the folders of this run."""
    while _held:
        _, (number, path) = _held.popitem()
        # Removed before it is unlocked: who finds it finds it locked.
        with suppress(OSError):
            path.unlink()
        os.close(number)


def _open_lock(path: Path) -> int | None:
    """The lock file, opened; None where no lock can be had."""
    # Nothing is written through links.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        number = os.open(path, flags, 0o644)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(number).st_mode):
        return number
    os.close(number)
    return None


def _is_free(number: int, folder: Path) -> bool:
    """Whether the lock was free, and is held now; false on file systems without locks.

    Raises:
        InputError: another run holds it.
    """
    try:
        if fcntl is not None:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(number, _SIZE, os.SEEK_SET)
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError) as error:
        sentence = _name_holder(number)
        os.close(number)
        raise InputError(
            f"{folder}: {sentence} is writing to this folder; let it end, or choose another "
            "output_dir"
        ) from error
    except OSError:
        return False
    return True


def _tell_holder(number: int, script: str | Path) -> None:
    held = {
        "script": Path(script).name,
        "process": os.getpid(),
        "machine": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    os.ftruncate(number, 0)
    os.lseek(number, 0, os.SEEK_SET)
    os.write(number, json.dumps(held).encode())


def _name_holder(number: int) -> str:
    try:
        os.lseek(number, 0, os.SEEK_SET)
        told = json.loads(os.read(number, _SIZE))
        place = "" if told["machine"] == socket.gethostname() else f" on {told['machine']}"
        return f"{told['script']} (process {told['process']}{place}, since {told['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def _remove_unfinished(folder: Path) -> None:
    """Removes files that killed runs left on the way; as the lock is held, no other run writes."""
    for place, folders, names in os.walk(folder):
        if len(Path(place).relative_to(folder).parts) >= _DEPTH:
            folders.clear()
        for name in names:
            if _UNFINISHED.fullmatch(name):
                with suppress(OSError):
                    os.unlink(os.path.join(place, name))
