"""scene.usdz: valid by USD's own validators, with the meshes, times and camera of the scene."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.cameras import Cameras
from models.export import usd
from models.export.formats import parse_formats
from models.export.usd import write_usdz
from models.export.world.atlas import Atlas
from models.export.world.mover_atlas import MoverMeshes
from models.export.world.texture import TexturedMesh
from models.run import InputError

pxr = pytest.importorskip("pxr")
FRAMES, FPS = 6, 12.0


def square(z: float, side: int) -> Atlas:
    """Two triangles at a depth, over a whole texture."""
    xy = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    vertices = np.concatenate([xy, np.full((4, 1), z, np.float32)], 1)
    uv = (xy + 1) / 2 * side
    return Atlas(vertices, uv.astype(np.float32), np.array([[0, 1, 2], [0, 2, 3]]), side, side)


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    pose = torch.eye(4, dtype=torch.float64).repeat(FRAMES, 1, 1)
    pose[:, 0, 3] = torch.linspace(0, 0.5, FRAMES)
    K = torch.tensor([[80.0, 0, 45], [0, 80, 33.5], [0, 0, 1]], dtype=torch.float64)
    return Cameras(K.repeat(FRAMES, 1, 1), pose, 96, 64)


@pytest.fixture(scope="module")
def path(cameras: Cameras, tmp_path_factory) -> Path:
    rng = np.random.default_rng(3)
    world = TexturedMesh(square(3.0, 16), rng.random((16, 16, 3), np.float32))
    movers = MoverMeshes([1, 2, 4], [square(2.0, 8)] * 3, rng.random((8, 8, 4), np.float32))
    path = tmp_path_factory.mktemp("usd") / "scene.usdz"
    write_usdz(path, world, movers, cameras, FPS)
    return path


@pytest.fixture(scope="module")
def stage(path: Path):
    return pxr.Usd.Stage.Open(str(path))


def test_usd_finds_no_fault_with_the_package(stage):
    from pxr import UsdValidation

    registry = UsdValidation.ValidationRegistry()
    context = UsdValidation.ValidationContext(registry.GetOrLoadAllValidators())
    errors = context.Validate(stage)
    assert not [error.GetMessage() for error in errors]


def test_the_stage_plays_the_clip_at_its_speed_with_y_up(stage):
    from pxr import UsdGeom

    assert UsdGeom.GetStageUpAxis(stage) == "Y" and stage.GetTimeCodesPerSecond() == FPS
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, FRAMES - 1)


def test_one_mover_shows_at_a_time(stage):
    from pxr import UsdGeom

    def shown(t: float) -> list[str]:
        names = []
        for prim in stage.Traverse():
            if prim.GetName().startswith("mover_"):
                matrix = UsdGeom.Xformable(prim).GetLocalTransformation(t)
                if matrix[0][0] > 0.5:
                    names.append(prim.GetName())
        return names

    # frame 3 has no mesh and takes that of frame 2; frame 5 has none
    expected = {0: [], 1: [1], 2: [2], 3: [2], 4: [4], 5: []}
    for t, frames in expected.items():
        assert shown(t) == [f"mover_{frame:05d}" for frame in frames], t


def test_the_camera_sees_points_where_the_scene_does(stage, cameras: Cameras):
    from pxr import Gf, UsdGeom

    point = np.array([0.3, -0.2, 3.0])
    world = UsdGeom.XformCache(4)
    root = world.GetLocalToWorldTransform(stage.GetPrimAtPath("/scene"))
    seen = UsdGeom.Camera(stage.GetPrimAtPath("/scene/camera")).GetCamera(4)
    lens = seen.frustum.ComputeViewMatrix() * seen.frustum.ComputeProjectionMatrix()
    x, y, _ = lens.Transform(root.Transform(Gf.Vec3d(*point)))
    true = cameras[4].project(torch.from_numpy(point)[None])[0][0, 0].numpy()
    assert [(x + 1) / 2 * 96, (1 - y) / 2 * 64] == pytest.approx(true, abs=1e-3)


def test_without_the_library_the_format_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(usd.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"requirements-export\.txt"):
        parse_formats("glb,usdz")
