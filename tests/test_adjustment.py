"""Lens, zoom and the order of depth are found from tracks, doubt is told with its cause, and nothing
is claimed where there is nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import Said
from scipy.spatial.transform import Rotation

from models.cameras import Cameras
from models.clip import Lens
from models.sfm import StaticScene, judge_scene, solve_scene, straighten_scene, triangulate
from models.sfm.adjustment import choose_depth_order, find_lens, find_zoom, intrinsics
from models.sfm.adjustment.bundle import Freedom, adjust_freely, smooth_focal_lengths
from models.sfm.adjustment.causes import find_cause
from models.sfm.adjustment.evidence import adjust_fit, measure_fit
from models.sfm.adjustment.mirror import _compare_order, _mirror
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tracks import PointTracks

FRAMES, WIDTH, HEIGHT, NOISE = 14, 240, 136, 0.15
MIDDLE = np.array([WIDTH / 2, HEIGHT / 2])


@pytest.fixture(scope="module")
def room() -> SyntheticScene:
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, seed=3, num_movers=0, num_tracks=500))


def tracks_of(room: SyntheticScene, xy: np.ndarray | None = None, seed: int = 0) -> PointTracks:
    """The true tracks with noise, and the positions ``xy`` in place of their own."""
    xy = room.track_xy if xy is None else xy
    noise = np.random.default_rng(seed).normal(0, NOISE, xy.shape)
    inside = ((xy >= 0) & (xy <= [WIDTH, HEIGHT])).all(-1)
    xy = np.where(room.track_visible[..., None], xy + noise, xy).astype(np.float32)
    return PointTracks(xy, room.track_visible & inside, WIDTH, HEIGHT)


def bent(room: SyntheticScene, radial: tuple[float, float]) -> tuple[Lens, PointTracks]:
    """The tracks as a lens shows them, of the same focal length in the middle."""
    focal = float(room.cameras.K[0, 0, 0])
    lens = Lens("RADIAL", (focal, WIDTH / 2, HEIGHT / 2, *radial), WIDTH, HEIGHT)
    own = lens.undistorted_K
    straight = (room.track_xy - MIDDLE) * own[0, 0] / focal + MIDDLE
    return lens, tracks_of(room, lens.distort_points(straight))


@pytest.mark.parametrize("radial", [(-0.2, 0.05), (-0.45, 0.2)])
def test_a_lens_is_found_and_undone(room, radial):
    lens, tracks = bent(room, radial)
    said = Said()
    scene = solve_scene(tracks)
    straight, found = straighten_scene(tracks, scene, said)
    assert found is not None and any("lens" in text for text in said.sentences)
    assert found.params[0] == pytest.approx(lens.params[0], rel=0.02)
    border = np.array([[0, 0], [WIDTH, 0], [0, HEIGHT / 2], [WIDTH / 2, HEIGHT]], float)
    moved = [
        one.undistort_points(border) - one.undistort_points(border * 0 + border.mean(0))
        for one in (lens, found)
    ]
    scale = lens.undistorted_K[0, 0] / found.undistorted_K[0, 0]
    np.testing.assert_allclose(moved[1] * scale, moved[0], rtol=0.03, atol=2)
    assert straight.reprojection_error < scene.reprojection_error


@pytest.mark.parametrize("seed", [0, 1])
def test_a_camera_without_distortion_or_zoom_stays_as_it_is(room, seed):
    tracks = tracks_of(room, seed=seed)
    said = Said()
    cameras = room.cameras
    assert find_zoom(cameras, tracks, said) is cameras
    same, lens = find_lens(cameras, tracks, said)
    assert same is cameras and lens is None
    assert choose_depth_order(cameras, tracks, said).cameras is cameras
    assert not said.sentences


@pytest.mark.parametrize(("focal", "plausible"), [(1.02, True), (0.95, True), (1.15, False)])
def test_a_lens_that_changes_the_focal_length_more_than_the_picture_is_refused(
    room, focal, plausible
):
    """A lens that moves the corner by about 2 %, for cameras whose focal length it changes."""
    K = room.cameras.K[0].double().numpy()
    params = (focal * K[0, 0], WIDTH / 2, HEIGHT / 2, 0.06, 0.0)
    lens = Lens("RADIAL", tuple(map(float, params)), WIDTH, HEIGHT)
    assert intrinsics._is_plausible(lens, room.cameras) == plausible


def test_turning_and_given_cameras_get_no_lens(room):
    _, tracks = bent(room, (-0.3, 0.1))
    scene = StaticScene(room.cameras, None, "given", np.ones(FRAMES, bool), 0.0)
    assert straighten_scene(tracks, scene) == (scene, None)


@pytest.mark.parametrize("zoom", [np.linspace(1, 1.3, FRAMES), np.linspace(1.25, 1, FRAMES) ** 2])
def test_a_zoom_gives_each_frame_its_focal_length(room, zoom):
    tracks = tracks_of(room, (room.track_xy - MIDDLE) * zoom[:, None, None] + MIDDLE)
    scene = solve_scene(tracks)
    true = room.cameras.K[:, 0, 0].numpy() * zoom
    np.testing.assert_allclose(scene.cameras.K[:, 0, 0], true, rtol=0.03)


def test_smooth_focal_lengths_keep_a_parabola():
    focal = 300 * np.exp(0.02 * np.arange(20) - 0.0005 * np.arange(20) ** 2)
    K = torch.eye(3, dtype=torch.float64).repeat(20, 1, 1)
    K[:, 0, 0] = K[:, 1, 1] = torch.from_numpy(focal)
    torch.testing.assert_close(smooth_focal_lengths(K), K)
    torch.testing.assert_close(smooth_focal_lengths(K[:2]), K[:2])


def film_planes(seed: int, forward: bool) -> tuple[Cameras, PointTracks]:
    """Cameras that pass three planes of little relief, or go towards them, with half a pixel of
    noise."""
    random = np.random.default_rng(seed)
    count, frames = 600, 20
    xyz = random.uniform([-2.2, -1.3, 0], [2.2, 1.3, 0], (count, 3))
    xyz[:, 2] = 5 + 0.5 * random.integers(-1, 2, count) - 0.25 * xyz[:, 1]
    moment = np.linspace(-0.5, 0.5, frames)
    turn = np.stack([0.02 * np.sin(5 * moment), -0.1 * moment, 0.02 * np.cos(4 * moment)], 1)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("xyz", turn).as_matrix()
    poses[:, 2 if forward else 0, 3] = moment
    poses[:, 1, 3] = 0.15 * np.sin(6 * moment)
    focal = 1.2 * WIDTH
    K = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    K = torch.from_numpy(np.tile(K, (frames, 1, 1)))
    cameras = Cameras(K, torch.from_numpy(poses), WIDTH, HEIGHT)
    xy = cameras.project(torch.from_numpy(xyz))[0].numpy()
    visible = ((xy >= 0) & (xy <= [WIDTH, HEIGHT])).all(-1)
    xy += random.normal(0, 0.5, xy.shape)
    return cameras, PointTracks(xy.astype(np.float32), visible, WIDTH, HEIGHT)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_scene_solved_inside_out_is_turned(seed):
    cameras, tracks = film_planes(seed, forward=False)
    truth = measure_fit(cameras, tracks)
    wrong = adjust_fit(measure_fit(_mirror(truth), tracks), rounds=2)
    assert _compare_order(truth, wrong) < -0.5
    said = Said()
    right = choose_depth_order(wrong.cameras, tracks, said).cameras
    assert _compare_order(truth, measure_fit(right, tracks)) > 0.9
    assert "inside out" in said.sentences[0]


@pytest.mark.parametrize("forward", [False, True])
def test_planes_of_little_relief_have_near_and_far_the_right_way_round(forward):
    cameras, tracks = film_planes(5, forward)
    scene = solve_scene(tracks)
    order = _compare_order(measure_fit(cameras, tracks), measure_fit(scene.cameras, tracks))
    assert order > 0.9


def delay_rows(xy: np.ndarray, share: float) -> np.ndarray:
    """Positions as rows show them that are read over a share of the time between frames."""
    speed = np.gradient(xy, axis=0)
    change = np.gradient(speed, axis=0)
    late = 0.0
    for _ in range(4):
        late = share * ((xy + late * speed)[..., 1:] / HEIGHT - 0.5)
    return xy + late * speed + late**2 / 2 * change


def judge(room: SyntheticScene, tracks: PointTracks, method: str = "incremental"):
    """The verdict on the true cameras, and what is said."""
    points = triangulate(tracks, room.cameras, flat=method == "rotation")
    scene = StaticScene(room.cameras, points, method, np.ones(FRAMES, bool), 0.0)
    said = Said()
    return judge_scene(tracks, scene, said), said.sentences


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_plain_camera_gets_no_cause_and_no_word(room, seed):
    tracks = tracks_of(room, seed=seed)
    judged, said = judge(room, tracks)
    assert judged["observations_agree"] > 0.95 and judged["median_residual_px"] < 0.3
    assert judged["likely_cause"] is None and not said
    assert find_cause([adjust_fit(measure_fit(room.cameras, tracks))]) is None


@pytest.mark.parametrize("share", [0.6, -0.9])
def test_a_rolling_shutter_is_named_though_the_cameras_are_fitted_to_it(room, share):
    tracks = tracks_of(room, delay_rows(room.track_xy, share))
    fit = adjust_fit(measure_fit(room.cameras, tracks))
    assert find_cause([fit]) == "a rolling shutter"
    _, said = judge(replace(room, cameras=fit.cameras), tracks)
    assert "rolling shutter" in said[0]


def test_a_lens_that_was_not_undone_is_named(room):
    _, tracks = bent(room, (-0.15, 0.0))
    assert "lens" in judge(room, tracks)[1][0]


def test_a_zoom_that_was_not_solved_is_named(room):
    zoom = np.linspace(0.96, 1.05, FRAMES)[:, None, None]
    tracks = tracks_of(room, (room.track_xy - MIDDLE) * zoom + MIDDLE)
    assert "zoom" in judge(room, tracks)[1][0]


def test_few_agreeing_observations_are_told(room):
    tracks = tracks_of(room)
    random = np.random.default_rng(4)
    slipped = random.random(tracks.num_tracks) < 0.7
    xy = tracks.xy.copy()
    xy[:, slipped] += random.normal(0, 12, xy[:, slipped].shape)
    judged, said = judge(room, replace(tracks, xy=xy))
    assert judged["observations_agree"] < 0.5 and "of the observations agree" in said[0]


@pytest.mark.parametrize("radial", [None, (-0.1, 0.02)])
def test_cameras_stay_if_fewer_than_two_frames_have_enough_tracks(room, radial):
    tracks = tracks_of(room)
    visible = np.zeros_like(tracks.visible)
    visible[5] = tracks.visible[5]
    few = replace(tracks, visible=visible)
    found = adjust_freely(room.cameras, room.track_xyz[0], few, Freedom(radial=radial))
    assert found.cameras.same_as(room.cameras) and found.radial == radial
