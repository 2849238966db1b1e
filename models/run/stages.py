"""What is finished in an output folder, and of what it was made, so that the same command goes on
where it stopped.

``stages.json`` names for each stage the inputs (by content), settings and program that it was made
from, and the content of its files. A stage is used again only where all of that is as it was.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from models.run.errors import InputError, NumericalError
from models.run.files import OutputError, subfolder, write_json, write_tensors
from models.run.memory import Meter, return_freed
from models.run.reading import load_tensors, read_json

PACKAGES = ("torch", "numpy", "scipy", "opencv-python-headless", "numba", "pycolmap")
"""Packages whose version may change a result."""
PROGRAM = "the program"
"""What a fingerprint calls the code and the packages under it."""
_NO_MATTER = {"output_dir", "max_memory", "allow_download"}
_TABLE = "stages.json"
_VALUES = "stages"


def content_of(path: str | Path | None) -> str:
    """SHA-256 of a file, or of a folder's file names and contents; says so where there is nothing
    to read."""
    if path is None:
        return "none"
    path = Path(path)
    try:
        if path.is_dir():
            files = sorted(
                p for p in path.rglob("*") if p.is_file() and not p.name.endswith(".part")
            )
            lines = (f"{file.relative_to(path).as_posix()} {content_of(file)}\n" for file in files)
            return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return "none"


def program(script: str | Path) -> str:
    """SHA-256 of the code and the versions of the packages under it."""
    own = Path(__file__).parents[1]
    parts = [content_of(path) for path in (*sorted(own.rglob("*.py")), Path(script))]
    return hashlib.sha256(" ".join([*parts, *packages().values()]).encode()).hexdigest()


def packages() -> dict[str, str]:
    """Versions of ``PACKAGES``."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def own_settings(settings: object) -> dict[str, object]:
    """A dataclass's fields as flags: those of dataclasses in it stand beside its own."""
    flat = {}
    for name, value in vars(settings).items():
        flat |= own_settings(value) if is_dataclass(value) else {name: value}
    return flat


def fingerprint(
    script: str | Path, settings: Mapping[str, object], files: Mapping[str, str | Path | None]
) -> dict[str, str]:
    """What a stage is made from: settings as they are, files by content, and the program."""
    made_from = {
        f"--{name}": str(value) for name, value in settings.items() if name not in _NO_MATTER
    }
    made_from |= {name: content_of(path) for name, path in files.items()}
    return made_from | {PROGRAM: program(script)}


def digest(made_from: Mapping[str, str]) -> str:
    """One text that stands for a fingerprint."""
    return hashlib.sha256(json.dumps(dict(made_from), sort_keys=True).encode()).hexdigest()


def _is_whole(stage: dict) -> bool:
    return (
        all(isinstance(stage[key], dict) for key in ("made_from", "outputs", "results"))
        and "seconds" in stage
    )


class Stages:
    """The stages of one output folder."""

    def __init__(self, folder: Path, report: Callable[[str], None] = lambda text: None):
        """Reads what an earlier run left.

        Args:
            report: is told what is used again, and why what is not.
        """
        self.folder = folder
        self.report = report
        self.table: dict[str, dict] = self._read()
        self.used: list[str] = []

    def _read(self) -> dict[str, dict]:
        try:
            stages = read_json(self.folder / _TABLE, "table of stages")["stages"]
            return {name: stage for name, stage in stages.items() if _is_whole(stage)}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    def run(
        self,
        name: str,
        made_from: Mapping[str, str],
        outputs: Iterable[str],
        work: Callable[[], dict | None],
    ) -> dict:
        """Results of a stage: those of an earlier run where nothing has changed, else those of
        ``work`` now.

        Args:
            outputs: names of the files and folders, below the stages' folder, that ``work`` may
                write.
            work: writes them, and returns figures for JSON.
        """
        outputs = list(outputs)
        old = self.table.get(name)
        why = "" if old is None else self._why_again(old, made_from, outputs)
        if old is not None and not why:
            self.report(
                f"{name}: reused, its inputs, settings and program are those of an earlier run"
            )
            self.used.append(name)
            return old["results"]
        if why:
            self.report(f"{name}: done again, {why}")
            self._forget([name])
        with Meter() as meter:
            results = self._worked(work)
        self.table[name] = {
            "made_from": dict(made_from),
            "outputs": self._contents(outputs),
            "results": results,
            "seconds": meter.seconds,
            "peak_memory_gib": meter.peak_gib,
        }
        self._write()
        self.used.append(name)
        return results

    def values(self, name: str, made_from: Mapping[str, str], work: Callable[[], dict]) -> dict:
        """Arrays, numbers and strings that a step on the way computes, kept in a file until
        ``drop_values``."""
        path = f"{_VALUES}/{name}.pt"

        def write() -> None:
            values = work()
            arrays = {
                k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v
                for k, v in values.items()
            }
            write_tensors(subfolder(self.folder, _VALUES) / f"{name}.pt", arrays)

        self.run(name, made_from, [path], write)
        return_freed()  # what was written must not be held beside what is read
        loaded = load_tensors(self.folder / path)
        return {
            key: value.numpy() if isinstance(value, torch.Tensor) else value
            for key, value in loaded.items()
        }

    def drop_values(self) -> None:
        """Removes what ``values`` kept, once the results made of it are written."""
        self._forget(
            [
                name
                for name, stage in self.table.items()
                if f"{_VALUES}/{name}.pt" in stage["outputs"]
            ]
        )
        folder = self.folder / _VALUES
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)

    def seconds(self) -> dict[str, float]:
        """How long each stage of this run took, when it was done."""
        return {name: self.table[name]["seconds"] for name in self.used}

    def memory(self) -> dict[str, float]:
        """Peak memory of each stage of this run in GiB, when it was done."""
        return {name: self.table[name]["peak_memory_gib"] for name in self.used}

    def _worked(self, work: Callable[[], dict | None]) -> dict:
        try:
            return work() or {}
        except (OutputError, NumericalError):
            raise
        except InputError:
            self.drop_values()  # what was refused will not be asked for again
            raise

    def _why_again(self, old: dict, made_from: Mapping[str, str], outputs: list[str]) -> str:
        """Why a stage cannot be used again; empty where it can."""
        before = old.get("made_from", {})
        changed = [key for key in {**before, **made_from} if before.get(key) != made_from.get(key)]
        if changed:
            return f"as {', '.join(changed)} {'have' if len(changed) > 1 else 'has'} changed"
        damaged = [
            name
            for name, content in self._contents(outputs).items()
            if old["outputs"].get(name) != content
        ]
        damaged += [
            name for name in old["outputs"] if name in outputs and not (self.folder / name).exists()
        ]
        return f"as {', '.join(damaged)} is missing or has changed" if damaged else ""

    def _contents(self, outputs: list[str]) -> dict[str, str]:
        return {
            name: content_of(self.folder / name)
            for name in outputs
            if (self.folder / name).exists()
        }

    def _forget(self, names: list[str]) -> None:
        if not names:
            return
        for name in names:
            self.table.pop(name, None)
        self.used = [name for name in self.used if name in self.table]
        self._write()

    def _write(self) -> None:
        if self.table:
            write_json(self.folder / _TABLE, {"stages": self.table})
        else:
            (self.folder / _TABLE).unlink(missing_ok=True)
