"""The results page in a real browser, opened from disk."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from browser import open_browser, until, watch
from clips import true_tracks
from PIL import Image
from playwright.sync_api import Page, expect

from models.clip.video_writer import write_video
from models.report.charts import draw_loss_curve, save_png, svg_from_figure, write_charts
from models.report.page import Report, extract_three_js, write_report
from models.report.tables import tabulate_movers
from models.report.videos import write_track_overlay
from models.report.world import color_points, gather_world, pack_world
from models.run.errors import InputError
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tracks import PointTracks
from models.training.loop import History

FRAMES, WIDTH, HEIGHT = 12, 160, 90
VIDEOS = (
    "input.mp4",
    "reconstruction.mp4",
    "novel_view a#b.mp4",
    "background_only.mp4",
    "foreground_only.mp4",
    "mesh.mp4",
    "depth.mp4",
)
HOSTILE = "a</script><img src=x onerror=alert(1)>&\"'.mp4"


@pytest.fixture(scope="module")
def room() -> SyntheticScene:
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=1))


def textured_quad() -> bytes:
    """A GLB with an embedded picture, before the room's middle camera."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [1, 3, 2]], process=False)
    mesh.visual = trimesh.visual.TextureVisuals(uv=corners[:, :2], image=picture)
    return trimesh.Scene([mesh]).export(file_type="glb")


