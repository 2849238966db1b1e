import os
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from models.run.errors import InputError
from models.tracks import (
    Tracks,
    check_content,
    find_clip,
    load_tracks,
    look_alike,
    save_tracks,
)
from models.tracks.thumbnails import make_thumbnails


def random_tracks(
    num_frames: int = 5, num: int = 7, seed: int = 0, static: bool = False, extra: bool = False
) -> Tracks:
    generator = torch.Generator().manual_seed(seed)
    poses = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    turns = Rotation.random(num_frames, rng=np.random.default_rng(seed)).as_matrix()
    poses[:, :3, :3] = torch.from_numpy(turns)
    poses[:, :3, 3] = torch.randn(num_frames, 3, generator=generator, dtype=torch.float64)
    K = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]], dtype=torch.float64).repeat(
        num_frames, 1, 1
    )
    xyz = torch.randn(1 if static else num_frames, num, 3, generator=generator).expand(
        num_frames, num, 3
    )
    visible = torch.rand(num_frames, num, generator=generator) < 0.7
    xy = torch.rand(num_frames, num, 2, generator=generator) * 64
    xy[~visible] = torch.nan
    return Tracks(
        xy=xy,
        visible=visible,
        confidence=torch.rand(num_frames, num, generator=generator),
        xyz=xyz,
        K=K,
        world_from_cam=poses,
        width=64,
        height=48,
        fps=24.0,
        frame_indices=torch.arange(num_frames) * 2,
        layer="foreground" if extra else "background",
        video_path="clips/a.mp4",
        canonical=torch.randn(num, 3, generator=generator) if extra else None,
        clip_place="/films/a.mp4" if static else None,
        thumbnails=torch.randint(256, (8, 18, 32), generator=generator).byte() if static else None,
        label=torch.arange(num) if extra else None,
    )


def as_dict(tracks: Tracks) -> dict:
    data = {field.name: getattr(tracks, field.name) for field in fields(tracks)}
    return {"format_version": 1, **{key: value for key, value in data.items() if value is not None}}


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 9), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_tracks_load_as_saved(tmp_path_factory, seed, num_frames, num, static, extra):
    path = tmp_path_factory.mktemp("tracks") / "a.pt"
    tracks = random_tracks(num_frames, num, seed, static, extra)
    save_tracks(path, tracks)
    loaded = load_tracks(path)
    for field in fields(Tracks):
        expected, found = getattr(tracks, field.name), getattr(loaded, field.name)
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        else:
            assert found == expected
    assert os.listdir(path.parent) == ["a.pt"]
    assert torch.load(path, weights_only=True)["format_version"] == 1


def test_cameras_are_those_of_the_file():
    tracks = random_tracks()
    cameras = tracks.cameras
    assert (cameras.width, cameras.height, len(cameras)) == (64, 48, len(tracks))
    assert cameras.K is tracks.K and cameras.world_from_cam is tracks.world_from_cam


def test_static_points_are_stored_once_and_stay_expanded(tmp_path):
    expanded = random_tracks(50, 1000, static=True)
    repeated = replace(expanded, xyz=expanded.xyz.contiguous())
    double = replace(expanded, xyz=expanded.xyz[:1].double().expand(50, -1, -1))
    sizes = []
    for tracks in (expanded, repeated, double):
        save_tracks(tmp_path / "a.pt", tracks)
        assert load_tracks(tmp_path / "a.pt").xyz.stride(0) == 0
        sizes.append((tmp_path / "a.pt").stat().st_size)
    save_tracks(tmp_path / "a.pt", random_tracks(50, 1000))
    assert max(sizes) - min(sizes) < 2000
    assert (tmp_path / "a.pt").stat().st_size - sizes[0] > 0.9 * 49 * 1000 * 12


def test_a_part_of_larger_tensors_is_saved_without_the_rest(tmp_path):
    tracks = random_tracks(5, 5000)
    save_tracks(
        tmp_path / "a.pt",
        replace(random_tracks(5, 10), xy=tracks.xy[:, :10], visible=tracks.visible[:, :10]),
    )
    assert (tmp_path / "a.pt").stat().st_size < 20_000


def test_tracks_that_would_not_load_are_not_saved(tmp_path):
    tracks = random_tracks()
    with pytest.raises(ValueError, match="visible"):
        save_tracks(tmp_path / "a.pt", replace(tracks, visible=torch.ones_like(tracks.visible)))
    with pytest.raises(InputError, match="cannot be written"):
        save_tracks(tmp_path / "missing" / "a.pt", tracks)
    assert not list(tmp_path.iterdir())


