"""Dense depth along outlines: true depth is found, the kernels do what their formulas say, no
parallax no change."""

from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from clips import true_tracks
from hypothesis import given, settings
from hypothesis import strategies as st

from models.pipeline import TriangleMeshPipeline
from models.surface.dense import confirm_kernels, stereo, stereo_kernels
from models.surface.dense.hidden_surface import carry_depth, find_hidden_surface
from models.surface.meshing import FINE, JUMP_TRUST, FramePoints, build_mesh
from models.surface.options import StereoOptions
from models.synthetic.sample import RoomOptions, render_room

WIDTH, HEIGHT, FRAMES = 200, 112, 12


def scene_of(motion: str, **options) -> SimpleNamespace:
    """A room, few true points of it, and the surfaces found from them."""
    room = render_room(
        RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=1, motion=motion, num_tracks=700)
    )
    tracks = true_tracks(room, False)
    meshes = TriangleMeshPipeline.from_tracks(tracks, range(FRAMES), room.masks)
    starts = partial(meshes.inverse_depth, width=WIDTH, height=HEIGHT)
    clip = stereo.StereoFrames(room.frames, tracks.cameras, room.track_visible, room.masks)
    surface_of = stereo.Surfaces(clip, starts, range(FRAMES), StereoOptions(**options))
    return SimpleNamespace(room=room, tracks=tracks, starts=starts, surface_of=surface_of)


@pytest.fixture(scope="module")
def sideways() -> SimpleNamespace:
    return scene_of("sideways")


def near_outlines(depth: np.ndarray, reach: int = 2) -> np.ndarray:
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return cv2.dilate(depth, window) > 1.1 * cv2.erode(depth, window)


def test_outlines_come_nearer_to_the_truth(sideways):
    before, after = [], []
    for t in (3, 6, 8):
        surface, depth = sideways.surface_of(t), sideways.room.depth[t].astype(np.float32)
        where = near_outlines(depth) & surface.doubt & ~sideways.room.masks[t]
        assert where.sum() > 1000
        before.append(np.abs(np.log(sideways.starts(t) * depth))[where])
        after.append(np.abs(np.log(surface.inverse_depth * depth))[where])
    before, after = np.concatenate(before), np.concatenate(after)
    assert np.median(after) < 0.6 * np.median(before)
    assert (after > 0.05).mean() < 0.6 * (before > 0.05).mean()


def test_depth_stays_where_nothing_is_in_doubt_and_movers_are_left_alone(sideways):
    surface = sideways.surface_of(5)
    np.testing.assert_allclose(
        surface.inverse_depth[~surface.doubt], sideways.starts(5)[~surface.doubt], rtol=1e-6
    )
    behind = surface.doubt & sideways.room.masks[5]
    assert behind.any()
    # behind the mover stands the wall or the floor
    assert (surface.inverse_depth * sideways.room.depth[5])[behind].mean() < 0.98


def test_background_that_tracks_place_at_the_depth_of_what_surrounds_it_is_found(sideways):
    depth = sideways.room.depth.astype(np.float32)
    # a gap in a near surface: the start has the near depth inside the gap too
    gap = np.s_[20:60, 80:120]
    wrong = 1 / depth
    wrong[:, 10:70, 70:130] *= 1.4
    tracks = sideways.tracks
    clip = stereo.StereoFrames(sideways.room.frames, tracks.cameras, sideways.room.track_visible)
    surface_of = stereo.Surfaces(clip, wrong.__getitem__, range(FRAMES))
    surface = surface_of(5)
    error = np.abs(np.log(surface.inverse_depth * depth[5]))[gap]
    assert surface.doubt[gap].mean() > 0.9
    assert (error < 0.03).mean() > 0.8


def plane_depth(height: float, x: float, slope: float) -> np.ndarray:
    """Inverse depth of the plane z = height + slope * X, seen from (x, 0, 0) with focal length 40 in
    an image of 60x40."""
    columns = np.arange(60) + 0.5 - 30
    inverse = (1 - slope * columns / 40) / (height + slope * x)
    return np.repeat(inverse[None].astype(np.float32), 40, 0)


