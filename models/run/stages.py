"""The finished stages of an output folder and their origins, so that the same command resumes after
an interruption.

``stages.json`` holds for each stage the fingerprint of its origin (see ``fingerprint``) and the
content of its files. A stage is reused only if both are unchanged.
"""

import inspect
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

from models.run.errors import InputError, NumericalError
from models.run.files import (
    OutputError,
    make_subfolder,
    pack_value,
    unpack_value,
    write_json,
    write_tensors,
)
from models.run.fingerprint import fingerprint, hash_content
from models.run.memory import Meter, return_freed
from models.run.progress import SILENT, Progress
from models.run.reading import load_tensors, read_json
from models.run.record import describe_run
from models.run.settings import flatten_settings, nested_options

_TABLE = "stages.json"
_VALUES = "stages"
# Shorter remaining times, in seconds, are not told.
_LEAST_LEFT = 5.0


@dataclass(frozen=True)
class Origin:
    """Everything that the results of a script can depend on."""

    script: str | Path
    """Source file of the script."""
    settings: object
    """The script's settings, a dataclass."""
    files: Mapping[str, str | Path | None] = field(default_factory=dict)
    """Input files and folders by name."""
    more: Mapping[str, object] = field(default_factory=dict)
    """Other values by name, such as the device."""

    def fingerprint(
        self, functions: Iterable[Callable], uses: Iterable[str] | None = None
    ) -> dict[str, str]:
        """The fingerprint of a stage.

        Args:
            functions: the functions that do its work.
            uses: the flags whose values matter; all if not given. ``"mvs"`` stands for all
                flags of the nested options ``mvs``.
        """
        settings = flatten_settings(self.settings)
        if uses is not None:
            wanted = set(uses)
            settings = {
                name: value
                for name, value in settings.items()
                if name in wanted or name.split(".")[0] in wanted
            }
        return fingerprint(self.script, {**settings, **self.more}, {}, functions) | self.contents

    @cached_property
    def contents(self) -> dict[str, str]:
        """Hashes of the input files by name; a long clip is read once for it."""
        return _hash_files(self.files)

    def common_flags(self) -> set[str]:
        """The flags without the prefix of nested options."""
        nested = nested_options(self.settings)
        flags = flatten_settings(self.settings)
        return {name for name in flags if "." not in name or name.split(".")[0] not in nested}

    def options_among(self, values: Iterable[object]) -> set[str]:
        """Names of the nested options that are among some values.

        Raises:
            ValueError: a value is of the class of nested options, but not the object in the
                settings: its flags would be recorded with other values.
        """
        nested = nested_options(self.settings)
        kinds = {type(options) for options in nested.values()}
        found = set()
        for value in values:
            names = {name for name, options in nested.items() if options is value}
            if type(value) in kinds and not names:
                raise ValueError(f"{type(value).__name__}: hand on the object of the settings")
            found |= names
        return found


def _hash_files(files: Mapping[str, str | Path | None]) -> dict[str, str]:
    return {name: hash_content(path) for name, path in files.items()}


def _is_whole(stage: dict) -> bool:
    return (
        all(isinstance(stage[key], dict) for key in ("made_from", "outputs", "results"))
        and "seconds" in stage
    )


