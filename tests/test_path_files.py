"""Camera paths of nerfstudio's viewer and of glTF: written, read, and refused where damaged."""

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from models.cameras import Cameras
from models.export import write_camera_files
from models.export.gltf import AnimationWriter, GltfWriter
from models.paths import PathDefaults, read_path
from models.run import InputError

CLIP = PathDefaults(96, 64, 12.0)
FRAMES = 7


@pytest.fixture
def cameras() -> Cameras:
    """Cameras at random smooth poses, with the principal point in the middle."""
    rng = np.random.default_rng(4)
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    axis = rng.normal(size=3)
    turns = Rotation.from_rotvec(np.linspace(0.1, 1.2, FRAMES)[:, None] * axis)
    poses[:, :3, :3] = turns.as_matrix()
    poses[:, :3, 3] = rng.normal(size=(FRAMES, 3))
    K = torch.tensor([[70.0, 0, 48], [0, 70, 32], [0, 0, 1]], dtype=torch.float64)
    return Cameras(K.repeat(FRAMES, 1, 1), torch.from_numpy(poses), 96, 64)


@pytest.mark.parametrize("kind", ["json", "glb"])
def test_a_path_that_was_written_is_read_again(tmp_path: Path, cameras: Cameras, kind: str):
    times = [float(t) for t in range(FRAMES)]
    write_camera_files(tmp_path / "walk", (cameras, times), CLIP.fps)
    again, same_times = read_path(tmp_path / f"walk.{kind}", CLIP)
    assert same_times == times and (again.width, again.height) == (96, 64)
    torch.testing.assert_close(again.world_from_cam, cameras.world_from_cam, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.K, cameras.K, atol=1e-3, rtol=0)


def test_times_of_nerfstudio_are_kept(tmp_path: Path, cameras: Cameras):
    times = [3.0, 3.0, 3.5, 4.0, 4.5, 5.0, 5.25]
    write_camera_files(tmp_path / "walk", (cameras, times), 30.0)
    assert read_path(tmp_path / "walk.json", CLIP)[1] == times


def test_a_path_of_nerfstudios_own_viewer_plays_a_frame_a_camera(tmp_path: Path):
    pose = np.eye(4)
    pose[:3, 3] = [1, 2, 3]
    view = {"camera_to_world": pose.ravel().tolist(), "fov": 50, "aspect": 1.5}
    content = {"render_height": 100, "render_width": 150, "camera_path": [view, view]}
    (tmp_path / "camera_path.json").write_text(json.dumps(content))
    cameras, times = read_path(tmp_path / "camera_path.json", CLIP)
    assert times == [0, 1] and (cameras.width, cameras.height) == (150, 100)
    assert cameras.K[0, 1, 1] == pytest.approx(50 / math.tan(math.radians(25)))
    # OpenGL's axes look along -z
    assert cameras.world_from_cam[0, :3, 2].tolist() == [0, 0, -1]
    assert cameras.centers[1].tolist() == [1, 2, 3]


def test_nodes_above_the_camera_move_it_too(tmp_path: Path, cameras: Cameras):
    """As in a file of Blender, where an empty may carry the camera."""
    gltf = GltfWriter()
    animation = AnimationWriter(gltf)
    camera = gltf.add_camera("camera", cameras, 0)
    carrier = gltf.add_node({"name": "carrier", "children": [camera], "scale": [2, 2, 2]})
    gltf.root["nodes"][0]["children"].remove(camera)
    animation.animate(
        carrier, "translation", [0.0, 1.0], np.array([[0, 0, 0], [6, 0, 0.0]]), "LINEAR"
    )
    animation.finish("walk")
    gltf.write(tmp_path / "walk.glb")
    path, times = read_path(tmp_path / "walk.glb", CLIP)
    assert len(times) == 13
    start = 2 * cameras.centers[0]
    torch.testing.assert_close(path.centers[0], start, atol=1e-5, rtol=0)
    moved = start + torch.tensor([3.0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(path.centers[6], moved, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        path.world_from_cam[6, :3, :3], cameras.world_from_cam[0, :3, :3], atol=1e-5, rtol=0
    )


def test_files_without_a_camera_path_are_refused(tmp_path: Path, cameras: Cameras):
    gltf = GltfWriter()
    gltf.write(tmp_path / "none.glb")
    (tmp_path / "bad.glb").write_bytes(b"glTF")
    view = {"camera_to_world": [0.0] * 16, "fov": 50}
    (tmp_path / "flat.json").write_text(json.dumps({"camera_path": [view]}))
    (tmp_path / "empty.json").write_text(json.dumps({"camera_path": []}))
    (tmp_path / "words.json").write_text(json.dumps({"camera_path": ["a", "b"]}))
    mirrored = GltfWriter()
    node = mirrored.add_camera("camera", cameras, 0)
    mirrored.root["nodes"][node]["scale"] = [-1, 1, 1]
    mirrored.write(tmp_path / "mirrored.glb")
    names = (
        "mirrored.glb",
        "none.glb",
        "bad.glb",
        "flat.json",
        "empty.json",
        "words.json",
        "missing.glb",
    )
    for name in names:
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_path(tmp_path / name, CLIP)


@given(st.integers(0, 2**31), st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_damaged_files_end_in_a_sentence_or_in_a_path(seed: int, cut: int):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        pose = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
        K = torch.tensor([[70.0, 0, 48], [0, 70, 32], [0, 0, 1]]).double().repeat(2, 1, 1)
        pair = Cameras(K, pose, 96, 64)
        write_camera_files(Path(name) / "walk", (pair, [0.0, 1.0]), 12.0)
        path = Path(name) / "walk.glb"
        data = bytearray(path.read_bytes())
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data[: len(data) - cut])
        try:
            cameras, times = read_path(path, CLIP)
            assert len(cameras) == len(times)
        except InputError:
            pass