def test_depth_is_carried_to_another_frame():
    random = np.random.default_rng(2)
    K = np.array([[40.0, 0, 30], [0, 40, 20], [0, 0, 1]], np.float32)
    A = np.eye(3, dtype=np.float32)
    for _ in range(5):
        height, x, slope = (
            random.uniform(2, 3),
            random.uniform(-0.3, 0.3),
            random.uniform(-0.3, 0.3),
        )
        T = K @ np.array([-x, 0, 0], np.float32)
        usable = np.ones((40, 60), bool)
        usable[10:20, 20:30] = False
        carried = carry_depth(plane_depth(height, 0, slope), usable, A, T)
        known = np.isfinite(carried)
        truth = plane_depth(height, x, slope)
        assert 0.7 < known.mean() < 0.99
        np.testing.assert_allclose(carried[known], truth[known], rtol=0.03)


def test_the_surface_behind_a_mover_is_the_median_of_frames_that_see_it():
    hidden = np.zeros((40, 60), bool)
    hidden[10:20, 20:30] = True
    still = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    wall = np.full((40, 60), 0.5, np.float32)
    nothing = np.zeros((40, 60), bool)
    others = [
        (wall, hidden, *still),
        (wall, nothing, *still),
        (3 * wall, nothing, *still),
        (wall, nothing, *still),
        (np.full_like(wall, np.nan), nothing, *still),
    ]
    found = find_hidden_surface(hidden, others)
    assert (found[hidden] == 0.5).all() and np.isnan(found[~hidden]).all()
    assert np.isnan(find_hidden_surface(hidden, others[:1])[12:18, 22:28]).all()


def test_candidates_are_taken_where_they_fit_better(sideways):
    surface_of = scene_of("sideways").surface_of
    truth = 1 / sideways.room.depth[5].astype(np.float32)
    truth = np.where(sideways.room.masks[5], sideways.starts(5), truth)
    sources = surface_of._choose_sources(5, 1 / np.median(truth))
    A, T = stereo._relate(surface_of._cameras, 5, sources)
    images = np.stack([surface_of._small.enlarge(s) for s in sources])
    grey = surface_of._small.read_grey(5)
    rho, slope = 1.3 * truth, np.zeros((HEIGHT, WIDTH, 2), np.float32)
    cost, region = np.zeros_like(rho), np.ones(rho.shape, bool)
    state = grey, images, A, T, rho, slope, cost, rho.copy(), region
    stereo_kernels.start_costs(*state, 0, HEIGHT)
    before, started = cost.copy(), rho.copy()
    stereo_kernels.try_depths(*state, np.stack([0.7 * truth, truth]), 0, HEIGHT)
    assert (cost <= before).all()
    taken = rho != started
    assert (cost < before)[taken].all()
    np.testing.assert_array_equal(np.isin(rho, np.stack([started, 0.7 * truth, truth])), True)
    assert (rho == truth)[~sideways.room.masks[5]].mean() > 0.7


def test_a_camera_that_only_turns_changes_nothing():
    scene = scene_of("turn")
    scene.surface_of._small.masks = None
    surface = scene.surface_of(5)
    assert not surface.doubt.any()
    assert len(surface.place_vertices(WIDTH, HEIGHT)) == 0
    xy = np.random.default_rng(0).uniform(0, HEIGHT, (50, 2))
    assert surface.confirms(FramePoints(xy, np.ones(50), np.arange(50), WIDTH, HEIGHT)).all()


def test_the_same_frames_give_the_same_surfaces(sideways):
    again = scene_of("sideways").surface_of(4)
    np.testing.assert_array_equal(again.inverse_depth, sideways.surface_of(4).inverse_depth)


