"""Trackers by name: those of this package, learned ones, and a user's own.

A tracker is a function ``(frames, queries) -> (xy, visible)``.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from models.learned import LEARNED, Tracker, open_learned
from models.run import InputError
from models.tracking.dis_flow import dis_flow
from models.tracking.lucas_kanade import lucas_kanade

TRACKERS: dict[str, Tracker] = {
    "auto": dis_flow,
    "lucas_kanade": lucas_kanade,
    "dis_flow": dis_flow,
}
"""Trackers that need no package and no weights beyond this project's."""


def register_tracker(name: str) -> Callable[[Tracker], Tracker]:
    """Makes a tracker available by name to ``track_points`` and the scripts' ``--tracker``.

    The scripts import a user's file first: ``--tracker path/to/file.py:name``.
    """

    def register(tracker: Tracker) -> Tracker:
        TRACKERS[name] = tracker
        return tracker

    return register


def check_tracker(name: str) -> None:
    """Refuses a name that no tracker has.

    Raises:
        InputError: no such tracker.
    """
    known = sorted({*TRACKERS, *LEARNED})
    if name not in known:
        raise InputError(
            f"tracker '{name}' is not known; choose one of {', '.join(known)}, or give your own as "
            "path/to/file.py:name"
        )


def open_tracker(name: str, checkpoint_path: Path | None = None, device: str = "cpu") -> Tracker:
    """The tracker of that name, ready to be called. A learned one reads its checkpoint here.

    Args:
        name: of a tracker of this package, a learned one, or ``path/to/file.py:name`` of a file
            that registers a tracker of that name. The file is imported here.
        checkpoint_path: weights of a learned tracker.
        device: where a learned tracker runs.

    Raises:
        InputError: no such tracker; its file, package or checkpoint is missing or wrong; it needs
            another device.
    """
    file = find_tracker_file(name)
    if file is not None:
        _import_file(file)
        name = name.rpartition(":")[2]
    check_tracker(name)
    if name in TRACKERS:
        if checkpoint_path is not None:
            raise InputError(
                f"tracker '{name}' has no checkpoint; leave out --checkpoint_path {checkpoint_path}"
            )
        return TRACKERS[name]
    return open_learned(name, checkpoint_path, device)


def find_tracker_file(name: str) -> Path | None:
    """The user's file in a tracker's name, ``path/to/file.py:name``; None for any other name."""
    file, colon, _ = name.rpartition(":")
    return Path(file) if colon and file.endswith(".py") else None


def _import_file(path: Path) -> None:
    """Runs a user's Python file, which registers its trackers.

    Raises:
        InputError: the file is missing or fails.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give --tracker path/to/file.py:name")
    spec = importlib.util.spec_from_file_location(f"user_tracker_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while it runs.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    # A user's file can fail in any way; the script ends with one sentence.
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{path}: cannot be imported as a tracker ({type(error).__name__}: {error})"
        ) from error
