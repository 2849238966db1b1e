"""Track files in parts: a long clip reads as one that was written whole."""

import os
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from test_tracks import random_tracks

from models.run.errors import InputError
from models.tracks import Tracks, load_tracks, save_tracks
from models.tracks import file as track_file
from models.tracks import parts as track_parts
from models.tracks.parts import NUMBERS, PART_FRAMES, WHOLE_FRAMES, split_tracks

LONG = 7
"""Frames of a clip that is long in these tests."""


@pytest.fixture(autouse=True)
def short_parts(monkeypatch):
    """Parts of 3 frames, from 6 frames on."""
    monkeypatch.setattr(track_file, "WHOLE_FRAMES", LONG - 1)
    monkeypatch.setattr(track_parts, "PART_FRAMES", 3)


def brief_tracks(num_frames: int = LONG, num: int = 40, seed: int = 0, **kinds: bool) -> Tracks:
    """Tracks that are in view for a stretch of up to three frames each; the last track never is."""
    tracks = random_tracks(num_frames, num, seed, **kinds)
    random = np.random.default_rng(seed)
    begin = random.integers(0, num_frames, num)
    t = np.arange(num_frames)[:, None]
    visible = (t >= begin) & (t <= begin + random.integers(0, 3, num))
    visible[:, -1] = False
    return replace(tracks, visible=torch.from_numpy(visible), xy=tracks.xy.nan_to_num())


@pytest.mark.parametrize("kinds", [{"static": True}, {"extra": True}], ids=["still", "moving"])
def test_parts_read_as_the_whole(tmp_path, kinds):
    path = tmp_path / "a.pt"
    tracks = brief_tracks(**kinds)
    save_tracks(path, tracks)
    loaded = load_tracks(path)
    seen = tracks.visible
    for own in fields(Tracks):
        expected, found = getattr(tracks, own.name), getattr(loaded, own.name)
        if own.name in ("xy", "confidence", "xyz"):
            assert torch.equal(found[seen], expected[seen])
        elif isinstance(expected, torch.Tensor):
            assert torch.equal(found, expected)
        else:
            assert found == expected
    assert (loaded.xyz.stride(0) == 0) == kinds.get("static", False)
    assert sorted(os.listdir(tmp_path / "a")) == ["00000.pt", "00001.pt", "00002.pt"]


def test_each_part_is_a_track_file_of_its_frames(tmp_path):
    tracks = brief_tracks(static=True)
    save_tracks(tmp_path / "a.pt", tracks)
    numbers = torch.load(tmp_path / "a" / "00001.pt", weights_only=True)[NUMBERS]
    part = load_tracks(tmp_path / "a" / "00001.pt")
    assert torch.equal(part.frame_indices, tracks.frame_indices[3:6])
    assert torch.equal(part.visible, tracks.visible[3:6, numbers])
    # every observation of its frames is in it
    assert part.visible.sum() == tracks.visible[3:6].sum()


def test_the_folder_of_the_parts_stands_for_the_file(tmp_path):
    save_tracks(tmp_path / "a.pt", brief_tracks())
    assert torch.equal(load_tracks(tmp_path / "a").xy, load_tracks(tmp_path / "a.pt").xy)


def test_a_track_is_held_between_its_first_and_last_frame_alone():
    tracks = brief_tracks(num=200)
    held = sum(len(part.numbers) for part in split_tracks(tracks))
    # a stretch of three frames is in one or two parts
    assert tracks.num_tracks <= held <= 2 * tracks.num_tracks


def test_a_stretch_without_tracks_is_written_and_read(tmp_path):
    tracks = brief_tracks()
    visible = tracks.visible.clone()
    visible[3:6] = False
    save_tracks(tmp_path / "a.pt", replace(tracks, visible=visible))
    assert torch.equal(load_tracks(tmp_path / "a.pt").visible, visible)


def test_movers_that_are_nowhere_are_written_and_read(tmp_path):
    tracks = random_tracks(LONG, 0, extra=True)
    save_tracks(tmp_path / "a.pt", tracks)
    assert load_tracks(tmp_path / "a.pt").num_tracks == 0


def test_a_shorter_clip_leaves_no_old_parts(tmp_path):
    path = tmp_path / "a.pt"
    save_tracks(path, brief_tracks(2 * LONG))
    save_tracks(path, brief_tracks(LONG))
    assert len(os.listdir(tmp_path / "a")) == 3
    save_tracks(path, random_tracks())
    assert os.listdir(tmp_path) == ["a.pt"]


def test_files_of_others_in_a_folder_of_that_name_stay(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "00007.pt").write_bytes(b"mine")
    save_tracks(tmp_path / "a.pt", random_tracks())
    save_tracks(tmp_path / "a.pt", brief_tracks())
    save_tracks(tmp_path / "a.pt", random_tracks())
    assert os.listdir(tmp_path / "a") == ["00007.pt"]


def test_a_lost_or_changed_part_is_named(tmp_path):
    path = tmp_path / "a.pt"
    save_tracks(path, brief_tracks())
    part = tmp_path / "a" / "00001.pt"
    content = part.read_bytes()
    part.write_bytes(content[:-9] + b"x" * 9)
    with pytest.raises(InputError, match=r"00001\.pt has changed"):
        load_tracks(path)
    part.unlink()
    with pytest.raises(InputError, match=r"00001\.pt is missing"):
        load_tracks(path)


@pytest.mark.parametrize(
    "change",
    [
        {"parts": {}},
        {"parts": ["00000.pt"]},
        {"parts": {"../a.pt": "0"}},
        {"parts": {3: "0"}},
        {"frame_indices": 3},
        {"frame_indices": torch.arange(LONG - 1)},
        {"K": torch.zeros(LONG, 3, 3)},
        {"width": -1},
    ],
)
def test_a_damaged_index_is_refused(tmp_path, change):
    path = tmp_path / "a.pt"
    save_tracks(path, brief_tracks())
    index = torch.load(path, weights_only=True)
    torch.save({**index, **change}, path)
    with pytest.raises(InputError, match="make"):
        load_tracks(path)


@pytest.mark.parametrize("numbers", [[0] * 40, [-1] * 40, list(range(1, 41)), [0.5] * 40, [0]])
def test_parts_that_number_their_tracks_wrongly_are_refused(tmp_path, numbers):
    path = tmp_path / "a.pt"
    tracks = brief_tracks(static=True)
    save_tracks(path, tracks)
    own = {}
    for name in ("00000.pt", "00001.pt", "00002.pt"):
        part = tmp_path / "a" / name
        data = torch.load(part, weights_only=True)
        torch.save({**data, NUMBERS: torch.tensor(numbers[: data["xy"].shape[1]])}, part)
        own[name] = track_file.hash_content(part)
    torch.save({**torch.load(path, weights_only=True), "parts": own}, path)
    with pytest.raises(InputError, match="number"):
        load_tracks(path)


def test_clips_of_one_window_have_one_file():
    assert WHOLE_FRAMES >= 2 * PART_FRAMES
