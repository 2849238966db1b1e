"""foreground_points.py on masks of every kind: movers that come, go, hide, fill the image, or are
not there."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import foreground_points
from models.clip.images import write_images
from models.run.errors import InputError, run_script
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tracks import Tracks, load_tracks, save_tracks
from models.tracks.thumbnails import make_thumbnails

FRAMES, WIDTH, HEIGHT = 8, 160, 96


@pytest.fixture(scope="module")
def room() -> SyntheticScene:
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=1))


@pytest.fixture
def clip(room, tmp_path) -> Path:
    write_images(tmp_path / "frames", room.frames, range(FRAMES))
    still = ~room.track_is_foreground
    visible = torch.from_numpy(room.track_visible[:, still])
    background = Tracks(
        xy=torch.from_numpy(room.track_xy[:, still]).float(),
        visible=visible,
        confidence=visible.float(),
        xyz=torch.from_numpy(room.track_xyz[0, still]).float()[None].expand(FRAMES, -1, -1),
        K=room.cameras.K,
        world_from_cam=room.cameras.world_from_cam,
        width=WIDTH,
        height=HEIGHT,
        fps=24.0,
        frame_indices=torch.arange(FRAMES),
        layer="background",
        video_path=str(tmp_path / "frames"),
    )
    save_tracks(tmp_path / "background_points.pt", background)
    return tmp_path


def movers(clip: Path, masks: np.ndarray, monkeypatch) -> Tracks:
    """The track file that foreground_points.py makes of these masks."""
    write_images(clip / "given", masks.astype(np.uint8) * 255, range(len(masks)))
    run(clip, monkeypatch)
    return load_tracks(clip / "foreground_points.pt")


def run(clip: Path, monkeypatch) -> None:
    flags = ["--video_path", clip / "frames", "--mask_path", clip / "given"]
    flags += ["--background_path", clip / "background_points.pt"]
    monkeypatch.setattr(sys, "argv", ["foreground_points.py", *map(str, flags)])
    foreground_points.main()


def refusal(clip: Path, monkeypatch, capfd) -> str:
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: run(clip, monkeypatch))
    assert ended.value.code == 2
    assert not (clip / "foreground_points.pt").exists()
    return capfd.readouterr().err


def inside(tracks: Tracks, masks: np.ndarray) -> np.ndarray:
    """For each sighting, whether it lies on the mask."""
    t, n = np.nonzero(tracks.visible.numpy())
    x, y = tracks.xy.numpy()[t, n].astype(int).clip(0, [WIDTH - 1, HEIGHT - 1]).T
    return masks[t, y, x]


def check(tracks: Tracks, masks: np.ndarray) -> None:
    assert tracks.layer == "foreground" and len(tracks) == FRAMES
    assert tracks.num_tracks > 0
    assert torch.isfinite(tracks.xyz).all() and torch.isfinite(tracks.canonical).all()
    assert inside(tracks, masks).all()
    depth = tracks.cameras.project(tracks.xyz.double())[1].numpy()
    assert (depth[tracks.visible.numpy()] > 0).all()


def test_a_mover_all_along(clip, room, monkeypatch):
    check(movers(clip, room.masks, monkeypatch), room.masks)


@pytest.mark.parametrize(
    "absent", [[0, 1, 2], [5, 6, 7], [3, 4]], ids=["enters", "leaves", "hidden for a while"]
)
def test_a_mover_absent_from_some_frames(clip, room, monkeypatch, absent):
    masks = room.masks.copy()
    masks[absent] = False
    tracks = movers(clip, masks, monkeypatch)
    check(tracks, masks)
    assert not tracks.visible[absent].any()


def test_a_mover_seen_in_one_frame_only(clip, room, monkeypatch, capfd):
    masks = np.zeros_like(room.masks)
    masks[4] = room.masks[4]
    assert movers(clip, masks, monkeypatch).num_tracks == 0
    assert "can be tracked" in capfd.readouterr().out


def test_a_mover_that_fills_most_of_the_image(clip, room, monkeypatch):
    masks = np.ones_like(room.masks)
    masks[:, :, :20] = False
    check(movers(clip, masks, monkeypatch), masks)


def test_masks_that_are_all_white(clip, room, monkeypatch):
    masks = np.ones_like(room.masks)
    check(movers(clip, masks, monkeypatch), masks)


def test_masks_that_are_all_black_give_an_empty_file_and_a_sentence(clip, room, monkeypatch, capfd):
    tracks = movers(clip, np.zeros_like(room.masks), monkeypatch)
    assert tracks.num_tracks == 0
    assert "nothing moves" in capfd.readouterr().out


def test_two_movers_apart_get_two_labels(clip, room, monkeypatch):
    masks = np.zeros_like(room.masks)
    masks[:, 20:50, 10:50] = masks[:, 40:80, 100:150] = True
    tracks = movers(clip, masks, monkeypatch)
    check(tracks, masks)
    assert set(tracks.label.tolist()) == {1, 2}
    x = tracks.xy[..., 0]
    for n, label in enumerate(tracks.label.tolist()):
        left = x[tracks.visible[:, n], n] < 75
        assert left.all() or not left.any()
        assert label in (1, 2)


def test_another_clip_of_the_same_size_and_length_is_refused(clip, room, monkeypatch):
    tracks = load_tracks(clip / "background_points.pt")
    save_tracks(
        clip / "background_points.pt",
        replace(tracks, thumbnails=make_thumbnails(room.frames[::-1])),
    )
    with pytest.raises(InputError, match=r"shows other pictures.*--background_path"):
        movers(clip, room.masks, monkeypatch)


def test_masks_with_a_gap_are_refused(clip, room, monkeypatch, capfd):
    keep = [0, 1, 2, 5, 6, 7]
    write_images(clip / "given", room.masks[keep].astype(np.uint8) * 255, keep)
    assert "given" in refusal(clip, monkeypatch, capfd)


def test_masks_of_another_shape_are_refused(clip, room, monkeypatch, capfd):
    write_images(clip / "given", room.masks[:, :40].astype(np.uint8) * 255, range(FRAMES))
    assert "given" in refusal(clip, monkeypatch, capfd)
