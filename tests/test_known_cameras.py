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
from models.clip import Lens
from models.clip.frames_of import ClipFrames
from models.clip.transforms import load_transforms, save_transforms
from models.run.errors import InputError
from models.run.progress import SILENT, Progress
from models.sfm.colmap_files import read_model
from models.sfm.given import KnownCameras, read_cameras

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


def know(
    path: Path,
    names: list[str] = NAMES,
    indices: list[int] | None = None,
    original_frames: int | None = None,
    progress: Progress = SILENT,
) -> KnownCameras:
    indices = np.array(indices or range(len(names)))
    taken = ClipFrames(indices, (WIDTH, HEIGHT), original_count=original_frames)
    return read_cameras(path, names, taken, progress)


def read(*args: object, **more: object) -> Cameras:
    return know(*args, **more).cameras


def positions(known: KnownCameras) -> list[float]:
    """The number that ``some_cameras`` gave each camera."""
    return known.cameras.centers[:, 0].tolist()


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
    shift = Lens("SIMPLE_RADIAL", (180.0, 100.0, 50.0, k), WIDTH, HEIGHT).shift
    corner = (
        np.hypot(100, 50) / 180
    )  # image radius of the corner; its ray's r solves r + k r^3 = corner
    r = corner
    for _ in range(100):
        r -= (r + k * r**3 - corner) / (1 + 3 * k * r**2)
    assert shift == pytest.approx(180 * abs(r - corner), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("k", [0.005, 0.2, -0.15])
def test_the_lens_of_a_colmap_model_comes_with_cameras_of_the_straight_images(tmp_path, k):
    known = know(write_colmap(tmp_path, NAMES, [radial(k)]))
    assert known.lenses == (Lens("SIMPLE_RADIAL", (180.0, 100.0, 50.0, k), WIDTH, HEIGHT),) * 6
    np.testing.assert_allclose(known.cameras.K[3], known.lenses[3].undistorted_K)


def test_each_image_of_a_colmap_model_may_have_a_lens_of_its_own(tmp_path):
    lenses = [radial(0.1 + 0.01 * i, i + 1) for i in range(6)]
    known = know(write_colmap(tmp_path, NAMES, lenses))
    assert [lens.params[3] for lens in known.lenses] == [0.1 + 0.01 * i for i in range(6)]


def test_without_distortion_nothing_is_said(tmp_path):
    heard = Heard()
    read(write_json(tmp_path, NAMES), progress=heard)
    read(write_colmap(tmp_path, NAMES, [radial(0.0)]), progress=heard)
    slight = know(
        write_json(tmp_path, NAMES, camera_model="SIMPLE_RADIAL", k1=3e-4), progress=heard
    )
    assert slight.lenses is None
    torch.testing.assert_close(slight.cameras.K, some_cameras().K)
    assert heard.sentences == []


STRAIGHT = (180.0, 185.0, 101.0, 49.0)


@pytest.mark.parametrize(
    ("entries", "model", "coefficients"),
    [
        ({"k1": 0.2}, "OPENCV", (0.2, 0, 0, 0)),
        ({"p2": 0.02, "camera_model": "opencv"}, "OPENCV", (0, 0, 0, 0.02)),
        ({"camera_model": "SIMPLE_RADIAL", "k1": -0.1}, "OPENCV", (-0.1, 0, 0, 0)),
        ({"camera_model": "RADIAL", "k1": -0.1, "k2": 0.02}, "OPENCV", (-0.1, 0.02, 0, 0)),
        ({"k1": 0.1, "k3": 0.4}, "NERFSTUDIO", (0.1, 0, 0, 0, 0.4, 0)),
        ({"k4": 0.1}, "NERFSTUDIO", (0, 0, 0, 0, 0, 0.1)),
        ({"camera_model": "FULL_OPENCV", "k6": 0.2}, "FULL_OPENCV", (0,) * 7 + (0.2,)),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.01}, "OPENCV_FISHEYE", (0.01, 0, 0, 0)),
        ({"camera_model": "RADIAL_FISHEYE", "k2": 0.01}, "OPENCV_FISHEYE", (0, 0.01, 0, 0)),
        ({"is_fisheye": True}, "OPENCV_FISHEYE", (0, 0, 0, 0)),
        ({"distortion_params": [0.1, 0.03, 0, 0, 0, 0.01]}, "OPENCV", (0.1, 0.03, 0, 0.01)),
    ],
)
def test_the_lens_of_a_nerfstudio_file_is_read(tmp_path, entries, model, coefficients):
    known = know(write_json(tmp_path, NAMES, **entries))
    assert set(known.lenses) == {Lens(model, (*STRAIGHT, *coefficients), WIDTH, HEIGHT)}
    np.testing.assert_allclose(known.cameras.K[0], known.lenses[0].undistorted_K)


