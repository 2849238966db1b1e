"""Errors that end a script with one sentence, and how a script ends on them."""

import errno
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.run.progress import close_bars

# Exit codes: a refused input, and the base to which a shell adds the number of a signal.
_REFUSED = 2
_SIGNALLED = 128


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
    stopped_by = []

    def stop(number: int, _: object) -> None:
        stopped_by.append(number)
        raise KeyboardInterrupt

    if hasattr(sys.stdout, "reconfigure"):
        # The name of a file may hold bytes that no encoding can show.
        sys.stdout.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, stop)
    gc.freeze()  # what the imports made stays: later collections need not go through it
    try:
        main()
    except InputError as error:
        _end(f"error: {error}", _REFUSED)
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        cure = (
            "give a smaller --max_size or --max_frames, or a larger --stride; "
            "all finished work is kept"
        )
        _end(f"error: there is not enough memory{why}; {cure}", _REFUSED)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        place = f" ({error.filename})" if error.filename else ""
        cure = "free some space and give the same command again: it goes on"
        _end(f"error: the disk is full{place}; {cure}", _REFUSED)
    except KeyboardInterrupt:
        number = stopped_by[0] if stopped_by else signal.SIGINT
        _end(
            "stopped; all finished work is kept, and the same command goes on from there",
            _SIGNALLED + number,
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(sentence: str, code: int) -> None:
    close_bars()
    print(escape_controls(sentence), file=sys.stderr)
    sys.exit(code)


def escape_controls(text: str) -> str:
    """The text on one line: control characters, as in odd file names, and characters that a
    terminal cannot show become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
