from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pycolmap
import pytest
import torch
from heard import Heard
from scipy.spatial.transform import Rotation

from models.cameras import Cameras, estimate_similarity, interpolate_poses
from models.clip.frames_of import ClipFrames
from models.clip.transforms import save_transforms
from models.run.errors import InputError
from models.sfm import static_scene
from models.sfm.colmap import run_mapper
from models.sfm.given import read_cameras
from models.sfm.mapping import adjust_cameras
from models.sfm.options import CameraOptions
from models.sfm.rotation import solve_rotation
from models.sfm.static_scene import (
    _choose_exact_tracks,
    _is_well_joined,
    _refine_exactly,
    solve_scene,
)
from models.sfm.triangulation import Points
from models.synthetic.sample import RoomOptions, render_room
from models.tracking.growing import grow_tracks
from models.tracking.options import TrackingOptions
from models.tracks import PointTracks

WIDTH, HEIGHT = 200, 112


def tracked_room(motion: str, num_frames: int = 14):
    room = render_room(
        RoomOptions(num_frames, WIDTH, HEIGHT, motion=motion, num_movers=0, num_tracks=0)
    )
    tracks = grow_tracks(room.frames, options=TrackingOptions(spacing=10))
    return SimpleNamespace(room=room, tracks=tracks, scene=solve_scene(tracks))


@pytest.fixture(scope="module")
def sideways():
    return tracked_room("sideways")


def hide_frames(tracks: PointTracks, frames: list[int]) -> PointTracks:
    """The tracks without observations in some frames."""
    visible = tracks.visible.copy()
    visible[frames] = False
    return replace(tracks, visible=visible)


