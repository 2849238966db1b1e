"""dis_flow and the flow fields under it, on rooms with known tracks and on pictures moved by known
amounts."""

import gc
import os
import weakref

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.synthetic.sample import RoomOptions, render_room
from models.tracking.dis_flow import _INTERVALS, _cut_patches, _measure_differences, dis_flow
from models.tracking.flow_fields import _AHEAD, FlowFields, _Shelf
from models.tracking.growing import grow_tracks
from models.tracking.optical_flow import (
    estimate_coarse_flow,
    estimate_fine_flow,
    sample_field,
    to_grey,
)
from models.tracking.options import TrackingOptions

WIDTH, HEIGHT = 128, 96


def picture(seed: int, width: int = WIDTH + 60, height: int = HEIGHT + 40) -> np.ndarray:
    """Blurred noise in colour, of full contrast."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return cv2.normalize(blurred, None, 20, 235, cv2.NORM_MINMAX)


def panned(num_frames: int, seed: int = 0, step: tuple[int, int] = (2, 1)) -> np.ndarray:
    """A window that slides over a picture: points move by -step each frame."""
    image = picture(seed)
    corners = [(20 + step[0] * t, 10 + step[1] * t) for t in range(num_frames)]
    return np.stack([image[y : y + HEIGHT, x : x + WIDTH] for x, y in corners])


def grid_queries(t: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(30, WIDTH - 30, 10) + 0.3, np.arange(25, HEIGHT - 25, 10) + 0.8)
    return np.stack([np.full(x.size, t), x.ravel(), y.ravel()], 1).astype(np.float32)


@pytest.fixture(scope="module")
def room():
    return render_room(RoomOptions(16, 200, 112, num_movers=1, num_tracks=300))


@pytest.fixture(scope="module")
def tracked(room):
    """Queries at the points' first frames, and what dis_flow makes of them."""
    queries = np.c_[room.track_query, room.track_xy[room.track_query, np.arange(300)]].astype(
        np.float32
    )
    return queries, *dis_flow(room.frames, queries)


def test_tracks_follow_the_true_motion(room, tracked):
    _, xy, visible = tracked
    after = np.arange(16)[:, None] > room.track_query
    both = visible & room.track_visible & after
    error = np.linalg.norm(xy - room.track_xy, axis=-1)[both]
    assert both.sum() > 0.7 * (room.track_visible & after).sum()
    assert np.median(error) < 0.6
    assert np.mean(error < 2) > 0.7


def test_a_query_is_answered_by_itself(tracked):
    queries, xy, visible = tracked
    own = queries[:, 0].astype(int), np.arange(len(queries))
    assert visible[own].all()
    np.testing.assert_array_equal(xy[own], queries[:, 1:])


def test_visible_points_lie_inside_the_image(tracked):
    _, xy, visible = tracked
    assert np.isfinite(xy).all()
    assert (xy[visible] >= 0).all() and (xy[visible] <= [200, 112]).all()


@pytest.mark.parametrize("start", [0, 4, 9])
def test_a_pan_is_followed_both_ways_to_a_fraction_of_a_pixel(start):
    queries = grid_queries(start)
    xy, visible = dis_flow(panned(10), queries)
    expected = queries[:, 1:] - (np.arange(10)[:, None, None] - start) * np.array([2.0, 1.0])
    assert visible.mean() > 0.95
    assert np.abs(xy - expected)[visible].max() < 0.3


def test_reversing_time_reverses_the_tracks():
    frames, queries = panned(8), grid_queries(3)
    xy, visible = dis_flow(frames, queries)
    mirrored = queries.copy()
    mirrored[:, 0] = 7 - queries[:, 0]
    xy_back, visible_back = dis_flow(frames[::-1].copy(), mirrored)
    np.testing.assert_array_equal(visible_back[::-1], visible)
    np.testing.assert_array_equal(xy_back[::-1], xy)


