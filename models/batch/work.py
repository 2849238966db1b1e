"""Runs one script of one clip in a process of its own."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from models.batch.steps import Step

# Bytes at the end of a log in which the last sentence is looked for.
_END_OF_LOG = 4096
# prctl's number for the signal that a process gets when its parent ends.
_SET_DEATH_SIGNAL = 1
# Exit codes of a script that a signal has stopped; see models.run.run_script.
_STOPPED = (130, 143)


class LostScriptError(RuntimeError):
    """A script was ended from outside, as by the system when memory ran out; another try may
    succeed."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    clip: str
    script: str
    ok: bool
    seconds: float
    sentence: str = ""
    """Why it failed; empty if it did not."""


def run_step(step: Step, threads: int) -> Outcome:
    """Runs a script to its end; what it prints goes to its log.

    Args:
        threads: threads that the script computes with.

    Raises:
        LostScriptError: a signal has ended the script.
    """
    start = time.monotonic()
    step.log.parent.mkdir(parents=True, exist_ok=True)
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    counts |= {"OPENBLAS_NUM_THREADS": str(threads), "OPENCV_FOR_THREADS_NUM": str(threads)}
    with step.log.open("wb") as log:
        process = subprocess.Popen(
            step.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | counts,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    seconds = time.monotonic() - start
    if code < 0 or code in _STOPPED:
        raise LostScriptError(f"{step.script}.py was ended by signal {_signal_of(code)}")
    return Outcome(
        step.clip, step.script, code == 0, seconds, "" if code == 0 else read_sentence(step.log)
    )


def _signal_of(code: int) -> str:
    number = -code if code < 0 else code - 128
    return signal.Signals(number).name


def _end_with_parent() -> None:
    """Linux: has the system end this process when its parent ends, however it ends. An orphan would
    keep the clip's folder locked against the next try."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def read_sentence(log: Path) -> str:
    """The sentence that a script ended with, from its log: the last line that begins with
    ``error:``, else the last line."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _END_OF_LOG))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it printed nothing"])[-1]
