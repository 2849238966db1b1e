"""Atomic writing of files: under a temporary name, flushed to the disk, then renamed.

A reader finds the old file or the new file, never a part of one.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.run.errors import InputError

# Bytes free on the disk below which no run starts.
_LEAST_FREE = 1 << 20
# Bytes of the test file: a page, as a full disk takes empty files.
_PROBE_SIZE = 4096


class OutputError(InputError):
    """A file cannot be written; the files written before are complete."""


def make_write_error(path: Path, reason: str | None) -> OutputError:
    """The error for a file that cannot be written.

    Args:
        reason: in the words of the system or the codec.
    """
    return OutputError(
        f"{path}: cannot be written ({reason or 'unknown reason'}); "
        "give a folder that exists, is writable and has space"
    )


def name_unfinished(path: Path) -> Path:
    """The temporary name of a file, of this process alone."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; at the end of the block the temporary file is
    flushed and replaces ``path``.

    A reader of ``path`` finds the old or the new file, after a crash too.

    Raises:
        InputError: the file cannot be written; the old file stays, and no temporary file is left.
    """
    path = Path(path)
    temporary = name_unfinished(path)
    try:
        temporary.unlink(missing_ok=True)  # a link there would be followed
        yield temporary
        take_place(temporary, path)
    except OSError as error:
        raise make_write_error(path, error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)


def take_place(temporary: Path, path: Path) -> None:
    """Flushes a finished file to the disk and renames it to ``path``; both survive a power cut."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    # The rename itself lies in the folder. Windows cannot flush folders.
    if os.name == "nt":
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file, see ``replace_file``."""
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, content: dict) -> None:
    """Writes standard JSON: NaN and infinity become null."""
    write_bytes(path, json.dumps(_plain(content), indent=1, allow_nan=False).encode())


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_tensors(path: str | Path, content: dict) -> None:
    """Writes a dict of tensors, numbers, strings and dicts of them, for
    ``torch.load(weights_only=True)``."""
    with replace_file(path) as temporary:
        try:
            with temporary.open("wb") as stream:
                torch.save(content, stream)
        except RuntimeError as error:  # torch's error for a full disk
            raise make_write_error(Path(path), "the disk may be full") from error


def pack_value(result: object) -> dict:
    """A result of a step as a dict for ``write_tensors``; arrays are not copied.

    The key of the dict names the kind: tuple, dict, array, plain, or the class of an object with
    ``to_values``.
    """
    if isinstance(result, tuple):
        return {"tuple": {str(i): pack_value(part) for i, part in enumerate(result)}}
    if isinstance(result, dict):
        return {"dict": {key: pack_value(part) for key, part in result.items()}}
    if isinstance(result, np.ndarray):
        return {"array": torch.from_numpy(result)}
    if hasattr(result, "to_values"):
        return {type(result).__name__: pack_value(result.to_values())}
    return {"plain": result}


def unpack_value(content: dict, classes: Mapping[str, type]) -> Any:
    """The inverse of ``pack_value``; arrays share memory with the tensors.

    Args:
        classes: classes with ``from_values`` by name.
    """
    ((kind, value),) = content.items()
    if kind == "tuple":
        return tuple(unpack_value(part, classes) for part in value.values())
    if kind == "dict":
        return {key: unpack_value(part, classes) for key, part in value.items()}
    if kind == "array":
        return value.numpy()
    if kind == "plain":
        return value
    return classes[kind].from_values(unpack_value(value, classes))


def make_subfolder(folder: Path, *names: str) -> Path:
    """A folder below ``folder``, created if it is missing.

    Raises:
        InputError: a part of the path is a link, which may lead out of the output folder, or the
            folder cannot be created or written.
    """
    for name in names:
        folder = folder / name
        if folder.is_symlink():
            raise InputError(
                f"{folder}: is a link, and nothing is written outside the output folder; "
                "remove the link"
            )
    return check_output_dir(folder)


def check_output_dir(path: str | Path) -> Path:
    """Creates a folder and writes a test file in it, before any work is spent; returns the folder.

    Raises:
        InputError: the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".write_test") as probe:
            probe.write(b"\0" * _PROBE_SIZE)
            probe.flush()
    except OSError as error:
        reason = (
            "a file of that name is in the way"
            if isinstance(error, FileExistsError)
            else error.strerror
        )
        raise InputError(
            f"{path}: is no folder that can be written ({reason}); choose another output_dir"
        ) from error
    if shutil.disk_usage(path).free < _LEAST_FREE:
        raise InputError(f"{path}: the disk is full; free some space or choose another output_dir")
    return path
