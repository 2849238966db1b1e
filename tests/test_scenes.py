"""Dissolves and wipes between two scenes are found; motion of any kind in one scene is none."""

import cv2
import numpy as np
import pytest

from models.clip.frame_checks import find_misleading, reduce_frame
from models.clip.sources.scenes import _is_mixed, find_cuts, find_dissolves
from models.synthetic.sample import RoomOptions, render_room

COUNT, WIDTH, HEIGHT = 32, 96, 64
REACH = 30


@pytest.fixture(scope="module")
def rooms() -> dict[str, np.ndarray]:
    """Frames of one room by the motion of the camera."""
    return {
        motion: render_room(
            RoomOptions(COUNT, WIDTH, HEIGHT, num_movers=1, num_tracks=0, motion=motion, seed=4)
        ).frames.astype(float)
        for motion in ("sideways", "turn", "still")
    }


def reduce(frames: np.ndarray) -> np.ndarray:
    return np.stack([reduce_frame(frame) for frame in frames.clip(0, 255).astype(np.uint8)])


def join(first: np.ndarray, second: np.ndarray, begin: int, steps: int, kind: str) -> np.ndarray:
    """The first scene up to frame ``begin``, frames of both, the second scene."""
    share = np.arange(1, steps)[:, None, None, None] / steps
    if kind == "wipe":
        share = (np.arange(WIDTH)[None, None, :, None] < share * WIDTH).astype(float)
    mixed = first[begin : begin + steps - 1] * (1 - share) + second[: steps - 1] * share
    return np.concatenate([first[:begin], mixed, second[steps - 1 :]])


@pytest.mark.parametrize("kind", ["dissolve", "wipe"])
@pytest.mark.parametrize("steps", [5, 9, 14])
@pytest.mark.parametrize("motion", ["sideways", "still"])
def test_frames_of_two_scenes_and_the_shorter_scene_are_left_out(rooms, motion, steps, kind):
    other = rooms["still"][:12, ::-1, ::-1] * 0.8
    other = np.concatenate([other, other])[: steps + 8]
    clip = join(rooms[motion], other, 17, steps, kind)
    wrong = find_misleading(reduce(clip), reach=REACH)
    kept = sorted(set(range(len(clip))) - set(wrong))
    assert kept == list(range(kept[-1] + 1)) and 13 <= len(kept) <= 17
    assert set(wrong.values()) == {"another scene", "a dissolve or wipe to another scene"}
    assert all(wrong[t].startswith("a dissolve") for t in range(17, 17 + steps - 1))


@pytest.mark.parametrize("motion", ["sideways", "turn", "still"])
@pytest.mark.parametrize("stride", [1, 3])
def test_one_scene_is_left_whole(rooms, motion, stride):
    frames = rooms[motion][::stride]
    count = len(frames)
    fade = np.r_[np.linspace(1, 0.3, count // 2), np.linspace(0.3, 1.2, count - count // 2)]
    for clip in (frames, frames * fade[:, None, None, None]):
        assert find_dissolves(reduce(clip), REACH) == []


def test_fast_pans_and_movers_that_fill_the_picture_are_no_dissolves(rooms):
    wide = np.concatenate([rooms["still"][0], rooms["still"][0][::-1]], 1)
    places = np.r_[np.zeros(8), np.linspace(0, WIDTH, 9), np.full(8, WIDTH)].astype(int)
    pan = np.stack([wide[:, at : at + WIDTH] for at in places])
    assert find_dissolves(reduce(pan), REACH) == []
    passing = rooms["still"][:30].copy()
    bus = rooms["still"][0][::-1, ::-1] * 0.7
    for t in range(30):
        edge = [round(WIDTH * (t - start) / 8) for start in (8, 16)]
        ahead, behind = np.clip(edge, 0, WIDTH)
        passing[t, :, behind:ahead] = bus[:, behind:ahead]
    assert find_dissolves(reduce(passing), REACH) == []


@pytest.mark.parametrize("seed", range(4))
def test_frames_between_two_views_must_be_made_of_both(seed):
    rng = np.random.default_rng(seed)
    first, second, other = (
        cv2.GaussianBlur(rng.normal(size=(18, 32)), (0, 0), 2) for _ in range(3)
    )
    share = np.linspace(0, 1, 7)[:, None, None]
    noise = rng.normal(0, 0.01, (7, 18, 32))
    assert _is_mixed(first * (1 - share) + second * share + noise)
    wiped = np.arange(32) < 32 * share
    assert _is_mixed(np.where(wiped, second, first) + noise)
    # A fast camera passes a third view on its way.
    passed = first * (1 - share) ** 2 + second * share**2 + 2 * other * share * (1 - share)
    assert not _is_mixed(passed + noise)


def test_a_jerk_of_the_camera_is_no_cut(rooms):
    wide = np.concatenate([rooms["still"][0], rooms["still"][0][::-1]], 1)
    places = np.r_[np.arange(8), WIDTH // 3 + np.arange(8)]
    jerk = np.stack([wide[:, at : at + WIDTH] for at in places])
    assert find_cuts(reduce(jerk)) == []
    cut = np.concatenate([rooms["still"][:8], rooms["sideways"][:8, ::-1, ::-1] * 0.8])
    assert find_cuts(reduce(cut)) == [8]
