"""The one error that a user can cause, and how a script ends on it."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that names the file and the cure."""


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's main(); a refused input ends with its sentence on stderr and exit code 2, no traceback."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped; finished files are kept", file=sys.stderr)
        sys.exit(130)
