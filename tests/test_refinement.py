"""Vertices moved by what training pixels see: the derivative, the two forms of the step, and what
it is good for."""

import numpy as np
import pytest
import torch
from clips import true_tracks
from scipy.spatial.transform import Rotation

from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.world_box import normalization
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.metrics import psnr
from models.render.rendering import render_view
from models.synthetic.sample import RoomOptions, render_room
from models.tools import BatchSettings, DevicePixels, TrainingFrames, TrainingPixels, sample_points
from models.training.loop import LayerTraining, train
from models.training.options import Schedule, TrainingOptions
from models.training.refinement import GRAZING, PlainRefinement, Refinement

SIZE = 32
RATE = TrainingOptions().refine_rate


def random_pixels(seed: int, vertices: int = 40, faces: int = 60, samples: int = 3000):
    """Pixels of two cameras that see random faces, as seldom as not edge on."""
    random = np.random.default_rng(seed)
    positions = random.uniform([-1, -1, 2], [1, 1, 4], (vertices, 3)).astype(np.float32)
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(0.1 * random.standard_normal((2, 3))).as_matrix()
    poses[:, :3, 3] = 0.1 * random.standard_normal((2, 3))
    pixels = TrainingPixels(
        frame=random.integers(0, 2, samples).astype(np.int32),
        pixel=random.integers(0, SIZE**2, samples).astype(np.int32),
        vertices=np.stack([random.permutation(vertices)[:3] for _ in range(faces)]).astype(
            np.int32
        ),
        face=random.integers(0, faces, samples).astype(np.int32),
        trust=np.ones(faces, np.float32),
        rgb=random.random((samples, 3)).astype(np.float16),
        inverse_K=np.linalg.inv(
            np.array([[[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]]] * 2)
        ),
        world_from_cam=poses,
        width=SIZE,
    )
    matrix = np.eye(4) + 0.1 * random.standard_normal((4, 4))
    matrix[3] = [0.05, -0.1, 0.3, 1]
    return pixels, positions, matrix, random


@pytest.mark.parametrize("seed", range(5))
def test_the_kernel_takes_the_steps_of_the_plain_form(seed: int):
    pixels, positions, matrix, random = random_pixels(seed)
    start, there = positions.copy(), positions.copy()
    fast = Refinement(pixels, positions, RATE)
    settings = BatchSettings(torch.from_numpy(matrix), there)
    plain = PlainRefinement(DevicePixels(pixels, settings), there, RATE)
    for step in range(6):
        index = random.integers(0, len(pixels), 500 + step)
        slope = torch.from_numpy(random.standard_normal((len(index), 3)).astype(np.float32))
        before = positions.copy()
        fast.step(torch.from_numpy(index), torch.from_numpy(matrix), slope, 1.0)
        plain.step(torch.from_numpy(index), torch.from_numpy(matrix), slope, 1.0)
        plain.publish()
        np.testing.assert_allclose(positions, there, atol=1e-5)
        unseen = np.setdiff1d(np.arange(len(positions)), pixels.vertices[pixels.face[index]])
        assert (positions[unseen] == before[unseen]).all()
        longest = RATE * fast.state[:, 7]
        assert (np.linalg.norm(positions - before, axis=1) <= longest * 1.01).all()
    assert np.abs(positions - start).max() > RATE


def test_the_slope_is_that_of_the_points_where_rays_meet_faces():
    pixels, positions, matrix, random = random_pixels(11, samples=200)
    index = np.arange(len(pixels))
    refinement = Refinement(pixels, positions)
    slope = random.standard_normal((len(index), 3)).astype(np.float32)
    refinement.step(torch.from_numpy(index), torch.from_numpy(matrix), torch.from_numpy(slope), 0.0)
    push = refinement._push
    for i in random.permutation(len(index))[:60]:
        corners = pixels.vertices[pixels.face[i]]
        _, ray, _, normal = plane_and_ray(pixels, i, positions.astype(np.float64))
        if abs(normal @ ray) <= GRAZING * np.linalg.norm(normal) * np.linalg.norm(ray):
            assert not push[i].any()
            continue
        for k, axis in np.ndindex(3, 3):

            def value(by: float, i=i, corners=corners, k=k, axis=axis) -> float:
                moved = positions.astype(np.float64)
                moved[corners[k], axis] += by
                x = meeting(pixels, i, moved)
                image = matrix @ [*x, 1]
                return float(slope[i] @ (image[:3] / image[3]))

            numeric = (value(1e-6) - value(-1e-6)) / 2e-6
            assert push[i, k, axis] == pytest.approx(
                numeric, abs=2e-3 * float(np.abs(push[i]).max())
            )


