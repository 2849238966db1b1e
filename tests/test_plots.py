import numpy as np
import pytest

from models.report.drawing import (
    colorize_depth,
    draw_mask,
    draw_mesh,
    draw_tracks,
    measure_depth_range,
)
from models.tracks import PointTracks

BLACK = np.zeros((40, 50, 3), np.uint8)


def tracks_of(xy: np.ndarray, visible: np.ndarray | None = None) -> PointTracks:
    """Tracks over frames of the size of BLACK; visible everywhere if not given."""
    visible = np.ones(xy.shape[:2], bool) if visible is None else visible
    return PointTracks(xy, visible, 50, 40)


def brightness_center(image: np.ndarray) -> np.ndarray:
    """Centre of mass of what was drawn, in our pixels."""
    weight = image.astype(float).sum(2)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("xy", [(20.5, 10.5), (20.0, 10.25), (31.75, 22.0)])
def test_a_dot_is_centred_where_the_track_is(xy):
    frames = list(draw_tracks([BLACK], tracks_of(np.array([[xy]]))))
    np.testing.assert_allclose(
        brightness_center(frames[0]), xy, atol=0.2
    )  # half a pixel off would show


def test_only_visible_tracks_are_drawn_and_frames_stay_untouched():
    xy = np.array([[[10.0, 10], [30, 30]], [[12, 10], [np.nan, np.nan]], [[14, 10], [32, 30]]])
    visible = np.array([[True, True], [True, False], [True, True]])
    frames = np.zeros((3, 40, 50, 3), np.uint8)
    drawn = list(draw_tracks(frames, tracks_of(xy, visible)))
    assert not frames.any()
    assert drawn[0][25:, 25:].any() and not drawn[1][20:, 20:].any() and drawn[1][:20].any()
    assert all(frame.dtype == np.uint8 and frame.shape == BLACK.shape for frame in drawn)


def test_a_tail_reaches_back_so_many_frames():
    xy = np.stack([np.linspace(2.5, 47.5, 10), np.full(10, 20.5)], 1)[:, None]
    last = list(draw_tracks([BLACK] * 10, tracks_of(xy), tail=3))[-1]
    drawn = np.flatnonzero(last.any(axis=(0, 2)))
    assert 30 <= drawn.min() <= 33


def test_tracks_of_one_group_share_a_colour():
    xy = np.array([[[8.5, 8.5], [25.5, 8.5], [40.5, 8.5]]])
    frame = next(draw_tracks([BLACK], tracks_of(xy), groups=np.array([0, 1, 0])))
    first, second, third = (frame[8, x].tolist() for x in (8, 25, 40))
    assert first == third != second


def test_mesh_lines_run_through_the_vertices_and_leave_the_rest():
    xy = np.array([[5.5, 5.5], [40.5, 5.5], [5.5, 30.5], [np.nan, 3], [1e12, -1e12]])
    drawn = draw_mesh(BLACK, xy, np.array([[0, 1, 2], [0, 1, 3]]))
    assert drawn[5, 5:41].any(axis=1).all() and drawn[5:31, 5].any(axis=1).all()
    assert not drawn[32:].any() and not drawn[:4].any() and not BLACK.any()
    assert draw_mesh(BLACK, xy, np.array([[0, 2, 4]])).shape == BLACK.shape
    assert not draw_mesh(BLACK, xy, np.zeros((0, 3), int)).any()


def test_depth_colours_run_from_red_near_to_blue_far_and_black_for_none():
    depth = np.array([[1.0, 1.5, 10.0, 0.5, 99.0, 0.0, -1.0, np.nan, np.inf]])
    rgb = colorize_depth(depth, 1.0, 10.0)[0].astype(int)
    assert rgb[0, 0] > rgb[0, 2] and rgb[2, 2] > rgb[2, 0]
    assert (rgb[3] == rgb[0]).all() and (rgb[4] == rgb[2]).all()
    assert not rgb[5:].any()


def test_depth_range_ignores_outliers_and_what_is_no_depth():
    depth = np.random.default_rng(0).uniform(2, 8, (3, 100, 100))
    depth[0, :5, :5] = 1e9
    depth[1, :5] = np.nan
    depth[2, :5] = -3
    near, far = measure_depth_range(depth)
    assert 2 <= near < 2.5 and 7.5 < far <= 8
    assert measure_depth_range([np.full((4, 4), np.nan)]) == (1.0, 2.0)
    near, far = measure_depth_range([np.full((4, 4), 3.0)])
    assert near < far


def test_draw_mask_tints_the_mask_alone():
    mask = np.zeros((40, 50), bool)
    mask[10:20, 10:20] = True
    drawn = draw_mask(BLACK, mask)
    np.testing.assert_array_equal(drawn.any(2), mask)
