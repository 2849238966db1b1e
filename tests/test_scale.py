"""A scene in metres: by a known distance between two points, or by the height of the camera."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clips import true_tracks

from models.run import InputError
from models.synthetic.sample import RoomOptions, render_room
from models.tracks import ScaleOptions, Tracks, find_scale, scale_tracks
from models.training import check_same_clip


@pytest.fixture(scope="module")
def room():
    return render_room(RoomOptions(6, 240, 136, num_movers=0, num_tracks=6000))


@pytest.fixture(scope="module")
def tracks(room) -> Tracks:
    """The room's true tracks, in metres."""
    return true_tracks(room, False)


FACTOR = 0.37


@pytest.fixture(scope="module")
def solved(tracks: Tracks) -> Tracks:
    """The same as a solver would have them, with points that are 0.1 % off."""
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 1e-3, tracks.xyz.shape[1:])).float()
    off = tracks.xyz[:1] * (1 + noise)
    own = replace(tracks, xyz=off.expand(len(tracks), -1, -1))
    return scale_tracks(own, FACTOR)


def test_scaled_scenes_look_the_same(tracks: Tracks):
    scaled = scale_tracks(tracks, 2.5)
    before, z = tracks.cameras.project(tracks.xyz.double())
    after, far = scaled.cameras.project(scaled.xyz.double())
    inside = z > 0.1
    assert torch.allclose(before[inside], after[inside], atol=1e-2)
    assert torch.allclose(far, 2.5 * z, atol=1e-4)
    assert scaled.xyz.stride(0) == 0 and scale_tracks(tracks, 1.0) is tracks


@pytest.mark.parametrize("seed", range(3))
def test_a_known_distance_gives_metres(tracks: Tracks, solved: Tracks, seed: int):
    random = np.random.default_rng(seed)
    seen = np.flatnonzero(tracks.visible[2].numpy())
    first, second = random.choice(seen, 2, replace=False).tolist()
    metres = float((tracks.xyz[0, first] - tracks.xyz[0, second]).norm())
    found = find_scale(solved, ScaleOptions(metres, (first, second)))
    assert found == pytest.approx(1 / FACTOR, rel=0.01)
    pixels = solved.xy[2, [first, second]].floor().int().flatten().tolist()
    by_pixels = find_scale(solved, ScaleOptions(metres, (2, *pixels)))
    assert by_pixels == pytest.approx(1 / FACTOR, rel=0.05)


def test_the_height_of_the_camera_gives_metres(room, solved: Tracks):
    # the floor of the room is z = 0
    height = float(room.cameras.centers[0, 2])
    assert find_scale(solved, ScaleOptions(height)) == pytest.approx(1 / FACTOR, rel=0.03)


def test_tracks_on_a_line_give_the_depth_of_the_nearest(solved: Tracks):
    seen = torch.nonzero(solved.visible[0])[:5, 0]
    xy = solved.xy.clone()
    xy[0, seen] = torch.tensor([[10.0 + i, 20.0] for i in range(5)])
    visible = torch.zeros_like(solved.visible)
    visible[0, seen] = True
    line = replace(solved, xy=xy, visible=visible)
    assert find_scale(line, ScaleOptions(1.0, (0, 10, 20, 14, 20))) > 0


def test_a_model_of_other_units_is_refused(tracks: Tracks, tmp_path):
    model = SimpleNamespace(cameras=tracks.cameras, thumbnails=None)
    check_same_clip(model, tmp_path, tracks, tmp_path)
    with pytest.raises(InputError, match="--scale_metres"):
        check_same_clip(model, tmp_path, scale_tracks(tracks, 2.0), tmp_path)


def test_what_cannot_be_measured_is_refused(solved: Tracks):
    assert find_scale(solved, ScaleOptions()) == 1.0
    for options, words in (
        (ScaleOptions(-1.0), "positive"),
        (ScaleOptions(None, (1, 2)), "--scale_metres"),
        (ScaleOptions(1.0, (1, 10**6)), "there are tracks 0 to"),
        (ScaleOptions(1.0, (1, 2, 3)), "FRAME X Y X Y"),
        (ScaleOptions(1.0, (99, 1, 1, 2, 2)), "there are frames 0 to 5"),
        (ScaleOptions(1.0, (0, -90, -90, 2, 2)), "no track within"),
        (ScaleOptions(1.0, (3, 3)), "no distance"),
    ):
        with pytest.raises(InputError, match=words):
            find_scale(solved, options)
    above = replace(solved, xyz=solved.xyz - torch.tensor([0.0, 0, 100.0]) * -1)
    with pytest.raises(InputError, match="no ground"):
        find_scale(above, ScaleOptions(1.5))