def test_only_frames_that_may_be_asked_for_again_are_kept():
    surface_of = scene_of("sideways", longest_span=3).surface_of
    for t in range(FRAMES):
        surface_of(t)
        assert min(surface_of._found) >= t - 3 and len(surface_of._found) <= 7


def test_meshes_follow_the_outlines_that_were_found(sideways):
    meshes = TriangleMeshPipeline.from_tracks(
        sideways.tracks, [5], sideways.room.masks, sideways.surface_of
    )
    depth = sideways.room.depth[5].astype(np.float32)
    where = near_outlines(depth) & ~sideways.room.masks[5]
    error = [
        np.abs(np.log(s * depth))[where]
        for s in (meshes.inverse_depth(5, WIDTH, HEIGHT), sideways.starts(5))
    ]
    assert np.median(error[0]) < 0.7 * np.median(error[1])


def test_fine_vertices_tell_outlines_that_coarse_ones_do_not():
    columns, rows = np.meshgrid(np.arange(0, 64, 4.0), np.arange(0, 64, 4.0))
    xy = np.stack([columns, rows], -1).reshape(-1, 2)
    depth = np.where(xy[:, 0] < 32, 1.0, 1.08)
    points = FramePoints(xy, depth, np.arange(len(xy)), 64, 64)
    coarse = build_mesh(points)
    assert JUMP_TRUST not in coarse.trust
    fine = FramePoints(xy[3:], depth[3:], np.full(len(xy) - 3, FINE), 64, 64)
    few = build_mesh(points[:3], fine)
    assert (few.point == FINE).sum() == len(xy) - 3
    assert np.isclose(few.trust, JUMP_TRUST).sum() >= 2 * 15


def checkerboard(radius: int) -> np.ndarray:
    """True at every second pixel of a patch, the middle among them, but a corner."""
    j, i = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return ((i + j) % 2 == 0) & ~((i == radius) & (j == radius))


def bump(squared: np.ndarray) -> np.ndarray:
    """The kernels' weights, close to exp(-squared)."""
    return np.maximum(1 - squared.astype(np.float64) / 16, 0) ** 16


def weights_plain(image: np.ndarray, y: int, x: int) -> tuple[np.ndarray, np.ndarray, float]:
    radius = stereo_kernels._RADIUS
    patch = np.pad(image, radius, "edge")[y : y + 2 * radius + 1, x : x + 2 * radius + 1].astype(
        np.float64
    )
    weights = bump(((patch - patch[radius, radius]) / stereo_kernels._COLOR_SIGMA) ** 2)
    weights *= checkerboard(radius)
    weights /= weights.sum()
    centred = patch - (weights * patch).sum()
    return weights, weights * centred, float((weights * centred**2).sum())


def unlikeness_plain(source, A, T, weights, values, variance, x, y, rho, slope) -> float:
    """The formula in numpy: each pixel of the patch through the exact map, read at the nearest
    enlarged pixel."""
    zoom, radius = stereo_kernels.ZOOM, stereo_kernels._RADIUS
    j, i = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    r = rho + slope[0] * i + slope[1] * j
    X, Y, Z = (
        np.einsum("ab,bji->aji", A, np.stack([x + i, y + j, np.ones(i.shape)]))
        + T[:, None, None] * r
    )
    column, row = (zoom * X / Z).astype(int), (zoom * Y / Z).astype(int)
    grey = source[row.clip(0, len(source) - 1), column.clip(0, source.shape[1] - 1)].astype(
        np.float64
    )
    mean = (weights * grey).sum()
    spread = (weights * grey**2).sum() - mean**2 + stereo_kernels._NOISE
    return 1 - (values * grey).sum() / np.sqrt(spread * (variance + stereo_kernels._NOISE))


