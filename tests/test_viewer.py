"""The live viewer in a real browser, and the camera paths it makes."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import open_browser, until, watch
from clips import true_tracks
from PIL import Image
from playwright.sync_api import Page
from scipy.spatial.transform import Rotation

from models.clip.images import write_images
from models.clip.transforms import load_transforms, save_transforms
from models.clip.video import read_video
from models.paths.key_frames import KeyFrame, interpolate_keys, pose_from_wxyz
from models.render.model_file import load_scene
from models.report.live import check_address
from models.report.pictures import make_render_function
from models.run.errors import InputError
from models.synthetic.sample import RoomOptions, render_room
from models.tracks import save_tracks

ROOT = Path(__file__).parent.parent
FRAMES, WIDTH, HEIGHT = 8, 160, 96


def random_keys(count: int) -> list[KeyFrame]:
    random = np.random.default_rng(0)
    keys = []
    for i in range(count):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec(0.4 * random.standard_normal(3)).as_matrix()
        pose[:3, 3] = random.standard_normal(3)
        keys.append(KeyFrame(pose, 0.8 + 0.1 * i, 2.0 * i))
    return keys


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_path_passes_through_its_key_frames_and_moves_evenly_between(count: int):
    keys = random_keys(count)
    views, times = interpolate_keys(keys, 10, 64, 48)
    assert len(views) == len(times) == 10 * (count - 1) + 1
    for key, pose, at, K in zip(
        keys, views.world_from_cam[::10], times[::10], views.K[::10], strict=True
    ):
        np.testing.assert_allclose(pose, key.world_from_cam, atol=1e-9)
        assert at == pytest.approx(key.time)
        assert 2 * np.arctan(24 / K[1, 1]) == pytest.approx(key.fov)
    rotation = views.world_from_cam[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand_as(rotation))
    assert views.centers.diff(dim=0).norm(dim=1).max() < 1.0


def test_one_key_frame_makes_no_path():
    with pytest.raises(InputError, match="at least 2 key frames"):
        interpolate_keys(random_keys(1), 10, 64, 48)


def test_a_path_survives_its_file(tmp_path: Path):
    views, times = interpolate_keys(random_keys(3), 4, 64, 48)
    save_transforms(tmp_path / "camera_path.json", views, times)
    loaded, loaded_times, _ = load_transforms(tmp_path / "camera_path.json")
    torch.testing.assert_close(loaded.world_from_cam, views.world_from_cam)
    torch.testing.assert_close(loaded.K, views.K)
    assert loaded_times == pytest.approx(times)


def test_the_pages_pose_is_ours():
    pose = random_keys(1)[0].world_from_cam
    wxyz = Rotation.from_matrix(pose[:3, :3]).as_quat(scalar_first=True)
    np.testing.assert_allclose(pose_from_wxyz(wxyz, pose[:3, 3]), pose, atol=1e-12)


@pytest.mark.parametrize(
    ("host", "port"), [("203.0.113.9", 8080), ("no such host", 8080), ("127.0.0.1", 99999)]
)
def test_an_address_that_nobody_can_listen_at_is_refused(host: str, port: int):
    with pytest.raises(InputError, match=re.escape(host) if port == 8080 else "1 to 65535"):
        check_address(host, port)
    check_address("127.0.0.1", free_port())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with its track files, and nothing trained yet."""
    folder = tmp_path_factory.mktemp("viewer")
    room = render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=1, num_tracks=1200))
    write_images(folder / "frames", room.frames, range(FRAMES))
    write_images(folder / "masks", room.masks.astype(np.uint8) * 255, range(FRAMES))
    save_tracks(folder / "background_points.pt", true_tracks(room, False, str(folder / "frames")))
    save_tracks(folder / "foreground_points.pt", true_tracks(room, True, str(folder / "frames")))
    return folder


