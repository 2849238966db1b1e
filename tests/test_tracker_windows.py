"""Windows over time, groups of points and both directions give what one pass over the whole clip
gives."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pans import panned, panning, queries_over

from models.learned.windows import both_ways, in_groups, in_windows
from models.tracking.seeding import split_rounds


def onwards(pan: np.ndarray, seen: np.ndarray):
    """A follower that knows the pan and when points are seen, and answers only from the query
    on."""

    def follow(frames, queries):
        first = int(frames[0])
        start = queries[:, 0].astype(int)
        xy = queries[:, 1:] + pan[first : first + len(frames), None] - pan[first + start]
        ahead = np.arange(len(frames))[:, None] >= start
        visible = seen[first : first + len(frames)][:, np.arange(len(queries)) % seen.shape[1]]
        return np.where(ahead[..., None], xy, -99.0), visible & ahead

    return follow


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(3, 20), st.integers(1, 8), st.integers(0, 2**31))
def test_windows_equal_one_pass_for_points_that_stay_in_sight(num_frames, length, overlap, seed):
    overlap = min(overlap, length - 1)
    pan = np.random.default_rng(seed).normal(size=(num_frames, 2)).cumsum(0)
    queries = queries_over(num_frames, 7, seed)
    follow, frames = onwards(pan, np.ones((num_frames, 1), bool)), np.arange(num_frames)
    xy, visible = in_windows(follow, length, overlap)(frames, queries)
    ahead = np.arange(num_frames)[:, None] >= queries[:, 0]
    np.testing.assert_array_equal(visible, ahead)
    np.testing.assert_allclose(xy[ahead], panned(pan, queries)[ahead], atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(3, 20), st.integers(1, 8))
def test_no_window_is_longer_than_asked_for(num_frames, length, overlap):
    overlap, lengths = min(overlap, length - 1), []
    follow = onwards(np.zeros((num_frames, 2)), np.ones((num_frames, 1), bool))

    def watched(frames, queries):
        lengths.append(len(frames))
        return follow(frames, queries)

    in_windows(watched, length, overlap)(np.arange(num_frames), queries_over(num_frames, 5))
    assert max(lengths, default=0) <= length


def test_a_point_that_no_frame_of_the_overlap_sees_is_lost_where_it_was():
    seen = np.ones((30, 1), bool)
    seen[6:] = False
    follow = onwards(np.arange(60.0).reshape(30, 2), seen)
    xy, visible = in_windows(follow, 10, 3)(np.arange(30), np.array([[0, 5, 5]], np.float32))
    np.testing.assert_array_equal(visible[:, 0], seen[:, 0])
    assert (xy[10:] == xy[9]).all()


def test_groups_equal_all_at_once():
    frames, queries = np.arange(12), queries_over(12, 11)
    follow = onwards(np.random.default_rng(1).normal(size=(12, 2)), np.ones((12, 1), bool))
    for a, b in zip(in_groups(follow, 4)(frames, queries), follow(frames, queries), strict=True):
        np.testing.assert_array_equal(a, b)


def test_both_ways_mirrors_what_follows_onwards():
    frames, pan = panning(9)

    def follow(part, queries):
        moved = part[:, 0, 0, :2].astype(float)
        start = queries[:, 0].astype(int)
        ahead = np.arange(len(part))[:, None] >= start
        return np.where(
            ahead[..., None], queries[:, 1:] + moved[:, None] - moved[start], -99
        ), ahead

    queries = queries_over(9, 6)
    xy, visible = both_ways(follow, frames, queries)
    assert visible.all()
    np.testing.assert_allclose(xy, panned(pan, queries), atol=1e-5)


@given(st.integers(1, 200), st.sampled_from([None, 1, 2, 3]))
def test_rounds_of_seeding_visit_each_frame_once(num_frames, at_most):
    rounds = split_rounds(num_frames, at_most)
    assert sorted(t for batch in rounds for t in batch) == list(range(num_frames))
    assert at_most is None or len(rounds) <= at_most
