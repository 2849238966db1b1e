"""Standard streams whose reader has gone, as in ``script.py | head``: the run goes on, unheard."""

import io
import os
import sys


class _Unbreakable(io.FileIO):
    """A stream that becomes the null device at the first error."""

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return memoryview(data).nbytes


def make_unbreakable(stream: io.TextIOBase | None) -> io.TextIOBase | None:
    """A standard stream that never raises: characters that it cannot show become escapes, and a
    reader that has gone is not missed."""
    inner = getattr(stream, "buffer", None)
    inner = getattr(inner, "raw", inner)  # "python -u" has no buffer between
    if type(stream) is not io.TextIOWrapper or type(inner) is not io.FileIO:
        # tests and notebooks have streams of their own
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        return stream
    stream.flush()
    raw = _Unbreakable(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if inner is stream.buffer else io.BufferedWriter(raw),
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def keep_streams() -> None:
    """Makes standard output and the stream of errors unbreakable."""
    sys.stdout = make_unbreakable(sys.stdout)
    sys.stderr = make_unbreakable(sys.stderr)