def with_value(key: str, change) -> dict:
    data = as_dict(random_tracks(extra=True))
    value = data.get(key)
    data[key] = change(value.clone() if isinstance(value, torch.Tensor) else value)
    return data


def filled(value: float):
    return lambda tensor: tensor.fill_(value)


def huge(*shape: int, dtype=torch.float32):
    return lambda _: torch.zeros((), dtype=dtype).expand(shape)


BROKEN = {
    "another format": ("format_version", lambda _: 2, "format 1"),
    "format as text": ("format_version", lambda _: "1", "format 1"),
    "unknown layer": ("layer", lambda _: "sky", "layer"),
    "width as text": ("width", lambda _: "64", "width"),
    "width is zero": ("width", lambda _: 0, "size"),
    "absurd height": ("height", lambda _: 10**12, "size"),
    "fps is NaN": ("fps", lambda _: float("nan"), "fps"),
    "path is a number": ("video_path", lambda _: 3, "video_path"),
    "place is a number": ("clip_place", lambda _: 3, "clip_place"),
    "thumbnails of another size": (
        "thumbnails",
        lambda _: torch.zeros(3, 18, 32, dtype=torch.uint8),
        "thumbnails",
    ),
    "xy is text": ("xy", lambda _: "none", "xy"),
    "xy in whole numbers": ("xy", lambda t: t.nan_to_num().long(), "xy"),
    "xy is complex": ("xy", lambda t: t.to(torch.complex64), "xy"),
    "xy is sparse": ("xy", lambda t: t.nan_to_num().to_sparse(), "."),
    "xy of 3 columns": ("xy", lambda t: torch.zeros(5, 7, 3), "xy"),
    "xy without points": ("xy", lambda t: t[:, :0], "points"),
    "xy NaN where visible": ("xy", filled(float("nan")), "xy"),
    "xy claims too much": ("xy", huge(5, 7, 2), "claims"),
    "absurd shape": ("xy", huge(10**6, 10**6, 2), "."),
    "visible as numbers": ("visible", lambda t: t.float(), "visible"),
    "visible transposed": ("visible", lambda t: t.T, "visible"),
    "confidence infinite": ("confidence", filled(float("inf")), "confidence"),
    "xyz of fewer points": ("xyz", lambda t: t[:, :4], "xyz"),
    "xyz NaN where visible": ("xyz", filled(float("nan")), "xyz"),
    "one frame fewer of K": ("K", lambda t: t[1:], "K"),
    "K of zeros": ("K", filled(0), "K"),
    "K is NaN": ("K", filled(float("nan")), "camera"),
    "scaled pose": ("world_from_cam", lambda t: t * 2, "rigid"),
    "mirrored pose": (
        "world_from_cam",
        lambda t: t @ torch.diag(torch.tensor([-1.0, 1, 1, 1]).double()),
        "rigid",
    ),
    "pose with another last row": (
        "world_from_cam",
        lambda t: t + torch.eye(4)[3:].T.double() * 0.1,
        "rigid",
    ),
    "infinite pose": ("world_from_cam", filled(float("inf")), "camera"),
    "frames that do not rise": ("frame_indices", lambda t: t.flip(0), "frame_indices"),
    "negative frames": ("frame_indices", lambda t: t - 3, "frame_indices"),
    "canonical of other points": ("canonical", lambda t: t[:2], "canonical"),
    "canonical NaN": ("canonical", filled(float("nan")), "canonical"),
    "label as numbers with a point": ("label", lambda t: t.float(), "label"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_breaks_a_rule_is_refused_by_name(tmp_path, name):
    key, change, reason = BROKEN[name]
    torch.save(with_value(key, change), tmp_path / "a.pt")
    with pytest.raises(InputError, match=reason) as caught:
        load_tracks(tmp_path / "a.pt")
    assert "a.pt" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", [key for key in as_dict(random_tracks())])
def test_a_file_that_lacks_a_field_is_refused(tmp_path, key):
    data = as_dict(random_tracks())
    del data[key]
    torch.save(data, tmp_path / "a.pt")
    with pytest.raises(InputError, match="format" if key == "format_version" else key):
        load_tracks(tmp_path / "a.pt")


class Code:
    """Unpickling this would call os.mkdir."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_pickled_code_is_refused_and_never_run(tmp_path):
    torch.save(
        {**as_dict(random_tracks()), "layer": Code(str(tmp_path / "made"))}, tmp_path / "a.pt"
    )
    with pytest.raises(InputError, match="never run"):
        load_tracks(tmp_path / "a.pt")
    assert not (tmp_path / "made").exists()


@given(st.floats(0, 1), st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_cut_or_damaged_file_is_refused_or_still_valid(tmp_path_factory, share, cut):
    path = tmp_path_factory.mktemp("tracks") / "a.pt"
    save_tracks(path, random_tracks())
    data = bytearray(path.read_bytes())
    at = int(share * (len(data) - 1))
    path.write_bytes(data[:at] if cut else data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    if cut:
        with pytest.raises(InputError, match=r"a\.pt"):
            load_tracks(path)
    else:
        try:
            load_tracks(path)
        except InputError as error:
            assert "a.pt" in str(error)


def test_other_files_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({1: 2}, tmp_path / "numbers.pt")
    (tmp_path / "text.pt").write_text("words")
    (tmp_path / "void.pt").touch()
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "text.npz").write_text("words")
    for name in (
        "list.pt",
        "numbers.pt",
        "text.pt",
        "void.pt",
        "folder.pt",
        "missing.pt",
        "text.npz",
    ):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            load_tracks(tmp_path / name)


def seen_points(seed: int = 0) -> tuple[Tracks, torch.Tensor]:
    """Tracks whose pixels are their projected points, all before their cameras, and the points in
    camera axes."""
    tracks = random_tracks(seed=seed)
    local = (
        torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1
    )
    poses = tracks.world_from_cam
    xyz = local @ poses[:, :3, :3].transpose(1, 2) + poses[:, None, :3, 3]
    return replace(tracks, xyz=xyz.float(), xy=tracks.cameras.project(xyz)[0].float()), local


def half_pixel_less(K: torch.Tensor) -> torch.Tensor:
    K = K.clone()
    K[:, :2, 2] -= 0.5
    return K


def spatracker_data(tracks: Tracks, local: torch.Tensor) -> dict:
    return {
        "track2d_pred": torch.cat([tracks.xy - 0.5, local[..., 2:].float()], 2),
        "track3d_pred": torch.cat([local, torch.zeros_like(local)], 2).float(),
        "vis_pred": tracks.visible[..., None].float() * 0.8 + 0.1,
        "conf_pred": tracks.confidence[..., None],
        "intrs": half_pixel_less(tracks.K).float(),
        "extrs": tracks.world_from_cam,
        "c2w_traj": tracks.world_from_cam.bfloat16(),
        "video": torch.zeros(5, 3, 48, 64),
    }


def assert_same_scene(loaded: Tracks, tracks: Tracks, atol: float) -> None:
    assert (loaded.width, loaded.height, loaded.layer) == (64, 48, "background")
    torch.testing.assert_close(loaded.visible, tracks.visible)
    torch.testing.assert_close(loaded.K, tracks.K, atol=1e-4, rtol=0)
    torch.testing.assert_close(loaded.world_from_cam, tracks.world_from_cam, atol=atol, rtol=0)
    torch.testing.assert_close(loaded.xyz, tracks.xyz, atol=4 * atol, rtol=0)
    torch.testing.assert_close(loaded.xy, tracks.xy, atol=1e-2, rtol=0)
    projected, _ = loaded.cameras.project(loaded.xyz.double())
    torch.testing.assert_close(projected.float(), loaded.xy, atol=0.05, rtol=0)


def test_the_tensors_of_a_spatracker_script_are_read(tmp_path):
    tracks, local = seen_points()
    data = spatracker_data(tracks, local)
    torch.save(data, tmp_path / "clip_background.pt")
    assert_same_scene(load_tracks(tmp_path / "clip_background.pt"), tracks, atol=0.02)
    del data["c2w_traj"]
    torch.save(data, tmp_path / "a.pt")
    assert_same_scene(load_tracks(tmp_path / "a.pt"), tracks, atol=1e-5)
    torch.save(data, tmp_path / "clip_foreground.pt")
    assert load_tracks(tmp_path / "clip_foreground.pt").layer == "foreground"


@pytest.mark.parametrize("layout", ["video", "depths", "size", "none"])
def test_the_npz_of_tapip3d_is_read(tmp_path, layout):
    tracks, _ = seen_points()
    sizes = {
        "video": {"video": np.zeros((5, 3, 48, 64), np.float32)},
        "depths": {"depths": np.zeros((5, 48, 64), np.float32)},
        "size": {"width": 64, "height": 48},
        "none": {},
    }
    K = half_pixel_less(tracks.K)
    arrays = {
        "coords": tracks.xyz,
        "visibs": tracks.visible,
        "intrinsics": K,
        "extrinsics": tracks.cameras.cam_from_world,
    }
    np.savez(
        tmp_path / "a.npz", **{key: value.numpy() for key, value in arrays.items()}, **sizes[layout]
    )
    if layout == "none":
        tracks = replace(
            tracks, width=63, height=47
        )  # the principal point is all there is to go by
        loaded = load_tracks(tmp_path / "a.npz")
        assert (loaded.width, loaded.height) == (63, 47)
        return
    assert_same_scene(load_tracks(tmp_path / "a.npz"), tracks, atol=1e-5)


def test_incomplete_or_unsafe_files_of_other_programs_are_refused(tmp_path):
    tracks, local = seen_points()
    data = spatracker_data(tracks, local)
    for key in ("track2d_pred", "vis_pred", "track3d_pred", "intrs"):
        torch.save({k: v for k, v in data.items() if k != key}, tmp_path / "a.pt")
        with pytest.raises(InputError, match=key):
            load_tracks(tmp_path / "a.pt")
        torch.save({**data, key: torch.zeros(2, 2)}, tmp_path / "a.pt")
        with pytest.raises(InputError, match=r"a\.pt"):
            load_tracks(tmp_path / "a.pt")
    for scale in (torch.nan, 2.0):
        torch.save({**data, "c2w_traj": tracks.world_from_cam * scale}, tmp_path / "a.pt")
        with pytest.raises(InputError, match="pose"):
            load_tracks(tmp_path / "a.pt")
    np.savez(tmp_path / "objects.npz", coords=np.array([Code("x")], object))
    with pytest.raises(InputError, match=r"objects\.npz"):
        load_tracks(tmp_path / "objects.npz")
    np.savez(tmp_path / "few.npz", coords=np.zeros((5, 7, 3)), visibs=np.zeros((5, 7)))
    with pytest.raises(InputError, match="intrinsics"):
        load_tracks(tmp_path / "few.npz")


def filmed_tracks(clip: str, place: str | None = None) -> Tracks:
    return replace(random_tracks(), video_path=clip, clip_place=place)


def test_a_track_file_finds_its_clip_here_at_its_old_place_or_beside_it(tmp_path, monkeypatch):
    (tmp_path / "here" / "films").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "t.pt"
    clip = tmp_path / "here" / "films" / "b.mp4"
    clip.touch()
    monkeypatch.chdir(tmp_path / "here")
    assert find_clip(filmed_tracks("films/b.mp4"), path) == Path("films/b.mp4")
    monkeypatch.chdir(tmp_path)
    assert find_clip(filmed_tracks("films/b.mp4", str(clip)), path) == clip
    for tracks in (filmed_tracks("films/b.mp4", "/absent/b.mp4"), filmed_tracks("films/b.mp4")):
        with pytest.raises(InputError, match=r"t\.pt: its clip films/b\.mp4 is .*--video_path"):
            find_clip(tracks, path)
        clip.rename(tmp_path / "results" / "b.mp4")
        assert find_clip(tracks, path) == tmp_path / "results" / "b.mp4"
        (tmp_path / "results" / "b.mp4").rename(clip)
    with pytest.raises(InputError, match="does not say which clip"):
        find_clip(filmed_tracks(""), path)


def paint_clip(seed: int, num_frames: int = 11) -> np.ndarray:
    """Frames of a smooth pattern that drifts."""
    random = np.random.default_rng(seed)
    pattern = cv2.resize(random.integers(0, 256, (7, 12, 3)).astype(np.uint8), (120, 48))
    return np.stack([np.roll(pattern, 2 * t, axis=1)[:, :64] for t in range(num_frames)])


def test_frames_of_another_clip_are_told_from_the_same_frames_encoded_anew(tmp_path):
    frames = paint_clip(0)
    tracks = replace(random_tracks(), thumbnails=make_thumbnails(frames))
    noise = np.random.default_rng(1).normal(0, 6, frames.shape)
    again = np.clip(frames + noise, 0, 255).astype(np.uint8)
    check_content(tracks, tmp_path / "t.pt", again, tmp_path / "clip")
    for other in (paint_clip(2), frames[::-1], frames[:, :, ::-1], frames // 2):
        with pytest.raises(InputError, match=r"shows other pictures.*--video_path"):
            check_content(tracks, tmp_path / "t.pt", other, tmp_path / "clip")
    check_content(random_tracks(), tmp_path / "t.pt", paint_clip(3), tmp_path / "clip")


def test_a_clip_of_few_frames_or_pixels_has_thumbnails_too():
    small = paint_clip(0, 2)[:, ::8, ::8]
    assert look_alike(make_thumbnails(small), make_thumbnails(small))
    assert not look_alike(make_thumbnails(small), make_thumbnails(small[:, ::-1]))
