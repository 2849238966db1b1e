"""Both scripts end to end, each in its own process, on a tiny clip: every file of the contract is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import demo_pipeline
from models.cameras import load_transforms, save_transforms
from models.metrics import psnr
from models.stages import content_of
from models.synthetic import SyntheticScene, render_room
from models.tracks import load_tracks
from models.video import read_video, write_images

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT, FRAMES = 161, 97, 10
HELD_OUT = [2, 7]
FILES = {"model.pt", "config.json", "metrics.json", "transforms.json", "index.html"}
FILES |= {"loss_curve.png", "psnr_per_frame.png", "reprojection_error.png", "camera_path.png"}
VIDEOS = {"input.mp4", "tracks.mp4", "reconstruction.mp4", "novel_view_spiral.mp4", "mesh.mp4", "depth.mp4"}


@pytest.fixture(scope="module")
def room() -> SyntheticScene:
    return render_room(FRAMES, WIDTH, HEIGHT, num_movers=1)


@pytest.fixture(scope="module")
def folder(room: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip, the folder that background_points.py made of it, and that of demo_pipeline.py."""
    folder = tmp_path_factory.mktemp("scripts")
    write_images(folder / "clip" / "frames", room.frames, range(FRAMES))
    write_images(folder / "clip" / "masks", room.masks.astype(np.uint8) * 255, range(FRAMES))
    run("background_points.py", folder, video_path="clip/frames", mask_path="clip/masks")
    demo(folder, "demo", "--save_frames", holdout_every=5)
    return folder