def test_weights_fall_like_a_gaussian():
    squared = np.linspace(0, 9, 100)
    assert np.abs(bump(squared) - np.exp(-squared)).max() < 0.02
    fast = [stereo_kernels.fall_off(np.float32(value)) for value in squared]
    np.testing.assert_allclose(fast, bump(squared), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_unlikeness_equals_its_formula(seed):
    random = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(random.uniform(0, 255, (60, 80)).astype(np.float32), (0, 0), 3)
    image = (8 * (smooth - smooth.mean()) + 128).astype(np.float32)
    source = np.repeat(
        np.repeat(np.roll(image, 2, 1), stereo_kernels.ZOOM, 0), stereo_kernels.ZOOM, 1
    )
    x, y = random.integers(20, 60), random.integers(20, 40)
    rho, slope = random.uniform(0.5, 1.0), random.uniform(-1e-3, 1e-3, 2)
    A, T = (
        np.eye(3, dtype=np.float32),
        np.array([random.uniform(-3, 3), random.uniform(-3, 3), 0], np.float32),
    )
    plain = weights_plain(image, y, x)
    weights, values = (
        np.empty(stereo_kernels._COUNT, np.float32),
        np.empty(stereo_kernels._COUNT, np.float32),
    )
    variance = stereo_kernels.weigh_patch(image, y, x, weights, values)
    used = checkerboard(stereo_kernels._RADIUS)
    np.testing.assert_allclose(weights, plain[0][used], atol=1e-5)
    np.testing.assert_allclose(values, plain[1][used], atol=1e-3)
    given = np.float32(x + 0.5), np.float32(y + 0.5), np.float32(rho), *slope.astype(np.float32)
    fast = stereo_kernels.measure_unlikeness(
        source.ravel(), 80, 60, A, T, weights, values, variance, *given
    )
    exact = unlikeness_plain(
        source, A.astype(float), T.astype(float), *plain, x + 0.5, y + 0.5, rho, slope
    )
    assert (
        abs(fast - min(exact, stereo_kernels._UNSEEN)) < 0.05
    )  # a pixel on an edge may round either way


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_weighted_median_equals_the_plain_one(seed, radius):
    random = np.random.default_rng(seed)
    rho, sure = random.uniform(1, 2, (9, 11)).astype(np.float32), random.random((9, 11)) < 0.6
    rgb, region = random.uniform(0, 60, (9, 11, 3)).astype(np.float32), random.random((9, 11)) < 0.7
    out = np.empty_like(rho)
    window = *confirm_kernels.list_neighbours(radius), np.float32(20)
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    confirm_kernels.filter_median(rho, sure.astype(np.float32), planes, region, *window, 0, 9, out)
    for y, x in np.ndindex(9, 11):
        j, i = np.mgrid[
            max(0, y - radius) : min(9, y + radius + 1),
            max(0, x - radius) : min(11, x + radius + 1),
        ]
        weight = bump(((rgb[j, i] - rgb[y, x]) ** 2).sum(-1) / 400)
        weight *= np.exp(-((j - y) ** 2 + (i - x) ** 2) / radius**2)
        weight = (weight * sure[j, i] * ((i + j + x + y) % 2 == 0)).ravel()
        if not region[y, x] or weight.sum() < 1e-3:
            assert out[y, x] == rho[y, x]
            continue
        value = rho[j, i].ravel()
        below, above = weight[value < out[y, x]].sum(), weight[value > out[y, x]].sum()
        assert out[y, x] in value and max(below, above) <= weight.sum() / 2 + 1e-5


def test_agreement_counts_views_that_see_the_same_surface():
    rho = np.full((6, 8), 0.5, np.float32)
    A, T = np.stack([np.eye(3)] * 3).astype(np.float32), np.zeros((3, 3), np.float32)
    others = np.stack([rho, 1.01 * rho, 1.5 * rho])
    region, out = np.ones((6, 8), bool), np.empty((6, 8), np.int32)
    region[0] = False
    confirm_kernels.count_agreement(rho, others, A, T, region, 0.02, 0, 6, out)
    assert (out[0] == 0).all() and (out[1:] == 2).all()
