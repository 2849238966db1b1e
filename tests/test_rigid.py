"""A rigid mover's depth, recovered up to one scale from its tracks."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from models.cameras import Cameras
from models.movers.depth import rigid
from models.movers.depth.rigid import solve_rigid, split_stretches
from models.movers.options import MoverOptions
from models.movers.rigid_places import rigid_places
from models.sfm import run_mapper
from models.tracks import PointTracks

FRAMES, POINTS, WIDTH, HEIGHT, FOCAL = 24, 300, 480, 270, 400.0


def still_camera(count: int = FRAMES) -> Cameras:
    K = torch.tensor(
        [[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64
    )
    return Cameras(
        K.expand(count, 3, 3), torch.eye(4, dtype=torch.float64).expand(count, 4, 4), WIDTH, HEIGHT
    )


def observe(xyz: np.ndarray, noise: float, random: np.random.Generator) -> PointTracks:
    """Pixels of points in camera axes, visible where they lie in the image."""
    xy = (
        FOCAL * xyz[..., :2] / xyz[..., 2:]
        + [WIDTH / 2, HEIGHT / 2]
        + random.normal(0, noise, (*xyz.shape[:2], 2))
    )
    return PointTracks(xy, ((xy > 0) & (xy < [WIDTH, HEIGHT])).all(-1), WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def box() -> tuple[np.ndarray, PointTracks]:
    """xyz and tracks of a box that turns by 50 degrees while it passes a camera at rest."""
    random = np.random.default_rng(3)
    shape = random.uniform(-0.5, 0.5, (POINTS, 3))
    turn = Rotation.from_rotvec(
        np.radians(np.linspace(0, 50, FRAMES))[:, None] * [0, 1, 0]
    ).as_matrix()
    middle = np.stack(
        [np.linspace(-0.5, 0.5, FRAMES), np.full(FRAMES, 0.2), np.linspace(4, 3, FRAMES)], 1
    )
    xyz = np.einsum("fij,nj->fni", turn, shape) + middle[:, None]
    return xyz, observe(xyz, 0.2, random)


def test_depth_is_the_true_one_up_to_one_scale(box):
    xyz, tracks = box
    motion = solve_rigid(tracks, still_camera())
    assert motion is not None and motion.placed.all()
    ratio = (motion.depth / xyz[..., 2])[motion.sure]
    assert np.ptp(np.quantile(ratio, [0.05, 0.95])) < 0.03 * np.median(ratio)


def test_tracks_that_lead_far_away_get_the_depth_of_their_neighbours(box):
    """Tracks that move as if at infinity agree with a point there: no depth of the mover may follow
    them."""
    _, tracks = box
    xy = np.concatenate([tracks.xy, np.repeat(tracks.xy[12:13, :6], FRAMES, 0)], 1)
    visible = np.concatenate([tracks.visible, tracks.visible[:, :6]], 1)
    motion = solve_rigid(PointTracks(xy, visible, WIDTH, HEIGHT), still_camera())
    depth = motion.depth[np.isfinite(motion.depth)]
    assert depth.max() < 2 * np.median(depth)
    assert depth.min() > 0.4 * np.median(depth)


def test_a_mover_mapped_in_stretches_has_one_scale_though_its_tracks_are_short():
    random, count = np.random.default_rng(5), 56
    shape = random.uniform(-0.5, 0.5, (500, 3))
    turn = Rotation.from_rotvec(
        np.radians(np.linspace(0, 110, count))[:, None] * [0, 1, 0]
    ).as_matrix()
    middle = np.stack(
        [np.linspace(-0.5, 0.5, count), np.full(count, 0.2), np.linspace(4, 3, count)], 1
    )
    xyz = np.einsum("fij,nj->fni", turn, shape) + middle[:, None]
    tracks = observe(xyz, 0.2, random)
    age = np.arange(count)[:, None] - random.integers(-20, count - 4, len(shape))
    tracks = tracks.restrict((age >= 0) & (age < 24))
    options = MoverOptions(rigid_frames=24, rigid_overlap=8)
    motion = solve_rigid(tracks, still_camera(count), options=options)
    assert motion is not None and motion.placed.all()
    ratio = np.where(motion.sure, motion.depth / xyz[..., 2], np.nan)
    assert np.ptp(np.nanquantile(ratio, [0.05, 0.95])) < 0.03 * np.nanmedian(ratio)
    assert np.ptp(np.nanmedian(ratio, 1)) < 0.03 * np.nanmedian(ratio)


def test_frames_without_the_mover_change_nothing(box):
    _, tracks = box
    alone = solve_rigid(tracks, still_camera())
    before, after = 30, MoverOptions().rigid_frames
    xy = np.pad(tracks.xy, ((before, after), (0, 0), (0, 0)))
    visible = np.pad(tracks.visible, ((before, after), (0, 0)))
    motion = solve_rigid(PointTracks(xy, visible, WIDTH, HEIGHT), still_camera(len(xy)))
    own = slice(before, before + FRAMES)
    np.testing.assert_array_equal(motion.depth[own], alone.depth)
    np.testing.assert_array_equal(motion.sure[own], alone.sure)
    assert not motion.placed[:before].any() and not motion.placed[before + FRAMES :].any()


@pytest.mark.parametrize("begin, end", [(0, 101), (5, 300), (17, 1000), (3, 40)])
def test_stretches_cover_a_movers_frames_and_share_enough_with_the_next(begin, end):
    options = MoverOptions()
    stretches = split_stretches(begin, end, options)
    assert stretches[0][0] == begin and stretches[-1][-1] == end - 1
    assert all(len(stretch) <= options.rigid_frames for stretch in stretches)
    for a, b in pairwise(stretches):
        assert len(set(a) & set(b)) == options.rigid_overlap


def test_unrelated_points_are_no_rigid_mover():
    random = np.random.default_rng(4)
    start = random.uniform([-0.5, -0.5, 3.5], [0.5, 0.5, 4.5], (60, 3))
    drift = np.cumsum(random.normal(0, 0.03, (FRAMES, 60, 3)), 0)
    assert solve_rigid(observe(start + drift, 0.2, random), still_camera()) is None


def test_a_mover_that_is_not_rigid_is_given_up_at_its_first_stretch(monkeypatch):
    mapped = []
    monkeypatch.setattr(
        rigid,
        "_map_cameras",
        lambda *given, own=rigid._map_cameras: mapped.append(1) or own(*given),
    )
    random = np.random.default_rng(4)
    start = random.uniform([-0.5, -0.5, 3.5], [0.5, 0.5, 4.5], (60, 3))
    drift = np.cumsum(random.normal(0, 0.03, (FRAMES, 60, 3)), 0)
    options = MoverOptions(rigid_frames=12, rigid_overlap=4)
    tracks = observe(start + drift, 0.2, random)
    assert solve_rigid(tracks, still_camera(), options=options) is None
    assert len(mapped) == 1


def test_slipping_tracks_do_not_hide_a_rigid_mover(box):
    """Tracks slip on smooth things, most of all at their outline."""
    xyz, tracks = box
    random = np.random.default_rng(6)
    xy = tracks.xy.copy()
    slipping = np.arange(POINTS) < 0.4 * POINTS
    xy[:, slipping] += np.cumsum(random.normal(0, 1.5, (FRAMES, slipping.sum(), 2)), 0)
    motion = solve_rigid(replace(tracks, xy=xy), still_camera())
    assert motion is not None and not motion.is_flat
    good = motion.sure & ~slipping
    ratio = (motion.depth / xyz[..., 2])[good]
    assert np.ptp(np.quantile(ratio, [0.05, 0.95])) < 0.06 * np.median(ratio)


def test_a_shape_of_no_believable_relief_is_flat_at_its_distance(box):
    xyz, tracks = box
    options = MoverOptions(rigid_relief=0.1)
    motion = solve_rigid(tracks, still_camera(), options=options)
    assert motion.is_flat and motion.placed.all()
    assert (motion.depth == motion.depth[:, :1]).all()
    ratio = motion.depth[:, 0] / xyz[..., 2].mean(1)
    assert np.ptp(ratio) < 0.05 * np.median(ratio)


def test_global_mapping_takes_over_where_incremental_mapping_places_too_few_frames(
    box, monkeypatch
):
    xyz, tracks = box
    tried = []

    def run(method: str, *given, **named) -> object:
        tried.append(method)
        return None if method == "incremental" else run_mapper(method, *given, **named)

    monkeypatch.setattr(rigid, "run_mapper", run)
    motion = solve_rigid(tracks, still_camera())
    assert tried == ["incremental", "global"] and motion.placed.all()
    ratio = (motion.depth / xyz[..., 2])[motion.sure]
    assert np.ptp(np.quantile(ratio, [0.05, 0.95])) < 0.03 * np.median(ratio)


def test_too_few_tracks_are_no_rigid_mover(box):
    _, tracks = box
    assert solve_rigid(tracks.select(np.arange(10)), still_camera()) is None


def measure_places(places: np.ndarray, xyz: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Distance of each known place from the true shape, after the best similarity, as a share of
    the shape's size."""
    ours, truth = places[known], xyz[0, known]
    ours, truth = ours - ours.mean(0), truth - truth.mean(0)
    u, s, vt = np.linalg.svd(ours.T @ truth)
    # a mirrored shape is another shape
    assert np.linalg.det(u @ vt) > 0
    carried = s.sum() / (ours**2).sum() * ours @ u @ vt
    return np.linalg.norm(carried - truth, axis=1) / np.ptp(truth, axis=0).max()