@pytest.fixture(scope="module")
def page_path(room: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder as demo_pipeline.py leaves it, under a name full of what HTML and URLs treat
    specially."""
    folder = tmp_path_factory.mktemp("page") / 'it\'s 100%25 #1 <b> & "more"'
    folder.mkdir()
    tracks, movers = true_tracks(room, False), true_tracks(room, True)
    for name in VIDEOS:
        write_video(folder / name, room.frames, room.fps)
    write_track_overlay(folder, room.frames, tracks, movers)
    (folder / "scene.glb").write_bytes(textured_quad())
    scores = [{"psnr": 30.0 + t, "ssim": 0.9} for t in range(FRAMES)]
    metrics = {
        "frames": scores,
        "heldout_frames": scores[2],
        "training_frames": scores[0],
        "seconds": {HOSTILE: 2.0},
    }
    metrics["exported_mesh"] = {"heldout_frames": {**scores[2], "coverage": 1.0}}
    config = {
        "settings": {"video_path": HOSTILE, "seed": None},
        "versions": {"python": "3"},
        "device": "cpu",
    }
    world = gather_world(tracks, movers, room.frames)
    history = History([20, 40], [20.0, 25.0], [40], [24.0])
    charts = write_charts(folder, tracks, world, scores, [2], history)
    report = Report(HOSTILE, world, room.mean_depth, metrics, config, {}, [2], charts)
    return write_report(folder, report)


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(params=[(1280, 800, "light"), (390, 844, "dark")], ids=["desktop", "phone"])
def page(request, browser, page_path: Path):
    width, height, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.troubles = watch(page)
    page.goto(page_path.as_uri())
    page.wait_for_selector("#world[data-ready=yes][data-surface=shown]", timeout=60_000)
    yield page
    assert page.troubles == []
    page.close()


APART = """Math.abs(document.querySelectorAll('#compare video')[0].currentTime
 - document.querySelectorAll('#compare video')[1].currentTime)"""
"""Seconds between the two videos."""


def picture_of(page: Page, selector: str) -> np.ndarray:
    return np.asarray(
        Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")
    ).astype(int)


def differs(page: Page, before: np.ndarray, share: float) -> bool:
    """Whether the canvas has changed in more than a share of its pixels."""
    now = picture_of(page, "#world canvas")
    return bool((np.abs(now - before).sum(2) > 30).mean() > share)


def test_the_page_opens_from_disk_and_every_video_plays(page: Page):
    sources = page.evaluate(
        "[...document.querySelectorAll('video')].map(v => v.getAttribute('src').split('#')[0])"
    )
    assert set(sources) == {*VIDEOS, "tracks.mp4"} - {"novel_view a#b.mp4"} | {
        "novel_view%20a%23b.mp4"
    }
    played = page.evaluate(
        """Promise.all([...document.querySelectorAll('video')].map(async (video) => {
            video.loop = true;
            const start = video.currentTime, since = Date.now();
            while (video.currentTime === start && Date.now() - since < 10000) {
                // the page pauses videos off the screen, which ends a pending play()
                if (video.paused) await video.play().catch(() => {});
                await new Promise((done) => setTimeout(done, 20));
            }
            return [video.videoWidth, video.currentTime !== start];
        }))"""
    )
    assert played == [[WIDTH, True]] * len(sources)
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width, (
        "nothing sticks out sideways"
    )


def test_the_canvas_shows_the_scene_and_turns_when_dragged(page: Page):
    page.locator("#world canvas").scroll_into_view_if_needed()
    page.locator("#world .hint").evaluate("hint => hint.remove()")
    before = picture_of(page, "#world canvas")
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 50, "not blank"
    box = page.locator("#world canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y + 20, steps=4)
    page.mouse.up()
    until(page, lambda: differs(page, before, 0.01))
    page.wait_for_timeout(200)
    after = picture_of(page, "#world canvas")
    page.locator("#world [name=points]").check()
    page.locator("#world [name=surface]").uncheck()
    until(page, lambda: differs(page, after, 0.0))


def test_the_divider_follows_the_mouse_and_the_videos_stay_in_step(page: Page):
    page.locator("#compare .stage").scroll_into_view_if_needed()
    box = page.locator("#compare .stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20, steps=3)
    page.mouse.up()
    assert page.locator("#compare .divider").get_attribute("aria-valuenow") == "25"
    for slider, told in (
        ("#compare [type=range]", "#compare output"),
        ("#world [type=range]", "#world output"),
    ):
        page.locator(slider).fill("7")
        expect(page.locator(told)).to_contain_text("frame 8 of")
    assert "37.0 dB" in page.locator("#compare output").text_content()
    times = page.evaluate(
        "[...document.querySelectorAll('#compare video')].map(v => v.currentTime)"
    )
    assert times[0] == pytest.approx(times[1], abs=1e-3)
    if page.locator("#compare .play.on").count() == 0:
        page.locator("#compare .play").click()
    apart = []
    for _ in range(9):
        page.wait_for_timeout(120)
        apart.append(page.evaluate(APART))
    assert np.median(apart) < 0.1, "a busy machine may stop one of them for a moment"


FAKE_HEADSET = """
Object.defineProperty(navigator, "xr", { value: {
  isSessionSupported: async (mode) => mode === "immersive-vr",
  requestSession: async () => { throw new Error("it sleeps"); },
} });
"""


def test_the_button_for_headsets_says_what_is_there(browser, page_path: Path):
    page = browser.new_page()
    page.goto(page_path.as_uri())
    button = page.locator("#world [name=headset]")
    expect(button).to_have_text("No headset here")
    expect(button).to_be_disabled()
    page.close()
    page = browser.new_page()
    troubles = watch(page)
    page.add_init_script(FAKE_HEADSET)
    page.goto(page_path.as_uri())
    button = page.locator("#world [name=headset]")
    expect(button).to_have_text("View in headset")
    button.click()
    expect(button).to_have_text("The headset did not start: it sleeps")
    assert not troubles
    page.close()


def test_what_the_page_shows_is_escaped(page: Page):
    assert page.locator("h1").text_content() == HOSTILE
    assert page.title().startswith(HOSTILE)
    assert page.locator("td.v", has_text=HOSTILE).count() == 1
    assert page.locator("th", has_text=HOSTILE).count() == 1
    assert page.locator("img[src=x]").count() == 0


def test_each_mover_has_a_row():
    mover = {
        "mover": 1,
        "tracks": 240,
        "median_life_frames": 12.5,
        "frames": 48,
        "shape": "rigid",
        "depth_from": "contact with the ground",
        "depth_standard_deviation": 0.054,
    }
    guessed = {**mover, "mover": 2, "depth_standard_deviation": None}
    rows = tabulate_movers({"movers": [mover, guessed]})
    assert [row.number for row in rows] == ["1", "2"]
    assert (rows[0].depth, rows[0].uncertainty) == ("rigid, from contact with the ground", "5 %")
    assert rows[1].uncertainty == "" and tabulate_movers({}) == []


def test_a_page_without_scores_videos_or_surface_opens_too(
    browser, room: SyntheticScene, tmp_path: Path
):
    world = gather_world(true_tracks(room, False), None, room.frames)
    path = write_report(tmp_path, Report("views", world, 5.0, {}, {}, {}, [], {}))
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    page = browser.new_page()
    troubles = watch(page)
    page.goto(path.as_uri())
    page.wait_for_selector("#world[data-ready=yes]", timeout=60_000)
    assert troubles == [] and page.locator("video").count() == 0
    with pytest.raises(InputError, match="cannot be written"):
        write_report(tmp_path / "missing", Report("views", world, 5.0, {}, {}, {}, [], {}))


def test_three_js_comes_whole_and_with_its_licence():
    text = extract_three_js()
    assert "SPDX-License-Identifier: MIT" in text
    assert text.rstrip().endswith("THREE.GLTFLoader=GLTFLoader;})();") and "</script" not in text


def test_points_take_the_colour_of_a_frame_that_sees_them(room: SyntheticScene):
    frames = np.zeros((3, 4, 5, 3), np.uint8)
    frames[1, 2, 3] = 10, 20, 30
    visible = np.array([[False, False], [True, False], [False, False]])
    tracks = PointTracks(np.full((3, 2, 2), [3.5, 2.5]), visible, 5, 4)
    rgb = color_points(frames, tracks)
    np.testing.assert_array_equal(rgb, [[10, 20, 30], [128, 128, 128]])


def test_the_world_of_the_page_holds_finite_poses_and_every_mover(room: SyntheticScene):
    world = gather_world(true_tracks(room, False), true_tracks(room, True), room.frames)
    assert len(world.mover_paths) == 1 and np.isfinite(world.mover_paths[0]).all()
    data = json.loads(json.dumps(pack_world(world, 2.0), allow_nan=False))
    poses = np.frombuffer(base64.b64decode(data["poses"]), "<f4").reshape(FRAMES, 4, 4)
    np.testing.assert_allclose(
        poses[:, 3, :3], room.cameras.centers, atol=1e-5
    )  # columns after each other
    assert len(base64.b64decode(data["rgb"])) == 3 * len(world.points)


def test_charts_are_png_files_and_svg_that_takes_the_colours_of_the_page(tmp_path: Path):
    figure = draw_loss_curve(History([0, 10, 20], [10.0, 20.0, 25.0], [20], [24.0]))
    save_png(tmp_path / "loss_curve.png", figure)
    assert Image.open(tmp_path / "loss_curve.png").format == "PNG"
    assert [p.name for p in tmp_path.iterdir()] == ["loss_curve.png"]
    text = svg_from_figure(figure)
    assert text.startswith("<svg") and text.rstrip().endswith("</svg>")
    assert all(
        name in text for name in ("currentColor", "var(--grid)", "var(--accent)", "var(--second)")
    )
    assert "#1f2430" not in text and "<style" not in text
    with pytest.raises(InputError, match="cannot be written"):
        save_png(tmp_path / "missing" / "loss.png", figure)