def test_a_point_that_was_covered_is_hidden_then_found_again():
    frames = np.repeat(picture(1)[None, :HEIGHT, :WIDTH], 12, 0)
    block = picture(2) // 5 + 200  # brighter than the picture
    for t in range(6, 10):  # a block stands over the middle for a while
        frames[t, 30:60, 40:80] = block[10 + 3 * t : 40 + 3 * t, 40:80]
    queries = np.array([[0, 60.5, 45.5], [0, 15.5, 15.5]], np.float32)
    xy, visible = dis_flow(frames, queries)
    assert not visible[6:10, 0].any()
    assert visible[[*range(6), 10, 11], 0].all() and visible[:, 1].all()
    assert np.abs(xy[11] - queries[:, 1:]).max() < 0.5


def test_a_change_of_exposure_hides_no_point():
    frames, queries = panned(8), grid_queries(0)
    dimmed = np.stack([(f * (1 - 0.06 * t)).astype(np.uint8) for t, f in enumerate(frames)])
    assert dis_flow(dimmed, queries)[1].mean() > 0.95


@pytest.fixture
def computed(monkeypatch):
    """The flow fields that are computed, as weak references."""
    fields = []

    def watched(a, b):
        flow = estimate_fine_flow(a, b)
        fields.append(weakref.ref(flow))
        return flow

    monkeypatch.setattr("models.tracking.flow_fields.estimate_fine_flow", watched)
    return fields


def test_both_sweeps_and_all_rounds_of_seeding_share_the_flow_of_each_pair(computed):
    frames = panned(12)
    grow_tracks(frames, "dis_flow", options=TrackingOptions(spacing=12))
    pairs = sum(max(0, len(frames) - interval) for interval in _INTERVALS)
    assert len(computed) == 2 * pairs


def test_fields_computed_again_for_lack_of_room_give_the_same_tracks(computed):
    frames, queries = panned(12), np.concatenate([grid_queries(0), grid_queries(11)])
    expected = dis_flow(frames, queries)
    once = len(computed)
    for room in (0, 5 * fields_size(), 20 * fields_size()):
        del computed[:]
        with FlowFields(frames, room) as fields:
            again = dis_flow(frames, queries, fields)
        for a, b in zip(again, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        assert len(computed) <= 2 * once and (room or len(computed) > once)


def test_fields_that_nobody_takes_are_put_aside(computed):
    with FlowFields(panned(30, step=(1, 1))) as fields:
        for t in range(29):
            fields.ask(t, t + 1)
            assert len(fields._coming) <= _AHEAD
        for t in range(29):
            fields.between(t, t + 1)
    assert len(computed) == 2 * 29


def fields_size() -> int:
    """Bytes that the fields of one pair take."""
    return 2 * (HEIGHT // 2) * (WIDTH // 2) * 2 * 2


def test_flow_fields_leave_the_memory_as_the_clip_goes_on(computed, monkeypatch):
    most, between = 0, FlowFields.between

    def counting(*args):
        nonlocal most
        most = max(most, sum(ref() is not None for ref in computed))
        return between(*args)

    monkeypatch.setattr(FlowFields, "between", counting)
    gc.collect()
    dis_flow(np.repeat(picture(3)[None, :HEIGHT, :WIDTH], 60, 0), grid_queries(0))
    assert len(computed) > 300 and most <= 2 * (os.cpu_count() + 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.lists(st.integers(0, 6), max_size=40))
def test_a_shelf_holds_what_was_used_last(slots, wanted):
    shelf, order = _Shelf((3, 2), slots * 12), []
    for n in wanted:
        pair = n, n + 1
        assert (pair in shelf) == (n in order)
        if pair in shelf:
            np.testing.assert_array_equal(shelf.take(pair), np.full((3, 2), n))
        else:
            shelf.put(pair, np.full((3, 2), n, np.float16))
        order = [*(m for m in order if m != n), n][-slots:] if slots else []
    shelf.close()


def test_flow_of_a_pair_is_the_same_asked_from_either_end():
    frames = panned(4, step=(4, -2))
    with FlowFields(frames) as fields:
        fields.ask(3, 1)
        onwards, backwards = fields.between(1, 3)
        other = fields.between(3, 1)
    np.testing.assert_array_equal(other, (backwards, onwards))
    middle = onwards[12:-12, 12:-12].reshape(-1, 2)
    assert np.abs(np.median(middle, 0) - [-8, 4]).max() < 0.2  # in the frames' pixels


@pytest.mark.parametrize("size", [(1, 1), (7, 50), (97, 131)])
def test_frames_of_any_size_have_flow(size):
    frames = np.zeros((3, *size, 3), np.uint8)
    xy, visible = dis_flow(frames, np.array([[0, 0.5, 0.5]], np.float32))
    assert np.abs(xy - 0.5).max() < 0.1 and visible.all()


def test_no_queries_give_no_tracks():
    xy, visible = dis_flow(panned(3), np.zeros((0, 3), np.float32))
    assert xy.shape == (3, 0, 2) and visible.shape == (3, 0)


@pytest.mark.parametrize(
    ("flow", "within"), [(estimate_fine_flow, 0.3), (estimate_coarse_flow, 1.0)]
)
def test_flow_recovers_a_shift(flow, within):
    a, b = (to_grey(f) for f in panned(2, step=(3, -2)))
    inside = flow(a, b)[20:-20, 20:-20].reshape(-1, 2)
    assert np.abs(np.median(inside, 0) - [-3, 2]).max() < 0.2
    assert np.mean(np.abs(inside - [-3, 2]).max(1) < within) > 0.9


@pytest.mark.parametrize("size", [(1, 1), (7, 50), (30, 20)])
def test_flow_of_images_too_small_for_a_pyramid_has_their_shape(size):
    image = np.zeros(size, np.uint8)
    for flow in (estimate_fine_flow(image, image), estimate_coarse_flow(image, image)):
        assert flow.shape == (*size, 2) and np.isfinite(flow).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3, 40000]))
