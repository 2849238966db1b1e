"""A folder of clips becomes a scene of each; what fails is told, and the rest goes on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import open_browser, watch
from clips import Said

from models.batch import (
    ClipPlan,
    FolderClip,
    StateTable,
    find_clips,
    has_ray,
    plan_clip,
    run_in_order,
    sort_flags,
)
from models.batch.steps import SCRIPTS, Step
from models.batch.work import LostScriptError, Outcome, run_step
from models.clip import measure_clip, read_video, write_images, write_video
from models.run import InputError
from models.synthetic.sample import RoomOptions, render_room

ROOT = Path(__file__).parent.parent
NO_FLAGS = {script: [] for script in SCRIPTS}


def step_of(clip: str, program: str, folder: Path) -> Step:
    """A step that runs a line of Python in place of a script."""
    command = (sys.executable, "-c", program)
    return Step(clip, "background_points", command, folder / "logs" / f"{clip}.log", 1 << 20)


def test_clips_are_videos_and_folders_of_images_with_masks_beside_them(tmp_path: Path):
    for name in ("b10.mp4", "b2.MOV", "b2_masks.mp4", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).touch()
    for name in ("walk/frames", "walk/masks", "plain", "plain_masks", "empty", "out"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("walk/frames", "plain", "out"):
        (tmp_path / name / "0.png").touch()
    clips = find_clips(tmp_path, results_dir=tmp_path / "out")
    assert [clip.name for clip in clips] == ["b2", "b10", "plain", "walk"]
    assert clips[0].mask_path == tmp_path / "b2_masks.mp4"
    assert clips[3].video_path == tmp_path / "walk" / "frames"
    assert clips[3].mask_path == tmp_path / "walk" / "masks"
    assert clips[1].mask_path is None and clips[2].mask_path == tmp_path / "plain_masks"
    assert [clip.name for clip in find_clips(tmp_path, ["walk"])] == ["walk"]
    with pytest.raises(InputError, match="no clip named run"):
        find_clips(tmp_path, ["run"])
    for name in ("walk.mp4", "walk_demo.mp4", "logs.mp4"):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match="rename"):
            find_clips(tmp_path)
        (tmp_path / name).unlink()


def test_names_of_clips_are_no_patterns(tmp_path: Path):
    for name in ("clip[1].mp4", "clip1.mp4", "clip[1]_masks.mp4"):
        (tmp_path / name).touch()
    masks = {clip.name: clip.mask_path for clip in find_clips(tmp_path)}
    assert masks == {"clip[1]": tmp_path / "clip[1]_masks.mp4", "clip1": None}


def test_flags_go_to_each_script_that_has_them():
    scripts = {"one": {"size", "seed", "fast"}, "two": {"seed", "epochs"}}
    line = ["--seed", "3", "--dir", "x", "--size=4", "--epochs", "2", "--no-fast"]
    own, flags = sort_flags(line, {"dir"}, scripts, {"video"})
    assert own == ["--dir", "x"]
    assert flags == {
        "one": ["--seed", "3", "--size=4", "--no-fast"],
        "two": ["--seed", "3", "--epochs", "2"],
    }
    with pytest.raises(InputError, match="did you mean --epochs"):
        sort_flags(["--epoch", "2"], {"dir"}, scripts, {"video"})
    with pytest.raises(InputError, match="leave it out"):
        sort_flags(["--video", "2"], {"dir"}, scripts, {"video"})


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_clip_is_measured_as_it_is_read(tmp_path: Path, kind: str):
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (9, 40, 64, 3), np.uint8)
    path = tmp_path / ("clip.mp4" if kind == "file" else "clip")
    if kind == "file":
        write_video(path, frames, 24)
    else:
        path.mkdir()
        write_images(path, frames, range(9))
    for stride, most, side in ((1, None, 960), (2, None, 32), (1, 4, 33)):
        video = read_video(path, most, stride, side, keep=range(9))
        assert measure_clip(path, most, stride, side) == video.size
    assert measure_clip(tmp_path / "missing.mp4") is None


def test_a_script_needs_more_memory_for_a_longer_clip(tmp_path: Path):
    plans = []
    for count in (4, 8):
        folder = tmp_path / f"clip{count}"
        folder.mkdir()
        write_images(folder, np.zeros((count, 40, 64, 3), np.uint8), range(count))
    for clip in find_clips(tmp_path):
        plans.append(plan_clip(clip, ROOT, tmp_path / "results", NO_FLAGS))
    for short, long in zip(plans[0].steps, plans[1].steps, strict=True):
        assert 0 < short.memory < long.memory


def test_outcomes_tell_the_sentence_of_a_script(tmp_path: Path):
    fine = run_step(step_of("fine", "print('done')", tmp_path), 1)
    assert fine.ok and not fine.sentence
    program = "import sys; print('error: bad.mp4: is no video', file=sys.stderr); sys.exit(2)"
    refused = run_step(step_of("refused", program, tmp_path), 1)
    assert not refused.ok and refused.sentence == "bad.mp4: is no video"
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(LostScriptError, match="SIGKILL"):
        run_step(step_of("lost", program, tmp_path), 1)


def dies_once(mark: Path) -> str:
    """A program that the system seems to kill the first time, and that then ends well."""
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    return (
        f"import os, pathlib, signal; m = pathlib.Path({str(mark)!r})\n"
        f"if not m.exists():\n    m.touch()\n    {kill}"
    )


def plans_of(steps: list[Step], tmp_path: Path) -> list[ClipPlan]:
    clips = [FolderClip(step.clip, tmp_path / step.clip) for step in steps]
    return [
        ClipPlan(clip, (step,), tmp_path / clip.name, tmp_path / f"{clip.name}_demo")
        for clip, step in zip(clips, steps, strict=True)
    ]


def three_ends(tmp_path: Path) -> list[ClipPlan]:
    """Plans of a step that is lost once, one that is refused, and one that ends well."""
    refused = "import sys; print('error: refused'); sys.exit(2)"
    steps = [
        step_of("lost", dies_once(tmp_path / "mark"), tmp_path),
        step_of("refused", refused, tmp_path),
        step_of("fine", "print(1)", tmp_path),
    ]
    return plans_of(steps, tmp_path)


def check_ends(heard: list) -> None:
    outcomes = {news.clip: news for news in heard if isinstance(news, Outcome)}
    assert {clip for clip, outcome in outcomes.items() if outcome.ok} == {"lost", "fine"}
    assert outcomes["refused"].sentence == "refused"


def test_a_lost_script_is_tried_again_and_a_refusal_is_not(tmp_path: Path):
    heard = []
    run_in_order(three_ends(tmp_path), 1, 1, heard.append)
    check_ends(heard)


# Ray's threads stay in a process that has used it, and other tests fork: it runs in one of its own.
BY_RAY = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
import test_batch
from models.batch.on_ray import MachineOptions, run_on_ray
if __name__ == "__main__":
    heard = []
    plans = test_batch.three_ends(Path(sys.argv[2]))
    run_on_ray(plans, test_batch.ROOT, MachineOptions(workers=2), heard.append)
    test_batch.check_ends(heard)
"""


