import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from models.run.errors import InputError
from models.synthetic.sample import RoomOptions, render_room
from models.tracking.growing import grow_tracks, track_points
from models.tracking.names import open_tracker, register_tracker
from models.tracking.options import TrackingOptions
from models.tracking.seeding import order_coarse_to_fine, thin
from models.tracks import PointTracks

SPACING = 10
OPTIONS = TrackingOptions(spacing=SPACING)
CORNER_QUALITY = OPTIONS.corner_quality


@pytest.fixture(scope="module")
def room():
    return render_room(RoomOptions(12, 200, 112, num_movers=1, num_tracks=400))


@pytest.fixture(scope="module")
def grown(room):
    return grow_tracks(room.frames, options=OPTIONS)


@pytest.fixture(scope="module")
def off_movers(room):
    allowed = ~room.masks
    return allowed, grow_tracks(room.frames, allowed=allowed, options=OPTIONS)


def corner_quality(frame: np.ndarray) -> np.ndarray:
    return cv2.cornerMinEigenVal(
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255, 5
    )


def true_queries(room, frame: int):
    """Ground-truth points on texture that frame sees on the static room, off its border, and where
    they are."""
    inside = (np.abs(room.track_xy[frame] - [100, 56]) < [90, 46]).all(-1)
    column, row = room.track_xy[frame].astype(int).clip(0, [199, 111]).T
    textured = corner_quality(room.frames[frame])[row, column] > 20 * CORNER_QUALITY
    chosen = np.flatnonzero(
        room.track_visible[frame] & inside & textured & ~room.track_is_foreground
    )
    return chosen, np.c_[np.full(len(chosen), frame), room.track_xy[frame, chosen]].astype(
        np.float32
    )


def test_tracks_follow_the_true_motion_before_and_after_the_query(room):
    chosen, queries = true_queries(room, 6)
    xy, visible = track_points(room.frames, queries)
    both = visible & room.track_visible[:, chosen]
    error = np.linalg.norm(xy - room.track_xy[:, chosen], axis=-1)
    for t in (0, 3, 9, 11):
        assert both[t].sum() > 0.6 * room.track_visible[t, chosen].sum()
        assert np.median(error[t, both[t]]) < 0.45
        assert np.mean(error[t, both[t]] < 1) > 0.75


def test_a_query_is_answered_by_itself(room):
    _, queries = true_queries(room, 4)
    xy, visible = track_points(room.frames, queries)
    assert visible[4].all()
    np.testing.assert_array_equal(xy[4], queries[:, 1:])


def test_reversing_time_reverses_the_tracks(room):
    _, queries = true_queries(room, 5)
    xy, visible = track_points(room.frames, queries)
    mirrored = queries.copy()
    mirrored[:, 0] = len(room.frames) - 1 - queries[:, 0]
    xy_back, visible_back = track_points(room.frames[::-1].copy(), mirrored)
    np.testing.assert_array_equal(visible_back[::-1], visible)
    np.testing.assert_array_equal(xy_back[::-1], xy)


def test_a_lost_point_stays_lost_and_drifts_inside_the_image(room):
    _, queries = true_queries(room, 0)
    xy, visible = track_points(room.frames, queries)
    assert not visible.all()
    assert not (visible[1:] & ~visible[:-1]).any()
    assert (xy >= 0).all() and (xy <= [200, 112]).all()
    step = np.linalg.norm(np.diff(xy, axis=0), axis=-1)[~visible[1:]]
    assert np.quantile(step, 0.9) < 15


def test_visible_points_lie_inside_the_image(grown):
    seen = grown.xy[grown.visible]
    assert np.isfinite(grown.xy).all()
    assert (seen >= 0).all() and (seen[:, 0] <= 200).all() and (seen[:, 1] <= 112).all()


def test_every_textured_cell_of_every_frame_has_a_point_near(room, grown):
    xy, visible = grown.xy, grown.visible
    for t, frame in enumerate(room.frames):
        rows, columns = np.nonzero(corner_quality(frame) > 4 * CORNER_QUALITY)
        distance, _ = cKDTree(xy[t, visible[t]]).query(np.c_[columns, rows] + 0.5)
        assert np.quantile(distance, 0.98) < 2 * SPACING
        assert distance.max() < 4 * SPACING


def test_thinning_keeps_the_longest_and_leaves_nothing_doubled(grown):
    xy, visible = grown.xy, grown.visible
    shorter = visible & (np.arange(len(visible)) < 8)[:, None]
    twice = np.concatenate([xy + np.float32(0.01), xy], 1)
    doubled = PointTracks(twice, np.concatenate([shorter, visible], 1), 200, 112)
    kept = thin(doubled, SPACING)
    originals = thin(grown, SPACING)
    assert len(kept) == len(set(kept.tolist()))
    assert abs(len(kept) - len(originals)) <= 0.05 * len(originals)
    longer = visible.sum(0) > shorter.sum(0)
    assert not longer[kept[kept < xy.shape[1]]].any()
    assert visible.sum(0).argmax() + xy.shape[1] in kept or not longer[visible.sum(0).argmax()]


