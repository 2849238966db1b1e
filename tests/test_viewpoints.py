"""Colours that depend on where the camera is."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_refinement import SIZE

from models.cameras import Cameras
from models.encoding import ColorField, HashGrid
from models.pipeline import WorldSpaceTrianglePipeline
from models.tools import TrainingPixels
from models.training import Schedule, train
from models.viewpoints import Viewpoints


def cameras_at(centers: np.ndarray) -> Cameras:
    poses = np.tile(np.eye(4), (len(centers), 1, 1))
    poses[:, :3, 3] = centers
    K = torch.tensor([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]]).double().repeat(len(centers), 1, 1)
    return Cameras(K, torch.from_numpy(poses), SIZE, SIZE)


def path(seed: int, frames: int = 12) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.cumsum(random.standard_normal((frames, 3)) * [1, 0.2, 0.01], 0) + 5 * random.standard_normal(3)


@pytest.mark.parametrize("seed", range(4))
def test_codes_span_the_path_and_nothing_past_it(seed: int):
    centers = torch.from_numpy(path(seed))
    viewpoints = Viewpoints.of(cameras_at(centers.numpy()))
    codes = viewpoints(centers)
    torch.testing.assert_close(codes.abs().amax(), torch.ones(()))
    torch.testing.assert_close(codes.amax(0), -codes.amin(0), atol=1e-6, rtol=0)
    away = centers + 100 * torch.randn(centers.shape, generator=torch.Generator().manual_seed(seed)).double()
    assert (viewpoints(away).abs() <= codes.abs().amax(0) + 1e-6).all()
    one_unit = (centers[1] - centers[0]).norm() / (codes[1] - codes[0]).norm()
    for a, b in ((2, 5), (3, 11)):  # all axes in one unit
        assert (centers[a] - centers[b]).norm() / (codes[a] - codes[b]).norm() == pytest.approx(float(one_unit), 1e-4)


def test_codes_do_not_depend_on_the_frame_of_the_world():
    centers = path(7)
    turn = Rotation.from_rotvec([0.4, -1.0, 2.0]).as_matrix()
    there = 1e-3 * centers @ turn.T + [3, -2, 1]
    here, other = (Viewpoints.of(cameras_at(c))(torch.from_numpy(c)) for c in (centers, there))
    torch.testing.assert_close(here.abs(), other.abs(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("centers", [np.zeros((5, 3)), np.full((5, 3), 1e6 / 3), np.array([[1.0, 2.0, 3.0]])])
def test_a_camera_that_stands_still_has_no_code(centers: np.ndarray):
    viewpoints = Viewpoints.of(cameras_at(centers))
    assert not viewpoints(torch.from_numpy(centers)).any()
    assert not viewpoints(torch.tensor([[3.0, 4.0, 5.0]])).any()


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_highlight_that_goes_with_the_camera_is_found_at_a_place_held_out(backend: str):
    """A wall, brighter the further right the camera is; the middle one of five cameras is kept out."""
    centers = np.stack([np.linspace(-0.4, 0.4, 5), np.zeros(5), np.zeros(5)], 1)
    shown = [0, 1, 3, 4]
    pixel = np.tile(np.arange(SIZE**2, dtype=np.int32), len(shown))
    frame = np.repeat(np.array(shown, np.int32), SIZE**2)
    light = (0.5 + 0.8 * centers[:, 0]).astype(np.float32)
    cameras = cameras_at(centers)
    pixels = TrainingPixels(
        frame=frame,
        pixel=pixel,
        vertices=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        face=(pixel // SIZE > pixel % SIZE).astype(np.int32),
        trust=np.ones(2, np.float32),
        rgb=np.repeat(light[frame, None], 3, 1).astype(np.float16),
        inverse_K=torch.linalg.inv(cameras.K).numpy(),
        world_from_cam=cameras.world_from_cam.numpy(),
        width=SIZE,
    )
    wall = np.array([[-2, -2, 1], [2, -2, 1], [2, 2, 1], [-2, 2, 1]], np.float32)
    generator, to_box = torch.Generator().manual_seed(0), torch.diag(torch.tensor([0.4, 0.4, 0.4, 1.0]))
    grid = HashGrid(levels=4, log2_entries=10, finest_resolution=32, generator=generator)
    field = ColorField(grid, backend, generator, Viewpoints.WIDTH)
    renderer = WorldSpaceTrianglePipeline(field, to_box, Viewpoints.of(cameras))
    train(renderer, pixels, wall, Schedule(60, None, 1 << 10, refine=False), np.random.default_rng(0))
    points = torch.rand(200, 3, generator=generator) * torch.tensor([0.8, 0.8, 0]) + torch.tensor([-0.4, -0.4, 1])
    for t in range(5):
        colors = renderer.seen_from(cameras.centers[t]).colors(points)
        assert (colors - light[t]).abs().mean() < 0.03
    far = renderer.seen_from(10 * cameras.centers[4]).colors(points)
    torch.testing.assert_close(far, renderer.seen_from(cameras.centers[4]).colors(points))
    torch.testing.assert_close(renderer.seen_from(cameras.centers[2]).colors(points), renderer.colors(points))
