"""The state of each clip in the terminal."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from models.batch.steps import ClipPlan, Step
from models.batch.work import Outcome
from models.run import Progress

# States of a step.
_WAITING = "-"
_RUNNING = "running"
_FAILED = "failed"


class StateTable:
    """A live table in a terminal; a line for each change elsewhere, as in the log of a job."""

    def __init__(self, plans: Sequence[ClipPlan], progress: Progress):
        """
        Args:
            progress: hears each change where there is no terminal.
        """
        scripts = [step.script for step in plans[0].steps]
        self._states = {plan.clip.name: dict.fromkeys(scripts, _WAITING) for plan in plans}
        self._seconds = {plan.clip.name: 0.0 for plan in plans}
        self._begun: dict[tuple[str, str], float] = {}
        self.failed: dict[str, str] = {}
        """The sentence of each clip that failed."""
        self._progress = progress
        self._live: Live | None = None
        if sys.stdout.isatty():
            self._live = Live(get_renderable=self._draw, console=Console(), refresh_per_second=1)

    def __enter__(self) -> "StateTable":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, news: Step | Outcome) -> None:
        """Hears a step that begins, or the outcome of one."""
        place = news.clip, news.script
        if isinstance(news, Step):
            self._states[news.clip][news.script] = _RUNNING
            self._begun[place] = time.monotonic()
            text = _RUNNING
        else:
            self._begun.pop(place, None)
            self._seconds[news.clip] += news.seconds
            state = f"{news.seconds:.0f} s" if news.ok else _FAILED
            self._states[news.clip][news.script] = state
            if not news.ok:
                self.failed[news.clip] = news.sentence
            text = state if news.ok else f"{_FAILED}: {news.sentence}"
        if self._live is None:
            self._progress.say(f"{news.clip}: {news.script}: {text}")

    def _draw(self) -> Table:
        table = Table("clip", *next(iter(self._states.values())), "seconds", "why it failed")
        now = time.monotonic()
        for clip, states in self._states.items():
            cells = list(states.values())
            # another thread adds and removes steps
            begun = list(self._begun.items())
            running = [now - since for (own, _), since in begun if own == clip]
            total = self._seconds[clip] + sum(running)
            why = escape(self.failed.get(clip, ""))
            table.add_row(escape(clip), *cells, f"{total:.0f}", why)
        return table
