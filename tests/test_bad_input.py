"""Input that cannot be used ends a script with exit code 2, one sentence that names it, and nothing
half-written."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from clips import true_tracks
from forks import SMALL_FIELD

import background_points
import demo_pipeline
from models.clip.images import write_images
from models.clip.transforms import save_transforms
from models.run import check_owner, hash_content
from models.run.errors import InputError, run_script
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tracks import save_tracks
from models.tracks.thumbnails import make_thumbnails
from models.training.inputs import check_same_clip, load_inputs

ROOT = Path(__file__).parent.parent
FRAMES = 5


@pytest.fixture(scope="module")
def room() -> SyntheticScene:
    return render_room(RoomOptions(num_frames=FRAMES, width=96, height=64, num_movers=1))


@pytest.fixture(scope="module")
def clip(room: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames, masks, a track file made from the truth, and a camera path."""
    folder = tmp_path_factory.mktemp("clip")
    write_images(folder / "frames", room.frames, range(FRAMES))
    write_images(folder / "given_masks", room.masks.astype(np.uint8) * 255, range(FRAMES))
    save_tracks(folder / "background_points.pt", true_tracks(room, False, str(folder / "frames")))
    save_transforms(folder / "path.json", room.cameras, list(range(FRAMES)))
    return folder


