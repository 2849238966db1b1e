"""Errors that end a script with one sentence, and how a script ends on them."""

import errno
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import models
from models.run.process.kernels import describe_cache
from models.run.process.signals import StopRequests
from models.run.process.streams import keep_streams
from models.run.progress import close_bars

# Exit codes: a refused input, and the base to which a shell adds the number of a signal.
_REFUSED = 2
_SIGNALLED = 128

_at_end: list[Callable[[], None]] = []


class InputError(ValueError):
    """An input of the user cannot be used; the message is one sentence that names the file and the
    cure."""


class NumericalError(InputError, FloatingPointError):
    """A value became infinite or NaN in the middle of the work; the message names the place and the
    likely cause."""


@contextmanager
def name_input(path: Path) -> Iterator[None]:
    """Puts the name of a clip before the message of every InputError of the block, whose functions
    know only the frames."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def run_script(main: Callable[[], None]) -> None:
    """Runs the main() of a script; on an expected error ends with one sentence on stderr and no
    traceback.

    Exit codes: 2 for a refused input, a full disk or too little memory, 130 after Ctrl-C, 143 after
    SIGTERM.
    """
    stops = StopRequests()
    end: tuple[str, int] | None = models.STOPPED, _SIGNALLED + signal.SIGINT
    try:
        with stops:
            end = _find_end(main)
    except KeyboardInterrupt:
        pass
    except BaseException:
        # What a stop leads to on its way, such as a program below that was stopped as well.
        if stops.number is None:
            raise
    finally:
        while _at_end:
            _at_end.pop()()
    if stops.number is not None:
        end = models.STOPPED, _SIGNALLED + stops.number
    if end is not None:
        _end(*end)


def call_at_end(function: Callable[[], None]) -> None:
    """Has a function called when ``run_script`` ends, however it ends."""
    _at_end.append(function)


def _find_end(main: Callable[[], None]) -> tuple[str, int] | None:
    """Runs main(); the sentence and the exit code of an expected error, None without one."""
    keep_streams()
    gc.freeze()  # what the imports made stays: later collections need not go through it
    try:
        if note := describe_cache():
            print(note)
        main()
    except InputError as error:
        return f"error: {error}", _REFUSED
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        cure = (
            "give a smaller --max_size or --max_frames, or a larger --stride; "
            "all finished work is kept"
        )
        return f"error: there is not enough memory{why}; {cure}", _REFUSED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        place = f" ({error.filename})" if error.filename else ""
        cure = "free some space and give the same command again: it goes on"
        return f"error: the disk is full{place}; {cure}", _REFUSED
    return None


def _end(sentence: str, code: int) -> None:
    close_bars()
    print(escape_controls(sentence), file=sys.stderr)
    sys.exit(code)


def escape_controls(text: str) -> str:
    """The text on one line: control characters, as in odd file names, and characters that a
    terminal cannot show become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
