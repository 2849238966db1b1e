"""Ctrl-C and SIGTERM at any moment end a run with the promised sentence and exit code."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import ask, fork_server

import models
from models.clip import write_images
from models.run import run_ahead, run_script, run_tasks, settle_stop
from models.run.process.signals import StopRequests, may_raise
from models.synthetic.sample import RoomOptions, render_room

ROOT = Path(__file__).parent.parent
FRAMES = 6

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="sends signals")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stops")
    room = render_room(RoomOptions(FRAMES, 97, 65, num_movers=1, num_tracks=0))
    write_images(folder / "frames", room.frames, range(FRAMES))
    write_images(folder / "masks", room.masks.astype(np.uint8) * 255, range(FRAMES))
    return folder


def ends_well(code: int, number: int, log: str) -> bool:
    last = log.replace("\r", "\n").strip().splitlines()[-1:]
    troubles = [word for word in ("Traceback", "ignored", "Aborted") if word in log]
    return code == 128 + number and last == [models.STOPPED] and not troubles


@pytest.mark.slow
@forking
def test_runs_stop_while_their_kernels_are_compiled(folder):
    chance = random.Random(3)
    background = {"video_path": "frames", "mask_path": "masks", "output_dir": "out"}
    demo = {"background_path": "out/background_points.pt", "output_dir": "demo", "num_epochs": 1}
    with fork_server() as server:
        assert ask(server, "background", background, folder)["code"] == 0
        stops = [("background", background | {"output_dir": "again"}), ("demo", demo)]
        for script, flags in stops * 3:
            number = chance.choice([signal.SIGINT, signal.SIGTERM])
            moment = {"kill_after": chance.uniform(0.2, 2.5), "signal": number, "uncached": True}
            answer = ask(server, script, flags, folder, **moment)
            assert ends_well(answer["code"], number, answer["log"]), answer
            assert not list(folder.rglob("*.part")) and not list(folder.rglob(".lock"))


STOPPING = """
import os, runpy, sys, threading
script, module, number, *flags = sys.argv[1:]

def hear(event, values):
    if event == "import" and values[0] == module:
        threading.Timer(0.05, os.kill, (os.getpid(), int(number))).start()

sys.addaudithook(hear)
sys.path.insert(0, os.path.dirname(script))
sys.argv = [script, *flags]
runpy.run_path(script, run_name="__main__")
"""
"""A script that gets a signal soon after it begins to import a module, however slow the machine."""


@pytest.mark.slow
@forking
@pytest.mark.parametrize(
    ("number", "module"), [(signal.SIGINT, "numpy"), (signal.SIGTERM, "torch")]
)
def test_scripts_stop_while_they_import(folder, number, module):
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    script = str(ROOT / "foreground_points.py")
    with subprocess.Popen(
        [sys.executable, "-c", STOPPING, script, module, str(int(number)), "--video_path", "frames"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heeding,
    ) as process:  # fmt: skip
        errors = process.communicate(timeout=300)[1]
    assert ends_well(process.returncode, number, errors)


class Dropping:
    """Its destructor is where the signal arrives, so that Python drops the error."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.01)


@pytest.mark.parametrize("drop", ["destructor", "handler", "nowhere"])
def test_a_dropped_request_is_repeated(drop, capfd):
    def main() -> None:
        if drop == "destructor":
            Dropping()
        elif drop == "handler":
            with suppress(BaseException):  # as careless libraries do
                signal.raise_signal(signal.SIGTERM)
        else:
            signal.raise_signal(signal.SIGTERM)
        time.sleep(20)
        raise AssertionError("it did not stop")

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ends_well(ended.value.code, signal.SIGTERM, capfd.readouterr().err)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_cleaning_up_is_not_interrupted():
    cleaned = []
    with pytest.raises(KeyboardInterrupt), StopRequests():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            assert not may_raise(KeyboardInterrupt, None)
            time.sleep(0.2)
            cleaned.append(True)
    assert cleaned and may_raise(KeyboardInterrupt, None)


def test_an_error_on_the_way_out_of_a_stop_is_not_shown(capfd):
    def main() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise OSError("the encoder was stopped as well") from None

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ends_well(ended.value.code, signal.SIGTERM, capfd.readouterr().err)


def test_a_wait_that_ends_by_ctrl_c_goes_on():
    done = []

    def main() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            settle_stop()
        time.sleep(0.2)
        done.append(True)

    run_script(main)
    assert done


def test_the_binding_of_llvm_is_not_interrupted():
    frames = []
    names = {"__name__": "llvmlite.binding.ffi", "frames": frames, "sys": sys}
    exec("frames.append(sys._getframe())", names)
    assert not may_raise(KeyboardInterrupt, frames[0])


@pytest.mark.parametrize("by_main", [True, False])
def test_no_thread_goes_on_after_an_error_in_any_thread(monkeypatch, by_main):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    begun, failed = [], threading.Event()

    def work(index: int) -> None:
        begun.append(index)
        if (threading.current_thread() is threading.main_thread()) == by_main:
            failed.set()
            raise ValueError
        failed.wait(60)
        time.sleep(0.01)

    with pytest.raises(ValueError):
        run_tasks(work, 10_000)
    assert len(begun) < 1_000


def test_work_ahead_keeps_the_order_and_ends_at_an_error():
    drawn = []

    def draw():
        for item in range(10_000):
            drawn.append(item)
            yield item

    def work(item: int) -> int:
        time.sleep(0.01 if item % 2 else 0)
        if item == 7:
            raise ValueError
        return item * item

    made = []
    with pytest.raises(ValueError):
        made.extend(run_ahead(work, draw(), threads=3))
    assert made == [0, 1, 4, 9, 16, 25, 36][: len(made)]
    assert len(drawn) < 100
    assert list(run_ahead(work, range(7))) == [0, 1, 4, 9, 16, 25, 36]
