"""The errors that end a script with one sentence, and how a script ends on them."""

import errno
import signal
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that names the file and
    the cure."""


class NumericalError(InputError, FloatingPointError):
    """A value that is not finite came up in the middle of the work; the message says where, and the
    likely cause."""


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's main() and ends with one sentence on stderr, no traceback, where it cannot go
    on.

    Exit codes: 2 for a refused input, a full disk or too little memory, 130 after Ctrl-C, 143 after
    SIGTERM.
    """
    stopped_by = []

    def stop(number: int, _: object) -> None:
        stopped_by.append(number)
        raise KeyboardInterrupt

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a file's name may hold what no encoding has
    before = signal.signal(signal.SIGTERM, stop)
    try:
        main()
    except InputError as error:
        _end(f"error: {error}", 2)
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        cure = "give a smaller --max_size or --max_frames, or a larger --stride; what is finished is kept"
        _end(f"error: there is not enough memory{why}; {cure}", 2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = f" ({error.filename})" if error.filename else ""
        _end(
            f"error: the disk is full{where}; free some space and give the same command again: it goes on",
            2,
        )
    except KeyboardInterrupt:
        print(file=sys.stderr)  # below a progress bar
        number = stopped_by[0] if stopped_by else signal.SIGINT
        _end(
            "stopped; what is finished is kept, and the same command goes on from there",
            128 + number,
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(sentence: str, code: int) -> None:
    print(printable(sentence), file=sys.stderr)
    sys.exit(code)


def printable(text: str) -> str:
    """The text on one line, with what a terminal would obey or cannot show (as in odd file names)
    as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
