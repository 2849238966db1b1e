"""Another program's 3D tracks: brought to the frames of this clip, joined with our own, their depth
in our scale."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from heard import Heard

from models.cameras import Cameras
from models.clip.video import Video
from models.depth.imported import Imported, align_imported, fitting_cameras, read_imported
from models.depth.mover_depth import merge_depth
from models.run.errors import InputError
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tracking.growing import grow_tracks
from models.tracks import PointTracks, Tracks

FRAMES, WIDTH, HEIGHT = 8, 160, 90
SCALE = 3.0
"""Units of the other program for one of the room."""


@functools.cache
def room() -> SyntheticScene:
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=1, num_tracks=900))


def clip(
    frames: int = FRAMES, taken: int = FRAMES, width: int = WIDTH, height: int = HEIGHT
) -> Video:
    """A clip of ``frames`` of which ``taken`` are worked on."""
    indices = np.arange(frames)[:: frames // taken]
    return Video(
        np.zeros((taken, height, width, 3), np.uint8),
        30.0,
        Path("clip"),
        indices,
        (width, height),
        frames,
    )


def other_world() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """The room as another program has it: intrinsics of images half as large, poses
    world-to-camera, points."""
    K = room().cameras.resized(WIDTH // 2, HEIGHT // 2).K.clone()
    K[:, :2, 2] -= 0.5  # the centre of the top-left pixel is (0, 0) there
    poses = room().cameras.cam_from_world.numpy().copy()
    poses[:, :3, 3] *= SCALE
    return K, poses, SCALE * room().track_xyz


def write_npz(path: Path, **more: np.ndarray) -> Path:
    K, poses, points = other_world()
    arrays = {
        "coords": points,
        "visibs": room().track_visible,
        "intrinsics": K.numpy(),
        "extrinsics": poses,
    }
    np.savez(
        path, **arrays | {"video": np.zeros((FRAMES, 3, HEIGHT // 2, WIDTH // 2), np.uint8)} | more
    )
    return path


def write_pt(path: Path, tracks_scale: float = 1.0, noise: float = 0.0) -> Path:
    """``tracks_scale``: of the 2D tracks' images against the frames; the intrinsics are always half
    the frames'."""
    K, poses, _ = other_world()
    world_from_cam = torch.linalg.inv(torch.from_numpy(poses))
    random = torch.Generator().manual_seed(0)
    world_from_cam[:, :3, 3] += noise * torch.randn((FRAMES, 3), generator=random)
    local = SCALE * room().cameras.to_camera(torch.from_numpy(room().track_xyz))
    xy = torch.from_numpy(room().track_xy) * tracks_scale - 0.5
    size = round(HEIGHT * tracks_scale), round(WIDTH * tracks_scale)
    data = {
        "track2d_pred": torch.cat([xy, local[..., 2:]], -1).float(),
        "track3d_pred": local.float(),
    }
    data |= {
        "vis_pred": torch.from_numpy(room().track_visible)[..., None].float(),
        "intrs": K.float(),
    }
    torch.save(data | {"c2w_traj": world_from_cam, "video": torch.zeros(FRAMES, 3, *size)}, path)
    return path


def assert_is_the_room(imported: Imported) -> None:
    seen = imported.visible
    assert (seen == room().track_visible).mean() > 0.999
    np.testing.assert_allclose(imported.xy[seen], room().track_xy[seen], atol=0.02)
    _, depth = room().cameras.project(torch.from_numpy(room().track_xyz))
    np.testing.assert_allclose(imported.depth[seen], SCALE * depth.numpy()[seen], rtol=1e-3)
    torch.testing.assert_close(imported.cameras.K, room().cameras.K, rtol=1e-3, atol=1e-2)


def test_an_npz_of_shrunk_images_is_brought_to_the_frames(tmp_path):
    assert_is_the_room(read_imported(write_npz(tmp_path / "a.npz"), clip()))