class Stages:
    """The stages of one output folder."""

    def __init__(self, folder: Path, origin: Origin | None = None, progress: Progress = SILENT):
        """Reads the table of an earlier run.

        Args:
            origin: the script with its settings and input files; only ``run`` works without.
            progress: hears which stages are reused, and why others are done again.
        """
        self.folder = folder
        self.origin = origin
        self.progress = progress
        self.table: dict[str, dict] = self._read()
        self.used: list[str] = []
        self._expected: dict[str, float] = {}
        self._steps: list[Callable] = []
        self._options: set[str] = set()

    def _read(self) -> dict[str, dict]:
        try:
            stages = read_json(self.folder / _TABLE, "table of stages")["stages"]
            return {name: stage for name, stage in stages.items() if _is_whole(stage)}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    def expect(self, shares: Mapping[str, float]) -> None:
        """Names the stages that will run; from now on the time left is told after each of them.

        Args:
            shares: seconds of each stage in proportion to the others, as on common clips.
        """
        self._expected = dict(shares)

    def step(self, name: str, function: Callable, *values: object, **more: object) -> Any:
        """The result of ``function(*values, **more)``, computed now or read from an earlier run.

        The origin of a step: all flags without a prefix, the nested options among its values, the
        input files, and the program that ``function`` can reach; and the same of the steps before
        it, as their results are its values. The function is also given ``progress``, if it takes
        one. The result always comes from the file, mapped into memory: pages that are not read
        take no memory, and a resumed run continues from the same bits.

        Returns:
            ``None``, an array, a dict of arrays, numbers and texts, an object of a class with
            ``to_values`` and ``from_values`` that the return annotation of ``function`` names, or
            a tuple of them.
        """
        if "progress" in inspect.signature(function).parameters:
            more = {"progress": self.progress, **more}
        functions, others = _unfold([function, *values, *more.values()])
        self._steps += functions
        self._options |= self.origin.options_among(others)
        made_from = self.origin.fingerprint(self._steps, self.origin.common_flags() | self._options)
        path = f"{_VALUES}/{name}.pt"

        def keep() -> None:
            content = pack_value(function(*values, **more))
            write_tensors(make_subfolder(self.folder, _VALUES) / f"{name}.pt", content)

        self.run(name, made_from, [path], keep)
        return_freed()  # what was written must not be held beside what is read
        return unpack_value(
            load_tensors(self.folder / path, mapped=True), _classes_returned(function)
        )

    def make(
        self,
        name: str,
        outputs: Iterable[str],
        work: Callable[[], dict | None],
        uses: Iterable[str] | None = None,
        files: Mapping[str, str | Path | None] | None = None,
    ) -> dict:
        """Figures of a stage that writes files, made now or by an earlier run.

        Args:
            outputs: see ``run``.
            work: a function, or a ``partial`` of one, that writes the files and returns figures
                for JSON.
            uses: flags that the stage depends on; all if not given.
            files: further input files by name.
        """
        made_from = self.origin.fingerprint([work], uses)
        made_from |= _hash_files(files or {})
        return self.run(name, made_from, outputs, work)

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
            self.progress.say(
                f"{name}: reused, its inputs, settings and program are those of an earlier run"
            )
            self.used.append(name)
            return old["results"]
        if why:
            self.progress.say(f"{name}: done again, {why}")
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
        self._tell_left(name)
        return results

    def _tell_left(self, name: str) -> None:
        """Says how long the stages that are left will take, by the seconds of the stages done."""
        left = [share for own, share in self._expected.items() if own not in self.used]
        if name not in self._expected or not left:
            return
        done = [own for own in self.used if own in self._expected]
        seconds = sum(self.table[own]["seconds"] for own in done)
        rest = sum(left) * seconds / sum(self._expected[own] for own in done)
        if rest >= _LEAST_LEFT:
            self.progress.say(f"about {_in_words(rest)} left")

    def describe(
        self, function: Callable, files: Mapping[str, str | Path | None] | None = None
    ) -> dict:
        """Settings, inputs, program and versions of the run, see ``describe_run``.

        Args:
            function: the function that does all the work.
            files: further input files by name.
        """
        made_from = self.origin.fingerprint([function]) | _hash_files(files or {})
        return describe_run(self.origin.settings, self.origin.more.get("device", ""), made_from)

    def drop_values(self) -> None:
        """Removes the files of ``step``, once the results made from them are written."""
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
            name: hash_content(self.folder / name)
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


def _in_words(seconds: float) -> str:
    """Seconds in steps of 5 below two minutes, else minutes."""
    if seconds < 120:
        return f"{round(seconds / 5) * 5} s"
    return f"{seconds / 60:.0f} minutes"


def _unfold(values: Iterable[object]) -> tuple[list[Callable], list[object]]:
    """The functions and the other values among some values; a ``partial`` is both."""
    functions = []
    others = []
    waiting = list(values)
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, partial):
            waiting += [value.func, *value.args, *value.keywords.values()]
        elif inspect.isfunction(value):
            functions.append(value)
        else:
            others.append(value)
    return functions, others


def _classes_returned(function: Callable) -> dict[str, type]:
    """Classes in the return annotation of a function that can be restored from values, by name."""
    while isinstance(function, partial):
        function = function.func
    found = {}
    waiting = [get_type_hints(function).get("return")]
    while waiting:
        hint = waiting.pop()
        waiting += get_args(hint)
        if hasattr(hint, "from_values"):
            found[hint.__name__] = hint
    return found