@pytest.mark.parametrize("frames", [FRAMES, 12])
def test_places_on_a_rigid_mover_are_its_shape_in_pixels(box, frames: int):
    """Of a clip that is mapped at once, and of one mapped in stretches."""
    xyz, tracks = box
    options = MoverOptions(rigid_frames=frames, rigid_overlap=6)
    shape = solve_rigid(tracks, still_camera(), options=options)
    masks = np.ones((FRAMES, HEIGHT, WIDTH), bool)
    places = rigid_places(tracks, masks, shape, still_camera())
    assert np.quantile(measure_places(places, xyz, shape.sure.any(0)), 0.9) < 0.03
    reference = int(tracks.visible.sum(1).argmax())
    seen = tracks.visible[reference] & shape.sure[reference]
    middle = np.abs(places[seen, 2]) < 10
    off = np.linalg.norm(places[seen, :2] - tracks.xy[reference, seen], axis=1)
    assert np.median(off[middle]) < 2


def test_tracks_that_no_placed_frame_sees_get_places_among_their_neighbours(box):
    _, tracks = box
    shape = solve_rigid(tracks, still_camera())
    visible = tracks.visible.copy()
    # the last frames are not placed, and every other track is seen there alone
    late = np.arange(POINTS) % 4 == 0
    visible[:-3, late] = False
    placed = shape.placed.copy()
    placed[-3:] = False
    shape = replace(shape, placed=placed, sure=shape.sure & visible & placed[:, None])
    masks = np.ones((FRAMES, HEIGHT, WIDTH), bool)
    places = rigid_places(replace(tracks, visible=visible), masks, shape, still_camera())
    known = shape.sure.any(0)
    assert np.isfinite(places).all() and not known[late].any()
    size = np.ptp(places[known], axis=0).max()
    low, high = places[known].min(0) - 0.1 * size, places[known].max(0) + 0.1 * size
    assert ((places[late] > low) & (places[late] < high)).all(1).mean() > 0.9
