import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cameras import Cameras, look_at
from models.sfm.triangulation import _build_equations, _gather_observations, triangulate
from models.tracks import PointTracks

WIDTH, HEIGHT = 320, 180


def moving_cameras(num: int = 10, reach: float = 1.0) -> Cameras:
    """Cameras on an arc that look at a point 5 before them; reach is the length of the path."""
    s = torch.linspace(-0.5, 0.5, num, dtype=torch.float64)
    target, up = torch.tensor([0.0, 0, 5]).double(), torch.tensor([0.0, -1, 0]).double()
    eyes = torch.stack([reach * s, 0.1 * reach * (9 * s).sin(), 0.1 * reach * s.square()], 1)
    K = torch.tensor([[270.0, 0, WIDTH / 2], [0, 270, HEIGHT / 2], [0, 0, 1]]).double()
    return Cameras(
        K.repeat(num, 1, 1), torch.stack([look_at(eye, target, up) for eye in eyes]), WIDTH, HEIGHT
    )


def observe(cameras: Cameras, num: int = 300, depth=(2.0, 8.0), noise: float = 0.0, seed: int = 0):
    """Points under random pixels of the middle camera, and their exact or noisy projections."""
    random = np.random.default_rng(seed)
    pixel = torch.from_numpy(random.uniform([20, 20], [WIDTH - 20, HEIGHT - 20], (num, 2)))
    z = torch.from_numpy(random.uniform(*depth, num))
    points = cameras[[len(cameras) // 2]].unproject(pixel[None], z[None])[0]
    xy = cameras.project(points)[0].numpy()
    return points.numpy(), xy + noise * random.normal(size=xy.shape), np.ones(xy.shape[:2], bool)


def depths(cameras: Cameras, frame: int, points: np.ndarray) -> np.ndarray:
    return cameras[[frame]].project(torch.from_numpy(points))[1][0].numpy()


def test_exact_tracks_give_exact_points():
    cameras = moving_cameras()
    points, xy, visible = observe(cameras)
    visible &= np.random.default_rng(1).random(visible.shape) < 0.7
    visible[[2, 7]] = True
    solved = triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras)
    np.testing.assert_allclose(solved.xyz, points, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(solved.agrees, visible)
    assert (solved.agrees == visible).all() and solved.residual.max() < 1e-3


@pytest.mark.parametrize("noise", [0.2, 1.0])
@pytest.mark.parametrize("frames", [[1, 8], list(range(10))])
def test_errors_are_as_large_as_the_uncertainty_says(noise, frames):
    cameras = moving_cameras()[frames]
    points, xy, visible = observe(cameras, 600, noise=noise)
    solved = triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras)
    middle = (len(frames) - 1) // 2
    error = np.log(depths(cameras, middle, solved.xyz) / depths(cameras, middle, points))
    sure = np.isfinite(error) & (solved.uncertainty < 0.08)
    assert sure.mean() > 0.5
    normalised = error[sure] / (noise * solved.uncertainty[sure])
    assert 0.7 < np.sqrt(np.mean(normalised**2)) < 1.4


def test_more_parallax_means_less_uncertainty():
    medians = []
    for reach in (0.1, 0.5, 2.0):
        cameras = moving_cameras(reach=reach)
        _, xy, visible = observe(cameras)
        medians.append(
            np.median(triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras).uncertainty)
        )
    assert medians[0] > 3 * medians[1] > 9 * medians[2]


def test_outliers_are_flagged_and_do_not_move_the_point():
    cameras = moving_cameras()
    points, xy, visible = observe(cameras, noise=0.1)
    random = np.random.default_rng(3)
    wrong = random.random(visible.shape) < 0.15
    wrong &= wrong.cumsum(0) <= 2
    xy[wrong] += random.choice([-1, 1], (wrong.sum(), 2)) * random.uniform(10, 40, (wrong.sum(), 2))
    solved = triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras)
    kept = np.isfinite(solved.xyz).all(1)
    assert kept.mean() > 0.97
    assert not solved.agrees[wrong].any()
    assert solved.agrees[~wrong & kept].mean() > 0.99
    assert np.median(np.linalg.norm(solved.xyz - points, axis=1)[kept]) < 0.05


def test_a_track_that_fits_no_point_has_none():
    cameras = moving_cameras()
    _, xy, visible = observe(cameras, 50)
    xy[:, :10] += 60 * np.random.default_rng(0).normal(size=(10, 10, 2))
    solved = triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras)
    assert np.isnan(solved.xyz[:10]).all() and not solved.agrees[:, :10].any()
    assert np.isfinite(solved.xyz[10:]).all()


@pytest.mark.parametrize("seen", [0, 1])
def test_a_track_seen_less_than_twice_has_no_point(seen):
    cameras = moving_cameras()
    _, xy, visible = observe(cameras, 20)
    visible[seen:, :5] = False
    solved = triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras)
    assert np.isnan(solved.xyz[:, 0]).tolist() == [True] * 5 + [False] * 15
    assert not solved.agrees[:, :5].any()