def plane_and_ray(pixels: TrainingPixels, i: int, positions: np.ndarray) -> tuple[np.ndarray, ...]:
    """Origin and direction of the ray of pixel i, a corner and the normal of its face."""
    a, b, c = positions[pixels.vertices[pixels.face[i]]]
    pose = pixels.world_from_cam[pixels.frame[i]]
    row, column = divmod(int(pixels.pixel[i]), SIZE)
    ray = pose[:3, :3] @ pixels.inverse_K[pixels.frame[i]] @ [column + 0.5, row + 0.5, 1]
    return pose[:3, 3], ray, a, np.cross(b - a, c - a)


def meeting(pixels: TrainingPixels, i: int, positions: np.ndarray) -> np.ndarray:
    """Where the ray of pixel i meets the plane of its face, in double precision."""
    origin, ray, corner, normal = plane_and_ray(pixels, i, positions)
    return origin + ray * (normal @ (corner - origin)) / (normal @ ray)


def test_a_stopped_refinement_goes_on_to_the_bit():
    pixels, positions, matrix, random = random_pixels(3)
    matrix = torch.from_numpy(matrix)
    drawn = [
        (random.integers(0, len(pixels), 400), random.standard_normal((400, 3))) for _ in range(4)
    ]
    batches = [(index, torch.from_numpy(slope).float()) for index, slope in drawn]
    whole = Refinement(pixels, positions.copy())
    first = Refinement(pixels, positions.copy())
    for i, (index, slope) in enumerate(batches):
        whole.step(torch.from_numpy(index), matrix, slope, 0.5)
        if i == 2:
            second = Refinement(pixels, positions.copy())
            second.load_state_dict(first.state_dict())
            first = second
        first.step(torch.from_numpy(index), matrix, slope, 0.5)
    assert (whole.positions == first.positions).all() and (whole.state == first.state).all()


@pytest.mark.slow
def test_a_frame_held_out_is_rebuilt_better_when_vertices_may_move():
    room = render_room(RoomOptions(9, 200, 112, num_movers=0, num_tracks=1500))
    times, found = [t for t in range(9) if t != 4], {}
    for refine in (False, True):
        meshes = TriangleMeshPipeline.from_tracks(true_tracks(room, moving=False), times)
        pixels = sample_points(meshes, TrainingFrames(room.frames, times))
        vertices = meshes.shared_vertices()
        center = room.cameras.centers.mean(0).numpy()
        vertices[:] = center + (vertices - center) * np.random.default_rng(0).normal(
            1, 0.01, (len(vertices), 1)
        )
        generator = torch.Generator().manual_seed(0)
        grid = HashGrid(log2_entries=15, finest_resolution=256, generator=generator)
        box = normalization(meshes.cameras, meshes.gather_used())
        renderer = WorldSpaceTrianglePipeline(ColorField(grid, generator=generator), box)
        layer = LayerTraining(renderer, pixels, vertices)
        train(layer, Schedule(12, None, 1 << 12, refine), np.random.default_rng(0))
        found[refine] = psnr(render_view(meshes, renderer, room.cameras[4]).rgb, room.frames[4])
    assert found[True] > found[False] + 0.15


def test_without_refinement_vertices_stay():
    pixels, positions, _, _ = random_pixels(5)
    generator = torch.Generator().manual_seed(0)
    field = ColorField(
        HashGrid(levels=4, log2_entries=10, finest_resolution=64, generator=generator)
    )
    for refine in (False, True):
        moved = positions.copy()
        schedule = Schedule(3, batch_size=512, refine=refine)
        renderer = WorldSpaceTrianglePipeline(field, 0.2 * torch.eye(4))
        train(LayerTraining(renderer, pixels, moved), schedule, np.random.default_rng(0))
        assert (moved != positions).any() == refine