@pytest.fixture(scope="module")
def model(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model.pt as demo_pipeline.py writes it."""
    out = tmp_path_factory.mktemp("trained")
    flags = [
        "--background_path",
        clip / "background_points.pt",
        "--output_dir",
        out,
        "--num_epochs",
        "0.1",
        *SMALL_FIELD,
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["demo_pipeline.py", *map(str, flags)])
        demo_pipeline.main()
    return out / "model.pt"


class Refusal:
    """Runs a script's main() on flags and holds it to the rules for bad input."""

    def __init__(
        self,
        main: Callable[[], None],
        patch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture,
        out: Path,
    ):
        self.main, self.patch, self.capfd, self.out = main, patch, capfd, out

    def __call__(self, *flags: object, names: object, says: str = "") -> str:
        if "--output_dir" not in flags:
            flags = (*flags, "--output_dir", self.out)
        self.patch.setattr(sys, "argv", ["script.py", *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            run_script(self.main)
        assert ended.value.code == 2
        sentence = only_line(self.capfd.readouterr().err)
        assert str(names) in sentence
        assert says in sentence
        assert not [path for path in self.out.rglob("*") if path.is_file()], "half-written"
        return sentence


def only_line(stderr: str) -> str:
    """The one line on stderr, progress bars aside."""
    assert "Traceback" not in stderr
    lines = [
        line
        for line in stderr.splitlines()
        if line.strip() and "it/s" not in line and "%|" not in line
    ]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture
def refuse_tracking(monkeypatch, capfd, tmp_path) -> Refusal:
    return Refusal(background_points.main, monkeypatch, capfd, tmp_path / "out")


@pytest.fixture
def refuse_demo(monkeypatch, capfd, tmp_path) -> Refusal:
    return Refusal(demo_pipeline.main, monkeypatch, capfd, tmp_path / "out")


def folder_of(path: Path, *frames: np.ndarray) -> Path:
    write_images(path, frames, range(len(frames)))
    return path


def no_video(room: SyntheticScene, folder: Path) -> dict[str, Path]:
    """Things that are no clip, by what is wrong with them."""
    (folder / "text.mp4").write_text("this is no video\n" * 99)
    (folder / "empty.mp4").touch()
    (folder / "no_images").mkdir()
    cut = folder_of(folder / "cut_image", *room.frames[:3])
    data = (cut / "00001.png").read_bytes()
    (cut / "00001.png").write_bytes(data[: len(data) // 2])
    return {
        "no such file": folder / "absent.mp4",
        "no video": folder / "text.mp4",
        "empty": folder / "empty.mp4",
        "holds no images": folder / "no_images",
        "one frame": folder_of(folder / "one", room.frames[0]),
        "give images of one size": folder_of(folder / "sizes", room.frames[0], room.frames[1][:-8]),
        "cut short": cut,
    }


def test_clips_that_cannot_be_used_are_refused(room, tmp_path, refuse_tracking):
    for says, path in no_video(room, tmp_path).items():
        refuse_tracking("--video_path", path, names=path, says=says)


def test_masks_of_another_count_or_size_are_refused(room, clip, tmp_path, refuse_tracking):
    white = np.full((64, 96), 255, np.uint8)
    few = folder_of(tmp_path / "few", *[white] * (FRAMES - 2))
    small = folder_of(tmp_path / "small", *[white[:32, :32]] * FRAMES)
    for path, says in (
        (few, f"holds {FRAMES - 2} masks"),
        (small, "32x32"),
        (tmp_path / "absent", "no such"),
    ):
        refuse_tracking("--video_path", clip / "frames", "--mask_path", path, names=path, says=says)


@pytest.mark.parametrize("value", [0, 128])
def test_a_video_without_texture_is_refused_by_name(tmp_path, value, refuse_tracking):
    path = folder_of(tmp_path / "plain", *[np.full((64, 96, 3), value, np.uint8)] * FRAMES)
    refuse_tracking("--video_path", path, names=path, says="texture")


def test_masks_that_cover_everything_are_refused(clip, tmp_path, refuse_tracking):
    path = folder_of(tmp_path / "white", *[np.full((64, 96), 255, np.uint8)] * FRAMES)
    refuse_tracking(
        "--video_path", clip / "frames", "--mask_path", path, names=clip / "frames", says="mask"
    )


def test_known_cameras_that_cannot_be_used_are_refused(clip, tmp_path, refuse_tracking):
    (tmp_path / "bad.json").write_text('{"frames": []}')
    for path in (tmp_path / "bad.json", tmp_path / "absent.json", clip / "frames"):
        refuse_tracking("--video_path", clip / "frames", "--cameras_path", path, names=path)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--spacing", 0),
        ("--stride", 0),
        ("--max_frames", 0),
        ("--max_size", 2),
        ("--tracker", "wishful"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(clip, flag, value, refuse_tracking):
    refuse_tracking("--video_path", clip / "frames", flag, value, names=flag.strip("-"))


def test_an_output_folder_that_cannot_be_written_is_refused(
    clip, tmp_path, refuse_tracking, refuse_demo
):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("mine")
    for path in (in_the_way, in_the_way / "below"):
        refuse_tracking("--video_path", clip / "frames", "--output_dir", path, names=path)
        refuse_demo(
            "--background_path", clip / "background_points.pt", "--output_dir", path, names=path
        )
    assert in_the_way.read_text() == "mine"


class Bomb:
    """What a pickle that runs code looks like."""

    def __reduce__(self):
        return (Path.touch, (Path("bomb_went_off"),))


def broken_files(good: Path, folder: Path, version_key: str) -> dict[str, Path]:
    """Copies of a .pt file, each broken in its own way."""

    def state() -> dict:
        return torch.load(good, weights_only=True)

    def write(name: str, content: object) -> Path:
        torch.save(content, folder / f"{name}.pt")
        return folder / f"{name}.pt"

    (folder / "truncated.pt").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "empty.pt").touch()
    (folder / "pickle.pt").write_bytes(pickle.dumps(Bomb()))
    return {
        "absent": folder / "absent.pt",
        "truncated": folder / "truncated.pt",
        "empty": folder / "empty.pt",
        "pickled code": folder / "pickle.pt",
        "code inside": write("code", {**state(), "extra": Bomb()}),
        "a list": write("list", [1, 2]),
        "another version": write("version", {**state(), version_key: 999}),
        "no fps": write("lacks", {key: value for key, value in state().items() if key != "fps"}),
    }


def tensors_of(state: dict) -> list[tuple[dict, str]]:
    """Where the tensors of a nested dict are: their dict and key."""
    found = []
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            found.append((state, key))
        elif isinstance(value, dict):
            found += tensors_of(value)
    return found


def damaged_tensors(good: Path, folder: Path) -> list[Path]:
    """Copies of a .pt file, each with one tensor of NaN, or cut."""
    paths = []
    for i in range(len(tensors_of(torch.load(good, weights_only=True)))):
        for kind in ("nan", "cut"):
            state = torch.load(good, weights_only=True)
            where, key = tensors_of(state)[i]
            if kind == "nan" and not where[key].is_floating_point():
                continue
            where[key] = (
                torch.full_like(where[key], torch.nan)
                if kind == "nan"
                else where[key].flatten()[:-1]
            )
            paths.append(folder / f"{key}_{kind}_{i}.pt")
            torch.save(state, paths[-1])
    return paths


def test_broken_track_files_are_refused_and_their_code_never_run(
    clip, tmp_path, monkeypatch, refuse_demo
):
    monkeypatch.chdir(tmp_path)
    good = clip / "background_points.pt"
    broken = [
        *broken_files(good, tmp_path, "format_version").values(),
        *damaged_tensors(good, tmp_path),
    ]
    for path in broken:
        refuse_demo("--background_path", path, names=path)
    assert not (tmp_path / "bomb_went_off").exists()


def test_broken_models_are_refused_and_their_code_never_run(
    clip, model, tmp_path, monkeypatch, refuse_demo
):
    monkeypatch.chdir(tmp_path)
    broken = [
        *broken_files(model, tmp_path, "model_version").values(),
        *damaged_tensors(model, tmp_path),
    ]
    flags = (
        "--background_path",
        clip / "background_points.pt",
        "--camera_path",
        clip / "path.json",
    )
    for path in broken:
        refuse_demo(*flags, "--checkpoint", path, names=path)
    assert not (tmp_path / "bomb_went_off").exists()


@pytest.mark.parametrize(
    "text", ['{"w": 96, "h": 64, "fl_x": 90, "frames": []}', "{}", "[]", "no json", None]
)
def test_a_camera_path_without_frames_is_refused(clip, tmp_path, text, refuse_demo):
    path = tmp_path / "path.json"
    if text is not None:
        path.write_text(text)
    refuse_demo(
        "--background_path", clip / "background_points.pt", "--camera_path", path, names=path
    )


def test_another_clip_than_that_of_the_tracks_is_refused(room, clip, tmp_path, refuse_demo):
    short = folder_of(tmp_path / "short", *room.frames[:3])
    small = folder_of(tmp_path / "small", *room.frames[:, :48])
    for path in (short, small, tmp_path / "absent"):
        refuse_demo(
            "--background_path", clip / "background_points.pt", "--video_path", path, names=path
        )


def test_another_clip_of_the_same_size_and_length_is_refused_by_its_pictures(room, tmp_path):
    frames = folder_of(tmp_path / "frames", *room.frames)
    other = folder_of(tmp_path / "other", *room.frames[:, ::-1])
    path = tmp_path / "background_points.pt"
    known = replace(true_tracks(room, False, str(frames)), thumbnails=make_thumbnails(room.frames))
    save_tracks(path, known)
    tracks = load_inputs(path).tracks
    with pytest.raises(InputError, match=r"other: shows other pictures.*--video_path"):
        load_inputs(path, video_path=other)
    movers = replace(true_tracks(room, True), thumbnails=make_thumbnails(room.frames[:, ::-1]))
    save_tracks(tmp_path / "foreground_points.pt", movers)
    with pytest.raises(InputError, match=r"foreground_points\.pt: was made from another clip"):
        load_inputs(path)
    scene = SimpleNamespace(cameras=room.cameras, thumbnails=movers.thumbnails)
    with pytest.raises(InputError, match=r"model\.pt: was trained on other pictures"):
        check_same_clip(scene, tmp_path / "model.pt", tracks, path)


def test_a_default_folder_that_another_clip_of_this_name_owns_is_refused(
    room, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        folder_of(tmp_path / name / "walk", *(room.frames if name == "a" else room.frames[::-1]))
    (tmp_path / "results" / "walk").mkdir(parents=True)
    content = hash_content(tmp_path / "a" / "walk")
    told = {"settings": {"video_path": "a/walk"}, "inputs_sha256": {"clip": content}}
    config = tmp_path / "results" / "walk" / "background_config.json"
    config.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"another clip of this name, a/walk; .*--output_dir"):
        monkeypatch.setattr(sys, "argv", ["background_points.py", "--video_path", "b/walk"])
        background_points.main()
    moved = hash_content(tmp_path / "b" / "walk")
    check_owner(config, Path("a/walk"), moved)  # the clip has changed at its place
    check_owner(config, Path("c/walk"), content)  # the clip was moved
    config.write_text(json.dumps(told | {"clip_place": str(tmp_path / "b" / "walk")}))
    check_owner(config, Path("b/walk"), moved)
    for broken in ("{", "[]", '{"settings": 3}', json.dumps(told | {"clip_place": "a\0b"})):
        config.write_text(broken)
        check_owner(config, Path("b/walk"), moved)


def test_masks_beside_the_tracks_that_do_not_fit_are_refused(room, clip, tmp_path, refuse_demo):
    save_tracks(tmp_path / "t.pt", true_tracks(room, False, str(clip / "frames")))
    masks = folder_of(tmp_path / "masks", *[np.zeros((64, 96), np.uint8)] * (FRAMES - 1))
    refuse_demo("--background_path", tmp_path / "t.pt", names=masks, says=f"{FRAMES - 1} masks")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--holdout_every", 1),
        ("--holdout_every", -2),
        ("--num_epochs", 0),
        ("--num_epochs", "nan"),
        ("--trajectory", "wishful"),
    ],
)
def test_settings_of_the_demo_out_of_range_are_refused(clip, flag, value, refuse_demo):
    names = value if flag == "--trajectory" else flag
    refuse_demo("--background_path", clip / "background_points.pt", flag, value, names=names)


@pytest.mark.parametrize(
    ("script", "flag"),
    [("background_points.py", "--video_path"), ("demo_pipeline.py", "--background_path")],
)
def test_a_script_run_by_hand_ends_with_code_2_and_one_sentence(tmp_path, script, flag):
    (tmp_path / "bad.file").write_bytes(pickle.dumps(Bomb()))
    command = [
        sys.executable,
        str(ROOT / script),
        flag,
        "bad.file",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 2
    assert "bad.file" in only_line(ended.stderr)
    assert not (tmp_path / "bomb_went_off").exists()


def as_grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def as_rgba(frame: np.ndarray) -> np.ndarray:
    return np.dstack([frame[..., ::-1], np.full(frame.shape[:2], 128, np.uint8)])


def as_4k(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, (3840, 2160), interpolation=cv2.INTER_CUBIC)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "height", "convert", "worked_on"),
    [
        (161, 97, None, "161x97"),
        (96, 160, None, "96x160"),
        (160, 90, as_grey, "160x90"),
        (160, 90, as_rgba, "160x90"),
        (160, 90, as_4k, "160x90 (reduced from 3840x2160)"),
    ],
)
def test_unusual_sizes_and_kinds_of_images_work(
    tmp_path, monkeypatch, capsys, width, height, convert, worked_on
):
    frames = render_room(
        RoomOptions(num_frames=6, width=width, height=height, num_movers=0, num_tracks=0)
    ).frames
    (tmp_path / "in").mkdir()
    for t, frame in enumerate(frames):
        image = convert(frame) if convert else frame[..., ::-1]
        cv2.imwrite(str(tmp_path / "in" / f"{t}.{'jpg' if convert is as_4k else 'png'}"), image)
    flags = [
        "--video_path",
        tmp_path / "in",
        "--output_dir",
        tmp_path / "out",
        "--max_size",
        200 - 40 * (width == 160),
    ]
    monkeypatch.setattr(sys, "argv", ["background_points.py", *map(str, flags)])
    background_points.main()
    assert worked_on in capsys.readouterr().out
    tracks = torch.load(tmp_path / "out" / "background_points.pt", weights_only=True)
    assert (tracks["width"], tracks["height"]) == (width, height)
