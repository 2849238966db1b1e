"""Masks made from motion find the movers of rendered rooms, and nothing where nothing moves."""

import functools

import numpy as np
import pytest
from heard import Heard

from models.motion.background_scene import find_background_scene
from models.motion.motion_masks import MotionMasks, find_movers
from models.motion.static_points import FlowVectors, fit_plainly, fit_static_points
from models.sfm.rotation import solve_rotation
from models.sfm.small_motion import adjust_rotation
from models.sfm.static_scene import StaticScene
from models.sfm.triangulation import triangulate
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tracking.growing import grow_tracks
from models.tracking.options import TrackingOptions
from models.tracks import PointTracks

SPACING = TrackingOptions(spacing=6)


@functools.cache
def room(num_movers: int, motion: str) -> tuple[SyntheticScene, PointTracks]:
    """A small room and its tracks."""
    scene = render_room(
        RoomOptions(
            num_frames=14,
            width=240,
            height=136,
            seed=4,
            num_movers=num_movers,
            motion=motion,
            num_tracks=0,
        )
    )
    return scene, grow_tracks(scene.frames, options=SPACING)


def known_scene(scene: SyntheticScene, tracks: PointTracks, flat: bool) -> StaticScene:
    """What reconstruction would give, with the true cameras."""
    points = triangulate(tracks, scene.cameras, flat=flat)
    return StaticScene(scene.cameras, points, "given", np.ones(len(tracks), bool), 0.3)


@functools.cache
def found(num_movers: int, motion: str) -> MotionMasks:
    scene, tracks = room(num_movers, motion)
    return find_movers(scene.frames, tracks, known_scene(scene, tracks, motion != "sideways"))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean intersection over union of the frames in which b is not empty."""
    full = b.any((1, 2))
    return float(np.mean((a & b)[full].sum((1, 2)) / (a | b)[full].sum((1, 2))))


@pytest.mark.parametrize("motion", ["sideways", "still"])
def test_a_static_room_has_no_movers(motion):
    assert found(0, motion).masks.mean() < 0.002


@pytest.mark.parametrize("motion", ["sideways", "turn", "still"])
def test_a_mover_is_found_whatever_the_camera_does(motion):
    assert overlap(found(1, motion).masks, room(1, motion)[0].masks) > 0.6


def test_labels_are_those_of_the_masks_and_start_at_one():
    result = found(1, "sideways")
    np.testing.assert_array_equal(result.labels > 0, result.masks)
    assert set(np.unique(result.labels)) == set(range(result.labels.max() + 1))


def test_a_mover_keeps_its_label_through_time():
    labels = found(1, "sideways").labels
    dominant = [np.bincount(frame[frame > 0]).argmax() for frame in labels if (frame > 0).any()]
    assert len(set(dominant)) == 1


def test_two_movers_apart_get_two_labels():
    """The same mover twice, side by side: two clips next to each other under a still camera."""
    scene, _ = room(1, "still")
    frames = np.concatenate([scene.frames, scene.frames[:, :, ::-1]], 2)
    labels = find_movers(frames, grow_tracks(frames, options=SPACING)).labels
    half = scene.frames.shape[2]
    left, right = (
        np.bincount(part[part > 0]).argmax() for part in (labels[:, :, :half], labels[:, :, half:])
    )
    assert left != right


def test_without_a_scene_the_background_is_found_all_the_same():
    scene, tracks = room(1, "turn")
    solved = find_background_scene(tracks, None)
    step = solved.cameras.world_from_cam[:, :3, :3]
    truth = scene.cameras.world_from_cam[:, :3, :3]
    relative = (truth[0].T @ truth[-1]).T @ (step[0].T @ step[-1])
    angle = np.degrees(np.arccos(np.clip((np.trace(relative.numpy()) - 1) / 2, -1, 1)))
    whole = np.degrees(
        np.arccos(np.clip((np.trace((truth[0].T @ truth[-1]).numpy()) - 1) / 2, -1, 1))
    )
    assert angle < 0.2 * whole


@pytest.mark.parametrize("num_movers", [0, 1])
def test_progress_ends_at_its_total(num_movers):
    scene, tracks = room(num_movers, "still")
    heard = Heard()
    find_movers(scene.frames[:4], tracks.select_frames(slice(4)), None, heard)
    done = [step[1] for step in heard.steps]
    assert done == sorted(done)
    assert heard.steps[-1] == ("motion", done[-1], done[-1])


def test_one_frame_has_no_motion():
    scene, tracks = room(1, "still")
    result = find_movers(scene.frames[:1], tracks.select_frames(slice(1)))
    assert not result.masks.any() and result.masks.shape == (1, 136, 240)


def test_adjusting_a_rotation_explains_small_parallax():
    """Points before a camera that turns and shifts by a few percent of their depth: the shift is
    found."""
    random = np.random.default_rng(0)
    points = np.concatenate([random.uniform(-1, 1, (300, 2)), random.uniform(1.5, 5, (300, 1))], 1)
    points[:, :2] *= points[:, 2:] * 0.5
    shift = np.stack([np.linspace(0, 0.12, 10), np.zeros(10), np.zeros(10)], 1)
    local = points - shift[:, None]
    xy = 400 * local[..., :2] / local[..., 2:] + [200, 150] + random.normal(0, 0.1, (10, 300, 2))
    visible = np.ones((10, 300), bool)
    tracks = PointTracks(xy, visible, 400, 300)
    turning, before = solve_rotation(tracks)
    cameras, after = adjust_rotation(tracks, turning)
    assert after < 0.3 * before and after < 0.3
    path = cameras.centers.numpy()
    assert abs(np.corrcoef(path[:, 0], shift[:, 0])[0, 1]) > 0.99


def make_flow(random: np.random.Generator, count: int) -> tuple[FlowVectors, np.ndarray]:
    """Noisy flow of static points with some vectors that are wrong, and the inverse depths."""
    height, width = 37, 51
    K = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    turned = np.eye(3) + random.normal(0, 0.01, (count, 3, 3))
    infinity = K @ turned @ np.linalg.inv(K)
    epipole = random.normal(0, 0.1, (count, 3)) @ K.T
    rho = random.uniform(0.2, 1, (height, width))
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    p = np.einsum("nij,jhw->inhw", infinity, np.stack([u, v, np.ones_like(u)]))
    p = p + epipole.T[:, :, None, None] * rho
    flow = np.stack([p[0] / p[2] - u, p[1] / p[2] - v], -1)
    flow += random.normal(0, 0.1, flow.shape)
    flow[random.random(flow.shape[:3]) < 0.1] += 5
    error = random.exponential(0.4, flow.shape[:3])
    xx, yy = random.uniform(0.01, 1, (2, height, width))
    xy = random.uniform(-0.9, 0.9, (height, width)) * np.sqrt(xx * yy)
    vectors = FlowVectors(flow, error, np.stack([xx, xy, yy], -1), infinity, epipole)
    return vectors, rho


@pytest.mark.parametrize("count", [1, 3, 5, 8])
def test_static_points_fitted_by_rows_equal_the_plain_reference(count):
    vectors, _ = make_flow(np.random.default_rng(count), count)
    fast, plain = fit_static_points(vectors, 2.0), fit_plainly(vectors, 2.0)
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


def test_the_inverse_depth_of_static_points_is_found():
    vectors, rho = make_flow(np.random.default_rng(1), 8)
    misfit, known, found = fit_static_points(vectors, 2.0)
    sure = known >= 5
    assert np.median(np.abs(found - rho)[sure]) < 0.03
    assert np.median(misfit[sure]) < 2
