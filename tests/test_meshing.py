import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.surface.meshing import JUMP_TRUST, FramePoints, build_mesh, extrapolate_depth
from models.surface.options import MeshOptions

WIDTH, HEIGHT = 160, 90
BORDER_TOLERANCE = 0.05


def scattered(num: int = 250, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([0, 0], [WIDTH, HEIGHT], (num, 2))


def plane_depth(xy: np.ndarray, slope=(0.1, 0.2)) -> np.ndarray:
    """Inverse depth affine in the pixel: a plane in space; the slopes are its relative change over
    the image."""
    return 5.0 / (1 + (xy - [WIDTH / 2, HEIGHT / 2]) / [WIDTH, HEIGHT] @ slope)


def mesh_of(xy: np.ndarray, depth: np.ndarray):
    return build_mesh(FramePoints(xy, depth, np.arange(len(xy)), WIDTH, HEIGHT))


def signed_areas(mesh) -> np.ndarray:
    a, b, c = (mesh.xy[mesh.faces[:, k]] for k in range(3))
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 300))
def test_every_pixel_lies_in_one_face(seed, num):
    xy = scattered(num, seed)
    mesh = mesh_of(xy, plane_depth(xy))
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    inside = np.zeros((HEIGHT, WIDTH), int)
    for face, area in zip(mesh.xy[mesh.faces], signed_areas(mesh), strict=True):
        edges = [(face[k], face[(k + 1) % 3]) for k in range(3)]
        sides = [(q - p)[0] * (rows - p[1]) - (q - p)[1] * (columns - p[0]) for p, q in edges]
        inside += np.all([np.sign(area) * side > 0 for side in sides], 0)
    assert (inside == 1).mean() > 0.999
    assert inside.max() == 1


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_faces_fill_the_frame_and_its_margin_without_overlap(seed):
    xy = scattered(seed=seed)
    mesh = mesh_of(xy, plane_depth(xy))
    low, high = mesh.xy.min(0), mesh.xy.max(0)
    assert (low < 0).all() and (high > [WIDTH, HEIGHT]).all()
    assert np.abs(signed_areas(mesh)).sum() == pytest.approx(np.prod(high - low), rel=1e-9)


def test_vertices_are_the_points_they_name():
    xy = scattered()
    depth = plane_depth(xy)
    number = np.random.default_rng(1).permutation(1000)[: len(xy)]
    mesh = build_mesh(FramePoints(xy, depth, number, WIDTH, HEIGHT))
    row = {n: i for i, n in enumerate(number.tolist())}
    inner = np.flatnonzero(mesh.point >= 0)
    chosen = [row[n] for n in mesh.point[inner].tolist()]
    np.testing.assert_array_equal(mesh.xy[inner], xy[chosen])
    np.testing.assert_array_equal(mesh.depth[inner], depth[chosen])
    border = mesh.xy[mesh.point < 0]
    assert ((border < 0) | (border > [WIDTH, HEIGHT])).any(1).all()


def test_a_fronto_parallel_plane_goes_on_exactly_past_the_border():
    xy = scattered()
    mesh = mesh_of(xy, np.full(len(xy), 3.0))
    np.testing.assert_allclose(mesh.depth, 3, rtol=1e-9)
    assert (mesh.trust > JUMP_TRUST).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
def test_a_slanted_plane_goes_on_past_the_border(a, b):
    xy = scattered(600)
    mesh = mesh_of(xy, plane_depth(xy, (a, b)))
    border = mesh.point < 0
    np.testing.assert_allclose(
        mesh.depth[border], plane_depth(mesh.xy[border], (a, b)), rtol=BORDER_TOLERANCE
    )


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_extrapolated_depth_is_positive_and_finite_for_any_depths(seed):
    random = np.random.default_rng(seed)
    xy = scattered(random.integers(1, 40), seed)
    depth = np.exp(random.normal(0, 2, len(xy)))
    query = random.uniform(-200, 400, (30, 2))
    found = extrapolate_depth(xy, depth, query)
    assert np.isfinite(found).all() and (found > 0).all()


