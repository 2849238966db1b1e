"""Cameras that a user gives: matched by name or number, and refused in words where they do not
fit."""

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from heard import Heard
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cameras import Cameras
from models.clip.frames_of import ClipFrames
from models.clip.transforms import load_lenses, load_transforms, save_transforms
from models.run.errors import InputError
from models.run.progress import SILENT, Progress
from models.sfm.colmap_files import measure_lens_shift, read_model
from models.sfm.known_cameras import read_cameras

WIDTH, HEIGHT = 200, 100
NAMES = [f"{i:05d}.png" for i in range(6)]


def some_cameras(num: int = 6) -> Cameras:
    pose = torch.eye(4, dtype=torch.float64).repeat(num, 1, 1)
    pose[:, 0, 3] = torch.arange(num)
    K = torch.tensor([[180.0, 0, 101], [0, 185, 49], [0, 0, 1]]).double().repeat(num, 1, 1)
    return Cameras(K, pose, WIDTH, HEIGHT)


def write_json(folder: Path, names: list[str], **more: object) -> Path:
    path = folder / "transforms.json"
    save_transforms(path, some_cameras(len(names)), list(range(len(names))), names)
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return path


def write_colmap(folder: Path, names: list[str], cameras: list[pycolmap.Camera]) -> Path:
    model = pycolmap.Reconstruction()
    for camera in cameras:
        model.add_camera_with_trivial_rig(camera)
    for i, name in enumerate(names):
        image = pycolmap.Image(
            name=name, camera_id=cameras[i % len(cameras)].camera_id, image_id=i + 1
        )
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(np.eye(3)), np.array([-float(i), 0, 0]))
        model.add_image_with_trivial_frame(image, pose)
    path = folder / "sparse"
    path.mkdir()
    model.write(path)
    return path


def radial(k: float, camera_id: int = 1, width: int = WIDTH) -> pycolmap.Camera:
    params = [180.0, width / 2, HEIGHT / 2, k]
    return pycolmap.Camera(
        model="SIMPLE_RADIAL", width=width, height=HEIGHT, params=params, camera_id=camera_id
    )


def read(
    path: Path,
    names: list[str] = NAMES,
    indices: list[int] | None = None,
    original_frames: int | None = None,
    progress: Progress = SILENT,
) -> Cameras:
    indices = np.array(indices or range(len(names)))
    taken = ClipFrames(indices, (WIDTH, HEIGHT), original_count=original_frames)
    return read_cameras(path, names, taken, progress)


def test_names_that_fit_in_part_are_refused_with_the_first_that_does_not(tmp_path):
    path = write_json(tmp_path, [*NAMES[:3], "x3.png", "x4.png", "x5.png"])
    with pytest.raises(InputError, match=r"no camera for 3 of the 6 frames, first 00003\.png"):
        read(path)


def test_a_file_of_another_number_of_cameras_without_fitting_names_is_refused(tmp_path):
    path = write_json(tmp_path, [f"other_{i}.png" for i in range(9)])
    with pytest.raises(
        InputError,
        match=r"holds 9 cameras, none under a frame's name \(other_0\.png, but 00000\.png\)",
    ):
        read(path, original_frames=6)


@pytest.mark.parametrize("original_frames", [9, None])
def test_cameras_of_the_whole_clip_are_taken_by_number_and_of_the_frames_taken_in_order(
    tmp_path, original_frames
):
    path = write_json(tmp_path, [f"other_{i}.png" for i in range(9)])
    cameras = read(path, ["0", "2", "4"], [0, 2, 4], original_frames=original_frames)
    assert cameras.centers[:, 0].tolist() == [0, 2, 4]
    path = write_json(tmp_path, ["a.png", "b.png", "c.png"])
    assert read(path, ["0", "2", "4"], [0, 2, 4], original_frames=9).centers[:, 0].tolist() == [
        0,
        1,
        2,
    ]


def test_cameras_of_images_of_another_shape_are_refused(tmp_path):
    path = write_json(tmp_path, NAMES)
    with pytest.raises(
        InputError, match=r"images are 200x100, the frames are 100x200.*neither cropped nor turned"
    ):
        read_cameras(path, NAMES, ClipFrames.in_order(6, (HEIGHT, WIDTH)))


def test_images_of_unlike_sizes_are_refused(tmp_path):
    path = write_json(tmp_path, NAMES)
    data = json.loads(path.read_text())
    data["frames"][3]["w"] = 300
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="unlike sizes"):
        load_transforms(path)
    with pytest.raises(InputError, match="200x100, 300x100"):
        read_model(write_colmap(tmp_path, NAMES, [radial(0), radial(0, 2, 300)]))


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.2, 0.2))
def test_the_shift_of_a_radial_lens_is_what_its_formula_says(k):
    shift = measure_lens_shift("SIMPLE_RADIAL", WIDTH, HEIGHT, [180.0, 100.0, 50.0, k])
    corner = (
        np.hypot(100, 50) / 180
    )  # image radius of the corner; its ray's r solves r + k r^3 = corner
    r = corner
    for _ in range(100):
        r -= (r + k * r**3 - corner) / (1 + 3 * k * r**2)
    assert shift == pytest.approx(180 * abs(r - corner), rel=1e-3, abs=1e-6)


def test_small_distortion_is_said_and_large_refused(tmp_path):
    heard = Heard()
    read(write_colmap(tmp_path, NAMES, [radial(0.005)]), progress=heard)
    assert len(heard.sentences) == 1 and "is left out" in heard.sentences[0]
    (tmp_path / "far").mkdir()
    with pytest.raises(
        InputError, match=r"distortion moves pixels by up to \d+, .*colmap image_undistorter"
    ):
        read(write_colmap(tmp_path / "far", NAMES, [radial(0.2)]))


def test_without_distortion_nothing_is_said(tmp_path):
    heard = Heard()
    read(write_json(tmp_path, NAMES), progress=heard)
    read(write_colmap(tmp_path, NAMES, [radial(0.0)]), progress=heard)
    assert heard.sentences == []


@pytest.mark.parametrize(
    ("lens", "says"),
    [
        ({"k1": 0.2}, "image_undistorter"),
        ({"p2": 0.05}, "image_undistorter"),
        ({"camera_model": "OPENCV", "k1": 0.1, "k3": 0.4}, "image_undistorter"),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.01}, "image_undistorter"),
        ({"is_fisheye": True}, "image_undistorter"),
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR has no straight lines"),
        ({"k1": "much"}, "is no number"),
    ],
)
def test_distortion_of_a_nerfstudio_file_is_refused(tmp_path, lens, says):
    with pytest.raises(InputError, match=says):
        read(write_json(tmp_path, NAMES, **lens))


def test_each_lens_of_a_nerfstudio_file_counts(tmp_path):
    path = write_json(tmp_path, NAMES)
    data = json.loads(path.read_text())
    data["frames"][4]["k1"] = 0.3
    path.write_text(json.dumps(data))
    assert len(load_lenses(path)) == 2
    with pytest.raises(InputError, match="lens distortion"):
        read(path)


def test_a_nerfstudio_file_may_carry_size_and_intrinsics_in_each_frame(tmp_path):
    path = write_json(tmp_path, NAMES)
    data = json.loads(path.read_text())
    shared = {key: data.pop(key) for key in ("w", "h", "fl_x", "fl_y", "cx", "cy")}
    for frame in data["frames"]:
        frame.update(shared)
    path.write_text(json.dumps(data))
    torch.testing.assert_close(read(path).K, some_cameras().K)