def test_the_intrinsics_own_size_counts_where_the_file_holds_several(tmp_path):
    video = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    depths = np.zeros((FRAMES, HEIGHT // 2, WIDTH // 2), np.float32)
    assert_is_the_room(
        read_imported(write_npz(tmp_path / "a.npz", video=video, depths=depths), clip())
    )


@pytest.mark.parametrize("tracks_scale", [1.0, 0.5])
def test_a_pt_is_brought_to_the_frames_whatever_was_shrunk(tmp_path, tracks_scale):
    assert_is_the_room(read_imported(write_pt(tmp_path / "a.pt", tracks_scale), clip()))


def test_the_frames_taken_are_picked_from_a_file_of_the_whole_clip(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    every_other = read_imported(path, clip(taken=FRAMES // 2))
    np.testing.assert_array_equal(every_other.visible, read_imported(path, clip()).visible[::2])
    with pytest.raises(
        InputError,
        match=r"holds 8 frames, expected 5 .* or the 10 of the clip; .*--max_frames and --stride",
    ):
        read_imported(path, clip(frames=10, taken=5))


def test_a_file_of_the_whole_clip_is_taken_where_the_length_of_the_clip_is_not_known(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    every_other = read_imported(path, replace(clip(taken=FRAMES // 2), original_frames=None))
    np.testing.assert_array_equal(every_other.visible, read_imported(path, clip()).visible[::2])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"gone\.npz: there is no such file; give the \.npz or \.pt"
    ):
        read_imported(tmp_path / "gone.npz", clip())


def test_a_file_of_images_of_another_shape_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"images of 80x45, the frames are 90x160"):
        read_imported(write_npz(tmp_path / "a.npz"), clip(width=HEIGHT, height=WIDTH))


def test_cameras_that_explain_the_tracks_are_used_and_others_are_not(tmp_path):
    heard = Heard()
    good = read_imported(write_npz(tmp_path / "a.npz"), clip())
    assert fitting_cameras(good, heard) is good.cameras
    bad = read_imported(write_pt(tmp_path / "a.pt", noise=0.5), clip())
    assert fitting_cameras(bad, heard) is None
    assert "used as they are" in heard.sentences[0] and "solved anew" in heard.sentences[1]


def test_our_own_tracks_fill_what_imported_ones_leave(tmp_path):
    imported = read_imported(write_npz(tmp_path / "a.npz"), clip())
    left = imported.visible & (imported.xy[..., 0] < 70)
    begun = PointTracks(imported.xy, left, WIDTH, HEIGHT)
    tracks = grow_tracks(room().frames, begun=begun)
    xy, visible = tracks.xy, tracks.visible
    theirs = {path.tobytes() for path in imported.xy.swapaxes(0, 1)}
    own = np.array([path.tobytes() not in theirs for path in xy.swapaxes(0, 1)])
    assert 20 < own.sum() < len(own)
    right = (visible & (xy[..., 0] > 90)).any(0)
    assert own[right].all()
    begun = PointTracks(imported.xy, imported.visible, WIDTH, HEIGHT)
    masked = grow_tracks(room().frames, allowed=room().masks, begun=begun)
    x, y = (
        masked.xy[..., 0].astype(int).clip(0, WIDTH - 1),
        masked.xy[..., 1].astype(int).clip(0, HEIGHT - 1),
    )
    assert room().masks[np.arange(FRAMES)[:, None], y, x][masked.visible].all()


def background() -> Tracks:
    """The true static points, in the room's own scale."""
    keep = ~room().track_is_foreground
    xy, visible = (
        torch.from_numpy(room().track_xy[:, keep]).float(),
        torch.from_numpy(room().track_visible[:, keep]),
    )
    xyz = torch.from_numpy(room().track_xyz[:1, keep]).float().expand(FRAMES, -1, -1)
    cameras: Cameras = room().cameras
    return Tracks(
        xy, visible, visible.float(), xyz, cameras.K, cameras.world_from_cam, WIDTH, HEIGHT, 30.0,
        torch.arange(FRAMES), "background", "clip",
    )  # fmt: skip


def test_imported_depth_comes_in_the_backgrounds_scale(tmp_path):
    imported = read_imported(write_npz(tmp_path / "a.npz"), clip())
    depth = align_imported(imported, background())
    np.testing.assert_allclose(depth.scale, 1 / SCALE, rtol=0.02)
    own = room().track_is_foreground & (room().track_visible.sum(0) >= 3)
    xy, visible = room().track_xy[:, own], room().track_visible[:, own]
    _, truth = (
        v.numpy() for v in room().cameras.project(torch.from_numpy(room().track_xyz[:, own]))
    )
    contact = np.repeat(1.1 * np.median(truth, 1, keepdims=True), own.sum(), 1)
    found = merge_depth(
        depth, PointTracks(xy, visible, WIDTH, HEIGHT), np.ones(own.sum(), int), contact
    )
    assert np.median(np.abs(found / truth - 1)[visible]) < 0.3 * np.median(
        np.abs(contact / truth - 1)[visible]
    )
    far, spread = depth.at(3, np.array([[-500.0, -500.0]]))
    assert np.isnan(far).all() and np.isnan(spread).all()


def test_a_file_without_background_points_has_no_scale(tmp_path):
    imported = read_imported(write_npz(tmp_path / "a.npz"), clip())
    with pytest.raises(InputError, match=r"a\.npz: hardly any of its points lie on the background"):
        align_imported(replace(imported, visible=np.zeros_like(imported.visible)), background())
