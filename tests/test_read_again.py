"""What a script says that it wrote has been read again."""

import numpy as np
import pytest

from models.clip import VideoWriter, video_writer
from models.clip.video_writer import count_frames
from models.export.gltf import read_gltf
from models.run import InputError


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (7, 34, 52, 3), np.uint8)


def write(path, frames) -> None:
    with VideoWriter(path, 24) as video:
        for frame in frames:
            video.add(frame)


def test_a_video_holds_the_frames_that_were_given(tmp_path, frames):
    write(tmp_path / "odd 100% name.mp4", frames)
    assert count_frames(tmp_path / "odd 100% name.mp4") == len(frames)
    assert count_frames(tmp_path / "missing.mp4") == 0


def test_a_video_that_lacks_frames_gets_no_name(tmp_path, frames, monkeypatch):
    monkeypatch.setattr(video_writer, "count_frames", lambda path: 3)
    with pytest.raises(InputError, match="3 of 7 frames"):
        write(tmp_path / "short.mp4", frames)
    assert not list(tmp_path.iterdir())


def test_a_glb_that_is_cut_short_is_none(tmp_path):
    for data in (b"", b"glTF", b"no GLB at all, but long enough"):
        (tmp_path / "scene.glb").write_bytes(data)
        assert read_gltf(tmp_path / "scene.glb") is None
