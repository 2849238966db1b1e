import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.render import view_kernels
from models.render.blending import blend_surfaces, fill_holes
from models.render.options import RenderOptions

AGREEMENT = RenderOptions.agreement


def blend_plain(depth: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares (M, H, W) and depth (H, W) by the plain form."""
    tensors = (torch.from_numpy(np.asarray(x, np.float32)) for x in (depth, weight))
    share, surface = blend_surfaces(*tensors)
    return share.numpy(), surface.numpy()


def blend_fast(depth: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same by the kernel of the renderer, which gives a point and its part of a pixel for each
    mesh that has a share: its third coordinate is the depth, which tells the mesh."""
    count, height, width = depth.shape
    flat = [np.ascontiguousarray(x, np.float32).reshape(count, -1) for x in (depth, weight)]
    padded = depth.size
    planes, part = np.empty(3 * padded, np.float32), np.empty(padded, np.float32)
    pixel, surface = np.empty(padded, np.int32), np.empty(height * width, np.float32)
    options = RenderOptions()
    # no distance is below 0: no two meshes share a point
    limits = np.array([options.agreement, options.least_share, 0], np.float32)
    out = planes, padded, pixel, part, surface
    points = view_kernels.tile_points(*flat, width, 0, np.eye(4), limits, *out)
    share = np.zeros(flat[0].shape, np.float32)
    for z, p, amount in zip(planes[2 * padded :], pixel, part[:points], strict=False):
        free = np.flatnonzero((share[:, p] == 0) & np.isclose(flat[0][:, p], z, rtol=1e-6))
        share[free[flat[1][free, p].argmax()], p] = amount  # largest shares come first
    return share.reshape(depth.shape), surface.reshape(height, width)


BLENDS = pytest.mark.parametrize("blend", [blend_plain, blend_fast])


def random_layers(seed: int, meshes: int = 4, height: int = 17, width: int = 23):
    """Two surfaces, 2 and 3 deep, with errors and holes; some faces are hardly trusted."""
    random = np.random.default_rng(seed)
    depth = np.where(random.random((meshes, height, width)) < 0.7, 2.0, 3.0)
    depth *= 1 + 0.005 * random.normal(size=depth.shape)
    depth[random.random(depth.shape) < 0.3] = np.inf
    trust = np.where(random.random(depth.shape) < 0.2, 1e-3, 1)
    weight = random.dirichlet(np.ones(meshes)) + 0.02
    return depth.astype(np.float32), (trust * (weight / weight.sum())[:, None, None]).astype(
        np.float32
    )


@BLENDS
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_shares_sum_to_one_where_a_mesh_is_and_to_zero_elsewhere(blend, seed):
    depth, weight = random_layers(seed)
    share, surface = blend(depth, weight)
    covered = np.isfinite(depth).any(0)
    np.testing.assert_allclose(share.sum(0), covered, atol=1e-5)
    assert (share >= 0).all()
    np.testing.assert_array_equal(np.isfinite(surface), covered)
    assert (share[~np.isfinite(depth)] == 0).all()


@BLENDS
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_only_meshes_that_agree_are_mixed_and_the_surface_lies_among_them(blend, seed):
    depth, weight = random_layers(seed)
    share, surface = blend(depth, weight)
    used = share > 0
    low = np.where(used, depth, np.inf).min(0)
    high = np.where(used, depth, -np.inf).max(0)
    covered = np.isfinite(surface)
    assert (high[covered] <= low[covered] * (1 + 2.1 * AGREEMENT)).all()
    assert (surface[covered] >= low[covered] * (1 - 1e-6)).all()
    assert (surface[covered] <= high[covered] * (1 + 1e-6)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_fast_path_equals_the_plain_one(seed, meshes):
    depth, weight = random_layers(seed, meshes)
    weight[:, 0] = 0
    share, surface = blend_fast(depth, weight)
    plain_share, plain_surface = blend_plain(depth, weight)
    np.testing.assert_allclose(share, plain_share, atol=1e-6)
    np.testing.assert_allclose(surface, plain_surface, rtol=1e-6)
    assert np.isinf(surface[0]).all()


@BLENDS
def test_a_single_mesh_is_itself(blend):
    depth, _ = random_layers(0, meshes=1)
    share, surface = blend(depth, np.ones(depth.shape, np.float32))
    np.testing.assert_allclose(surface, depth[0], rtol=1e-6)
    np.testing.assert_array_equal(share[0], np.isfinite(depth[0]))


@BLENDS
def test_equal_surfaces_are_mixed_by_weight(blend):
    weight = np.array([0.5, 0.3, 0.2])
    share, surface = blend(np.full((3, 4, 5), 7.0), np.ones((3, 4, 5)) * weight[:, None, None])
    np.testing.assert_allclose(
        share, np.broadcast_to(weight[:, None, None], share.shape), rtol=1e-5
    )
    np.testing.assert_allclose(surface, 7, rtol=1e-6)


@BLENDS
@pytest.mark.parametrize("wrong", [0.5, 5.0])
def test_the_majority_wins_over_a_lone_error_before_or_behind_it(blend, wrong):
    depth = np.full((4, 3, 3), 2.0)
    depth[1] = wrong
    share, surface = blend(depth, np.full(depth.shape, 0.25))
    np.testing.assert_allclose(surface, 2, rtol=1e-6)
    np.testing.assert_allclose(share[:, 0, 0], [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-5)


@BLENDS
def test_where_weight_is_even_the_nearer_surface_wins(blend):
    depth = np.array([3.0, 2.0])[:, None, None] * np.ones((2, 2, 2))
    for order in ([0, 1], [1, 0]):
        _, surface = blend(depth[order], np.full((2, 2, 2), 0.5))
        np.testing.assert_allclose(surface, 2, rtol=1e-6)


@BLENDS
def test_distrusted_faces_are_seen_only_where_nothing_else_is(blend):
    depth = np.full((4, 1, 2), 1.0)
    trust = np.full((4, 1, 2), 1e-3)
    depth[3], trust[3, 0, 0] = 4.0, 1.0
    depth[3, 0, 1] = np.inf
    share, surface = blend(depth, trust * np.array([0.4, 0.3, 0.2, 0.1])[:, None, None])
    np.testing.assert_allclose(surface[0], [4, 1], rtol=1e-6)
    np.testing.assert_allclose(share[:, 0, 0], [0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(share[:, 0, 1], np.array([4, 3, 2, 0]) / 9, rtol=1e-5)


@BLENDS
def test_the_order_of_the_meshes_does_not_matter(blend):
    depth, weight = random_layers(5)
    share, surface = blend(depth, weight)
    order = [2, 0, 3, 1]
    share_again, surface_again = blend(depth[order], weight[order])
    np.testing.assert_allclose(surface_again, surface, rtol=1e-5)
    np.testing.assert_allclose(share_again, share[order], atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.floats(0.0, 1.0))
def test_filled_colours_lie_in_the_range_of_the_covered_and_those_stay(
    seed, height, width, density
):
    random = np.random.default_rng(seed)
    covered = random.random((height, width)) < density**3
    covered[random.integers(height), random.integers(width)] = True
    rgb = np.where(covered[..., None], random.uniform(0.3, 0.8, (height, width, 3)), 0).astype(
        np.float32
    )
    filled = fill_holes(rgb, covered)
    np.testing.assert_array_equal(filled[covered], rgb[covered])
    assert np.isfinite(filled).all()
    known = rgb[covered]
    assert (filled >= known.min(0) - 1e-4).all() and (filled <= known.max(0) + 1e-4).all()


@pytest.mark.parametrize("size", [(100, 200), (1080, 1920), (1, 50), (37, 1)])
def test_one_covered_pixel_colours_the_whole_image(size):
    covered = np.zeros(size, bool)
    covered[size[0] // 3, size[1] // 3] = True
    color = np.array([0.2, 0.5, 0.9], np.float32)
    filled = fill_holes(np.where(covered[..., None], color, np.float32(7)), covered)
    np.testing.assert_allclose(filled, np.broadcast_to(color, filled.shape), atol=1e-3)


def test_a_hole_takes_the_colours_around_it():
    rgb = np.zeros((40, 80, 3), np.float32)
    rgb[:, 40:] = 1
    covered = np.ones((40, 80), bool)
    covered[15:25, 10:20] = covered[15:25, 60:70] = False
    filled = fill_holes(rgb * covered[..., None], covered)
    assert filled[15:25, 10:20].max() < 0.02
    assert filled[15:25, 60:70].min() > 0.98


def test_all_or_nothing_covered_is_returned_as_it_is():
    rgb = np.random.default_rng(0).random((5, 6, 3)).astype(np.float32)
    for covered in (np.ones((5, 6), bool), np.zeros((5, 6), bool)):
        np.testing.assert_array_equal(fill_holes(rgb, covered), rgb)