def test_thinning_twice_is_thinning_once(grown):
    once = thin(grown, SPACING)
    again = thin(grown.select(once), SPACING)
    np.testing.assert_array_equal(again, np.arange(len(once)))


def test_thinning_drops_what_is_too_short_even_if_that_is_everything():
    xy = np.zeros((5, 3, 2), np.float32)
    visible = np.zeros((5, 3), bool)
    visible[0] = True
    tracks = PointTracks(xy, visible, 200, 112)
    assert len(thin(tracks, 8)) == 0
    assert len(thin(tracks.select(np.arange(0)), 8)) == 0


def test_no_visible_point_lies_on_a_masked_pixel(off_movers):
    allowed, tracks = off_movers
    t, n = np.nonzero(tracks.visible)
    x, y = tracks.xy[t, n].astype(int).T
    assert allowed[t, y.clip(0, 111), x.clip(0, 199)].all()


def test_a_track_that_meets_a_mask_ends_there(off_movers):
    visible = off_movers[1].visible
    spans = len(visible) - visible.argmax(0) - visible[::-1].argmax(0)
    np.testing.assert_array_equal(visible.sum(0), spans)


@given(st.integers(1, 300))
def test_coarse_to_fine_visits_each_frame_once(num_frames):
    rounds = order_coarse_to_fine(num_frames)
    assert sorted(t for batch in rounds for t in batch) == list(range(num_frames))
    assert rounds[0] == [0]
    assert num_frames == 1 or num_frames - 1 in rounds[1]


def test_an_unknown_tracker_is_refused_with_the_known_ones(room):
    with pytest.raises(InputError, match=r"'nobody' is not known.*lucas_kanade"):
        track_points(room.frames, np.zeros((1, 3), np.float32), "nobody")


def test_a_registered_tracker_is_found_by_name(room, monkeypatch):
    monkeypatch.setattr("models.tracking.names.TRACKERS", {})
    register_tracker("frozen")(
        lambda frames, q: (np.repeat(q[None, :, 1:], len(frames), 0), np.ones((12, 2), bool))
    )
    xy, visible = track_points(room.frames, np.array([[0, 3, 4], [0, 5, 6]]), "frozen")
    assert visible.all() and (xy == np.array([[3, 4], [5, 6]])).all()


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_a_video_without_texture_is_refused(num_frames):
    with pytest.raises(InputError, match="texture"):
        grow_tracks(np.full((num_frames, 64, 96, 3), 127, np.uint8))


def test_a_clip_masked_everywhere_is_refused(room):
    with pytest.raises(InputError):
        grow_tracks(room.frames[:4], allowed=np.zeros((4, 112, 200), bool), options=OPTIONS)


def test_tracks_survive_a_black_frame_at_either_end(room):
    frames = room.frames[:6].copy()
    frames[[0, -1]] = 0
    visible = grow_tracks(frames, options=OPTIONS).visible
    assert visible[1:5].sum(1).min() > 50


def test_the_same_input_gives_the_same_tracks(room, grown):
    again = grow_tracks(room.frames, options=OPTIONS)
    for a, b in ((grown.xy, again.xy), (grown.visible, again.visible)):
        assert torch.equal(torch.from_numpy(a), torch.from_numpy(b))


OWN = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from models.tracking import register_tracker

@dataclass
class Settings:
    window: int = 3

@register_tracker("frozen")
def frozen(frames, queries):
    return np.repeat(queries[None, :, 1:], len(frames), 0), np.ones((len(frames), len(queries)), bool)
"""


def test_a_trackers_own_file_is_imported_by_its_path(room, tmp_path, monkeypatch):
    monkeypatch.setattr("models.tracking.names.TRACKERS", {})
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    tracker = open_tracker(f"{path}:frozen")
    xy, visible = track_points(room.frames, np.array([[0, 3, 4]]), tracker)
    assert visible.all() and (xy == [[3, 4]]).all()
    with pytest.raises(InputError, match="'other' is not known"):
        open_tracker(f"{path}:other")


@pytest.mark.parametrize(
    "text", ["import nothing_of_that_name", "1 / 0", "def (:", "raise SystemExit(0)"]
)
def test_a_trackers_own_file_that_fails_is_refused_in_a_sentence(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.py: cannot be imported as a tracker"):
        open_tracker(f"{path}:frozen")
    with pytest.raises(InputError, match="there is no such file"):
        open_tracker(f"{tmp_path / 'gone.py'}:frozen")
