"""spacelayer: one ordinary video -> a layered scene of triangle meshes with a neural colour field.

Letters in shapes: F frames, N points or tracks, V vertices, T triangles, S samples (pixels), H and
W image height and width, L levels of the hash grid.

Conventions. Camera axes are OpenCV's: x right, y down, z forward. Pixels are continuous and the
centre of the top-left pixel is (0.5, 0.5), as in COLMAP; OpenCV's own (0, 0) origin is converted at
the call. Names say the frames of reference: ``world_from_cam`` maps camera axes to world axes.
Images are uint8 RGB, (H, W, 3).

The package has four nouns (``cameras``, ``tracks``, ``pipeline``, ``tools``; ``tracks`` is a folder)
and nineteen rooms. A room is a change of state of the data, and its ``__init__.py`` is its door: its
job, its files in reading order, and the names that other rooms may take. Data flows one way:
``IMPORTS`` is the table of allowed imports, which ``tests/test_layout.py`` reads. A script calls
``prepare_script`` before it imports any room.
"""

import os
import signal
import sys

STOPPED = "stopped; all finished work is kept, and the same command goes on from there"
"""The sentence that ends a script on Ctrl-C and SIGTERM."""


def prepare_script() -> None:
    """Called by a script before its imports, which take seconds: streams are open, and Ctrl-C ends
    it with a sentence."""
    open_closed_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell lets programs in the background ignore Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_at_once)


def open_closed_streams() -> None:
    """Opens the null device in place of closed standard streams: the next file that is opened would
    take their numbers, and get all that libraries print."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def end_at_once(number: int, _: object = None) -> None:
    """Ends the process on a signal with a sentence and the exit code of a shell, 128 + number."""
    try:
        os.write(2, f"{STOPPED}\n".encode())
    finally:
        os._exit(128 + number)


IMPORTS: dict[str, str] = {
    "run": "",
    "cameras": "",
    "clip": "run cameras",
    "learned": "run",
    "tracks": "run clip cameras",
    "tracking": "run clip learned tracks",
    "sfm": "run clip tracking cameras tracks",
    "motion": "run clip learned tracking sfm cameras tracks",
    "depth": "run clip learned sfm cameras tracks",
    "surface": "run cameras",
    "field": "run cameras",
    "pipeline": "run surface field cameras tracks",
    "tools": "run clip surface field cameras tracks pipeline",
    "movers": "run clip tracking sfm surface cameras tracks pipeline tools",
    "detail": "run surface movers cameras pipeline",
    "render": "run clip surface field movers detail cameras tracks pipeline",
    "paths": "run clip cameras",
    "stereo_video": "run clip render paths cameras",
    "training": "run clip surface field movers detail render cameras tracks pipeline tools",
    "export": "run clip sfm surface render paths cameras tracks pipeline",
    "report": "run clip sfm render paths training cameras tracks",
    "batch": "run clip motion training report",
    "synthetic": "run clip cameras tracks",
}
"""Rooms and nouns in the order of the data, and the other rooms and nouns that each may import."""
