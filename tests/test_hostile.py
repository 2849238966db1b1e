"""Hostile inputs: one sentence each, no code run, nothing written outside the output folder, little
memory, no hang."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from clips import true_tracks
from forks import ask, fork_server
from hostile_corpus import CORPUS, FRAMES, HEIGHT, WIDTH

from models.clip.images import write_images
from models.clip.transforms import save_transforms
from models.clip.video_writer import write_video
from models.synthetic.sample import RoomOptions, render_room
from models.tracks import save_tracks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="runs each case in a fork"),
]
SECONDS, MEMORY_GIB = 120, 2.0


@pytest.fixture(scope="module")
def server():
    with fork_server() as process:
        yield process


@pytest.fixture(scope="module")
def good(server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames, a video, masks, a track file, a camera path and a model."""
    folder = tmp_path_factory.mktemp("good")
    room = render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=1))
    write_images(folder / "frames", room.frames, range(FRAMES))
    write_video(folder / "video.mp4", room.frames, 24)
    write_images(folder / "given", room.masks.astype(np.uint8) * 255, range(FRAMES))
    save_tracks(folder / "t.pt", true_tracks(room, False, "frames"))
    save_transforms(folder / "path.json", room.cameras, list(range(FRAMES)))
    answer = ask(
        server,
        "demo",
        {"background_path": "t.pt", "output_dir": "trained", "num_epochs": 0.1},
        folder,
    )
    assert answer["code"] == 0, answer["log"]
    shutil.copy(folder / "trained" / "model.pt", folder / "model.pt")
    shutil.rmtree(folder / "trained")
    return folder


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file, links not followed, but for the output and the log."""
    found = {}
    for root, _, names in os.walk(folder):
        inside = Path(root).relative_to(folder)
        if inside.parts[1:2] == ("out",):
            continue
        for name in names:
            if name != "log":
                stat = os.lstat(os.path.join(root, name))
                found[str(inside / name)] = (stat.st_size, stat.st_mtime_ns)
    return found


def test_the_corpus_is_large_enough():
    assert len(CORPUS) >= 60


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_input_ends_with_a_result_or_one_sentence(name, server, good, tmp_path):
    folder = tmp_path / "case"
    shutil.copytree(good, folder)
    script, flags = CORPUS[name](folder)
    before = listing(tmp_path)
    answer = ask(server, script, flags, folder, limit=SECONDS)
    log = answer["log"]
    assert answer["code"] in (0, 2), log[-3000:]
    assert "Traceback" not in log
    if answer["code"] == 2:
        lines = [line for line in log.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and len(lines[0]) < 2000
    assert answer["gib"] < MEMORY_GIB
    assert listing(tmp_path) == before, "a file outside the output folder"
