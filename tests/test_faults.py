"""The pipeline is killed at random moments, and gives in the end what it gives when left alone, to
the byte."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from forks import ask, fork_server

ROOT = Path(__file__).parent.parent
KILLS = {"background": 7, "foreground": 4, "demo": 9}
"""How often each script is killed."""
WIDTH, HEIGHT, FRAMES = 129, 81, 7
VARYING = {"stages.json", "metrics.json", "background_metrics.json", "config.json", "index.html"}
"""Files that hold times, or paths that differ from run to run."""


class Pipeline:
    """The three scripts on one clip, in a folder of results, by way of the server."""

    def __init__(self, server: subprocess.Popen, clip: Path, folder: Path):
        self.server, self.folder = server, folder
        folder.mkdir()
        (folder / "clip").symlink_to(clip)
        background = {"background_path": "out/background_points.pt"}
        masked = {"mask_path": "clip/masks", "output_dir": "out", "video_path": "clip/frames"}
        self.commands = {
            "background": masked,
            "foreground": masked | background,
            "demo": background | {"output_dir": "demo", "num_epochs": 6, "holdout_every": 4},
        }

    def run(self, script: str, **kill: object) -> dict:
        """Runs a script; the answer holds exit code, seconds, and what was printed."""
        return ask(self.server, script, self.commands[script], self.folder, **kill)

    def files(self) -> dict[str, str]:
        """Content of each finished result."""
        found = {}
        for path in sorted([*(self.folder / "out").rglob("*"), *(self.folder / "demo").rglob("*")]):
            name = path.relative_to(self.folder).as_posix()
            on_the_way = "/stages/" in name or name.endswith(
                (".part", "checkpoint.pt", "_config.json", ".lock")
            )
            if path.is_file() and not on_the_way and path.name not in VARYING:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


@pytest.fixture(scope="module")
def server():
    with fork_server() as process:
        yield process


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models.clip.images import write_images
    from models.synthetic.sample import RoomOptions, render_room

    folder = tmp_path_factory.mktemp("clip")
    room = render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=1, num_tracks=0))
    write_images(folder / "frames", room.frames, range(FRAMES))
    write_images(folder / "masks", room.masks.astype(np.uint8) * 255, range(FRAMES))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs each command in a fork")
def test_a_pipeline_killed_at_random_moments_loses_nothing(server, clip, tmp_path):
    whole = Pipeline(server, clip, tmp_path / "whole")
    seconds = {}
    for script in whole.commands:
        answer = whole.run(script)
        assert answer["code"] == 0, answer["log"][-2000:]
        seconds[script] = answer["seconds"]
    expected = whole.files()
    assert len([name for name in expected if name.endswith((".mp4", ".pt"))]) >= 9

    chance, left, rounds, again = random.Random(0), dict(KILLS), 0, set()
    while any(left.values()):
        rounds += 1
        pipeline = Pipeline(server, clip, tmp_path / f"round{rounds}")
        for script in pipeline.commands:
            code = None
            while code != 0:
                kill = moment(chance, seconds[script]) if left[script] else {}
                answer = pipeline.run(script, **kill)
                code = answer["code"]
                assert code in (0, -signal.SIGKILL), answer["log"][-2000:]
                assert "done again" not in answer["log"], "a finished stage was lost"
                again |= set(re.findall(r"(\w+): reused|(training \w+): goes on", answer["log"]))
                left[script] -= code != 0
                found = pipeline.files()
                assert found == {name: expected.get(name) for name in found}, "a file is not whole"
        assert pipeline.files() == expected
        assert (pipeline.folder / "demo" / "index.html").is_file()
        assert not list(pipeline.folder.rglob("*.part"))
    assert len(again) >= 3


def moment(chance: random.Random, seconds: float) -> dict:
    """When to kill a script: after some time, or at the renaming of one of its files."""
    if chance.random() < 0.5:
        return {"kill_after": chance.uniform(0.2, 0.9) * seconds}
    return {"kill_at_file": chance.randrange(8), "renamed": chance.random() < 0.5}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="sends signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_script_ends_with_one_sentence_and_no_half_written_file(
    clip, tmp_path, number, code
):
    command = [
        sys.executable,
        str(ROOT / "background_points.py"),
        "--video_path",
        str(clip / "frames"),
    ]
    command += ["--output_dir", str(tmp_path / "out")]
    # a suite started in the background ignores Ctrl-C, and its children with it
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    )
    assert "frames" in process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in errors and "same command" in errors
    assert not list(tmp_path.rglob("*.part"))
