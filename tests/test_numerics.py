"""From tracks to colours: whatever the scale and however degenerate the scene, finite numbers or
one clear refusal."""

import numpy as np
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from models.cameras import Cameras, look_at
from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.world_box import normalization
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.rendering import render_view
from models.run.errors import InputError
from models.sfm.static_scene import solve_scene
from models.surface.rasterizer import rasterize
from models.tools import TrainingFrames, sample_points
from models.tracks import PointTracks, Tracks
from models.training.loop import LayerTraining, train
from models.training.options import Schedule

FRAMES, WIDTH, HEIGHT = 4, 48, 32
DEGENERATE = ("none", "plane", "coincident", "behind", "line", "one far away")


def cameras_at(scale: float) -> Cameras:
    """Cameras side by side that look ahead, at a distance of ``scale`` from what they see."""
    eyes = torch.tensor([[0.05 * t, 0, 0] for t in range(FRAMES)], dtype=torch.float64) * scale
    up = torch.tensor([0.0, -1, 0], dtype=torch.float64)
    poses = torch.stack(
        [look_at(eye, torch.tensor([0.1, 0, 1.0]).double() * scale, up) for eye in eyes]
    )
    K = torch.tensor([[45.0, 0, WIDTH / 2], [0, 45, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(K.repeat(FRAMES, 1, 1), poses, WIDTH, HEIGHT)


def points(seed: int, kind: str, count: int = 90) -> np.ndarray:
    """World points before the cameras at scale 1, degenerate in the way named."""
    random = np.random.default_rng(seed)
    xyz = np.stack(
        [
            random.uniform(-0.6, 0.7, count),
            random.uniform(-0.45, 0.45, count),
            random.uniform(0.8, 1.6, count),
        ],
        1,
    )
    if kind == "plane":
        xyz[:, 2] = 1
    elif kind == "coincident":
        xyz[count // 2 :] = xyz[0]
    elif kind == "behind":
        xyz[::3, 2] *= -1
    elif kind == "line":
        xyz[:, 1:] = (0.0, 1.0)
    elif kind == "one far away":
        xyz[0] *= 1e6
    return xyz


def tracks_of(xyz: np.ndarray, scale: float) -> Tracks:
    cameras = cameras_at(scale)
    world = torch.from_numpy(xyz * scale)
    xy, depth = cameras.project(world)
    visible = (depth > 0) & (xy >= 0).all(-1) & (xy < torch.tensor([WIDTH, HEIGHT])).all(-1)
    return Tracks(
        xy=xy.float(),
        visible=visible,
        confidence=visible.float(),
        xyz=world.float()[None].expand(FRAMES, -1, -1),
        K=cameras.K,
        world_from_cam=cameras.world_from_cam,
        width=WIDTH,
        height=HEIGHT,
        fps=24.0,
        frame_indices=torch.arange(FRAMES),
        layer="background",
        video_path="",
    )


def rebuilt(tracks: Tracks, seed: int) -> np.ndarray:
    """Colours of a view of the scene, after a few steps of training."""
    frames = np.random.default_rng(seed).integers(0, 255, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    meshes = TriangleMeshPipeline.from_tracks(tracks, range(FRAMES))
    pixels = sample_points(meshes, TrainingFrames(frames, range(FRAMES)))
    generator = torch.Generator().manual_seed(0)
    field = ColorField(
        HashGrid(levels=4, log2_entries=10, finest_resolution=64, generator=generator),
        generator=generator,
    )
    to_box = normalization(tracks.cameras, meshes.gather_used())
    assert to_box.isfinite().all()
    renderer = WorldSpaceTrianglePipeline(field, to_box)
    layer = LayerTraining(renderer, pixels, meshes.shared_vertices())
    history = train(layer, Schedule(2, None, 512), np.random.default_rng(0))
    assert np.isfinite(history.psnr).all()
    assert all(parameter.isfinite().all() for parameter in field.parameters())
    return render_view(meshes, renderer, tracks.cameras[1]).rgb


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(-6, 6), st.sampled_from(DEGENERATE))
@example(0, -6.0, "none")
@example(0, 6.0, "none")
@example(1, 6.0, "behind")
@example(1, -6.0, "one far away")
def test_any_scale_and_any_degenerate_scene_gives_finite_colours_or_a_refusal(seed, exponent, kind):
    try:
        rebuilt(tracks_of(points(seed, kind), 10**exponent), seed)
    except InputError as refused:
        assert kind in ("line", "coincident", "behind"), refused


@settings(max_examples=4, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 10**6), st.sampled_from([-20, -13, 13, 20]))
def test_a_scene_of_another_unit_looks_the_same(seed, power):
    xyz = points(seed, "none")
    one, other = (rebuilt(tracks_of(xyz, scale), seed).astype(int) for scale in (1.0, 2.0**power))
    assert np.abs(one - other).mean() < 2


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(-6, 6),
    st.sampled_from(("none", "plane", "coincident", "one far away")),
)
def test_points_are_solved_at_any_scale(seed, exponent, kind):
    tracks = tracks_of(points(seed, kind), 10**exponent)
    solved = solve_scene(
        PointTracks(tracks.xy.numpy(), tracks.visible.numpy(), WIDTH, HEIGHT), tracks.cameras
    ).points
    found = np.isfinite(solved.xyz).all(1)
    assert found.sum() > 20
    assert len(solved.residual) == solved.agrees.sum() and solved.residual.max() < 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(-30, 30), st.booleans(), st.booleans())
def test_any_soup_of_triangles_draws_finite_depths_in_front(seed, exponent, flat, repeated):
    random = np.random.default_rng(seed)
    vertices = random.standard_normal((30, 3)) * 10**exponent
    vertices[::5] = 0
    if flat:
        vertices[:, 2] = 10**exponent
    faces = random.integers(0, 30, (40, 3))
    if repeated:
        faces[:, 2] = faces[:, 1]
    K = torch.tensor([[45.0, 0, WIDTH / 2], [0, 45, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    near = 1e-4 * 10**exponent
    camera = Cameras(K[None], torch.eye(4, dtype=torch.float64)[None], WIDTH, HEIGHT)
    drawn = rasterize(torch.from_numpy(vertices), torch.from_numpy(faces), camera, near=near)
    hit = drawn.face >= 0
    assert (drawn.depth[hit] >= near * (1 - 1e-5)).all() and drawn.depth[hit].isfinite().all()
    assert drawn.face.max() < len(faces)


def test_one_bad_point_does_not_spoil_the_scene():
    tracks = tracks_of(points(0, "none"), 1.0)
    bad = tracks.xyz[0].clone()
    bad[5] = torch.nan
    broken = Tracks(**{**vars(tracks), "xyz": bad[None].expand(FRAMES, -1, -1)})
    rebuilt(broken, 0)
