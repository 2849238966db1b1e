"""Both scripts end to end, each in its own process, on a tiny clip: every file of the contract is
written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

import background_points
import demo_pipeline
import foreground_points
from models.clip.images import write_images
from models.clip.transforms import load_transforms, save_transforms
from models.clip.video import read_video
from models.render.metrics import psnr
from models.run.fingerprint import hash_content
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tracks import load_tracks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT, FRAMES = 161, 97, 10
HELD_OUT = [2, 7]
FILES = {"model.pt", "config.json", "metrics.json", "transforms.json", "index.html"}
FILES |= {"loss_curve.png", "psnr_per_frame.png", "reprojection_error.png", "camera_path.png"}
VIDEOS = {
    "input.mp4",
    "tracks.mp4",
    "reconstruction.mp4",
    "novel_view_spiral.mp4",
    "mesh.mp4",
    "depth.mp4",
}


@pytest.fixture(scope="module")
def room() -> SyntheticScene:
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=1))


@pytest.fixture(scope="module")
def folder(room: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip, the folder that background_points.py made of it, and that of demo_pipeline.py."""
    folder = tmp_path_factory.mktemp("scripts")
    write_images(folder / "clip" / "frames", room.frames, range(FRAMES))
    write_images(folder / "clip" / "masks", room.masks.astype(np.uint8) * 255, range(FRAMES))
    run("background_points.py", folder, video_path="clip/frames", mask_path="clip/masks")
    demo(
        folder, "demo", "--save_frames", holdout_every=5, export=""
    )  # to export takes long; see below
    return folder