@pytest.mark.skipif(not has_ray(), reason="Ray is not installed")
def test_ray_tries_a_lost_script_again_and_not_a_refusal(tmp_path: Path):
    run_alone(BY_RAY, ROOT, tmp_path)


def run_alone(program: str, *arguments: object) -> None:
    """Runs a program in a process of its own, to its end without an error."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_table_keeps_the_sentences_of_failed_clips(tmp_path: Path):
    plans = three_ends(tmp_path)
    said = []
    with StateTable(plans, Said(said)) as table:
        run_in_order(plans, 1, 1, table.tell)
    assert table.failed == {"refused": "refused"}
    assert "refused: background_points: failed: refused" in said


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small clips and a broken one."""
    folder = tmp_path_factory.mktemp("clips")
    for name, movers in (("still", 0), ("cart", 1)):
        room = render_room(RoomOptions(8, 129, 81, num_movers=movers))
        (folder / name / "frames").mkdir(parents=True)
        write_images(folder / name / "frames", room.frames, range(8))
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def process(clips: Path, results: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "process_folder.py"), "--videos_dir", str(clips)]
    command += ["--results_dir", str(results), "--num_epochs", "0.2", "--export", "", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["in_order", "ray"])
def test_a_folder_becomes_scenes_and_a_page(clips: Path, tmp_path: Path, engine: str):
    if engine == "ray" and not has_ray():
        pytest.skip("Ray is not installed")
    done = process(clips, tmp_path / "results", "--engine", engine)
    assert done.returncode == 2, done.stderr
    assert "2 of 3 clips done" in done.stdout
    assert "broken" in done.stderr and "is no video" in done.stderr
    for name in ("still", "cart"):
        assert (tmp_path / "results" / f"{name}_demo" / "index.html").is_file()
    if engine == "ray":
        with open_browser() as browser:
            page = browser.new_page()
            troubles = watch(page)
            page.goto((tmp_path / "results" / "index.html").as_uri())
            assert page.locator("figure.card").count() == 3
            assert "is no video" in page.locator("#broken").inner_text()
            assert "of 8 frames" in page.locator("#cart").inner_text()
            page.locator("#cart h3 a").click()
            assert page.locator("h1").inner_text() == "cart"
            assert not troubles


LOSE_A_MACHINE = """
import subprocess, sys
from ray.cluster_utils import Cluster

root, clips, results = sys.argv[1:]
node = {"num_cpus": 1, "object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
second = cluster.add_node(**node)
command = [sys.executable, root + "/process_folder.py", "--videos_dir", clips]
command += ["--results_dir", results, "--address", cluster.address]
command += ["--num_epochs", "0.2", "--export", ""]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
    lines = iter(run.stdout.readline, "")
    told = [next(line for line in lines if "foreground_points: running" in line)]
    cluster.remove_node(second, allow_graceful=False)
    told += list(lines)
assert run.returncode == 2 and any("2 of 3 clips done" in line for line in told), told
cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.skipif(not has_ray(), reason="Ray is not installed")
def test_a_lost_machine_of_a_cluster_loses_no_clip(clips: Path, tmp_path: Path):
    run_alone(LOSE_A_MACHINE, ROOT, clips, tmp_path)


def test_bad_settings_are_refused_before_any_work(clips: Path, tmp_path: Path):
    for flags, words in (
        (["--engine", "slurm"], "give ray, in_order or auto"),
        (["--only", "nothing"], "give background, foreground, demo"),
        (["--max_sise", "3"], "did you mean --max_size"),
        (["--holdout_every", "1"], "--holdout_every"),
        (["--video_path", "x"], "leave it out"),
        (["--max_frames", "-3"], "at least 1"),
    ):
        done = process(clips, tmp_path / "none", *flags)
        assert done.returncode == 2 and words in done.stderr, flags
    assert not (tmp_path / "none").exists()
