"""Stereoscopic videos: two eyes without vertical disparity, layouts, the half sphere, tags."""

import math
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import neutral_exposure, true_tracks

from models.cameras import Cameras
from models.clip import read_video, write_video
from models.clip.decoding import find_ffmpeg
from models.field import ColorField, HashGrid, normalization
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render import Layer, Scene
from models.run import InputError
from models.stereo_video import (
    LAYOUTS,
    Eyes,
    StereoVideoOptions,
    choose_eyes,
    name_stereo_video,
    parse_layouts,
    write_stereo_videos,
)
from models.stereo_video.eyes import SeenDepth
from models.stereo_video.half_sphere import map_half_sphere
from models.stereo_video.mp4_tags import tag_stereo
from models.synthetic.sample import RoomOptions, render_room

FRAMES, WIDTH, HEIGHT = 4, 97, 65


@pytest.fixture
def view() -> Cameras:
    """A camera at a random pose."""
    room = render_room(RoomOptions(2, WIDTH, HEIGHT, num_tracks=8))
    return room.cameras[1]


def test_points_at_the_convergence_keep_their_pixels_and_others_move_sideways(view: Cameras):
    rng = np.random.default_rng(5)
    xy = torch.from_numpy(rng.uniform(0, 60, (1, 50, 2)))
    depth = torch.from_numpy(rng.uniform(1, 9, (1, 50)))
    separation, convergence = 0.13, 3.7
    left, right = Eyes(separation, convergence).split(view)
    assert torch.allclose((right.centers - left.centers).norm(), torch.tensor(separation).double())
    points = view.unproject(xy, depth)[0]
    moved = (right.project(points)[0] - left.project(points)[0])[0]
    expected = -view.K[0, 0, 0] * separation * (1 / depth[0] - 1 / convergence)
    assert torch.allclose(moved[:, 0], expected.double(), atol=1e-6)
    assert moved[:, 1].abs().max() < 1e-6
    held = view.unproject(xy, torch.full_like(depth, convergence))[0]
    for eye in (left, right):
        assert torch.allclose(eye.project(held)[0], xy, atol=1e-6)


def test_disparity_is_bounded_and_the_screen_stands_where_it_is_asked_for():
    rng = np.random.default_rng(6)
    width = 60
    depth = rng.uniform(2.0, 40.0, (40, width))
    depth[:2] = np.inf
    moving = np.zeros_like(depth, bool)
    moving[30:38, :9] = True
    depth[moving] = 1.5
    seen = [SeenDepth(depth, moving)]
    options = StereoVideoOptions(convergence="movers", max_disparity=0.01)
    eyes = choose_eyes(seen, 0.9, options)
    assert eyes.convergence == pytest.approx(1.5)
    inverse = 1 / depth[np.isfinite(depth)]
    shift = 0.9 * eyes.separation * np.abs(inverse - 1 / eyes.convergence)
    assert np.quantile(shift, 0.98) <= 0.01 + 1e-9
    middle = choose_eyes(seen, 0.9, StereoVideoOptions(max_disparity=1.0))
    part = depth[13:27, 20:40]
    assert middle.convergence == pytest.approx(1 / np.median(1 / part), rel=0.02)
    assert middle.separation == pytest.approx(0.03 * middle.convergence)
    parallel = choose_eyes(seen, 0.9, options, on_screen=False)
    assert parallel.convergence == math.inf


def test_views_without_a_surface_are_refused():
    nothing = SeenDepth(np.full((9, 9), np.inf), np.zeros((9, 9), bool))
    with pytest.raises(InputError, match="no surface"):
        choose_eyes([nothing], 1.0)
    for values in ({"separation": -1.0}, {"max_disparity": 0.0}, {"sampled_views": 0}):
        with pytest.raises(InputError, match="--eyes"):
            StereoVideoOptions(**values).check()


def test_each_layout_holds_both_pictures():
    rng = np.random.default_rng(7)
    left, right = rng.integers(0, 256, (2, 30, 41, 3), np.uint8)
    assert np.array_equal(LAYOUTS["sbs"].join(left, right)[:, :41], left)
    assert np.array_equal(LAYOUTS["sbs"].join(left, right)[:, 41:], right)
    assert np.array_equal(LAYOUTS["top_bottom"].join(left, right)[30:], right)
    assert LAYOUTS["half_sbs"].join(left, right).shape == left.shape
    grey = np.full((4, 5, 3), 130, np.uint8)
    assert np.abs(LAYOUTS["anaglyph"].join(grey, grey).astype(int) - 130).max() <= 4
    # the red glass sees the left picture, the others the right
    black = np.zeros_like(left)
    assert LAYOUTS["anaglyph"].join(left, black)[..., 1:].max() == 0
    assert LAYOUTS["anaglyph"].join(black, right)[..., 0].max() == 0


