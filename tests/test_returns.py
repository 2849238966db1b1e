"""Places that come back into view, and long ways mapped in windows."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from clips import Said
from scipy.spatial.transform import Rotation

from models.cameras import Cameras, look_at
from models.sfm.mapping import adjust_cameras
from models.sfm.options import CameraOptions
from models.sfm.windows.closing import close_loops
from models.sfm.windows.joining import map_in_windows, split_windows
from models.synthetic.sample import RoomOptions, render_room
from models.tracking import TrackingOptions, grow_tracks, join_returns
from models.tracking.dis_flow import _may_win
from models.tracks import PointTracks

VISIT, AWAY = 9, 14


@pytest.fixture(scope="module")
def rooms():
    """A room in every second frame of a path, another room upside down, and the first room in the
    frames that were left out."""
    options = RoomOptions(2 * VISIT, 240, 136, num_movers=0, num_tracks=0)
    first = render_room(options)
    other = render_room(replace(options, num_frames=AWAY, seed=3))
    away = other.frames[:, ::-1, ::-1]
    frames = np.concatenate([first.frames[::2], away, first.frames[1::2]])
    return first, frames


def test_a_place_that_comes_back_gets_tracks_of_both_visits(rooms):
    room, frames = rooms
    options = TrackingOptions(absence=AWAY)
    tracks = grow_tracks(frames, "lucas_kanade", options=options)
    # some tracks slip across the cuts: each counts in the part where it begins
    part = np.repeat([0, 1, 2], [VISIT, AWAY, VISIT])
    tracks = tracks.restrict(part[:, None] == part[tracks.visible.argmax(0)])
    said = Said()
    joined = join_returns(frames, tracks, progress=said, options=options)
    assert "show a place again" in said.sentences[-1]
    before = tracks.num_tracks
    np.testing.assert_array_equal(joined.xy[:, :before], tracks.xy)
    np.testing.assert_array_equal(joined.visible[:, :before], tracks.visible)
    seen = joined.visible[:, before:]
    assert seen[:VISIT].any(0).all() and seen[VISIT + AWAY :].any(0).all() and seen.shape[1] > 40
    misses = []
    for n in range(seen.shape[1]):
        # the last frame of the first visit and the first of the second: little time to drift
        a = np.flatnonzero(seen[:VISIT, n])[-1]
        b = np.flatnonzero(seen[VISIT + AWAY :, n])[0] + VISIT + AWAY
        x, y = joined.xy[a, before + n]
        depth = torch.tensor([[float(room.depth[2 * a, int(y), int(x)])]]).double()
        place = room.cameras[2 * a].unproject(torch.tensor([[[x, y]]]).double(), depth)[0]
        there = room.cameras[2 * (b - VISIT - AWAY) + 1].project(place)[0][0, 0].numpy()
        misses.append(np.linalg.norm(there - joined.xy[b, before + n]))
    # the depth of points at outlines is that of the surface beside
    assert np.median(misses) < 1 and np.mean(np.array(misses) < 3) > 0.8


def test_tracks_stay_as_they_are_where_no_place_comes_back(rooms):
    frames = rooms[1][: VISIT + AWAY]
    tracks = grow_tracks(frames, "lucas_kanade")
    assert join_returns(frames, tracks, options=TrackingOptions(absence=VISIT)) is tracks


@pytest.mark.parametrize("seed", range(3))
def test_long_links_count_only_where_they_end_where_chains_of_short_links_end(seed):
    random = np.random.default_rng(seed)
    place = random.uniform(0, 300, (200, 2)).astype(np.float32)
    best = np.where(random.random(200) < 0.8, 1, np.inf).astype(np.float32)
    good = random.random(200) < 0.7
    near = place + random.normal(0, 0.2, place.shape)
    assert _may_win(near, place, best, good).all()
    apart = random.random(200) < 0.5
    wrong = np.where(apart[:, None], near + 9, near)
    expected = good & np.isfinite(best) & ~apart
    np.testing.assert_array_equal(_may_win(wrong, place, best, good), expected)
    # chains have lost most points: nothing tells whether the links are right
    lost = np.where(random.random(200) < 0.2, 1, np.inf).astype(np.float32)
    assert not _may_win(near, place, lost, good)[np.isinf(lost)].any()


def test_windows_overlap_and_cover_all_frames():
    for count in (5, 90, 91, 200, 1000):
        windows = split_windows(count, 90)
        assert windows[0][0] == 0 and windows[-1][-1] == count - 1
        assert all(len(window) <= 90 for window in windows)
        for a, b in pairwise(windows):
            assert len(np.intersect1d(a, b)) >= 28


FRAMES, WINDOW = 150, 40


@dataclass
class _Way:
    """A camera that goes round a little more than once, and looks outwards at points of a wall."""

    cameras: Cameras
    tracks: PointTracks

    @staticmethod
    def round(random: np.random.Generator, joined: bool) -> "_Way":
        """
        Args:
            joined: points of both visits are one track, where both were seen.
        """
        angle = np.linspace(0, 2.15 * np.pi, FRAMES)
        poses = [
            look_at(
                torch.tensor([np.cos(a), np.sin(a), 0.1 * np.sin(3 * a)]).double(),
                torch.tensor([4 * np.cos(a), 4 * np.sin(a), 0]).double(),
                torch.tensor([0, 0, 1]).double(),
            )
            for a in angle
        ]
        K = torch.tensor([[250.0, 0, 160], [0, 250, 90], [0, 0, 1]]).double()
        cameras = Cameras(K.repeat(FRAMES, 1, 1), torch.stack(poses), 320, 180)
        turn = random.uniform(0, 2 * np.pi, 1500)
        radius = random.uniform(2, 5, 1500)
        height = random.uniform(-1, 1, 1500)
        xyz = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], 1)
        xy, depth = (part.numpy() for part in cameras.project(torch.from_numpy(xyz)))
        visible = (depth > 0) & (xy > 0).all(-1) & (xy < [320, 180]).all(-1)
        xy = (xy + random.normal(0, 0.1, xy.shape)).astype(np.float32)
        late = np.arange(FRAMES)[:, None] > FRAMES // 2
        if joined:
            return _Way(cameras, PointTracks(xy, visible, 320, 180))
        parts = visible & ~late, visible & late
        tracks = PointTracks(np.concatenate([xy, xy], 1), np.concatenate(parts, 1), 320, 180)
        return _Way(cameras, tracks)

    def map(self, random: np.random.Generator) -> Cameras | None:
        """Cameras of windows in axes and units of their own, each with a little drift."""
        windows = iter(split_windows(FRAMES, WINDOW))

        def map_window(_: PointTracks) -> "_Mapped":
            frames = next(windows)
            own = self.cameras[frames.tolist()].world_from_cam.numpy()
            turn = Rotation.from_rotvec(random.normal(0, 1, 3)).as_matrix()
            moved = own.copy()
            moved[:, :3, :3] = turn @ own[:, :3, :3]
            bend = np.linspace(0, 0.01, len(frames))
            bent = Rotation.from_rotvec(bend[:, None] * [0, 1, 0]).as_matrix()
            moved[:, :3, :3] = moved[:, :3, :3] @ bent
            moved[:, :3, 3] = random.uniform(0.3, 3) * own[:, :3, 3] @ turn.T
            cameras = self.cameras[frames.tolist()]
            cameras = replace(cameras, world_from_cam=torch.from_numpy(moved))
            return _Mapped(cameras, np.ones(len(frames), bool))

        options = CameraOptions(window_frames=WINDOW)
        adjust = partial(adjust_cameras, refine_focal_length=False)
        return map_in_windows(self.tracks, self.tracks, map_window, adjust, options=options)

    def measure_error(self, cameras: Cameras) -> float:
        """Root mean square error of the positions after a similarity, in lengths of the path."""
        own, true = (part.centers.double().numpy() for part in (cameras, self.cameras))
        own, true = own - own.mean(0), true - true.mean(0)
        u, values, vt = np.linalg.svd(true.T @ own)
        flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
        scale = np.trace(np.diag(values) @ flip) / (own**2).sum()
        miss = scale * own @ (u @ flip @ vt).T - true
        length = np.linalg.norm(np.diff(true, axis=0), axis=1).sum()
        return float(np.sqrt((miss**2).sum(1).mean()) / length)


@dataclass
class _Mapped:
    cameras: Cameras
    registered: np.ndarray


@pytest.mark.parametrize("seed", range(2))
def test_a_way_mapped_in_windows_is_closed_where_the_camera_comes_back(seed):
    random = np.random.default_rng(seed)
    errors = {}
    for joined in (False, True):
        way = _Way.round(np.random.default_rng(seed), joined)
        cameras = way.map(random)
        assert cameras is not None and len(cameras) == FRAMES
        errors[joined] = way.measure_error(cameras)
    assert errors[True] < 0.01 and errors[True] < 0.6 * errors[False]


def test_cameras_without_loops_stay():
    way = _Way.round(np.random.default_rng(0), joined=True)
    assert close_loops(way.cameras, []) is way.cameras
