"""The benchmark of quality: its scores on known pictures, cameras and depth, what it refuses, and
one whole run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from forks import SMALL_FIELD, ask, fork_server
from skimage.metrics import structural_similarity

from benchmarks import quality as benchmark
from benchmarks.flicker import measure_flicker
from benchmarks.flip import flip_map
from benchmarks.interpolation import interpolate_middle
from benchmarks.quality import compared, joined
from benchmarks.quality_others import read_systems
from benchmarks.quality_runs import split_flags
from benchmarks.quality_scenes import Scene, read_scene, read_scenes
from benchmarks.quality_scores import (
    camera_errors,
    rendered_depth_error,
    score_pictures,
    similarity,
    track_depth_error,
)
from benchmarks.quality_table import differences, table
from models.cameras import Cameras, look_at
from models.clip.images import write_images
from models.render.metrics import psnr
from models.render.rendering import Rendering
from models.run import InputError, run_script
from models.synthetic.folder import write_scene
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room, render_views

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def room() -> SyntheticScene:
    return render_room(RoomOptions(12, 160, 96, num_movers=0, num_tracks=64))


@pytest.fixture(scope="module")
def folders(room: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with all truth, and one of frames and masks alone."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scene(room, folder / "still")
    cart = render_room(RoomOptions(12, 160, 96))
    write_images(folder / "cart" / "frames", cart.frames, range(12))
    write_images(folder / "cart" / "masks", cart.masks.astype(np.uint8) * 255, range(12))
    return folder


def test_flip_gives_the_values_of_its_authors_program():
    y, x = np.mgrid[:40, :60]
    a = np.stack([4 * x + y, 255 - 4 * x, 6 * y], -1).clip(0, 255).astype(np.uint8)
    b = a.copy()
    b[10:25, 20:40] = [200, 40, 90]
    b[:, :10] //= 2
    error = flip_map(a, b)
    # of the package flip-evaluator 1.7, evaluate(a / 255, b / 255, "LDR", applyMagma=False)
    assert error.mean() == pytest.approx(0.325342, abs=1e-5)
    assert [error[12, 30], error[5, 5], error[39, 59]] == pytest.approx(
        [0.8515666, 0.977086, 0], abs=1e-5
    )
    assert np.array_equal(error, flip_map(b, a))
    assert flip_map(a, a).max() == 0


def test_pictures_are_scored_whole_and_by_region(tmp_path: Path):
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (3, 40, 50, 3), np.uint8)
    made = (truth + random.normal(0, 9, truth.shape)).clip(0, 255).astype(np.uint8)
    masks = np.zeros((3, 40, 50), bool)
    masks[:2, 5:20, 10:30] = True
    for name, images in (("truth", truth), ("made", made), ("masks", masks.astype(np.uint8) * 255)):
        write_images(tmp_path / name, images, range(3))
    paths = [
        {t: tmp_path / name / f"{t:05d}.png" for t in range(3)}
        for name in ("made", "truth", "masks")
    ]
    scores = score_pictures(*paths)
    own = {"channel_axis": 2, "data_range": 1, "full": True}
    ssim = [
        structural_similarity(b / 255, a / 255, **own)[1] for a, b in zip(made, truth, strict=True)
    ]
    pairs = list(zip(made, truth, masks, ssim, strict=True))
    assert scores["whole"]["psnr"] == pytest.approx(np.mean([psnr(a, b) for a, b, _, _ in pairs]))
    assert scores["whole"]["psnr_min"] == pytest.approx(min(psnr(a, b) for a, b, _, _ in pairs))
    assert scores["outside"]["psnr"] == pytest.approx(
        np.mean([psnr(a, b, ~m) for a, b, m, _ in pairs])
    )
    assert scores["outside"]["ssim"] == pytest.approx(
        np.mean([s[~m].mean() for _, _, m, s in pairs])
    )
    assert scores["inside"]["psnr"] == pytest.approx(
        np.mean([psnr(a, b, m) for a, b, m, _ in pairs[:2]])
    )
    assert {name: row["frames"] for name, row in scores.items()} == {
        "whole": 3,
        "outside": 3,
        "inside": 2,
    }
    assert score_pictures(paths[0], paths[1], {}).keys() == {"whole"}


def test_larger_truth_is_reduced_and_another_shape_refused(tmp_path: Path, room: SyntheticScene):
    frame = room.frames[0]
    half = cv2.resize(frame, (80, 48), interpolation=cv2.INTER_AREA)
    write_images(tmp_path, [frame, half, half[:, :60]], range(3))
    whole, small, cut = (tmp_path / f"{k:05d}.png" for k in range(3))
    assert score_pictures({0: small}, {0: whole}, {})["whole"]["psnr"] == pytest.approx(120)
    with pytest.raises(InputError, match="60x48"):
        score_pictures({0: cut}, {0: whole}, {})


@pytest.fixture(scope="module")
def moved(room: SyntheticScene) -> tuple[np.ndarray, np.ndarray, float]:
    """True poses, the same in another world, and the true units to one of that."""
    truth = room.cameras.world_from_cam.numpy()
    turn = look_at(*torch.tensor([[1.0, 2, 3], [4, 5, 7], [0, 1, 0]], dtype=torch.float64)).numpy()
    estimate = turn @ truth
    estimate[:, :3, 3] *= 0.4
    return truth, estimate, 2.5


def test_the_similarity_between_worlds_is_found(moved):
    truth, estimate, scale = moved
    best = similarity(estimate, truth)
    assert best.scale == pytest.approx(scale)
    assert np.allclose(best.to_estimate(truth), estimate)
    assert max(camera_errors(estimate, truth).values()) < 1e-5


def test_camera_errors_are_those_put_in(moved):
    truth, estimate, scale = moved
    angle = np.radians(3)
    turned = estimate.copy()
    turned[::2, :3, :3] = estimate[::2, :3, :3] @ cv2.Rodrigues(np.array([0, 0, angle]))[0]
    turned[1::2, :3, :3] = estimate[1::2, :3, :3] @ cv2.Rodrigues(np.array([0, 0, -angle]))[0]
    assert camera_errors(turned, truth)["camera_rotation_degrees"] == pytest.approx(3, abs=0.05)
    off = np.random.default_rng(0).normal(0, 1e-3, (len(truth), 3))
    away = estimate.copy()
    away[:, :3, 3] += off
    length = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    assert (
        0
        < camera_errors(away, truth)["camera_position_share"]
        <= scale * np.linalg.norm(off, axis=1).max() / length
    )


def test_a_path_that_runs_the_other_way_has_no_novel_cameras(moved):
    truth, estimate, _ = moved
    mirrored = estimate.copy()
    mirrored[:, :3, 3] *= -1
    with pytest.raises(InputError, match="similarity"):
        similarity(mirrored, truth).to_estimate(truth)


def test_depth_errors_are_the_share_that_depth_is_off(room: SyntheticScene):
    xy, visible = torch.from_numpy(room.track_xy), torch.from_numpy(room.track_visible)
    local = torch.from_numpy(room.track_xyz).double()
    depth = room.depth.copy()
    depth[:, :5] = 0  # not known
    error = track_depth_error(room.cameras, local, xy, visible, depth, 1.0)
    assert error < 0.01  # the depth of a pixel's centre is not quite the point's
    assert track_depth_error(room.cameras, local, xy, visible, depth, 1.1) == pytest.approx(
        0.1, abs=0.01
    )
    pictures = {t: room.depth[t] / 1.25 for t in (0, 5)}
    pictures[0][8:12] = np.inf
    assert rendered_depth_error(pictures, depth, 1.25) == pytest.approx(0, abs=1e-6)
    assert rendered_depth_error(pictures, depth, 1.0) == pytest.approx(0.2, abs=1e-6)
    larger = depth.repeat(2, 1).repeat(2, 2)
    assert rendered_depth_error(pictures, larger, 1.0) == pytest.approx(0.2, abs=1e-6)


def test_a_scene_is_read_with_all_that_it_holds(folders: Path, room: SyntheticScene):
    still, cart = read_scenes([folders / "still", folders / "cart"])
    assert (still.name, len(still.frames), still.novel, still.masks) == (
        "still",
        12,
        ("n1", "n2", "n3"),
        [],
    )
    assert np.allclose(still.truth["world_from_cam"], room.cameras.world_from_cam)
    assert still.has_depth and np.allclose(still.depth(), room.depth, rtol=1e-3)
    assert (cart.novel, len(cart.masks), cart.has_depth) == ((), 12, False)


def broken(kind: str, folder: Path) -> None:
    """Spoils a copy of the scene with all truth."""
    truth = dict(np.load(folder / "truth.npz"))
    if kind == "frames":
        shutil.rmtree(folder / "frames")
    elif kind == "masks":
        write_images(folder / "masks", np.zeros((3, 96, 160), np.uint8), range(3))
    elif kind == "cut":
        data = (folder / "truth.npz").read_bytes()
        (folder / "truth.npz").write_bytes(data[: len(data) // 2])
    elif kind == "novel":
        (folder / "novel" / "n2" / "00001.png").unlink()
    else:
        changed = {"world_from_cam": truth["world_from_cam"][:-1]} if kind == "poses" else {}
        kept = {key: value for key, value in truth.items() if key != kind}
        np.savez(folder / "truth.npz", **{**kept, **changed})


@pytest.mark.parametrize(
    "kind", ["frames", "masks", "cut", "novel", "poses", "K", "novel_n1_time", "world_from_cam"]
)
def test_a_scene_that_does_not_fit_is_refused(folders: Path, tmp_path: Path, kind: str):
    shutil.copytree(folders / "still", tmp_path / "still")
    broken(kind, tmp_path / "still")
    with pytest.raises(InputError, match="still"):
        read_scene(tmp_path / "still")


def test_two_scenes_of_one_name_are_refused(folders: Path):
    with pytest.raises(InputError, match="one name"):
        read_scenes([folders / "cart", folders / "cart"])
    with pytest.raises(InputError, match="no scene"):
        read_scenes([])


def test_flags_are_handed_on_but_not_those_that_the_benchmark_sets():
    assert (
        split_flags('--train_seconds 60 --trajectory "spiral turns=3; orbit"', "demo")[-1]
        == "spiral turns=3; orbit"
    )
    for text in (
        "--output_dir x",
        "--output-dir=x",
        "--checkpoint m.pt",
        "--sed 1",
        '--trajectory "spiral',
    ):
        with pytest.raises(InputError, match="--demo"):
            split_flags(text, "demo")
    assert joined(["a", "--demo", "--seed 1", "--demo"]) == ["a", "--demo=--seed 1", "--demo"]


def test_renderings_are_found_and_lacking_ones_refused(folders: Path, tmp_path: Path):
    still, cart = read_scenes([folders / "still", folders / "cart"])
    write_images(tmp_path / "cart", np.zeros((2, 96, 160, 3), np.uint8), [4, 5])
    for path in ("still/n1", "still/n3"):
        shutil.copytree(folders / "still" / "novel" / path[-2:], tmp_path / path)
    system = read_systems([f"them={tmp_path}"], [still, cart], 8)[0]
    assert system.name == "them"
    assert system.views(still).keys() == {"n1", "n3"} and system.views(cart)["held out"].keys() == {
        4,
        5,
    }
    assert read_systems([f"them={tmp_path / 'cart'}"], [cart], 8)[0].views(cart).keys() == {
        "held out"
    }
    for text, every in (
        (f"them={tmp_path}", 4),
        (f"={tmp_path}", 8),
        (f"them={tmp_path / 'none'}", 8),
        ("them", 8),
    ):
        with pytest.raises(InputError):
            read_systems([text], [still, cart], every)
    with pytest.raises(InputError, match="no renderings"):
        read_systems([f"them={folders / 'still' / 'novel'}"], [Scene("a", tmp_path, []), cart], 8)


def test_the_table_shows_figures_and_their_differences(tmp_path: Path):
    name = {"scene": "a", "system": "ours", "views": "n1", "region": "whole"}
    old = [{**name, "psnr": 20.0, "ssim": 0.5}, {**name, "views": "n2", "psnr": 21.0}]
    new = [
        {**name, "psnr": 21.5, "flip": 0.1},
        {"scene": "b", "system": "ours", "error": "it broke"},
    ]
    assert differences(new, old) == [{**name, "psnr": 1.5}]
    text = compared(new, old, tmp_path)
    assert "+1.50" in text and "only here: b ours" in text and "a ours n2" in text
    lines = table(new).splitlines()
    assert lines[0].split() == ["scene", "views", "region", "PSNR", "FLIP"]
    assert lines[1].split() == ["a", "n1", "whole", "21.50", "0.100"] and lines[-1] == "b: it broke"
    assert "system" in table([*new, {**name, "system": "theirs", "psnr": 30.0}]).splitlines()[0]


def test_interpolation_moves_both_pictures_half_way():
    noise = np.random.default_rng(0).normal(size=(96, 128, 3)).astype(np.float32)
    texture = (128 + 400 * cv2.GaussianBlur(noise, (0, 0), 2)).clip(0, 255).astype(np.uint8)
    before, middle, after = (np.roll(texture, shift, 1) for shift in (0, 3, 6))
    made = interpolate_middle(before, after)
    inner = slice(16, -16), slice(16, -16)
    errors = [np.abs(p[inner].astype(float) - middle[inner]).mean() for p in (made, before)]
    assert errors[0] < 0.2 * errors[1]


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmark runs its scripts in forks: to start one takes seconds."""
    if not hasattr(os, "fork"):
        yield
        return
    with fork_server() as server:

        def run(command: list, stdout: BinaryIO, **_: object) -> SimpleNamespace:
            _, path, *flags = map(str, command)
            script = Path(path).stem.split("_")[0]
            ended = ask(server, script, flags, Path.cwd(), small=False, limit=600)
            stdout.write(ended["log"].encode())
            return SimpleNamespace(returncode=ended["code"])

        monkeypatch.setattr("benchmarks.quality_runs.subprocess", SimpleNamespace(run=run))
        yield