def angles(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Degrees between the rotations (F, 3, 3)."""
    return np.degrees(Rotation.from_matrix((a.transpose(1, 2) @ b).numpy()).magnitude())


def about_vertical(degrees: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(np.radians(degrees)[:, None] * [0, 1, 0]).as_matrix()


def turning_tracks(
    angles_deg: np.ndarray, num_tracks: int = 300, noise: float = 0.1, focal: float = 170.0
):
    """Exact tracks, plus noise, of a camera that turns about the vertical axis."""
    random = np.random.default_rng(0)
    rotation = about_vertical(angles_deg)
    rays = np.c_[
        random.uniform(-1.2, 1.2, num_tracks),
        random.uniform(-0.4, 0.4, num_tracks),
        np.ones(num_tracks),
    ]
    local = rays @ rotation
    xy = focal * local[..., :2] / local[..., 2:] + [WIDTH / 2, HEIGHT / 2]
    visible = ((xy > 0) & (xy < [WIDTH, HEIGHT])).all(-1)
    noisy = xy + noise * random.normal(size=xy.shape)
    return PointTracks(noisy, visible, WIDTH, HEIGHT), torch.from_numpy(rotation)


FEW_KEYFRAMES = CameraOptions(most_mapped=8, most_keyframes=8, keyframes_per_track=2)
"""Every second frame of the room's clip, in place of all."""


@pytest.fixture(params=["all frames", "keyframes"])
def mapped(request, sideways):
    """The scene mapped whole, and as a clip that is too long for that."""
    if request.param == "all frames":
        return sideways.scene
    return solve_scene(sideways.tracks, options=FEW_KEYFRAMES)


def test_cameras_are_recovered_up_to_a_similarity(mapped, sideways):
    estimated, true = mapped.cameras, sideways.room.cameras
    assert mapped.method in ("incremental", "global")
    assert mapped.registered.all()
    scale, rotation, shift = estimate_similarity(estimated.centers, true.centers)
    error = (scale * estimated.centers @ rotation.T + shift - true.centers).norm(dim=1)
    path = true.centers.diff(dim=0).norm(dim=1).sum()
    assert error.max() < 0.015 * path
    assert (
        angles(rotation @ estimated.world_from_cam[:, :3, :3], true.world_from_cam[:, :3, :3]).max()
        < 4
    )
    assert 0.8 < estimated.K[0, 0, 0] / true.K[0, 0, 0] < 1.25


def test_points_lie_on_the_true_surfaces(sideways):
    """Depth in each frame, up to the one scale of the scene, is that of the renderer."""
    scene, room = sideways.scene, sideways.room
    xy, depth = scene.cameras.project(torch.from_numpy(scene.points.xyz))
    t, n = np.nonzero(scene.points.agrees)
    x, y = xy[t, n].numpy().astype(int).clip(0, [WIDTH - 1, HEIGHT - 1]).T
    ratio = depth[t, n].numpy() / room.depth[t, y, x]
    ratio /= np.median(ratio)
    assert np.median(np.abs(ratio - 1)) < 0.05


def test_the_reprojection_error_is_that_of_its_points(sideways):
    scene = sideways.scene
    xy, _ = scene.cameras.project(torch.from_numpy(scene.points.xyz))
    miss = np.linalg.norm(xy.numpy() - sideways.tracks.xy, axis=-1)[scene.points.agrees]
    assert scene.reprojection_error == pytest.approx(miss.mean(), rel=1e-6)
    assert scene.reprojection_error < 0.5
    assert np.isfinite(scene.points.xyz).all(1).mean() > 0.9


def test_the_same_seed_gives_the_same_cameras(sideways):
    again = solve_scene(sideways.tracks)
    assert torch.equal(again.cameras.world_from_cam, sideways.scene.cameras.world_from_cam)
    np.testing.assert_array_equal(again.points.xyz, sideways.scene.points.xyz)


def test_a_turning_camera_is_told_from_one_that_moves():
    turn = tracked_room("turn")
    assert turn.scene.method == "rotation"
    assert turn.scene.registered.all()
    true = turn.room.cameras.world_from_cam[:, :3, :3]
    assert angles(turn.scene.cameras.world_from_cam[:, :3, :3], true[0].T @ true).max() < 1
    assert 0.85 < turn.scene.cameras.K[0, 0, 0] / turn.room.cameras.K[0, 0, 0] < 1.15
    assert turn.scene.cameras.centers.abs().max() == 0
    assert turn.scene.points.agrees.any(0).mean() > 0.9


def wide_tracks(centers: np.ndarray, radial: float = 0.0) -> PointTracks:
    """Tracks of 640x360 pixels of a camera that turns by 8 degrees, through a lens that moves pixels
    along their radius."""
    random = np.random.default_rng(1)
    rotation = about_vertical(np.linspace(0, 8, len(centers)))
    points = np.c_[random.uniform(-1, 1, (600, 2)), random.uniform(1.5, 5, 600)]
    points[:, :2] *= points[:, 2:] * [0.55, 0.35]
    local = (points - centers[:, None]) @ rotation
    rays = local[..., :2] / local[..., 2:]
    xy = 640 * rays * (1 + radial * (rays**2).sum(-1, keepdims=True)) + [320, 180]
    xy += random.normal(0, 0.1, xy.shape)
    visible = ((xy > 0) & (xy < [640, 360])).all(-1)
    return PointTracks(xy, visible, 640, 360)


def may_turn(tracks: PointTracks) -> bool:
    """Whether turning alone leaves less than a pixel, but several times the noise of the tracks."""
    _, residual = solve_rotation(tracks)
    return CameraOptions.tracking_noise < residual < CameraOptions.rotation_error


def test_a_camera_that_turns_and_moves_a_little_is_mapped():
    centers = np.outer(np.linspace(0, 1, 16) ** 2, [0.05, 0.01, 0.02])
    tracks = wide_tracks(centers)
    assert may_turn(tracks)
    scene = solve_scene(tracks)
    assert scene.method not in ("rotation", "still")
    scale, turn, shift = estimate_similarity(scene.cameras.centers, torch.from_numpy(centers))
    moved = scale * scene.cameras.centers @ turn.T + shift
    error = (moved - torch.from_numpy(centers)).norm(dim=1).max()
    assert error < 0.05 * np.linalg.norm(centers[-1])


@pytest.mark.parametrize("radial", [-0.35, -0.5])
def test_a_turning_camera_behind_a_lens_is_not_taken_as_moving(radial):
    tracks = wide_tracks(np.zeros((16, 3)), radial)
    assert may_turn(tracks)
    scene = solve_scene(tracks)
    assert scene.method == "rotation"


def test_a_camera_that_stands_still_is_told_so():
    still = tracked_room("still", 6)
    assert still.scene.method == "still"
    assert torch.equal(still.scene.cameras.world_from_cam, torch.eye(4).double().expand(6, 4, 4))
    assert still.scene.cameras.K[0, 0, 0] == pytest.approx(1.2 * WIDTH)


@pytest.mark.parametrize("late", [False, True])
def test_rotations_and_focal_length_of_a_turn_are_recovered(late):
    sweep = np.r_[np.zeros(15), np.linspace(0, 25, 6)] if late else np.linspace(0, 30, 16)
    tracks, true = turning_tracks(sweep)
    cameras, residual = solve_rotation(tracks)
    assert residual < 0.2
    assert angles(cameras.world_from_cam[:, :3, :3], true).max() < 1
    assert cameras.K[0, 0, 0] == pytest.approx(170, rel=0.1)


def test_a_shaking_tripod_stands_still():
    tracks, _ = turning_tracks(np.zeros(10), noise=0.2)
    cameras, _ = solve_rotation(tracks)
    assert torch.equal(cameras.world_from_cam, torch.eye(4).double().expand(10, 4, 4))


def test_a_frame_without_tracks_takes_its_neighbours_rotation_and_is_flagged():
    tracks, true = turning_tracks(np.linspace(0, 20, 11))
    tracks.visible[[0, 5]] = False
    scene = solve_scene(tracks)
    assert scene.method == "rotation"
    assert np.flatnonzero(~scene.registered).tolist() == [0, 5]
    estimated = scene.cameras.world_from_cam[:, :3, :3]
    relative = estimated[1].T @ estimated
    assert angles(relative, true[1].T @ true)[1:].max() < 1


def test_frames_that_could_not_be_placed_are_interpolated_and_flagged(sideways):
    scene = solve_scene(hide_frames(sideways.tracks, [6, 13]))
    assert np.flatnonzero(~scene.registered).tolist() == [6, 13]
    centers = scene.cameras.centers
    assert torch.equal(centers[13], centers[12])
    torch.testing.assert_close(centers[6], (centers[5] + centers[7]) / 2)
    assert not scene.points.agrees[[6, 13]].any()


def test_frames_between_keyframes_without_tracks_are_interpolated_and_flagged(sideways):
    scene = solve_scene(hide_frames(sideways.tracks, [7]), options=FEW_KEYFRAMES)
    assert np.flatnonzero(~scene.registered).tolist() == [7]
    torch.testing.assert_close(scene.cameras.centers[7], scene.cameras.centers[[6, 8]].mean(0))


def test_keyframes_adjust_the_cameras_as_all_frames_do(sideways):
    scene = sideways.scene
    tracks = replace(sideways.tracks, visible=scene.points.agrees)
    whole = adjust_cameras(scene.cameras, scene.points.xyz, tracks)
    by_keys = adjust_cameras(scene.cameras, scene.points.xyz, tracks, FEW_KEYFRAMES)
    path = whole.centers.diff(dim=0).norm(dim=1).sum()
    assert (by_keys.centers - whole.centers).norm(dim=1).max() < 0.01 * path
    assert angles(by_keys.world_from_cam[:, :3, :3], whole.world_from_cam[:, :3, :3]).max() < 0.5
    assert float(by_keys.K[0, 0, 0] / whole.K[0, 0, 0]) == pytest.approx(1, abs=0.02)


def test_missing_poses_are_interpolated_and_known_ones_kept():
    rotation = about_vertical(np.linspace(0, 40, 9))
    poses = np.tile(np.eye(4), (9, 1, 1))
    poses[:, :3, :3], poses[:, 0, 3] = rotation, np.arange(9)
    registered = np.array([0, 1, 0, 0, 1, 1, 0, 1, 0], bool)
    broken = np.where(registered[:, None, None], poses, np.eye(4))
    filled = interpolate_poses(broken, registered)
    np.testing.assert_array_equal(filled[registered], poses[registered])
    np.testing.assert_allclose(filled[1:8], poses[1:8], atol=1e-12)
    np.testing.assert_array_equal(filled[[0, 8]], poses[[1, 7]])


@pytest.mark.parametrize("method", ["incremental", "global"])
def test_a_model_without_points_is_no_model(method, monkeypatch, tmp_path):
    models = {0: pycolmap.Reconstruction()}
    monkeypatch.setattr(pycolmap, f"{method}_mapping", lambda *args, **options: models)
    assert run_mapper(method, tmp_path / "database.db", tmp_path, 0) is None
    (tmp_path / "again").mkdir()
    models[0].add_point3D([0, 0, 1], pycolmap.Track(), [0, 0, 0])
    assert run_mapper(method, tmp_path / "database.db", tmp_path / "again", 0) is models[0]


def test_given_cameras_are_used_as_they_are(sideways):
    given = sideways.room.cameras
    scene = solve_scene(sideways.tracks, given)
    assert scene.method == "given" and scene.registered.all()
    assert scene.cameras is given
    assert scene.reprojection_error < 0.5


def test_a_frame_without_a_given_camera_is_solved_from_tracks_or_interpolated(sideways):
    given = sideways.room.cameras
    known = np.ones(len(given), bool)
    known[[4, 9]] = False
    broken = replace(given, world_from_cam=given.world_from_cam.clone())
    broken.world_from_cam[[4, 9]] = broken.world_from_cam[[5, 10]]
    heard = Heard()
    tracks = hide_frames(sideways.tracks, [9])
    scene = solve_scene(tracks, broken, progress=heard, known=known)
    assert np.flatnonzero(~scene.registered).tolist() == [9]
    step = (given.centers[1:] - given.centers[:-1]).norm(dim=1).mean()
    assert (scene.cameras.centers - given.centers).norm(dim=1).max() < 0.2 * step
    assert "frame 4 " in heard.sentences[0] and "solved" in heard.sentences[0]
    assert "frame 9 " in heard.sentences[1] and "interpolated" in heard.sentences[1]


def test_given_cameras_that_most_tracks_contradict_are_a_warning(sideways):
    given = sideways.room.cameras
    heard = Heard()
    solve_scene(sideways.tracks, given, progress=heard)
    assert heard.sentences == []
    solve_scene(
        sideways.tracks, given[[3, 0, 9, 2, 12, 1, 13, 5, 7, 4, 6, 8, 10, 11]], progress=heard
    )
    assert len(heard.sentences) == 1
    share = float(heard.sentences[0].split()[1])
    assert heard.sentences[0].startswith("warning") and 50 < share <= 100


def test_a_clip_with_hardly_a_track_is_refused(sideways):
    with pytest.raises(InputError, match=r"only \d+ points could be tracked"):
        solve_scene(sideways.tracks.select(np.arange(20)))


def some_cameras(num: int = 12) -> Cameras:
    random = np.random.default_rng(1)
    pose = np.tile(np.eye(4), (num, 1, 1))
    pose[:, :3, :3] = Rotation.random(num, random_state=2).as_matrix()
    pose[:, :3, 3] = random.normal(size=(num, 3))
    K = torch.tensor([[300.0, 0, 101], [0, 310, 55], [0, 0, 1]]).double().repeat(num, 1, 1)
    return Cameras(K, torch.from_numpy(pose), WIDTH, HEIGHT)


def write_colmap(folder, cameras: Cameras, names: list[str]) -> None:
    """A COLMAP model of the cameras, with no points."""
    model = pycolmap.Reconstruction()
    f = cameras.K[0]
    params = [float(f[0, 0]), float(f[1, 1]), float(f[0, 2]), float(f[1, 2])]
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(
            model="PINHOLE", width=cameras.width, height=cameras.height, params=params, camera_id=1
        )
    )
    for i, name in enumerate(names):
        pose = cameras.cam_from_world[i].numpy()
        image = pycolmap.Image(name=name, camera_id=1, image_id=i + 1)
        model.add_image_with_trivial_frame(
            image, pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:3, :3]), pose[:3, 3])
        )
    folder.mkdir()
    model.write(folder)


