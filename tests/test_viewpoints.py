"""Colours that depend on where the camera is."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_refinement import SIZE

from models.cameras import Cameras
from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.viewpoints import Viewpoints
from models.pipeline import (
    Canvas,
    TriangleMeshPipeline,
    WorldSpaceTrianglePipeline,
)
from models.render.options import RenderOptions
from models.render.view_choice import (
    average_times,
    weigh_changes,
)
from models.tools import TrainingPixels
from models.training.loop import LayerTraining, train
from models.training.options import Schedule

WALL = np.array([[-2, -2, 1], [2, -2, 1], [2, 2, 1], [-2, 2, 1]], np.float32)


def cameras_at(centers: np.ndarray) -> Cameras:
    poses = np.tile(np.eye(4), (len(centers), 1, 1))
    poses[:, :3, 3] = centers
    K = (
        torch.tensor([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
        .double()
        .repeat(len(centers), 1, 1)
    )
    return Cameras(K, torch.from_numpy(poses), SIZE, SIZE)


def codes_of(viewpoints: Viewpoints, centers: torch.Tensor) -> torch.Tensor:
    """Places alone, of one camera a frame."""
    return viewpoints(centers, torch.arange(len(centers))).place


def path(seed: int, frames: int = 12) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.cumsum(
        random.standard_normal((frames, 3)) * [1, 0.2, 0.01], 0
    ) + 5 * random.standard_normal(3)


@pytest.mark.parametrize("seed", range(4))
def test_codes_span_the_path_and_nothing_past_it(seed: int):
    centers = torch.from_numpy(path(seed))
    viewpoints = Viewpoints.of(cameras_at(centers.numpy()))
    codes = codes_of(viewpoints, centers)
    torch.testing.assert_close(codes.abs().amax(), torch.ones(()))
    torch.testing.assert_close(codes.amax(0), -codes.amin(0), atol=1e-6, rtol=0)
    away = (
        centers
        + 100 * torch.randn(centers.shape, generator=torch.Generator().manual_seed(seed)).double()
    )
    assert (codes_of(viewpoints, away).abs() <= codes.abs().amax(0) + 1e-6).all()
    one_unit = (centers[1] - centers[0]).norm() / (codes[1] - codes[0]).norm()
    for a, b in ((2, 5), (3, 11)):  # all axes in one unit
        assert (centers[a] - centers[b]).norm() / (codes[a] - codes[b]).norm() == pytest.approx(
            float(one_unit), 1e-4
        )


def test_codes_do_not_depend_on_the_frame_of_the_world():
    centers = path(7)
    turn = Rotation.from_rotvec([0.4, -1.0, 2.0]).as_matrix()
    there = 1e-3 * centers @ turn.T + [3, -2, 1]
    here, other = (
        codes_of(Viewpoints.of(cameras_at(c)), torch.from_numpy(c)) for c in (centers, there)
    )
    torch.testing.assert_close(here.abs(), other.abs(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "centers", [np.zeros((5, 3)), np.full((5, 3), 1e6 / 3), np.array([[1.0, 2.0, 3.0]])]
)
def test_a_camera_that_stands_still_has_no_code(centers: np.ndarray):
    viewpoints = Viewpoints.of(cameras_at(centers))
    assert not codes_of(viewpoints, torch.from_numpy(centers)).any()
    assert not codes_of(viewpoints, torch.tensor([[3.0, 4.0, 5.0]])).any()


@pytest.mark.parametrize(("frames", "step"), [(2, 0.01), (9, 0.1), (1000, 0.01)])
def test_times_are_even_and_fit_the_clip(frames: int, step: float):
    centers = torch.from_numpy(path(3, frames))
    times = Viewpoints.of(cameras_at(centers.numpy()), step)(centers, torch.arange(frames)).time
    torch.testing.assert_close(times, -times.flip(0), atol=1e-6, rtol=0)
    assert times.abs().max() <= 1
    torch.testing.assert_close(
        times.diff(), torch.full((frames - 1,), min(step, 2 / frames)), atol=1e-6, rtol=0
    )


def test_the_moment_of_a_view_is_of_frames_that_belong_together():
    assert average_times([4, 6], [0.5, 0.5]) == pytest.approx(5)
    assert average_times([4, 5, 3, 6], [0.999, 4e-4, 3e-4, 3e-4]) == pytest.approx(4, abs=1e-3)
    assert average_times([10, 200, 11, 201], [0.3, 0.25, 0.25, 0.2]) == pytest.approx(
        10.4545, abs=1e-3
    )  # passed twice


@pytest.mark.parametrize("seed", range(3))
def test_distance_from_the_path_is_that_from_its_nearest_piece(seed: int):
    centers, random = path(seed), np.random.default_rng(seed)
    shown = [0, 2, 3, 7, 11]
    wall = torch.from_numpy(WALL + centers.mean(0).astype(np.float32))
    faces, trust = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.ones(2)
    parts = {t: faces for t in shown}, {t: trust for t in shown}
    meshes = TriangleMeshPipeline(cameras_at(centers), wall, *parts, Canvas(0, 0, 1, 1))
    between = np.linspace(0, 1, 2001)[:, None]
    line = np.concatenate([a + between * (b - a) for a, b in itertools.pairwise(centers[shown])])
    away = centers[random.integers(12, size=8)] + random.standard_normal((8, 3))
    for i, point in enumerate(away):
        expected = np.linalg.norm(line - point, axis=1).min() / meshes.depth_scale
        assert meshes.path_distance(cameras_at(away)[i]) == pytest.approx(expected, abs=2e-3)
    on_line = cameras_at(line[random.integers(len(line), size=5)])
    assert all(weigh_changes(meshes, on_line[i]) == 1 for i in range(5))
    options = RenderOptions()
    above = line[:1] + np.array([0, 0, options.off_path * meshes.depth_scale + 9])
    assert weigh_changes(meshes, cameras_at(above)[0]) == options.changes_least


def training_pixels(cameras: Cameras, shown: list[int], rgb: np.ndarray) -> TrainingPixels:
    """All pixels of some frames, of a wall of two triangles; rgb (frames shown * pixels, 3)."""
    pixel = np.tile(np.arange(SIZE**2, dtype=np.int32), len(shown))
    return TrainingPixels(
        frame=np.repeat(np.array(shown, np.int32), SIZE**2),
        pixel=pixel,
        vertices=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        face=(pixel // SIZE > pixel % SIZE).astype(np.int32),
        trust=np.ones(2, np.float32),
        rgb=rgb.astype(np.float16),
        inverse_K=torch.linalg.inv(cameras.K).numpy(),
        world_from_cam=cameras.world_from_cam.numpy(),
        width=SIZE,
    )


TO_BOX = torch.diag(torch.tensor([0.4, 0.4, 0.4, 1.0]))


def make_renderer(cameras: Cameras, backend: str, time_step: float) -> WorldSpaceTrianglePipeline:
    generator = torch.Generator().manual_seed(0)
    grid, changes = (
        HashGrid(4, log2_entries=10, finest_resolution=32, generator=generator) for _ in range(2)
    )
    field = ColorField(grid, backend, generator, Viewpoints.WIDTH, changes)
    return WorldSpaceTrianglePipeline(field, TO_BOX, Viewpoints.of(cameras, time_step))


def on_the_wall(count: int = 200) -> torch.Tensor:
    shares = torch.rand(count, 3, generator=torch.Generator().manual_seed(5))
    return shares * torch.tensor([0.8, 0.8, 0]) + torch.tensor([-0.4, -0.4, 1])


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_light_that_goes_on_in_a_part_of_the_image_is_found_at_its_time(backend: str):
    """The right half of a wall grows brighter while the camera stands still; the middle frame is
    kept out."""
    cameras, shown = cameras_at(np.zeros((5, 3))), [0, 1, 3, 4]
    right = (np.arange(SIZE**2) % SIZE >= SIZE / 2).astype(np.float32)
    rgb = np.concatenate([np.repeat((0.3 + 0.1 * t * right)[:, None], 3, 1) for t in shown])
    renderer = make_renderer(cameras, backend, 2 / (2 * 32))
    pixels = training_pixels(cameras, shown, rgb)
    layer = LayerTraining(renderer, pixels, WALL)
    train(layer, Schedule(60, None, 1 << 10, refine=False), np.random.default_rng(0))
    points = on_the_wall()
    clear = points[(points[:, 0].abs() > 0.08)]
    for t in range(5):
        colors = renderer.seen_from(cameras.centers[t], t).colors(clear)
        truth = 0.3 + 0.1 * t * (clear[:, :1] > 0).float()
        assert (colors - truth).abs().mean() < 0.03


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_highlight_that_goes_with_the_camera_is_found_at_a_place_held_out(backend: str):
    """A wall, brighter the further right the camera is; the middle one of five cameras is kept
    out."""
    centers = np.stack([np.linspace(-0.4, 0.4, 5), np.zeros(5), np.zeros(5)], 1)
    shown = [0, 1, 3, 4]
    light = (0.5 + 0.8 * centers[:, 0]).astype(np.float32)
    cameras = cameras_at(centers)
    rgb = np.repeat(np.repeat(light[shown], SIZE**2)[:, None], 3, 1)
    renderer = make_renderer(cameras, backend, 0.0)  # all is at one time: the camera alone can tell
    pixels = training_pixels(cameras, shown, rgb)
    layer = LayerTraining(renderer, pixels, WALL)
    train(layer, Schedule(60, None, 1 << 10, refine=False), np.random.default_rng(0))
    points = on_the_wall()
    for t in range(5):
        colors = renderer.seen_from(cameras.centers[t], t).colors(points)
        assert (colors - light[t]).abs().mean() < 0.03
    far = renderer.seen_from(10 * cameras.centers[4], 4).colors(points)
    torch.testing.assert_close(far, renderer.seen_from(cameras.centers[4], 4).colors(points))
    torch.testing.assert_close(
        renderer.seen_from(cameras.centers[2], 2, 0).colors(points), renderer.colors(points)
    )