@pytest.mark.parametrize(
    ("lens", "says"),
    [
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR has no straight lines"),
        ({"k1": "much"}, "is no number"),
        ({"k1": 10**400}, "is no number"),
        ({"distortion_params": [0.1, 0.2]}, "is no number"),
        ({"camera_model": "OPENCV_FISHEYE", "fl_x": 45, "fl_y": 45}, "150 degrees or more"),
        ({"k1": -4.0}, "no pinhole camera shows its images"),
    ],
)
def test_a_lens_that_no_pinhole_shows_is_refused(tmp_path, lens, says):
    with pytest.raises(InputError, match=says):
        read(write_json(tmp_path, NAMES, **lens))


def test_each_lens_of_a_nerfstudio_file_counts(tmp_path):
    path = write_json(tmp_path, NAMES)
    data = json.loads(path.read_text())
    data["frames"][4]["k1"] = 0.3
    path.write_text(json.dumps(data))
    assert [lens.params[4] for lens in know(path).lenses] == [0, 0, 0, 0, 0.3, 0]


def test_a_lens_is_given_at_the_size_of_the_frames(tmp_path):
    path = write_json(tmp_path, NAMES, k1=0.2)
    half = ClipFrames.in_order(6, (WIDTH // 2, HEIGHT // 2))
    known = read_cameras(path, NAMES, half)
    assert known.lenses[0] == know(path).lenses[0].resized(WIDTH // 2, HEIGHT // 2)
    torch.testing.assert_close(known.cameras.K, read(path).resized(*half.size).K)


def test_a_nerfstudio_file_may_carry_size_and_intrinsics_in_each_frame(tmp_path):
    path = write_json(tmp_path, NAMES)
    data = json.loads(path.read_text())
    shared = {key: data.pop(key) for key in ("w", "h", "fl_x", "fl_y", "cx", "cy")}
    for frame in data["frames"]:
        frame.update(shared)
    path.write_text(json.dumps(data))
    torch.testing.assert_close(read(path).K, some_cameras().K)


def numbers_of(known: KnownCameras) -> list[float | None]:
    """``positions``, None where a frame has no camera."""
    return [x if own else None for x, own in zip(positions(known), known.known, strict=True)]


def mixed(names: list[str]) -> list[int]:
    """A fixed order of the names that is not theirs."""
    return np.random.default_rng(5).permutation(len(names)).tolist()


@pytest.mark.parametrize("pattern", ["img-{:03d}.jpg", "7cam/shot {} of 9.png"])
def test_cameras_in_any_order_are_matched_by_number(tmp_path, pattern):
    order = mixed(NAMES)
    path = write_json(tmp_path, [pattern.format(i) for i in order])
    assert positions(know(path)) == np.argsort(order).tolist()
    bare = [str(i) for i in range(6)]
    assert positions(know(path, bare, original_frames=6)) == np.argsort(order).tolist()


@pytest.mark.parametrize("name", ["{:05d}.png", "frame{}.png"])
@pytest.mark.parametrize("gaps", [[2], [5], [1, 4]])
def test_a_few_frames_without_a_camera_are_interpolated_and_named(tmp_path, name, gaps):
    heard = Heard()
    path = write_json(tmp_path, [name.format(i) for i in range(6) if i not in gaps])
    known = know(path, progress=heard)
    assert np.flatnonzero(~known.known).tolist() == gaps
    assert len(heard.sentences) == 1
    assert all(NAMES[i] in heard.sentences[0] for i in gaps)
    rows = [i for i in range(6) if i not in gaps]
    expected = np.interp(range(6), rows, np.arange(len(rows)))
    np.testing.assert_allclose(positions(known), expected, atol=1e-9)


def test_frames_of_a_video_may_be_numbered_from_one(tmp_path):
    bare = [str(i) for i in range(6)]
    heard = Heard()
    path = write_json(tmp_path, [f"frame_{i:05d}.jpg" for i in range(1, 7)])
    assert positions(know(path, bare, original_frames=6, progress=heard)) == [0, 1, 2, 3, 4, 5]
    assert "+1" in heard.sentences[0]
    assert positions(know(path, ["0", "2", "4"], [0, 2, 4], original_frames=6)) == [0, 2, 4]
    path = write_json(tmp_path, [f"{i}.jpg" for i in range(1, 7)])
    assert positions(know(path, bare, original_frames=6)) == [0, 1, 2, 3, 4, 5]
    path = write_json(tmp_path, [f"frame_{i:05d}.jpg" for i in (1, 2, 4, 5, 6)])
    assert numbers_of(know(path, bare, original_frames=6)) == [0, 1, None, 2, 3, 4]


def test_numbers_that_could_begin_at_zero_or_one_are_refused(tmp_path):
    path = write_json(tmp_path, [f"frame_{i:05d}.jpg" for i in range(1, 6)])
    with pytest.raises(InputError, match=r"numbered 1 to 5.*0 or 1"):
        know(path, [str(i) for i in range(6)], original_frames=6)


def test_a_whole_file_in_another_count_is_shifted_and_said(tmp_path):
    heard = Heard()
    path = write_json(tmp_path, NAMES)
    names = [f"DSC{i}.jpg" for i in range(120, 126)]
    assert positions(know(path, names, progress=heard)) == [0, 1, 2, 3, 4, 5]
    assert "-120" in heard.sentences[0]


def test_cameras_numbered_as_the_frames_taken_are_matched_in_order_and_said(tmp_path):
    heard = Heard()
    path = write_json(tmp_path, [f"out_{i}.png" for i in range(4)])
    known = know(path, ["0", "3", "6", "9"], [0, 3, 6, 9], original_frames=12, progress=heard)
    assert positions(known) == [0, 1, 2, 3]
    assert "matched in order" in heard.sentences[0]


def test_numbers_of_other_frames_are_refused(tmp_path):
    path = write_json(tmp_path, [f"x{i}.png" for i in (0, 40, 80, 95, 97, 99)])
    with pytest.raises(InputError, match=r"0 to 99\) are not those of the frames \(0 to 5\)"):
        read(path, original_frames=6)


def test_two_cameras_of_one_frame_are_refused(tmp_path):
    path = write_json(tmp_path, [*NAMES[:5], "left/00004.png"])
    with pytest.raises(InputError, match="two cameras for one frame"):
        read(path)


def test_a_field_of_view_without_a_size_is_of_the_clip(tmp_path):
    path = write_json(tmp_path, NAMES)
    data = {"camera_angle_x": 0.9, "frames": json.loads(path.read_text())["frames"]}
    path.write_text(json.dumps(data))
    cameras = read(path)
    assert cameras.K[0, 0, 0] == pytest.approx(WIDTH / 2 / np.tan(0.45))
    assert (cameras.width, cameras.height) == (WIDTH, HEIGHT)
    path.write_text(json.dumps(data | {"fl_x": 100}))
    with pytest.raises(InputError, match="needs w, h"):
        read(path)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    path = write_json(tmp_path, NAMES)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read(path)) == 6


@pytest.mark.parametrize("inside", ["sparse/0", "sparse", "0", "colmap/sparse/0"])
def test_a_folder_above_a_colmap_model_is_read(tmp_path, inside):
    project = tmp_path / "project"
    model = project / inside
    model.parent.mkdir(parents=True)
    write_colmap(tmp_path, NAMES, [radial(0.0)]).rename(model)
    assert positions(know(project)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_a_colmap_model_without_points_is_read(tmp_path, suffix):
    path = write_colmap(tmp_path, NAMES, [radial(0.0)])
    if suffix == ".txt":
        pycolmap.Reconstruction(path).write_text(path)
        for file in path.glob("*.bin"):
            file.unlink()
    (path / f"points3D{suffix}").unlink()
    assert positions(know(path)) == [0, 1, 2, 3, 4, 5]
    # Old models have neither of the two, and no model has one alone.
    (path / f"rigs{suffix}").unlink()
    with pytest.raises(InputError, match="not a COLMAP model"):
        know(path)
    (path / f"frames{suffix}").unlink()
    assert positions(know(path)) == [0, 1, 2, 3, 4, 5]


def test_the_folder_of_a_transforms_json_is_read(tmp_path):
    write_json(tmp_path, NAMES)
    assert positions(know(tmp_path)) == [0, 1, 2, 3, 4, 5]


def test_the_largest_of_several_colmap_models_is_read(tmp_path):
    for number, names in ((0, NAMES[:2]), (1, NAMES)):
        (tmp_path / "project" / "sparse").mkdir(parents=True, exist_ok=True)
        write_colmap(tmp_path, names, [radial(0.0)]).rename(
            tmp_path / "project" / "sparse" / str(number)
        )
    assert know(tmp_path / "project").known.all()


def test_mirrored_poses_are_refused(tmp_path):
    path = write_json(tmp_path, NAMES)
    data = json.loads(path.read_text())
    data["frames"][3]["transform_matrix"] = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="mirrored"):
        read(path)