def write_json(path, cameras: Cameras, names: list[str]) -> None:
    save_transforms(path, cameras, list(range(len(names))), names)


@pytest.mark.parametrize("write", [write_json, write_colmap])
@pytest.mark.parametrize("pattern", ["{:05d}.png", "frame{}.jpg"])
def test_cameras_read_back_by_name_and_by_number(tmp_path, write, pattern):
    cameras = some_cameras()
    names = [pattern.format(i) for i in range(len(cameras))]
    write(tmp_path / "cameras", cameras, names)
    for asked in ([f"x/{name}" for name in names[2:9]], [f"other{i}.png" for i in range(2, 9)]):
        read = read_cameras(
            tmp_path / "cameras", asked, ClipFrames(np.arange(2, 9), (WIDTH, HEIGHT))
        ).cameras
        torch.testing.assert_close(read.world_from_cam, cameras.world_from_cam[2:9])
        torch.testing.assert_close(read.K, cameras.K[2:9])


@pytest.mark.parametrize("write", [write_json, write_colmap])
def test_cameras_are_brought_to_the_size_of_the_frames(tmp_path, write):
    cameras = some_cameras(3)
    write(tmp_path / "cameras", cameras, ["a.png", "b.png", "c.png"])
    taken = ClipFrames.in_order(3, (WIDTH // 2, HEIGHT // 2))
    read = read_cameras(tmp_path / "cameras", ["a", "b", "c"], taken).cameras
    torch.testing.assert_close(read.K, cameras.resized(WIDTH // 2, HEIGHT // 2).K)
    assert (read.width, read.height) == (WIDTH // 2, HEIGHT // 2)


@pytest.mark.parametrize("write", [write_json, write_colmap])
def test_too_few_cameras_are_refused(tmp_path, write):
    write(tmp_path / "cameras", some_cameras(2), [f"{i:05d}.png" for i in range(2)])
    with pytest.raises(InputError, match=r"no camera for 3 of the 5 frames, first 00002\.png"):
        names = [f"{i:05d}.png" for i in range(5)]
        read_cameras(tmp_path / "cameras", names, ClipFrames.in_order(5, (WIDTH, HEIGHT)))


def test_what_is_no_model_is_refused(tmp_path):
    for path, reason in (
        (tmp_path, "not a COLMAP model"),
        (tmp_path / "missing.json", "not a readable"),
    ):
        with pytest.raises(InputError, match=reason):
            read_cameras(path, ["0"], ClipFrames.in_order(1, (WIDTH, HEIGHT)))


def points_with_errors(
    error: np.ndarray, agrees: np.ndarray, seed: int = 0
) -> tuple[PointTracks, Points]:
    """Tracks that stay anywhere in the image, with residuals of some standard deviation each."""
    random = np.random.default_rng(seed)
    residual = np.abs(random.normal(size=agrees.shape)) * error
    num = agrees.shape[1]
    xyz = np.zeros((num, 3), np.float32)
    place = random.uniform(0, (640, 360), (num, 2)).astype(np.float32)
    xy = np.broadcast_to(place, (len(agrees), num, 2))
    tracks = PointTracks(xy, agrees, 640, 360)
    return tracks, Points(xyz, agrees, residual[agrees], np.zeros(num, np.float32))


def test_cameras_are_adjusted_to_tracks_of_small_residuals():
    slips = np.arange(400) % 3 == 0
    agrees = np.ones((30, 400), bool)
    error = np.where(slips, 0.6, 0.08) * np.linspace(0.8, 1.2, 400)
    chosen = _choose_exact_tracks(*points_with_errors(error, agrees), CameraOptions())
    assert not slips[chosen].any()
    assert len(chosen) >= CameraOptions().enough_tracks


def test_every_part_of_the_image_keeps_tracks_though_all_of_its_residuals_are_large():
    """Such as near ground, which blurs and tells most about where the camera is."""
    agrees = np.ones((30, 4000), bool)
    error = np.random.default_rng(1).uniform(0.3, 1.7, 4000)
    tracks, points = points_with_errors(error, agrees)
    is_near = tracks.xy[0, :, 1] > 180
    points = replace(points, residual=points.residual * np.tile(np.where(is_near, 0.5, 0.1), 30))
    chosen = _choose_exact_tracks(tracks, points, CameraOptions())
    assert is_near[chosen].mean() > 0.35


@pytest.mark.parametrize("seed", range(3))
def test_every_frame_keeps_enough_of_the_tracks_that_it_has(seed):
    random = np.random.default_rng(seed)
    begin = random.integers(0, 60, 500)
    t = np.arange(60)[:, None]
    agrees = (t >= begin) & (t < begin + random.integers(1, 25, 500))
    # the tracks of the last frames are all worse than those of the others
    error = np.where(begin > 40, 2.0, 0.1)
    chosen = _choose_exact_tracks(*points_with_errors(error, agrees, seed), CameraOptions())
    usable = agrees.sum(0) >= 3
    wanted = np.minimum(CameraOptions().enough_tracks, agrees[:, usable].sum(1) / 2)
    assert (agrees[:, chosen].sum(1) >= wanted).all()
    assert usable[chosen].all()


@pytest.mark.parametrize("degrees", [0.0, 2.0])
def test_cameras_of_the_whole_image_count_where_as_many_observations_agree(
    sideways, monkeypatch, degrees
):
    scene, tracks = sideways.scene, sideways.tracks
    poses = scene.cameras.world_from_cam.clone()
    turned = about_vertical(degrees * (np.arange(len(poses)) % 2))
    poses[:, :3, :3] = poses[:, :3, :3] @ torch.from_numpy(turned)
    other = replace(scene.cameras, world_from_cam=poses)
    monkeypatch.setattr(static_scene, "_adjust", lambda *_, **__: other)
    refined = _refine_exactly(tracks, scene, CameraOptions())
    assert (refined.cameras is other) == (degrees == 0)


@pytest.mark.parametrize("common", [0, 60, 500])
def test_few_tracks_across_a_fast_turn_are_told(common: int):
    agrees = np.zeros((40, 2000 + common), bool)
    agrees[:20, :1000] = agrees[20:, 1000:2000] = True
    agrees[18:22, 2000:] = True
    assert _is_well_joined(agrees, CameraOptions()) == (common >= CameraOptions().enough_tracks)
    assert _is_well_joined(agrees[:20, :30], CameraOptions()), "few tracks, of which all go on"


def test_no_track_is_chosen_where_none_agrees():
    nothing = points_with_errors(np.ones(5), np.zeros((4, 5), bool))
    assert len(_choose_exact_tracks(*nothing, CameraOptions())) == 0