def test_extrapolated_depth_scales_with_depth():
    xy, query = scattered(), scattered(20, 1) * 2 - 40
    depth = plane_depth(xy)
    expected = 7 * extrapolate_depth(xy, depth, query)
    np.testing.assert_allclose(extrapolate_depth(xy, 7 * depth, query), expected, rtol=1e-9)


def test_a_step_in_depth_marks_the_faces_that_span_it_and_only_those():
    xy = scattered(500)
    depth = np.where(xy[:, 0] < WIDTH / 2, 2.0, 3.0)
    mesh = mesh_of(xy, depth)
    inner = (mesh.point[mesh.faces] >= 0).all(1)
    left = mesh.xy[mesh.faces][..., 0] < WIDTH / 2
    spans = left.any(1) & ~left.all(1)
    assert (inner & spans).any()
    np.testing.assert_array_equal(mesh.trust[inner] < 1, spans[inner])


def test_jumps_follow_from_the_ratio_of_depths():
    xy = scattered(seed=4)
    mesh = mesh_of(xy, plane_depth(xy, (1.2, 0)))
    corner = mesh.depth[mesh.faces]
    np.testing.assert_array_equal(
        mesh.trust == np.float32(JUMP_TRUST),
        corner.max(1) / corner.min(1) > MeshOptions().jump_ratio,
    )


@pytest.mark.parametrize("factor", [0.5, 1.5, 20.0])
def test_spikes_are_removed_and_the_rest_stays(factor):
    xy = np.stack(np.meshgrid(np.arange(5, WIDTH, 8.0), np.arange(5, HEIGHT, 8.0)), -1).reshape(
        -1, 2
    )
    depth = plane_depth(xy)
    spikes = [33, 100, 160]
    depth[spikes] *= factor
    mesh = mesh_of(xy, depth)
    assert not np.isin(spikes, mesh.point).any()
    assert (mesh.point >= 0).sum() == len(xy) - len(spikes)


def test_points_that_cannot_be_seen_change_nothing():
    xy = scattered()
    depth = plane_depth(xy)
    junk = np.array([[1e4, 0], [np.nan, 5], [50, 40], [50, 41], [60, 40], [60, 45], [-1e9, np.inf]])
    junk_depth = np.array([2, 3, -1, np.nan, 0, np.inf, 1.0])
    more = mesh_of(np.concatenate([xy, junk]), np.concatenate([depth, junk_depth]))
    plain = mesh_of(xy, depth)
    for name in ("xy", "depth", "faces", "trust", "point"):
        np.testing.assert_array_equal(getattr(more, name), getattr(plain, name))


def test_points_that_coincide_are_taken_once():
    xy = scattered(100)
    mesh = mesh_of(np.concatenate([xy, xy + 1e-9]), np.tile(plane_depth(xy), 2))
    assert (mesh.point >= 0).sum() <= len(xy)
    assert np.abs(signed_areas(mesh)).min() > 0


@pytest.mark.parametrize("num", [0, 1, 2])
def test_too_few_points_give_no_mesh(num):
    assert mesh_of(scattered(num), np.ones(num)) is None
    behind = mesh_of(scattered(9), -np.ones(9))
    assert behind is None


def test_the_same_point_many_times_gives_no_mesh():
    assert mesh_of(np.tile([[40.0, 30.0]], (20, 1)), np.ones(20)) is None


def test_points_on_a_line_still_give_a_mesh_of_the_whole_frame():
    xy = np.stack([np.linspace(10, 150, 12), np.linspace(10, 80, 12)], 1)
    mesh = mesh_of(xy, np.full(12, 2.0))
    np.testing.assert_allclose(mesh.depth, 2, rtol=1e-9)
