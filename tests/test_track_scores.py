"""TAP-Vid scores are what counting gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.track_scores import LIMITS, score_tracks


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_scores_are_what_counting_gives(seed):
    random = np.random.default_rng(seed)
    truth, estimate = random.uniform(0, 64, (6, 5, 2)), random.uniform(0, 64, (6, 5, 2))
    estimate = truth + (estimate - truth) * random.uniform(0, 0.3, (6, 5, 1))
    true_seen, seen = random.random((6, 5)) < 0.8, random.random((6, 5)) < 0.7
    true_seen[5] = True
    query = random.integers(0, 4, 5)
    got = score_tracks(estimate, seen, truth, true_seen, query, 64, 32)
    counted = [(t, n) for n in range(5) for t in range(query[n] + 1, 6)]
    near, jaccard = [], []
    for limit in LIMITS:
        inside = {
            p
            for p in counted
            if np.hypot(*(estimate[p] - truth[p]) * [4, 8]) < limit and true_seen[p]
        }
        shown = {p for p in counted if seen[p]}
        there = {p for p in counted if true_seen[p]}
        near.append(len(inside) / len(there))
        jaccard.append(len(inside & shown) / (len(there) + len(shown - inside)))
    assert got.delta_avg == pytest.approx(100 * np.mean(near))
    assert got.average_jaccard == pytest.approx(100 * np.mean(jaccard))
    assert got.occlusion_accuracy == pytest.approx(
        100 * np.mean([seen[p] == true_seen[p] for p in counted])
    )


def test_the_truth_scores_a_hundred_and_nothing_to_score_is_refused():
    xy, seen = np.random.default_rng(0).uniform(0, 64, (4, 3, 2)), np.ones((4, 3), bool)
    got = score_tracks(xy, seen, xy, seen, np.zeros(3, int), 64, 64)
    assert (got.delta_avg, got.average_jaccard, got.occlusion_accuracy) == (100, 100, 100)
    with pytest.raises(ValueError, match="nothing to score"):
        score_tracks(xy, seen, xy, ~seen, np.zeros(3, int), 64, 64)
