from itertools import pairwise

import numpy as np
import pytest
import torch

from models.cameras import Cameras
from models.paths.path_script import JOINT_FRAMES
from models.paths.path_text import parse_path
from models.paths.trajectories import Clip
from models.run.errors import InputError

FRAMES = 41


def clip() -> Clip:
    """A camera that walks sideways."""
    poses = torch.eye(4, dtype=torch.float64).repeat(FRAMES, 1, 1)
    poses[:, 0, 3] = torch.linspace(-1, 1, FRAMES)
    K = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]], dtype=torch.float64).repeat(
        FRAMES, 1, 1
    )
    return Clip(Cameras(K, poses, 64, 48), 4.0)


def test_parts_follow_each_other_in_the_order_given():
    cameras, times = parse_path("spiral frames=30; freeze 12; orbit frames=20").build(clip())
    assert len(cameras) == len(times) == 62
    held = slice(29, 42)
    assert np.ptp(times[held]) == 0
    assert (cameras.world_from_cam[held] == cameras.world_from_cam[29]).all()
    assert times == sorted(times)
    assert (times[0], times[-1]) == (0, FRAMES - 1)


def test_the_camera_never_jumps_where_parts_meet():
    cameras, _ = parse_path(
        "stabilized; spiral radius=0.2; orbit; zoom; dolly; bullet_time 30; stabilized"
    ).build(clip())
    steps = cameras.centers.diff(dim=0).norm(dim=1)
    assert steps.max() < 2.2 / JOINT_FRAMES * 2


def test_bullet_time_stops_the_clip_there_and_goes_on_from_there():
    cameras, times = parse_path("stabilized; bullet_time 16 frames=24; stabilized").build(clip())
    assert times[:17] == pytest.approx(list(range(17)))
    assert times[17:41] == [16.0] * 24
    assert times[41:] == pytest.approx(list(range(16, FRAMES)))
    moved = (cameras.centers[17:41] - clip().cameras.centers[16]).norm(dim=1)
    assert moved.max() > 0.5
    torch.testing.assert_close(cameras.centers[:17], clip().cameras.centers[:17], atol=1e-6, rtol=0)


def test_speed_shortens_a_part():
    assert len(parse_path("spiral frames=60 speed=2").build(clip())[0]) == 30
    assert len(parse_path("orbit speed=0.5").build(clip())[0]) == 2 * FRAMES


def test_the_clip_is_repeated_within_a_part_and_ends_at_its_end():
    _, times = parse_path("spiral frames=41 loops=2").build(clip())
    assert len(times) == 41 and times[0] == 0 and times[-1] == FRAMES - 1
    assert times[20] == 0  # the second turn begins
    rising = sum(after > before for before, after in pairwise(times))
    assert rising == 39
    for count in (6, 48, 100):
        times = parse_path(f"spiral frames={count}").build(clip())[1]
        expected = torch.linspace(0, FRAMES - 1, count, dtype=torch.float64).tolist()
        assert times == expected


def test_another_size_keeps_the_middle_and_shows_nothing_beyond_the_image():
    script = parse_path("spiral fps=30 size=128x72")
    assert (script.fps, script.size, script.name) == (30, (128, 72), "spiral")
    small, large = parse_path("spiral").build(clip())[0], script.build(clip())[0]
    assert (large.width, large.height) == (128, 72)
    corners = torch.tensor([[0.0, 0], [128, 72]], dtype=torch.float64)
    points = large[[3]].unproject(corners[None], torch.ones(1, 2, dtype=torch.float64))[0]
    xy = small[[3]].project(points)[0][0]
    torch.testing.assert_close(xy.mean(0), torch.tensor([32.0, 24.0], dtype=torch.float64))
    assert (xy >= -1e-9).all()
    assert (xy <= torch.tensor([64.0, 48.0], dtype=torch.float64) + 1e-9).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("helix", r"'helix'.*spiral, orbit"),
        ("", "must begin with one of spiral"),
        ("freeze 3", "must begin with"),
        ("spiral; freeze", "how many frames"),
        ("spiral 5", "no number"),
        ("spiral radius=big", "'big'"),
        ("spiral radius=-1", "'-1'"),
        ("orbit radius=0.1", "no setting 'radius'.*degrees"),
        ("spiral; radius=0.1", "needs the name of a path"),
        ("spiral size=100", "1280x720"),
        ("spiral frames=1e9", "more than"),
        ("spiral frames=nan", "'nan'"),
        ("spiral fps=0", "'0'"),
        ("bullet_time 50", "last frame is 40"),
    ],
)
def test_what_cannot_be_understood_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        parse_path(text).check(FRAMES)
