"""Several processes train a scene together, as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from models.clip.images import write_images
from models.movers.pixels import MovingPixels
from models.run import ALONE, Ranks
from models.synthetic.sample import RoomOptions, render_room
from models.training.averaging import Averaging
from models.training.loop import LayerTraining
from models.training.shared_training import _keep_own

ROOT = Path(__file__).parent.parent
FRAMES = 10
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]

# Each rank changes its own entries and some common ones, in many rounds.
AVERAGING = """
import sys
import torch
from models.run import join_ranks, leave_ranks
from models.training.averaging import Averaging

ranks = join_ranks()
values = torch.zeros(1000)
averaging = Averaging([values], ranks)
random = torch.Generator().manual_seed(ranks.number)
expected = torch.zeros(1000)
for _ in range(30):
    change = torch.rand(1000, generator=random)
    change[(1 - ranks.number) * 400 : (1 - ranks.number) * 400 + 400] = 0
    values += change
    expected += change
    averaging.finish()
    averaging.start()
said = ranks.agree({"from": ranks.number})
averaging.settle()
torch.save([values, expected, said["from"]], f"{sys.argv[1]}/{ranks.number}.pt")
leave_ranks()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny clip with its track files."""
    folder = tmp_path_factory.mktemp("ranks")
    room = render_room(RoomOptions(FRAMES, 161, 97, num_movers=1))
    write_images(folder / "frames", room.frames, range(FRAMES))
    write_images(folder / "masks", room.masks.astype(np.uint8) * 255, range(FRAMES))
    flags = ["--video_path", "frames"]
    run(folder, "background_points.py", *flags, "--mask_path", "masks", "--output_dir", "tracks")
    background = ["--background_path", "tracks/background_points.pt"]
    run(folder, "foreground_points.py", *flags, *background)
    return folder


def run(folder: Path, script: str, *flags: str, ranks: int = 0, code: int = 0) -> str:
    """Runs a script, in several processes if ``ranks`` is given; returns what it printed."""
    start = [*TORCHRUN, str(ranks)] if ranks else [sys.executable]
    ended = subprocess.run(
        [*start, str(ROOT / script), *flags],
        cwd=folder, env=surroundings(), capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr[-3000:]
    return ended.stdout + ended.stderr


def surroundings() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def demo_flags(output_dir: str, *more: str) -> list[str]:
    paths = ["--background_path", "tracks/background_points.pt", "--output_dir", output_dir]
    short = ["--export", "", "--trajectory", "spiral frames=3", "--training.mover_epochs", "10"]
    return [*paths, *short, "--holdout_every", "5", *more]


def held_out_psnr(folder: Path) -> float:
    frames = json.loads((folder / "metrics.json").read_text())["frames"]
    return float(np.mean([frames[t]["psnr"] for t in (2, 7)]))


@pytest.mark.slow
def test_parameters_of_two_ranks_change_by_the_mean_of_their_changes(tmp_path):
    (tmp_path / "averaging.py").write_text(AVERAGING)
    run(tmp_path, str(tmp_path / "averaging.py"), str(tmp_path), ranks=2)
    (first, own, said), (second, other, heard) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert said == heard == 0 and torch.equal(first, second)
    wanted = (own + other) / 2
    # a change of bfloat16 alone has an error of 4e-3
    torch.testing.assert_close(first, wanted, rtol=2e-3, atol=0)


def test_a_rank_alone_keeps_its_values():
    values = torch.randn(50)
    averaging = Averaging([values], ALONE)
    averaging.finish()
    values += 1
    kept = values.clone()
    averaging.finish()
    assert torch.equal(values, kept)


@pytest.mark.parametrize(("frames", "count"), [(7, 3), (8, 2), (2, 4)])
def test_ranks_share_out_the_frames(frames: int, count: int):
    random = np.random.default_rng(frames)
    frame = np.repeat(np.arange(frames) * 3, 20).astype(np.int32)
    rgb = random.uniform(0, 1, (len(frame), 3)).astype(np.float16)
    places = random.normal(0, 1, (len(frame), 3)).astype(np.float32)
    pixels = MovingPixels(places, rgb, frame, np.zeros((30, 4, 4)))
    parts = [
        _keep_own(LayerTraining(None, pixels, ranks=Ranks(i, count))).pixels for i in range(count)
    ]
    if frames < count:
        assert all(len(part) == len(pixels) for part in parts)
        return
    seen = np.concatenate([np.unique(part.frame) for part in parts])
    assert sorted(seen.tolist()) == np.unique(frame).tolist()
    rows = np.concatenate([np.hstack([part.places, part.rgb]) for part in parts])
    every = np.hstack([places, rgb])
    assert np.array_equal(rows[np.lexsort(rows.T)], every[np.lexsort(every.T)])


@pytest.mark.slow
def test_two_processes_train_a_scene_as_well_as_one(folder):
    run(folder, "demo_pipeline.py", *demo_flags("alone", "--num_epochs", "40"))
    said = run(folder, "demo_pipeline.py", *demo_flags("both", "--num_epochs", "40"), ranks=2)
    assert said.count("look at:") == 1  # one process talks
    assert not list((folder / "both").glob("*_for_ranks.pt"))
    assert {path.name for path in (folder / "alone").iterdir()} == {
        path.name for path in (folder / "both").iterdir()
    }
    assert held_out_psnr(folder / "both") > held_out_psnr(folder / "alone") - 0.5


def find_ranks(launcher: int) -> dict[int, int]:
    """Process numbers of the ranks that a torchrun started, by rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    found = {}
    for number in map(int, children):
        variables = Path(f"/proc/{number}/environ").read_text().split("\0")
        ranks = [value[5:] for value in variables if value.startswith("RANK=")]
        found |= {int(rank): number for rank in ranks}
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize(("killed", "ranks"), [(0, 0), (1, 2)])
def test_a_killed_rank_ends_the_run_and_the_same_command_goes_on(folder, killed: int, ranks: int):
    """With one process, or with two again."""
    out = folder / f"killed{killed}"
    flags = demo_flags(out.name, "--num_epochs", "20", "--training.checkpoint_seconds", "0")
    command = [*TORCHRUN, "2", str(ROOT / "demo_pipeline.py"), *flags]
    with subprocess.Popen(
        command, cwd=folder, env=surroundings(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        while not all((out / name).exists() for name in ("checkpoint.pt", "checkpoint_1.pt")):
            assert process.poll() is None, process.stderr.read()[-3000:]
            time.sleep(0.05)
        os.kill(find_ranks(process.pid)[killed], signal.SIGKILL)
        process.communicate(timeout=120)
    assert process.returncode != 0 and not (out / "model.pt").exists()
    said = run(folder, "demo_pipeline.py", *flags, ranks=ranks)
    assert "goes on from step" in said and (out / "model.pt").exists()
    assert not list(out.glob("*_for_ranks.pt")) and not list(out.glob("checkpoint*"))
    assert held_out_psnr(out) > 15