@pytest.mark.slow
def test_each_mode_and_layer_gives_a_picture_of_its_own(page: Page, folder: Path):
    scene = load_scene(folder / "out" / "model.pt", torch.device("cpu"))
    picture = make_render_function(scene)
    view = scene.cameras[[3]].resized(WIDTH // 2, HEIGHT // 2)
    shown = [
        picture(view, 3.0, "colour", *layers)
        for layers in ((True, True), (True, False), (False, True))
    ]
    shown += [picture(view, 3.0, mode, True, True) for mode in ("depth", "mesh")]
    for image in shown:
        assert image.shape == (HEIGHT // 2, WIDTH // 2, 3) and image.dtype == np.uint8
    assert all((a != b).any() for i, a in enumerate(shown) for b in shown[:i])
    assert not picture(view, 3.0, "colour", False, False).any()


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    """The viewer's page, opened while the scene is being trained."""
    with (
        open_browser() as browser,
        script(
            folder, "--view", "--num_epochs=20", "--export=", f"--view_port={free_port()}"
        ) as demo,
    ):
        url = read_until(demo, "viewer: open ").split()[2]
        assert url.startswith("http://127.0.0.1:")
        page = browser.new_page(viewport={"width": 1000, "height": 600})
        page.troubles = watch(page)
        page.goto(url)
        page.get_by_role("button", name="Add key frame").wait_for(timeout=60_000)
        until(page, lambda: colors_in(shown(page)) > 500)
        read_until(demo, "the viewer goes on at")
        yield page
        assert page.troubles == []
        assert demo.poll() is None, (folder / "stderr.txt").read_text()[-2000:]


def script(folder: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-u", str(ROOT / "demo_pipeline.py"), "--output_dir=out"]
    command += ["--background_path=background_points.pt", *flags]
    log = (folder / "stderr.txt").open("w")
    # a suite started in the background ignores Ctrl-C, and its children with it
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return Interrupted(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=heeding
    )


class Interrupted(subprocess.Popen):
    """A process that is ended as a person does it, by Ctrl-C."""

    def __exit__(self, *details: object) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGINT)
        super().__exit__(*details)


def read_until(process: subprocess.Popen, start: str) -> str:
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(f"the script ended with {process.wait()} before it printed '{start}'")


def free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return any_socket.getsockname()[1]


def shown(page: Page) -> np.ndarray:
    """The middle of the scene's picture, away from the controls and the browser's notices."""
    image = page.screenshot(clip={"x": 60, "y": 200, "width": 480, "height": 320})
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)


def colors_in(image: np.ndarray) -> int:
    return len(np.unique(image.reshape(-1, 3), axis=0))


def settled(page: Page) -> np.ndarray:
    """The picture once it stands still, however busy the machine."""
    before = shown(page)
    for _ in range(60):
        page.wait_for_timeout(1000)
        after = shown(page)
        if (before == after).all():
            return after
        before = after
    raise AssertionError("the page's picture never stood still")


def changed(page: Page, before: np.ndarray, share: float) -> bool:
    return (np.abs(shown(page) - before).sum(2) > 60).mean() > share


@pytest.mark.slow
def test_a_picture_changes_with_time_and_with_what_is_chosen(page: Page):
    before = settled(page)
    # typed: arrow keys on the slider would turn the camera as well, by as much as the machine is slow
    page.locator("input[inputmode=decimal]").first.fill(str(FRAMES // 2))
    until(page, lambda: changed(page, before, 0.01))
    before = settled(page)
    page.get_by_label("Movers").uncheck()
    until(page, lambda: changed(page, before, 0.01))
    page.get_by_label("Movers").check()
    before = settled(page)
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(360, 320, steps=8)
    page.mouse.up()
    until(page, lambda: changed(page, before, 0.05))


@pytest.mark.slow
def test_a_path_made_in_the_page_is_rendered_by_the_script(page: Page, folder: Path):
    page.get_by_role("button", name="Save path").click()
    page.get_by_text("needs at least 2 key frames").wait_for()
    page.get_by_role("button", name="Add key frame").click()
    page.get_by_text("1 key frame").wait_for()
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(340, 300, steps=8)
    page.mouse.up()
    page.get_by_role("button", name="Add key frame").click()
    page.get_by_text("2 key frames").wait_for()
    page.get_by_role("button", name="Render to file").click()
    page.get_by_text("wrote out/novel_view.mp4").wait_for(timeout=60_000)
    views, times, _ = load_transforms(folder / "out" / "camera_path.json")
    assert len(views) == len(times) > 2 and (views.width, views.height) == (WIDTH, HEIGHT)
    assert (views.centers[-1] - views.centers[0]).norm() > 1e-3
    from_page = read_video(folder / "out" / "novel_view.mp4").frames
    assert len(from_page) == len(views)
    with script(folder, "--checkpoint=out/model.pt", "--camera_path=out/camera_path.json") as demo:
        read_until(demo, "results are in out/")
    from_script = read_video(folder / "out" / "novel_view.mp4").frames
    np.testing.assert_allclose(from_script.astype(int), from_page, atol=8)
    assert json.loads((folder / "out" / "metrics.json").read_text())["camera_path_coverage"] > 0.5
