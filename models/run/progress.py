"""How far a run is and what it has to say: one type that every long function takes."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar
from weakref import WeakSet

from tqdm import tqdm

Item = TypeVar("Item")

_OPEN_BARS: WeakSet[tqdm] = WeakSet()


class Progress:
    """Hears how far each stage of a run is; this base class keeps silent.

    Library functions take one as ``progress`` and never print. Scripts hand them a
    ``ProgressBars``.
    """

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Hears that ``done`` of ``total`` steps of a stage are finished.

        Args:
            note: a figure to show beside the bar, such as "3210 tracks".
        """

    def say(self, text: str) -> None:
        """Hears one sentence about the run."""

    def over(self, items: Iterable[Item], stage: str, total: int | None = None) -> Iterator[Item]:
        """Yields the items, and counts each as a finished step once the next is asked for.

        Args:
            total: number of items; ``len(items)`` if not given.
        """
        total = len(items) if total is None else total  # type: ignore[arg-type]
        self.step(stage, 0, total)
        for done, item in enumerate(items, 1):
            yield item
            self.step(stage, done, total)


SILENT = Progress()
"""For callers who do not want to hear anything."""


class ProgressPart(Progress):
    """Progress of a part of a stage, told as steps of the whole stage."""

    def __init__(self, whole: Progress, before: int, total: int):
        """
        Args:
            whole: hears the steps.
            before: steps of the stage that are done when the part begins.
            total: steps of the stage.
        """
        self.whole = whole
        self.before = before
        self.total = total

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Hears the steps of the part."""
        self.whole.step(stage, self.before + done, self.total, note)

    def say(self, text: str) -> None:
        """Hears a sentence of the part."""
        self.whole.say(text)


class ProgressBars(Progress):
    """Shows a bar for each stage in the terminal, and sentences above the bars."""

    def __init__(self, unit: str = "frame"):
        self.unit = unit
        self._bars: dict[str, tqdm] = {}

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        if stage not in self._bars:
            self._bars[stage] = tqdm(total=total, desc=stage, unit=self.unit)
            _OPEN_BARS.add(self._bars[stage])
        bar = self._bars[stage]
        bar.total = total
        bar.update(done - bar.n)
        if note:
            bar.set_postfix_str(note)
        if done >= total:
            self._bars.pop(stage).close()

    def say(self, text: str) -> None:
        tqdm.write(text)
        sys.stdout.flush()  # whoever reads it through a pipe waits for it


def close_bars() -> None:
    """Ends the line of every bar that is still shown, so that a sentence starts a line of its own."""
    for bar in list(_OPEN_BARS):
        bar.close()