@pytest.mark.parametrize("distance", [1e3, 1e6])
def test_far_points_stay_finite_and_project_right(distance):
    cameras = moving_cameras()
    _, xy, visible = observe(cameras, depth=(distance, 2 * distance), noise=0.1)
    solved = triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras)
    assert np.isfinite(solved.xyz).all()
    assert solved.residual.max() < 2
    assert np.median(depths(cameras, 5, solved.xyz)) > 50


def test_cameras_that_stand_still_give_points_that_project_right():
    cameras = moving_cameras(reach=0.0)
    _, xy, visible = observe(cameras, noise=0.1)
    solved = triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras)
    assert np.isfinite(solved.xyz).all() and solved.agrees.all()


def test_flat_points_lie_at_depth_one_of_their_middle_frame():
    cameras = moving_cameras(reach=0.0)
    _, xy, visible = observe(cameras)
    visible[:4, ::2] = False
    solved = triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras, flat=True)
    np.testing.assert_allclose(depths(cameras, 6, solved.xyz[::2]), 1, atol=1e-3)
    np.testing.assert_allclose(depths(cameras, 4, solved.xyz[1::2]), 1, atol=1e-3)
    assert (solved.agrees == visible).all() and solved.residual.max() < 1e-2


@pytest.mark.parametrize("unit", [1e-3, 1e4])
def test_points_scale_with_the_cameras_whatever_their_unit(unit):
    cameras = moving_cameras()
    points, xy, visible = observe(cameras)
    pose = cameras.world_from_cam.clone()
    pose[:, :3, 3] *= unit
    solved = triangulate(
        PointTracks(xy, visible, WIDTH, HEIGHT), Cameras(cameras.K, pose, WIDTH, HEIGHT)
    )
    np.testing.assert_allclose(solved.xyz / unit, points, rtol=1e-4, atol=1e-4)


def test_points_move_with_the_cameras_wherever_the_world_lies():
    cameras = moving_cameras()
    _, xy, visible = observe(cameras, noise=0.2)
    moved = look_at(*torch.tensor([[30.0, -20, 10], [1, 2, 3], [0, 0, 1]]).double())
    solved = triangulate(
        PointTracks(xy, visible, WIDTH, HEIGHT),
        Cameras(cameras.K, moved @ cameras.world_from_cam, WIDTH, HEIGHT),
    )
    expected = (
        triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras).xyz @ moved[:3, :3].numpy().T
        + moved[:3, 3].numpy()
    )
    np.testing.assert_allclose(solved.xyz, expected, atol=1e-3)


def reference(parameters, prior, strength, seen):
    """Robust cost, its residuals' numerical Jacobian and the normal equations, in plain numpy."""

    def miss(p):
        rotation, shift = seen[:, :9].reshape(-1, 3, 3), seen[:, 9:12]
        local = rotation @ [p[0], p[1], 1] + p[2] * shift
        return seen[:, 12:14] * local[:, :2] / local[:, 2:] + seen[:, 14:16] - seen[:, 16:18]

    error = miss(parameters)
    step = 1e-6
    jacobian = np.stack(
        [(miss(parameters + d) - miss(parameters - d)) / (2 * step) for d in step * np.eye(3)], -1
    )
    size = np.linalg.norm(error, axis=1)
    weight = 1 / np.maximum(size, 1)
    pull = np.array([0, 0, strength * (parameters[2] - prior)])
    H = np.einsum("n,nik,nim->km", weight, jacobian, jacobian) + np.diag([0, 0, strength])
    g = np.einsum("n,nik,ni->k", weight, jacobian, error) + pull
    cost = np.where(size < 1, size**2, 2 * size - 1).sum() + strength * (parameters[2] - prior) ** 2
    return H, g, cost


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_build_equations_equal_a_numerical_reference(seed):
    random = np.random.default_rng(seed)
    cameras = moving_cameras(6)
    _, xy, visible = observe(cameras, 1, noise=1.5, seed=seed)
    K, pose = cameras.K.numpy(), cameras.cam_from_world.numpy()
    seen = _gather_observations(xy, visible, K, pose, 2, 0)
    u, v, rho = random.uniform([-0.5, -0.3, 0.1], [0.5, 0.3, 0.5])
    H, g, cost = _build_equations(u, v, rho, 0.7, 2.5, seen)
    H_expected, g_expected, cost_expected = reference(np.array([u, v, rho]), 0.7, 2.5, seen)
    np.testing.assert_allclose(cost, cost_expected, rtol=1e-9)
    np.testing.assert_allclose(g, g_expected, rtol=1e-4, atol=1e-4 * np.abs(g_expected).max())
    np.testing.assert_allclose(H, H_expected, rtol=1e-4, atol=1e-4 * np.abs(H_expected).max())


def test_the_same_input_gives_the_same_points():
    cameras = moving_cameras()
    _, xy, visible = observe(cameras, noise=0.5)
    first, second = (
        triangulate(PointTracks(xy, visible, WIDTH, HEIGHT), cameras) for _ in range(2)
    )
    np.testing.assert_array_equal(first.xyz, second.xyz)
