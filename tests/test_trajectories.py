import tracemalloc

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from models.cameras import Cameras, find_middle_frame
from models.clip.transforms import save_transforms
from models.paths.path_files import PathDefaults, read_path
from models.paths.path_text import parse_path
from models.paths.stabilization import stabilize_cameras
from models.paths.trajectories import CLEAR_SHARE, TRAJECTORIES, Clip

DEPTH = 4.0
LOOPS = ["spiral", "orbit", "dolly", "zoom"]


def walk(num: int = 21, shake: float = 0.0, seed: int = 0) -> Cameras:
    """Cameras that walk sideways and turn, seen from a tilted world."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (num, 1, 1))
    angles = np.stack(
        [rng.normal(0, shake, num), np.linspace(-0.2, 0.2, num), rng.normal(0, shake, num)], 1
    )
    tilt = Rotation.from_rotvec([0.4, -0.3, 0.8])
    poses[:, :3, :3] = (tilt * Rotation.from_rotvec(angles)).as_matrix()
    centers = np.linspace([-1, 0, 0], [1, 0.2, 0], num) + rng.normal(0, shake, (num, 3))
    poses[:, :3, 3] = tilt.apply(centers)
    K = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]], dtype=torch.float64).repeat(num, 1, 1)
    return Cameras(K, torch.from_numpy(poses), 64, 48)


def path(text: str, source: Cameras, freeze_time: float | None = None, depth: float = DEPTH):
    """Cameras and times of a path given as text."""
    return parse_path(text).build(Clip(source, depth), freeze_time)


def angles_between(poses: torch.Tensor) -> np.ndarray:
    rotations = Rotation.from_matrix(poses[:, :3, :3].numpy())
    return (rotations[:-1].inv() * rotations[1:]).magnitude()


def test_middle_frame_is_nearest_the_mean_of_the_path():
    assert find_middle_frame(walk(21)) == 10


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_paths_are_rigid_finite_and_of_the_length_asked_for(name):
    cameras, times = path(f"{name} frames=33", walk())
    assert len(cameras) == len(times) == 33
    assert (cameras.width, cameras.height) == (64, 48)
    rotation = cameras.world_from_cam[:, :3, :3]
    torch.testing.assert_close(
        rotation @ rotation.transpose(1, 2),
        torch.eye(3, dtype=torch.float64).repeat(33, 1, 1),
        atol=1e-9,
        rtol=0,
    )
    assert (torch.det(rotation) > 0).all()
    assert torch.isfinite(cameras.K).all()


@pytest.mark.parametrize("name", [name for name in TRAJECTORIES if name != "bullet_time"])
def test_times_play_the_clip_once_or_stand_still(name):
    _, times = path(f"{name} frames=33", walk(21))
    assert (times[0], times[-1]) == (0, 20)
    assert np.allclose(np.diff(times), 20 / 32)
    assert path(f"{name} frames=5", walk(21), 3.5)[1] == [3.5] * 5


@pytest.mark.parametrize("name", LOOPS)
def test_loops_keep_the_scene_point_in_the_middle_of_the_image(name):
    source = walk()
    target = source[[10]].unproject(
        source.K[10, :2, 2][None, None], torch.full((1, 1), DEPTH, dtype=torch.float64)
    )
    cameras, _ = path(f"{name} frames=30", source)
    xy, depth = cameras.project(target[0])
    torch.testing.assert_close(xy[:, 0], source.K[:1, :2, 2].expand(30, 2))
    assert (depth > 0.5 * DEPTH).all()


@pytest.mark.parametrize("name", LOOPS)
def test_loops_are_steady_and_close(name):
    cameras, _ = path(f"{name} frames=60", walk())
    ring = torch.cat([cameras.world_from_cam, cameras.world_from_cam[:1]])
    steps = ring[:, :3, 3].diff(dim=0)
    assert steps.norm(dim=1).max() < 0.05 * DEPTH
    jerk = torch.cat([steps, steps[:1]]).diff(dim=0).norm(dim=1)
    assert jerk.max() < 0.01 * DEPTH
    assert angles_between(ring).max() < 0.05


def test_intrinsics_are_those_of_the_clip_but_for_the_zoom():
    for name in ("spiral", "orbit", "dolly"):
        torch.testing.assert_close(path(f"{name} frames=9", walk())[0].K, walk().K[:9])
    focal = path("zoom factor=2 frames=20", walk())[0].K[:, 0, 0]
    assert (focal.min(), focal.max()) == (pytest.approx(50), pytest.approx(100))


def test_spiral_radius_is_a_share_of_the_depth():
    source = walk()
    for share in (0.02, 0.1):
        cameras, _ = path(f"spiral radius={share} frames=48", source)
        distance = (cameras.centers - source.centers[10]).norm(dim=1)
        assert float(distance.max()) <= share * DEPTH * 1.2
        assert float(distance.max()) >= share * DEPTH * 0.99


@pytest.mark.parametrize(
    "text", ["spiral radius=5", "orbit degrees=120", "dolly reach=3", "bullet_time 10 degrees=90"]
)
def test_no_loop_goes_farther_than_a_share_of_the_way_to_the_nearest_surface(text):
    source = walk()
    near = source.centers[10] + torch.tensor([0.3, 0.1, 0.4], dtype=torch.float64)
    clip = Clip(source, DEPTH, lambda point: float((point - near).norm()))
    cameras, times = parse_path(f"{text} frames=40").build(clip)
    start = source.centers[10] if times[0] != times[-1] else cameras.centers[0]
    assert (cameras.centers - start).norm(dim=1).max() <= CLEAR_SHARE * (start - near).norm() * (
        1 + 1e-6
    )


def test_spiral_scales_with_the_world():
    """The units of the world are arbitrary: a scene twice as large gets a path twice as large."""
    source = walk()
    poses = source.world_from_cam.clone()
    poses[:, :3, 3] *= 2
    large, _ = path("spiral", Cameras(source.K, poses, 64, 48), depth=2 * DEPTH)
    small, _ = path("spiral", source)
    torch.testing.assert_close(large.centers, 2 * small.centers)


def test_orbit_keeps_its_distance():
    source = walk()
    target = source.centers[10] + DEPTH * source.world_from_cam[10, :3, 2]
    distance = (path("orbit frames=24", source)[0].centers - target).norm(dim=1)
    torch.testing.assert_close(distance, torch.full_like(distance, DEPTH))


def test_a_stabilized_path_shakes_less_and_stays_near():
    shaky, smooth = walk(60, shake=0.03), walk(60)
    steady, _ = path("stabilized", shaky)
    assert (
        angles_between(steady.world_from_cam).mean()
        < 0.3 * angles_between(shaky.world_from_cam).mean()
    )
    assert (
        steady.centers.diff(n=2, dim=0).norm(dim=1).mean()
        < 0.05 * shaky.centers.diff(n=2, dim=0).norm(dim=1).mean()
    )
    off = (steady.centers - smooth.centers).norm(dim=1).mean()
    assert off < 0.7 * (shaky.centers - smooth.centers).norm(dim=1).mean()


def test_a_steady_walk_needs_no_stabilizing_not_even_at_its_ends():
    torch.testing.assert_close(
        path("stabilized", walk(30))[0].world_from_cam, walk(30).world_from_cam
    )


def test_a_camera_that_turns_all_the_way_round_is_stabilized_without_a_jump():
    angles = np.linspace(0, 2 * np.pi, 50) + np.random.default_rng(0).normal(0, 0.02, 50)
    poses = np.tile(np.eye(4), (50, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(angles[:, None] * [0, 1, 0]).as_matrix()
    source = Cameras(walk(50).K, torch.from_numpy(poses), 64, 48)
    steps = angles_between(path("stabilized", source)[0].world_from_cam)
    np.testing.assert_allclose(steps, 2 * np.pi / 49, rtol=0.1)


def test_a_camera_that_stands_still_has_all_paths():
    source = walk()
    for length in (len(source), 1):
        still = Cameras(source.K[:length], source.world_from_cam[:1].repeat(length, 1, 1), 64, 48)
        for name in TRAJECTORIES:
            assert torch.isfinite(path(f"{name} frames=7", still)[0].world_from_cam).all()


def test_a_path_from_a_file_is_the_one_written(tmp_path):
    cameras, times = path("spiral frames=8", walk())
    save_transforms(tmp_path / "path.json", cameras, times)
    again, same_times = read_path(tmp_path / "path.json", PathDefaults(9, 9, 24.0))
    torch.testing.assert_close(again.world_from_cam, cameras.world_from_cam)
    assert same_times == pytest.approx(times)


def smooth_path_dense(cameras: Cameras, sigma: float) -> np.ndarray:
    """Positions and rotations by the whole F x F system."""
    difference = np.diff(np.eye(len(cameras)), 2, axis=0)
    system = np.eye(len(cameras)) + sigma**4 * difference.T @ difference
    poses = cameras.world_from_cam.numpy().copy()
    poses[:, :3, 3] = np.linalg.solve(system, poses[:, :3, 3])
    given = smooth = Rotation.from_matrix(poses[:, :3, :3])
    for _ in range(12):
        change = np.diff((smooth[:-1].inv() * smooth[1:]).as_rotvec(), axis=0)
        away = (smooth.inv() * given).as_rotvec() - sigma**4 * difference.T @ change
        smooth = smooth * Rotation.from_rotvec(np.linalg.solve(system, away))
    poses[:, :3, :3] = smooth.as_matrix()
    return poses


@pytest.mark.parametrize("num", [3, 4, 5, 60])
@pytest.mark.parametrize("sigma", [0.5, 12.0])
def test_the_banded_smoother_equals_the_dense_one(num, sigma):
    shaky = walk(num, shake=0.03)
    smooth = stabilize_cameras(shaky, sigma)
    expected = smooth_path_dense(shaky, sigma)
    np.testing.assert_allclose(smooth.world_from_cam.numpy(), expected, atol=1e-9)
    torch.testing.assert_close(smooth.K, shaky.K, atol=1e-6, rtol=0)


def test_ten_thousand_frames_are_smoothed_in_little_memory():
    shaky = walk(10_000, shake=0.03)
    tracemalloc.start()
    steady = stabilize_cameras(shaky, 12.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert angles_between(steady.world_from_cam).mean() < 0.1 * (
        angles_between(shaky.world_from_cam).mean()
    )


def test_any_reach_of_the_smoothing_gives_a_finite_path():
    assert torch.isfinite(stabilize_cameras(walk(50, shake=0.03), 1e8).world_from_cam).all()