def test_layouts_are_named_and_others_refused():
    assert parse_layouts("sbs, vr180,sbs") == ("sbs", "vr180") and parse_layouts("") == ()
    with pytest.raises(InputError, match="half_sbs"):
        parse_layouts("side")
    assert name_stereo_video("novel_view", "vr180") == "stereo_novel_view_LR_180_SBS.mp4"


@pytest.mark.parametrize("pixel", [(40, 25), (80, 60), (5, 50)])
def test_a_pixel_stands_at_its_angle_on_the_half_sphere(view: Cameras, pixel: tuple[int, int]):
    column, row = pixel
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[row - 1 : row + 2, column - 1 : column + 2] = 255
    sphere = map_half_sphere(picture, view)[..., 0].astype(float)
    side = len(sphere)
    rows, columns = np.mgrid[:side, :side] + 0.5
    found = [(grid * sphere).sum() / sphere.sum() / side * 180 - 90 for grid in (columns, rows)]
    K = view.K[0].double().numpy()
    x = (column + 0.5 - K[0, 2]) / K[0, 0]
    y = (row + 0.5 - K[1, 2]) / K[1, 1]
    longitude = math.degrees(math.atan(x))
    latitude = math.degrees(math.atan(y / math.hypot(1, x)))
    assert found == pytest.approx([longitude, latitude], abs=0.4)


@pytest.mark.parametrize(("mode", "half", "words"), [(1, False, "top"), (2, True, "side by side")])
def test_tagged_files_say_what_they_are_and_play_as_before(
    tmp_path: Path, mode: int, half: bool, words: str
):
    frames = np.random.default_rng(8).integers(0, 256, (5, 32, 64, 3), np.uint8)
    write_video(tmp_path / "plain.mp4", frames, 24)
    plain = (tmp_path / "plain.mp4").read_bytes()
    (tmp_path / "tagged.mp4").write_bytes(tag_stereo(plain, mode, half))
    before, after = (
        read_video(tmp_path / f"{name}.mp4", keep=range(5)).frames for name in ("plain", "tagged")
    )
    assert np.array_equal(before, after)
    command = [find_ffmpeg(), "-hide_banner", "-i", str(tmp_path / "tagged.mp4")]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert f"Stereo 3D: {words}" in said
    assert ("tiled equirectangular" in said) == half


def test_bytes_that_are_no_mp4_are_refused():
    for data in (b"", b"no boxes at all", struct.pack(">I4s", 8, b"moov")):
        with pytest.raises(ValueError, match="MP4"):
            tag_stereo(data, 2, False)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A static scene whose colour field has learned nothing."""
    room = render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=0, num_tracks=2000))
    tracks = true_tracks(room, False)
    meshes = TriangleMeshPipeline.from_tracks(tracks, range(FRAMES))
    field = ColorField(HashGrid(log2_entries=10, finest_resolution=32))
    box = normalization(tracks.cameras, meshes.gather_used())
    layer = Layer(meshes, WorldSpaceTrianglePipeline(field, box))
    return Scene(tracks.cameras, 10.0, neutral_exposure(FRAMES, WIDTH, HEIGHT), layer)


def test_both_eyes_are_rendered_for_each_layout(scene: Scene, tmp_path: Path):
    path = scene.cameras, [float(t) for t in range(FRAMES)]
    figures = write_stereo_videos(tmp_path, "walk", scene, path, ("sbs", "vr180"))
    assert 0 < figures["eye_separation"] < scene.depth
    sizes = {}
    for layout in ("sbs", "vr180"):
        video = read_video(tmp_path / name_stereo_video("walk", layout), keep=range(FRAMES))
        assert len(video) == FRAMES
        sizes[layout] = video.original_size
    # odd sizes are padded to even ones
    assert sizes["sbs"] == (2 * WIDTH, HEIGHT + 1)
    assert sizes["vr180"][0] == 2 * sizes["vr180"][1]
