"""The scale of a mover's depth: from the ground, from the background behind it, and from its path;
and relative depth from apparent size."""

import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from models.cameras import Cameras
from models.movers.depth import (
    RelativeDepth,
    find_scale,
    follow_size,
    read_cues,
    solve_rigid,
)
from models.movers.depth.apparent_size import _measure_growth
from models.movers.lifting import FoundDepth, _measure_mover, _solve_depth, fill_depth
from models.movers.options import MoverOptions
from models.tracks import PointTracks

FRAMES, POINTS, WIDTH, HEIGHT, FOCAL = 24, 150, 320, 180, 280.0
FLOOR, WALL = 1.2, 9.0
UNIT = 7.0
"""World units for a unit of the relative depths that the tests hand over."""


def make_cameras(centers: np.ndarray) -> Cameras:
    pose = torch.eye(4, dtype=torch.float64).repeat(len(centers), 1, 1)
    pose[:, :3, 3] = torch.from_numpy(centers)
    K = torch.tensor(
        [[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64
    )
    return Cameras(K.expand(len(centers), 3, 3), pose, WIDTH, HEIGHT)


def draw_background(center: np.ndarray) -> np.ndarray:
    """z-depth of a floor (y = FLOOR) and a wall (z = WALL)."""
    slope = (np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / FOCAL
    with np.errstate(divide="ignore"):
        floor = np.where(slope > 0, (FLOOR - center[1]) / slope, np.inf)
    return np.minimum(floor, WALL - center[2])[:, None] * np.ones((1, WIDTH))


class Clip:
    """A box that passes a camera: true z-depths, tracks, masks and the background's depth."""

    def __init__(self, low: float, depth: float, speed: float, shake: float, seed: int):
        """Args: low: y of its lower side. speed: metres in the clip. shake: of the camera."""
        random = np.random.default_rng(seed)
        box = random.uniform([-0.4, -0.8, -0.2], [0.4, 0.0, 0.2], (POINTS, 3))
        edges = np.array([[x, y, z] for x in (-0.4, 0.4) for y in (-0.8, 0) for z in (-0.2, 0.2)])
        box[:8] = edges
        path = np.stack([np.linspace(-0.5, 0.5, FRAMES) * speed, np.full(FRAMES, low)], 1)
        middle = np.concatenate([path, np.full((FRAMES, 1), depth)], 1)
        self.centers = np.stack([np.linspace(-0.4, 0.4, FRAMES), *np.zeros((2, FRAMES))], 1)
        self.centers += random.normal(0, shake, (FRAMES, 3))
        seen = box + middle[:, None] - self.centers[:, None]
        self.depth = seen[..., 2]
        xy = FOCAL * seen[..., :2] / seen[..., 2:] + [WIDTH / 2, HEIGHT / 2]
        xy += random.normal(0, 0.2, xy.shape)
        self.tracks = PointTracks(xy, ((xy > 0) & (xy < [WIDTH, HEIGHT])).all(-1), WIDTH, HEIGHT)
        self.cameras = make_cameras(self.centers)
        self.background = [draw_background(center) for center in self.centers]
        self.masks = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
        for t in range(FRAMES):
            left, top = np.clip(xy[t].min(0), 0, [WIDTH, HEIGHT]).astype(int)
            right, bottom = np.clip(xy[t].max(0), 0, [WIDTH, HEIGHT]).astype(int)
            self.masks[t, top:bottom, left:right] = True

    def find_scale(self):
        shape = RelativeDepth(self.depth / UNIT, self.tracks.visible, np.ones(FRAMES, bool))
        cues = read_cues(self.masks, self.tracks, self.background)
        return find_scale(shape, self.tracks, self.cameras, cues)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_mover_on_the_floor_gets_its_scale_from_contact(seed):
    scale = Clip(FLOOR, 5.0, 1.5, 0.002, seed).find_scale()
    assert scale.value / UNIT == pytest.approx(1, abs=0.08)
    assert scale.source == "contact with the ground"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_shaking_camera_tells_the_depth_of_a_mover_in_the_air(seed):
    """The ground below is 2.4 times as far."""
    scale = Clip(0.5, 3.0, 0.8, 0.05, seed).find_scale()
    assert scale.value / UNIT == pytest.approx(1, abs=0.05)
    assert scale.uncertainty < 0.1 and "path" in scale.source


def test_a_mover_that_the_border_cuts_is_nearer_than_the_ground_there():
    """Before, such a mover stood on the ground at the border, 1.7 times as far."""
    clip = Clip(FLOOR, 2.2, 0.8, 0.0, 3)
    assert clip.masks[:, -2:].any((1, 2)).all()
    scale = clip.find_scale()
    assert 0.8 < scale.value / UNIT < 1.5 and scale.uncertainty > 0.1


def test_a_still_camera_leaves_the_path_out():
    clip = Clip(FLOOR, 5.0, 1.5, 0.0, 4)
    clip.cameras = make_cameras(np.zeros((FRAMES, 3)))
    assert np.isfinite(clip.find_scale().value)


def test_no_background_behind_a_mover_gives_no_scale():
    clip = Clip(FLOOR, 5.0, 1.5, 0.0, 5)
    clip.background = [np.full((HEIGHT, WIDTH), np.inf)] * FRAMES
    assert clip.find_scale() is None


def test_a_mover_without_any_background_still_has_a_positive_depth():
    clip = Clip(FLOOR, 5.0, 1.5, 0.0, 9)
    holes = [np.full((HEIGHT, WIDTH), np.inf)] * FRAMES
    shape = solve_rigid(clip.tracks, clip.cameras)
    depth, _ = _solve_depth(clip.cameras, clip.tracks, clip.masks, holes, shape, MoverOptions())
    assert depth.shape == clip.depth.shape and np.isfinite(depth).all() and (depth > 0).all()


def test_the_scale_follows_the_unit_of_the_world():
    """A world twice as large has twice the scale."""
    clip = Clip(0.5, 3.0, 0.8, 0.05, 6)
    once = clip.find_scale().value
    clip.cameras = make_cameras(2 * clip.centers)
    clip.background = [2 * depth for depth in clip.background]
    assert clip.find_scale().value == pytest.approx(2 * once, rel=0.011)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_growth_of_a_picture_is_measured_beside_outliers(seed):
    random = np.random.default_rng(seed)
    points = random.uniform(0, 100, (60, 2))
    turn = Rotation.from_euler("z", 0.3).as_matrix()[:2, :2]
    after = 1.07 * points @ turn + [30, -4]
    after[:6] += random.normal(0, 20, (6, 2))
    assert _measure_growth(points, after) == pytest.approx(np.log(1.07), abs=0.004)
    line = np.stack([np.arange(9.0), np.arange(9.0)], 1)
    assert _measure_growth(line, line) == 0


def test_apparent_size_gives_relative_depth_without_any_contact():
    clip = Clip(FLOOR, 5.0, 0.5, 0.0, 7)
    nearer = np.linspace(1, 0.6, FRAMES)[:, None, None]
    middle = np.array([WIDTH / 2, HEIGHT / 2])
    xy = (clip.tracks.xy[:1] - middle) / nearer + middle
    tracks = PointTracks(xy, np.ones((FRAMES, POINTS), bool), WIDTH, HEIGHT)
    cues = read_cues(clip.masks, tracks, [np.full((HEIGHT, WIDTH), np.inf)] * FRAMES)
    shape = follow_size(tracks, cues)
    np.testing.assert_allclose(shape.depth[:, 0], nearer[:, 0, 0], rtol=1e-6)
    assert shape.is_flat


def test_contact_corrects_apparent_size_where_the_mover_turns():
    """The picture of a mover that turns shrinks, yet its feet say that it stays where it is."""
    clip = Clip(FLOOR, 5.0, 0.0, 0.0, 8)
    shrink = np.linspace(1, 0.8, FRAMES)[:, None, None]
    middle = clip.tracks.xy[:1].mean(1, keepdims=True)
    tracks = PointTracks(
        (clip.tracks.xy[:1] - middle) * shrink + middle, clip.tracks.visible, WIDTH, HEIGHT
    )
    cues = read_cues(clip.masks, tracks, clip.background)
    shape = follow_size(tracks, cues, MoverOptions())
    depth = shape.depth[:, 0] / np.median(shape.depth[:, 0])
    assert np.abs(np.log(depth)).max() < 0.06 < np.log(1 / 0.8) / 2


def test_a_flat_shape_replaces_apparent_size_in_the_frames_that_it_places():
    """A mover that turns seems to shrink; its motion says that it stays at its depth."""
    clip = Clip(FLOOR, 5.0, 0.0, 0.0, 10)
    shrink = np.linspace(1, 0.7, FRAMES)[:, None, None]
    middle = clip.tracks.xy[:1].mean(1, keepdims=True)
    xy = (clip.tracks.xy[:1] - middle) * shrink + middle
    tracks = PointTracks(xy, np.ones((FRAMES, POINTS), bool), WIDTH, HEIGHT)
    placed = np.arange(FRAMES) < FRAMES // 2
    depth = np.where(placed[:, None], 2.0, np.nan) * np.ones((1, POINTS))
    moved = RelativeDepth(depth, tracks.visible, placed, is_flat=True)
    cues = read_cues(clip.masks, tracks, [np.full((HEIGHT, WIDTH), np.inf)] * FRAMES)
    found = follow_size(tracks, cues, moved=moved).depth[:, 0]
    np.testing.assert_allclose(found[placed], found[0])
    growth = np.log(shrink[FRAMES // 2 - 1 :, 0, 0])
    np.testing.assert_allclose(np.log(found[~placed] / found[0]), growth[0] - growth[1:], atol=1e-6)


def test_the_figures_of_a_mover_tell_its_tracks_and_its_depth():
    how = FoundDepth("rigid", "contact with the ground", 0.054)
    assert how.describe() == "rigid, depth from contact with the ground, standard deviation 5 %"
    clip = Clip(FLOOR, 5.0, 0.5, 0.0, 11)
    figures = _measure_mover(2, clip.tracks, how)
    assert figures["mover"] == 2 and figures["tracks"] == POINTS
    assert figures["median_life_frames"] == np.median(clip.tracks.visible.sum(0))
    assert json.loads(json.dumps(figures)) == figures


def test_depths_that_are_not_known_are_those_of_their_frame_or_of_the_frames_around():
    depth = np.array([[2.0, np.nan, 2.0], [np.nan] * 3, [8.0, 8.0, 8.0]])
    np.testing.assert_allclose(fill_depth(depth), [[2.0] * 3, [4.0] * 3, [8.0] * 3])