def quality_here(words: Sequence[object], capfd: pytest.CaptureFixture) -> tuple[int, str]:
    """Exit code of the benchmark in this process and this folder, and what it said."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["quality.py", *map(str, words)])
        run_script(benchmark.main)
    return ended.value.code, "".join(capfd.readouterr())


class TrueScene:
    """A room that is rendered without error, but for noise in views of some cameras."""

    def __init__(self, room: SyntheticScene, noise: float):
        self.room, self.noise = room, noise

    def render(self, view: Cameras, time: float) -> Rendering:
        rgb, depth, _ = render_views(view, [time], len(self.room.frames))
        seed = int(1e6 * view.centers.abs().sum())
        noise = np.random.default_rng(seed).normal(0, self.noise, rgb[0].shape)
        rgb = (rgb[0] + noise).clip(0, 255).round().astype(np.uint8)
        return Rendering(rgb, depth[0].astype(np.float32), np.ones(rgb.shape[:2], bool))


def test_flicker_is_the_noise_between_views_and_not_their_motion(room: SyntheticScene):
    pair = room.cameras[[4, 7]]
    figures = [measure_flicker(TrueScene(room, noise), pair, 5.0) for noise in (0, 8, 16)]
    view = TrueScene(room, 0).render(pair[1], 5.0).rgb.astype(float)
    unmoved = np.sqrt(((TrueScene(room, 0).render(pair[0], 5.0).rgb - view) ** 2).mean())
    assert figures[0] < 0.35 * unmoved
    # smoothing by a sigma of 1 leaves 0.28 of white noise, which both views have
    for figure, noise in zip(figures[1:], (8, 16), strict=True):
        added = np.sqrt(figure**2 - figures[0] ** 2)
        assert added == pytest.approx(0.28 * np.sqrt(2) * noise, rel=0.3)
    still = room.cameras[[4, 4]]
    assert measure_flicker(TrueScene(room, 8), still, 5.0) == 0


@pytest.mark.slow
def test_one_command_runs_and_scores_all(folders: Path, tmp_path: Path, forked, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folders / "cart" / "frames", tmp_path / "theirs" / "cart")  # the truth itself
    (tmp_path / "broken" / "frames").mkdir(parents=True)
    write_images(tmp_path / "broken" / "frames", np.zeros((6, 40, 40, 3), np.uint8), range(6))
    flags = [
        "--demo",
        f"--num_epochs 2 --export= {' '.join(SMALL_FIELD)}",
        "--background",
        "--spacing 6",
        "--output",
        "new.json",
    ]
    flags += ["--output_dir", "runs", "--renderings", "theirs=theirs", "--export_split", "split"]
    scenes = [folders / "still", folders / "cart", "broken"]
    code, said = quality_here([*scenes, *flags], capfd)
    assert code == 2 and "1 of 3 scenes could not be scored: broken" in said
    content = json.loads((tmp_path / "new.json").read_text())
    rows = {
        (row["scene"], row["system"], row.get("views"), row.get("region")): row
        for row in content["rows"]
    }
    assert {("still", "spacelayer", views, "whole") for views in ("n1", "n2", "n3")} <= rows.keys()
    first = rows["still", "spacelayer", "n1", "whole"]
    assert (
        first["psnr"] > 10
        and first["camera_position_share"] < 0.1
        and first["track_depth_error"] < 0.2
    )
    assert (
        first["rendered_depth_error"] < 0.2
        and first["peak_memory_gib"] > 0.1
        and first["seconds_foreground"] == 0
    )
    assert 0.5 < first["coverage"] <= 1 and 0.5 < first["spiral_coverage"] <= 1
    assert 0 < first["flicker"] < 30 and 0 < first["flicker_field"] < 30
    own = rows["cart", "spacelayer", "held out", "whole"]
    metrics = json.loads((tmp_path / "runs" / "cart" / "demo" / "metrics.json").read_text())
    assert own["psnr"] == pytest.approx(metrics["heldout_frames"]["psnr"]) and own["frames"] == 1
    outside = rows["cart", "spacelayer", "held out", "outside"]["psnr"]
    assert outside == pytest.approx(metrics["heldout_frames"]["psnr_outside_mask"])
    assert own["seconds_foreground"] > 0
    assert rows["cart", "DIS flow", "held out", "whole"]["psnr"] > 10
    assert rows["cart", "theirs", "held out", "inside"]["psnr"] == pytest.approx(120)
    check_split(tmp_path / "split")
    code, said = quality(tmp_path, folders / "cart", *flags[:-4], "--compare", "new.json")
    assert code == 0 and "+0.00" in said and "only in new.json: still spacelayer n1" in said
    assert "train: reused" in (tmp_path / "runs" / "cart" / "demo_pipeline.log").read_text()


def quality(folder: Path, *words: object) -> tuple[int, str]:
    """Exit code of the benchmark and what it said."""
    command = [sys.executable, str(ROOT / "benchmarks" / "quality.py"), *map(str, words)]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def check_split(folder: Path) -> None:
    """What another system is given: training frames with cameras, and the cameras of the views that
    are scored."""
    model = pycolmap.Reconstruction(str(folder / "cart" / "sparse" / "0"))
    names = {image.name for image in model.images.values()}
    assert names == {f"{t:05d}.png" for t in range(12) if t != 4} and model.num_points3D() > 20
    assert names == {path.name for path in (folder / "cart" / "images").iterdir()}
    assert names == {path.name for path in (folder / "cart" / "masks").iterdir()}
    held_out = json.loads((folder / "cart" / "heldout.json").read_text())["frames"]
    assert [frame["file_path"] for frame in held_out] == ["00004.png"]
    assert len(json.loads((folder / "still" / "novel_n3.json").read_text())["frames"]) == 12
