"""Files that are whole or not there: written under a temporary name, flushed to the disk, then
renamed."""

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


class OutputError(InputError):
    """A file cannot be written; earlier ones are whole."""


def write_error(path: Path, reason: str | None) -> OutputError:
    """The error for a file that cannot be written; ``reason`` in the words of the system or the
    codec."""
    return OutputError(
        f"{path}: cannot be written ({reason or 'unknown reason'}); "
        "give a folder that exists, is writable and has space"
    )


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; at the end of the block it is flushed and takes
    its place.

    Whoever reads ``path``, at any moment and after a crash too, finds the old file or the new one,
    never a part.

    Raises:
        InputError: the file cannot be written; the old one is whole, and no temporary file is left.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.unlink(missing_ok=True)  # it may be a link to elsewhere
        yield temporary
        take_place(temporary, path)
    except OSError as error:
        raise write_error(path, error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)


def take_place(temporary: Path, path: Path) -> None:
    """Flushes a finished file to the disk and renames it, in a way that lasts through a power
    cut."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == "nt":  # Windows has no such call for folders
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a whole file, see ``replacing``."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, content: dict) -> None:
    """Writes JSON that every reader takes: what is not finite becomes null."""
    write_bytes(path, json.dumps(_plain(content), indent=1, allow_nan=False).encode())


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_tensors(path: str | Path, content: dict) -> None:
    """Writes a plain dict of tensors, numbers, strings and dicts of them, for
    ``torch.load(weights_only=True)``."""
    with replacing(path) as temporary:
        try:
            with temporary.open("wb") as stream:
                torch.save(content, stream)
        except RuntimeError as error:  # torch reports a full disk so
            raise write_error(Path(path), "the disk may be full") from error


def pack_value(result: object) -> dict:
    """A result as a dict that ``write_tensors`` takes; arrays share their memory with it."""
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
    """The result that ``pack_value`` was given."""
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


def subfolder(folder: Path, *names: str) -> Path:
    """A folder below ``folder``, made where it is missing; one that is a link leads elsewhere and
    is refused.

    Raises:
        InputError: it is a link, or cannot be created or written.
    """
    for name in names:
        folder = folder / name
        if folder.is_symlink():
            raise InputError(
                f"{folder}: is a link, and nothing is written outside the output folder; remove the link"
            )
    return check_output_dir(folder)


def check_output_dir(path: str | Path) -> Path:
    """Creates a folder and proves that it can be written, before any work is spent; returns it.

    Raises:
        InputError: it cannot be created or written, or its disk is full.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".write_test") as probe:
            probe.write(b"\0" * 4096)
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
    if shutil.disk_usage(path).free < 1 << 20:
        raise InputError(f"{path}: the disk is full; free some space or choose another output_dir")
    return path