def run(script: str, folder: Path, *switches: str, **flags: object) -> str:
    """Runs a script in ``folder``; returns what it printed."""
    command = [sys.executable, str(ROOT / script), *switches]
    command += [text for key, value in flags.items() for text in (f"--{key}", str(value))]
    environment = os.environ | {"PYTHONWARNINGS": "error::SyntaxWarning"}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def demo(folder: Path, output_dir: str, *switches: str, **flags: object) -> str:
    flags = {"num_epochs": 25, "background_path": "results/clip/background_points.pt", **flags}
    return run("demo_pipeline.py", folder, *switches, output_dir=output_dir, **flags)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def read_png(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def numbered(count: int) -> set[str]:
    return {f"{i:05d}.png" for i in range(count)}


def test_the_track_files_folder_holds_what_the_next_script_needs(folder, room):
    results = folder / "results" / "clip"
    expected = {"background_points.pt", "transforms.json", "masks", "background_tracks.mp4", "background_metrics.json"}
    assert expected <= names(results)
    tracks = load_tracks(results / "background_points.pt")
    assert (len(tracks), tracks.width, tracks.height, tracks.layer) == (FRAMES, WIDTH, HEIGHT, "background")
    assert len(load_transforms(results / "transforms.json")[0]) == FRAMES
    assert names(results / "masks") == numbered(FRAMES)
    masks = np.stack([read_png(results / "masks" / name)[..., 0] > 127 for name in sorted(numbered(FRAMES))])
    np.testing.assert_array_equal(masks, room.masks)
    metrics = json.loads((results / "background_metrics.json").read_text())
    assert metrics["frames_registered"] == FRAMES
    assert metrics["original_image_size"] == [WIDTH, HEIGHT]


def test_the_demo_writes_every_file_of_its_contract(folder):
    assert names(folder / "demo") >= FILES | VIDEOS
    assert not list((folder / "demo").rglob("*.part"))
    for name in VIDEOS:
        video = read_video(folder / "demo" / name)
        assert len(video) == FRAMES
        assert (video.width, video.height) == (WIDTH + 1, HEIGHT + 1), "padded to even sizes"
    config = json.loads((folder / "demo" / "config.json").read_text())
    assert config["settings"]["holdout_every"] == 5
    assert config["settings"]["seed"] == 0
    assert {"python", "torch", "numpy"} <= set(config["versions"])


def test_the_configuration_names_the_inputs_by_their_content(folder):
    told = json.loads((folder / "demo" / "config.json").read_text())["inputs_sha256"]
    assert told["clip"] == content_of(folder / "clip" / "frames")
    assert told["background"] == content_of(folder / "results" / "clip" / "background_points.pt")


def test_the_configuration_is_enough_to_repeat_a_run(folder):
    results = folder / "results" / "clip"
    settings = json.loads((results / "background_config.json").read_text())["settings"]
    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    run("background_points.py", folder, **given | {"output_dir": "again"})
    again = json.loads((folder / "again" / "background_config.json").read_text())
    assert again["settings"] | {"output_dir": None} == settings
    assert (folder / "again" / "background_points.pt").read_bytes() == (results / "background_points.pt").read_bytes()


def test_saved_frames_are_numbered_and_of_the_size_worked_on(folder):
    frames = folder / "demo" / "frames"
    assert names(frames / "heldout") == {f"{t:05d}.png" for t in HELD_OUT}
    for video in ("reconstruction", "novel_view_spiral"):
        assert names(frames / video) == numbered(FRAMES)
    assert {read_png(path).shape for path in frames.rglob("*.png")} == {(HEIGHT, WIDTH, 3)}


def test_the_scores_are_those_of_the_frames_written(folder, room):
    metrics = json.loads((folder / "demo" / "metrics.json").read_text())
    assert len(metrics["frames"]) == FRAMES
    for t in HELD_OUT:
        image = read_png(folder / "demo" / "frames" / "heldout" / f"{t:05d}.png")
        assert abs(psnr(image, room.frames[t]) - metrics["frames"][t]["psnr"]) < 1e-3
    assert metrics["training_frames"]["psnr_outside_mask"] > 20
    assert metrics["heldout_frames"]["psnr_outside_mask"] > 18
    assert metrics["seconds"]["train"] > 0


def test_a_checkpoint_renders_a_camera_path_without_training(folder, room):
    cameras = load_transforms(folder / "demo" / "transforms.json")[0]
    save_transforms(folder / "path.json", cameras[[0, 4, 9]], [0.0, 4.5, 9.0])
    demo(folder, "views", checkpoint="demo/model.pt", camera_path="path.json")
    assert names(folder / "views" / "frames" / "novel_view") == numbered(3)
    assert len(read_video(folder / "views" / "novel_view.mp4")) == 3
    assert not {"model.pt", "loss_curve.png"} & names(folder / "views")
    metrics = json.loads((folder / "views" / "metrics.json").read_text())
    assert "train" not in metrics["seconds"]
    outside = ~room.masks[0]
    assert psnr(read_png(folder / "views" / "frames" / "novel_view" / "00000.png"), room.frames[0], outside) > 18


def flat(state: dict, prefix: str = "") -> dict[str, object]:
    """A nested dict as one, with joined keys."""
    found = {}
    for key, value in state.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def train_here(folder: Path, patch: pytest.MonkeyPatch, seed: int, holdout_every: int) -> dict:
    """Runs demo_pipeline.py in this process, always into the same folder; returns its model."""
    tracks, out = folder / "results" / "clip" / "background_points.pt", folder / "again"
    (out / "stages.json").unlink(missing_ok=True)  # nothing may be used again
    flags = [
        "--background_path",
        tracks,
        "--output_dir",
        out,
        "--num_epochs",
        1,
        "--video_path",
        folder / "clip/frames",
    ]
    flags += ["--seed", seed, "--holdout_every", holdout_every]
    patch.setattr(sys, "argv", ["demo_pipeline.py", *map(str, flags)])
    demo_pipeline.main()
    return flat(torch.load(out / "model.pt", weights_only=True))


def same(a: dict, b: dict) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a)


@pytest.mark.skipif(torch.cuda.is_available(), reason="sums on a GPU depend on the order of its threads")
def test_the_same_seed_gives_the_same_model_and_no_run_keeps_frames_of_another(folder, monkeypatch):
    first = train_here(folder, monkeypatch, 0, 5)
    assert same(first, train_here(folder, monkeypatch, 0, 5))
    assert names(folder / "again" / "frames" / "heldout") == {f"{t:05d}.png" for t in HELD_OUT}
    other = train_here(folder, monkeypatch, 1, 4)
    assert not torch.equal(*(next(v for k, v in m.items() if ".field." in k) for m in (first, other)))
    assert names(folder / "again" / "frames" / "heldout") == {"00002.png", "00006.png"}
