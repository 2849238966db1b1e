import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from models.cameras import Cameras, estimate_similarity, look_at
from models.clip.transforms import load_transforms, save_transforms
from models.run.errors import InputError


def random_cameras(seed: int, num: int = 4, width: int = 64, height: int = 48) -> Cameras:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (num, 1, 1))
    poses[:, :3, :3] = Rotation.random(num, rng=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(num, 3)) * 5
    K = np.tile(np.eye(3), (num, 1, 1))
    K[:, [0, 1], [0, 1]] = rng.uniform(30, 100, (num, 2))
    K[:, :2, 2] = rng.uniform(10, 40, (num, 2))
    return Cameras(torch.from_numpy(K), torch.from_numpy(poses), width, height)


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_unprojection_inverts_projection(seed):
    cameras = random_cameras(seed)
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(4, 9, 2, generator=generator, dtype=torch.float64) * 80 - 10
    depth = torch.rand(4, 9, generator=generator, dtype=torch.float64) * 10 + 0.1
    again, same_depth = cameras.project(cameras.unproject(xy, depth))
    torch.testing.assert_close(again, xy)
    torch.testing.assert_close(same_depth, depth)


def test_inverse_pose_is_the_general_inverse():
    cameras = random_cameras(1)
    torch.testing.assert_close(cameras.cam_from_world, torch.linalg.inv(cameras.world_from_cam))


def test_resized_cameras_scale_the_pixels_they_project_to():
    cameras = random_cameras(2)
    xyz = torch.randn(7, 3, dtype=torch.float64)
    xy, depth = cameras.project(xyz)
    scaled, same = cameras.resized(128, 24).project(xyz)
    torch.testing.assert_close(scaled, xy * torch.tensor([2.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(same, depth)


def test_points_at_the_camera_centre_project_to_finite_pixels():
    cameras = random_cameras(3)
    xy, _ = cameras.project(cameras.centers[:, None])
    assert torch.isfinite(xy).all()


def test_look_at_puts_the_target_in_the_middle_and_up_upwards():
    eye, target, up = torch.tensor([[1.0, 2, 3], [-1, 0.5, 9], [0, -1, 0]], dtype=torch.float64)
    pose = look_at(eye, target, up)
    K = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]], dtype=torch.float64)
    cameras = Cameras(K[None], pose[None], 64, 48)
    xy, depth = cameras.project(torch.stack([target, target + 0.1 * up]))
    torch.testing.assert_close(xy[0, 0], torch.tensor([32.0, 24.0], dtype=torch.float64))
    assert depth[0, 0] > 0
    assert xy[0, 1, 1] < 24
    torch.testing.assert_close(torch.det(pose[:3, :3]), torch.tensor(1.0, dtype=torch.float64))


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_similarity_is_recovered(seed):
    rng = np.random.default_rng(seed)
    source = torch.from_numpy(rng.normal(size=(12, 3)))
    scale, shift = rng.uniform(0.1, 10), torch.from_numpy(rng.normal(size=3))
    rotation = torch.from_numpy(Rotation.random(rng=rng).as_matrix())
    found = estimate_similarity(source, scale * source @ rotation.T + shift)
    assert found[0] == pytest.approx(scale)
    torch.testing.assert_close(found[1], rotation)
    torch.testing.assert_close(found[2], shift)


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_transforms_json_gives_back_what_was_written(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("cameras") / "transforms.json"
    cameras, times = random_cameras(seed), [0.0, 0.5, 2.0, 7.25]
    save_transforms(path, cameras, times)
    again, same_times, names = load_transforms(path)
    torch.testing.assert_close(again.K, cameras.K)
    torch.testing.assert_close(again.world_from_cam, cameras.world_from_cam)
    assert (again.width, again.height, same_times) == (cameras.width, cameras.height, times)
    assert names == [f"{i:05d}.png" for i in range(4)]
    assert [p.name for p in path.parent.iterdir()] == ["transforms.json"]


def test_written_poses_are_in_opengl_axes(tmp_path):
    pose = torch.eye(4, dtype=torch.float64)[None]
    save_transforms(tmp_path / "t.json", Cameras(random_cameras(0).K[:1], pose, 64, 48), [0.0])
    written = json.loads((tmp_path / "t.json").read_text())["frames"][0]["transform_matrix"]
    assert written == np.diag([1.0, -1, -1, 1]).tolist()


def valid_meta() -> dict:
    return {"w": 64, "h": 48, "fl_x": 50.0, "frames": [{"transform_matrix": np.eye(4).tolist()}]}


def broken_metas() -> dict[str, object]:
    scaled, nan = (2 * np.eye(4)).tolist(), (np.eye(4) * np.nan).tolist()
    return {
        "no dict": [1, 2],
        "no frames": {**valid_meta(), "frames": []},
        "frames are numbers": {**valid_meta(), "frames": [1, 2]},
        "no width": {k: v for k, v in valid_meta().items() if k != "w"},
        "no focal length": {k: v for k, v in valid_meta().items() if k != "fl_x"},
        "negative focal length": {**valid_meta(), "fl_x": -3},
        "focal length is text": {**valid_meta(), "fl_x": "wide"},
        "zero size": {**valid_meta(), "w": 0},
        "huge size": {**valid_meta(), "w": 10**9},
        "scaled pose": {**valid_meta(), "frames": [{"transform_matrix": scaled}]},
        "pose of NaN": {**valid_meta(), "frames": [{"transform_matrix": nan}]},
        "pose of 3 rows": {**valid_meta(), "frames": [{"transform_matrix": np.eye(3).tolist()}]},
        "infinite time": {
            **valid_meta(),
            "frames": [{"transform_matrix": np.eye(4).tolist(), "time": float("inf")}],
        },
    }


def test_minimal_transforms_json_is_read(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(valid_meta()))
    cameras, times, _ = load_transforms(tmp_path / "t.json")
    assert cameras.K[0].tolist() == [[50, 0, 32], [0, 50, 24], [0, 0, 1]]
    assert times == [0.0]


@pytest.mark.parametrize("name", broken_metas())
def test_broken_transforms_json_is_refused_by_name(tmp_path, name):
    (tmp_path / "t.json").write_text(json.dumps(broken_metas()[name]))
    with pytest.raises(InputError, match=r"t\.json"):
        load_transforms(tmp_path / "t.json")


def test_missing_and_unreadable_files_are_refused(tmp_path):
    (tmp_path / "text.json").write_text("{not json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for name in ("text.json", "bytes.json", "missing.json", "."):
        with pytest.raises(InputError):
            load_transforms(tmp_path / name)