def run(script: str, folder: Path, *switches: str, **flags: object) -> str:
    """Runs a script in ``folder``; returns what it printed."""
    command = [sys.executable, str(ROOT / script), *switches, *as_texts(flags)]
    environment = os.environ | {"PYTHONWARNINGS": "error::SyntaxWarning"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def as_texts(flags: dict[str, object]) -> list[str]:
    """Settings as a command line has them; True and False are those of a switch."""
    texts = []
    for name, value in flags.items():
        if isinstance(value, bool):
            texts.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            texts += [f"--{name}", *map(str, value)]
        else:
            texts += [f"--{name}", str(value)]
    return texts


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
    expected = {
        "background_points.pt",
        "transforms.json",
        "masks",
        "background_tracks.mp4",
        "background_metrics.json",
    }
    assert expected <= names(results)
    tracks = load_tracks(results / "background_points.pt")
    assert (len(tracks), tracks.width, tracks.height, tracks.layer) == (
        FRAMES,
        WIDTH,
        HEIGHT,
        "background",
    )
    assert len(load_transforms(results / "transforms.json")[0]) == FRAMES
    assert names(results / "masks") == numbered(FRAMES)
    masks = np.stack(
        [read_png(results / "masks" / name)[..., 0] > 127 for name in sorted(numbered(FRAMES))]
    )
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
    assert told["clip"] == hash_content(folder / "clip" / "frames")
    assert told["background"] == hash_content(folder / "results" / "clip" / "background_points.pt")


def settings_of(config: Path) -> dict[str, object]:
    """The settings that a run told, as flags: those that were not given are left out."""
    settings = json.loads(config.read_text())["settings"]
    return {name: value for name, value in settings.items() if value is not None}


def test_the_configuration_is_enough_to_repeat_a_run(folder, monkeypatch):
    results = folder / "results" / "clip"
    told = settings_of(results / "background_config.json")
    here(background_points, folder, monkeypatch, **told | {"output_dir": "again"})
    assert settings_of(folder / "again" / "background_config.json") == told | {
        "output_dir": "again"
    }
    assert (folder / "again" / "background_points.pt").read_bytes() == (
        results / "background_points.pt"
    ).read_bytes()


@pytest.fixture(scope="module")
def movers(folder: Path) -> Path:
    """The folder that foreground_points.py made of the clip: apart, so that other tests have no
    movers."""
    with pytest.MonkeyPatch.context() as patch:
        background = "results/clip/background_points.pt"
        here(
            foreground_points,
            folder,
            patch,
            video_path="clip/frames",
            background_path=background,
            output_dir="movers",
        )
    return folder / "movers"


def here(script: ModuleType, folder: Path, patch: pytest.MonkeyPatch, **flags: object) -> None:
    """Runs a script in ``folder``, in this process: to start one takes seconds."""
    patch.chdir(folder)
    patch.setattr(sys, "argv", [script.__name__, *as_texts(flags)])
    script.main()


def contents(folder: Path, suffixes: set[str]) -> dict[str, bytes]:
    """All files of these kinds below a folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in suffixes)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_movers_are_found_again_from_their_configuration(folder, movers, monkeypatch):
    told = settings_of(movers / "foreground_config.json")
    assert told["output_dir"] == "movers" and "seed" in told
    here(foreground_points, folder, monkeypatch, **told | {"output_dir": "movers_again"})
    assert settings_of(folder / "movers_again" / "foreground_config.json") == told | {
        "output_dir": "movers_again"
    }
    made = contents(movers, {".pt", ".png", ".mp4"})
    assert (
        "foreground_points.pt" in made and load_tracks(movers / "foreground_points.pt").num_tracks
    )
    assert contents(folder / "movers_again", {".pt", ".png", ".mp4"}) == made


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


def test_a_checkpoint_renders_a_camera_path_without_training(folder, room, monkeypatch):
    cameras = load_transforms(folder / "demo" / "transforms.json")[0]
    save_transforms(folder / "path.json", cameras[[0, 4, 9]], [0.0, 4.5, 9.0])
    flags = {"background_path": "results/clip/background_points.pt", "output_dir": "views"}
    flags |= {"checkpoint": "demo/model.pt", "camera_path": "path.json"}
    here(demo_pipeline, folder, monkeypatch, **flags)
    assert names(folder / "views" / "frames" / "novel_view") == numbered(3)
    assert len(read_video(folder / "views" / "novel_view.mp4")) == 3
    assert not {"model.pt", "loss_curve.png"} & names(folder / "views")
    metrics = json.loads((folder / "views" / "metrics.json").read_text())
    assert "train" not in metrics["seconds"]
    outside = ~room.masks[0]
    assert (
        psnr(
            read_png(folder / "views" / "frames" / "novel_view" / "00000.png"),
            room.frames[0],
            outside,
        )
        > 18
    )


def train_here(folder: Path, patch: pytest.MonkeyPatch, **flags: object) -> None:
    """Runs demo_pipeline.py in this process."""
    (folder / str(flags["output_dir"]) / "stages.json").unlink(
        missing_ok=True
    )  # nothing may be used again
    here(demo_pipeline, folder, patch, **flags)


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="sums on a GPU depend on the order of its threads"
)
def test_a_scene_is_trained_again_from_its_configuration_and_no_run_keeps_frames_of_another(
    folder, movers, monkeypatch
):
    flags = {
        "background_path": "results/clip/background_points.pt",
        "video_path": "clip/frames",
        "num_epochs": 1,
        "training.log2_entries_least": 12,
        "training.log2_entries_most": 12,
    }
    own = {
        "foreground_path": "movers/foreground_points.pt",
        "holdout_every": 5,
        "output_dir": "first",
    }
    train_here(folder, monkeypatch, **flags | own)
    told, first = settings_of(folder / "first" / "config.json"), folder / "first"
    train_here(folder, monkeypatch, **told | {"output_dir": "second"})
    assert settings_of(folder / "second" / "config.json") == told | {"output_dir": "second"}
    kinds = {".pt", ".mp4", ".glb", ".png"}
    made, second = contents(first, kinds), contents(folder / "second", kinds)
    assert {
        "model.pt",
        "reconstruction.mp4",
        "novel_view_spiral.mp4",
        "scene_animated.glb",
    } <= made.keys()
    assert made.keys() == second.keys()
    assert [name for name in made if made[name] != second[name]] == []
    assert names(folder / "second" / "frames" / "heldout") == {f"{t:05d}.png" for t in HELD_OUT}
    other = {"holdout_every": 4, "output_dir": "second", "seed": 1, "export": ""}
    train_here(folder, monkeypatch, **flags | other)
    assert names(folder / "second" / "frames" / "heldout") == {"00002.png", "00006.png"}
    assert (folder / "second" / "model.pt").read_bytes() != made["model.pt"]
