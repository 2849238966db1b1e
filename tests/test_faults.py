"""The pipeline is killed at random moments, and gives in the end what it gives when left alone, to the byte.

Run as a script this file is a server that imports the pipeline once and then runs each command in a fork of itself.
"""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
KILLS = {"background": 7, "foreground": 4, "demo": 9}
"""How often each script is killed."""
WIDTH, HEIGHT, FRAMES = 161, 97, 8
VARYING = {"stages.json", "metrics.json", "background_metrics.json", "config.json"}
"""Files that hold times, or paths that differ from run to run."""


def serve() -> None:
    """Reads commands from stdin, one JSON a line, and answers each with exit code and seconds."""
    sys.path.insert(0, str(ROOT))
    import background_points
    import demo_pipeline
    import foreground_points
    from models import checkpoints

    scripts = {"background": background_points, "foreground": foreground_points, "demo": demo_pipeline}
    checkpoints.CHECKPOINT_SECONDS = 0.05
    demo_pipeline.LOG2_ENTRIES = 12
    for line in sys.stdin:
        job = json.loads(line)
        start = time.perf_counter()
        child = os.fork()
        if child == 0:
            run_child(scripts[job["script"]].main, job)
        if job.get("kill_after") is not None:
            time.sleep(job["kill_after"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": time.perf_counter() - start}
        print(json.dumps(answer), flush=True)


def run_child(main, job: dict) -> None:
    """One command in a process of its own, which may kill itself when it renames a file."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1), os.dup2(log, 2)
    os.chdir(job["folder"])
    sys.argv = [job["script"], *job["flags"]]
    if job.get("kill_at_file") is not None:
        die_at_file(job["kill_at_file"], job["renamed"])
    from models.errors import run_script

    code = 1
    try:
        run_script(main)
        code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def die_at_file(number: int, renamed: bool) -> None:
    """Kills this process at the renaming of its n-th file, just before or just after."""
    replace, left = os.replace, [number]

    def counted(source, target) -> None:
        left[0] -= 1
        if left[0] < 0 and not renamed:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted


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
            "demo": background | {"output_dir": "demo", "num_epochs": 12, "holdout_every": 4},
        }

    def run(self, script: str, **kill: object) -> dict:
        """Runs a script; the answer holds exit code, seconds, and what was printed."""
        flags = [text for key, value in self.commands[script].items() for text in (f"--{key}", str(value))]
        log = self.folder / "log"
        job = {"script": script, "flags": flags, "folder": str(self.folder), "log": str(log), **kill}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline()) | {"log": log.read_text()}

    def files(self) -> dict[str, str]:
        """Content of each finished result."""
        found = {}
        for path in sorted([*(self.folder / "out").rglob("*"), *(self.folder / "demo").rglob("*")]):
            name = path.relative_to(self.folder).as_posix()
            on_the_way = "/stages/" in name or name.endswith((".part", "checkpoint.pt", "_config.json"))
            if path.is_file() and not on_the_way and path.name not in VARYING:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


@pytest.fixture(scope="module")
def server():
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models.synthetic import render_room
    from models.video import write_images

    folder = tmp_path_factory.mktemp("clip")
    room = render_room(FRAMES, WIDTH, HEIGHT, num_movers=1, num_tracks=0)
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
def test_a_stopped_script_ends_with_one_sentence_and_no_half_written_file(clip, tmp_path, number, code):
    command = [sys.executable, str(ROOT / "background_points.py"), "--video_path", str(clip / "frames")]
    command += ["--output_dir", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "frames" in process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in errors and "same command" in errors
    assert not list(tmp_path.rglob("*.part"))


if __name__ == "__main__":
    serve()
