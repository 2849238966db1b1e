"""CPU seconds, seconds and memory of each stage of a script, watched from outside, so that any
commit can be measured.

A script writes each finished stage into ``stages.json``, and names its present work in the bars that
it prints. The time between two looks at the process goes to the stage that finishes next, and to the
bar that was printed last.
"""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.run import InputError

# Seconds between two looks at the process.
_PERIOD = 0.1
# A bar of tqdm: its name, then its share.
_BAR = re.compile(r"([A-Za-z][\w ,()-]*): +\d+%\|")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_REST = "(after the last stage)"
_NO_BAR = ""


@dataclass
class Cost:
    """What a piece of work took."""

    cpu: float = 0.0
    """Seconds of all cores."""
    seconds: float = 0.0
    peak: float = 0.0
    """Largest memory that the process held, in GiB, pages of files left out."""

    def add(self, other: "Cost") -> None:
        """Adds the cost of more of the same work."""
        self.cpu += other.cpu
        self.seconds += other.seconds
        self.peak = max(self.peak, other.peak)


Costs = dict[tuple[str, str], Cost]
"""By stage and bar."""


@dataclass
class _Watch:
    """The present work of a script, as it tells it."""

    bar: str = _NO_BAR
    tail: str = ""

    def hear(self, text: str) -> None:
        """Takes printed text, in which a bar may be cut."""
        self.tail = (self.tail + text)[-4000:]
        found = _BAR.findall(self.tail)
        if found:
            self.bar = found[-1].strip()


def measure_script(command: Sequence[str], folder: Path, tree: Path) -> Costs:
    """Runs a script and returns what each of its stages took.

    Args:
        command: of the script.
        folder: where the script writes ``stages.json``.
        tree: working directory of the script.

    Raises:
        InputError: the script failed; or the machine has no /proc.
    """
    if not Path("/proc/self/stat").is_file():
        raise InputError("the costs of stages are read from /proc: run the benchmark on Linux")
    costs: Costs = {}
    watch = _Watch()
    done = set(_read_stages(folder))
    pending: dict[str, Cost] = {}
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, cwd=tree, stdout=nowhere, stderr=subprocess.PIPE)
        threading.Thread(target=_listen, args=(process, watch), daemon=True).start()
        before = time.perf_counter(), 0.0
        while True:
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            now = time.perf_counter(), _read_cpu(process.pid)
            spent = Cost(now[1] - before[1], now[0] - before[0], _read_memory(process.pid))
            pending.setdefault(watch.bar, Cost()).add(spent)
            before = now
            finished = [name for name in _read_stages(folder) if name not in done]
            if finished:
                _assign(costs, finished[-1], pending)
                watch.bar = _NO_BAR
                watch.tail = ""
            done.update(finished)
            if ended is not None:
                break
            time.sleep(_PERIOD)
        code = process.wait()
        if code:
            raise InputError(f"{' '.join(command)}: ended with code {code}; {watch.tail[-500:]}")
    _assign(costs, _REST, pending)
    return costs


def _assign(costs: Costs, stage: str, pending: dict[str, Cost]) -> None:
    """Gives the pending costs of bars to a stage."""
    for bar, cost in pending.items():
        costs.setdefault((stage, bar), Cost()).add(cost)
    pending.clear()


def _listen(process: subprocess.Popen, watch: _Watch) -> None:
    assert process.stderr is not None
    while data := os.read(process.stderr.fileno(), 1 << 12):
        watch.hear(data.decode(errors="replace"))


def _read_stages(folder: Path) -> list[str]:
    """Names of the stages that ``stages.json`` holds, in the order of their end."""
    try:
        return list(json.loads((folder / "stages.json").read_text())["stages"])
    except (OSError, ValueError, KeyError):
        return []


def _read_cpu(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended."""
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, values[11:15])) / _TICKS


def _read_memory(pid: int) -> float:
    """Memory that a process holds in GiB, pages of files left out; 0 for one that has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    return int(found[1]) / 2**20 if found else 0.0