def test_sampling_is_bilinear_between_pixel_centres(seed, count):
    random = np.random.default_rng(seed)
    field = random.random((9, 13, 2)).astype(np.float32)
    xy = random.uniform([0.5, 0.5], [12.4, 8.4], (count, 2)).astype(np.float32)
    at = xy.astype(np.float64) - 0.5
    j, i = at.astype(int).T
    a, b = (at - np.c_[j, i]).T[:, :, None]
    top = field[i, j] * (1 - a) + field[i, j + 1] * a
    expected = top * (1 - b) + (field[i + 1, j] * (1 - a) + field[i + 1, j + 1] * a) * b
    np.testing.assert_allclose(
        sample_field(field, xy), expected, atol=0.05
    )  # OpenCV rounds to 1/32 of a pixel


@pytest.mark.parametrize("seed", range(3))
def test_patches_and_their_differences_are_those_of_the_plain_way(seed):
    random = np.random.default_rng(seed)
    image = random.uniform(0, 255, (20, 30, 3)).astype(np.float32)
    xy = random.uniform(-8, [38, 28], (200, 2)).astype(np.float32)
    side = np.arange(-2, 3, dtype=np.float32)
    offsets = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    patches = _cut_patches(image, xy)
    np.testing.assert_allclose(
        patches, sample_field(image, xy[:, None] + offsets), atol=16
    )  # OpenCV rounds to 1/32 pixel
    np.testing.assert_allclose(
        patches.mean(), sample_field(image, xy[:, None] + offsets).mean(), rtol=0.01
    )
    look, gain = random.uniform(0, 255, (300, 25, 3)).astype(np.float32), np.float32([0.9, 1, 1.2])
    points = random.permutation(300)[:200]
    expected = np.abs(look[points] - patches * gain).mean((1, 2))
    np.testing.assert_allclose(
        _measure_differences(look, points, patches, gain), expected, rtol=1e-4
    )
