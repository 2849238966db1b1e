"""A small room with a mover, trained for a moment, in every format: read back by other libraries
and drawn."""

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pycolmap
import pytest
import torch
import trimesh
from clips import neutral_exposure, true_tracks

from models.clip.masks import dilate
from models.clip.transforms import load_transforms
from models.clip.video import read_video
from models.export.footage import Footage, gather_footage
from models.export.formats import (
    FORMATS,
    ExportSource,
    build_static_mesh,
    export_scene,
    parse_formats,
    score_mesh,
)
from models.export.options import ExportOptions
from models.export.world.atlas import Atlas
from models.export.world.texture import TexturedMesh
from models.export.world.world_mesh import (
    WorldMesh,
    _measure_filmed,
    _quarter,
    build_world_mesh,
)
from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.world_box import normalization
from models.movers.moving_pipeline import MovingMeshPipeline, fit_canonical_box
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.metrics import psnr
from models.render.scene import Layer, MovingLayer, Scene
from models.run.errors import InputError
from models.sfm.colmap_files import read_model
from models.surface.rasterizer import rasterize
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tools import TrainingFrames, sample_points
from models.training.loop import LayerTraining, train
from models.training.options import RateOptions, Schedule, TrainingOptions

WIDTH, HEIGHT, FRAMES = 160, 96, 10
# Of a field that is trained for a few passes: its picture is what bounds of the mesh refer to.
RATES = RateOptions(tables=2e-2, mlp=1e-3, hold=0.2, final=0.03)
HELD_OUT = [2, 7]
TRAINING = [t for t in range(FRAMES) if t not in HELD_OUT]


@pytest.fixture(scope="module")
def room() -> SyntheticScene:
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_tracks=4000))


def small_field(seed: int) -> ColorField:
    generator = torch.Generator().manual_seed(seed)
    return ColorField(
        HashGrid(log2_entries=14, finest_resolution=512, generator=generator), generator=generator
    )


@pytest.fixture(scope="module")
def scene(room) -> Scene:
    tracks = true_tracks(room, False)
    meshes = TriangleMeshPipeline.from_tracks(tracks, TRAINING, room.masks)
    exposure = neutral_exposure(FRAMES, WIDTH, HEIGHT)
    renderer = WorldSpaceTrianglePipeline(
        small_field(0), normalization(tracks.cameras, meshes.gather_used())
    )
    pixels = sample_points(
        meshes, TrainingFrames(room.frames, TRAINING, dilate(room.masks, 1), exposure)
    )
    layer = LayerTraining(renderer, pixels, meshes.shared_vertices())
    options = TrainingOptions(rates=RATES)
    train(layer, Schedule(12, batch_size=1 << 13), np.random.default_rng(0), options=options)
    moving = MovingMeshPipeline.from_tracks(true_tracks(room, True), room.masks, TRAINING)
    colors = WorldSpaceTrianglePipeline(small_field(1), fit_canonical_box(moving)[0])
    return Scene(
        tracks.cameras, 10.0, exposure, Layer(meshes, renderer), MovingLayer(moving, colors)
    )


@pytest.fixture(scope="module")
def footage(room, scene) -> Footage:
    return gather_footage(scene, room.frames, dilate(room.masks, 1))


@pytest.fixture(scope="module")
def source(scene, footage, room) -> ExportSource:
    return ExportSource(scene, footage, true_tracks(room, False))


@pytest.fixture(scope="module")
def world(source) -> TexturedMesh:
    return build_static_mesh(source)


@pytest.fixture(scope="module")
def folder(source, world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    paths = export_scene(source, folder, FORMATS, world)
    assert all(path.exists() for path in paths)
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
    return folder


def gltf_of(path: Path) -> dict:
    data = path.read_bytes()
    assert struct.unpack("<4sII", data[:12]) == (b"glTF", 2, len(data))
    return json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])


def test_the_mesh_shows_held_out_frames_nearly_as_well_as_the_renderer(scene, footage, world, room):
    scores = score_mesh(world, footage, HELD_OUT)
    assert scores["coverage"] > 0.995
    pictures = [scene.rebuild(t).field.background.rgb for t in HELD_OUT]
    best = [
        psnr(rgb, room.frames[t], footage.still(t))
        for t, rgb in zip(HELD_OUT, pictures, strict=True)
    ]
    assert scores["psnr"] > np.mean(best) - 1.0


def test_charts_lie_apart_in_the_texture(world):
    """Each texel's centre is on at most one face: what one face shows, no other one does."""
    atlas = world.atlas
    area = np.abs(np.linalg.det(np.diff(atlas.uv[atlas.faces], axis=1))).sum() / 2
    assert area < 1.02 * atlas.locate_texels(atlas.vertices)[2].sum() + 100
    assert atlas.uv.min() >= 0
    assert (atlas.uv <= [atlas.width, atlas.height]).all()


def test_a_glb_read_back_draws_the_same_picture(folder, world, scene):
    """Through trimesh: positions, faces, texture coordinates, image, and the root's turn to y
    up."""
    loaded = trimesh.load(folder / "scene.glb")
    (name,) = loaded.graph.nodes_geometry
    transform, geometry = loaded.graph[name]
    mesh = loaded.geometry[geometry]
    np.testing.assert_allclose(transform, np.diag([1.0, -1.0, -1.0, 1.0]), atol=1e-7)
    image = np.asarray(mesh.visual.material.baseColorTexture)
    height, width = image.shape[:2]
    uv = mesh.visual.uv * [1, -1] + [0, 1]  # trimesh turns v upwards
    vertices = np.asarray(mesh.vertices, np.float32)
    atlas = Atlas(
        vertices,
        (uv * [width, height]).astype(np.float32),
        np.asarray(mesh.faces, np.int64),
        width,
        height,
    )
    again = TexturedMesh(atlas, image.astype(np.float32) / 255)
    for t in HELD_OUT:
        pictures = [
            (255 * mesh.render(scene.cameras[t])[0]).clip(0, 255).astype(np.uint8)
            for mesh in (world, again)
        ]
        assert psnr(*pictures) > 34


def test_a_glb_is_unlit_and_says_where_the_camera_is(folder, scene):
    gltf = gltf_of(folder / "scene.glb")
    assert all("KHR_materials_unlit" in material["extensions"] for material in gltf["materials"])
    assert gltf["extensionsUsed"] == ["KHR_materials_unlit"]
    camera = next(node for node in gltf["nodes"] if "camera" in node)
    assert np.abs(scene.cameras.centers.numpy() - camera["translation"]).sum(1).min() < 1e-6


def test_one_mover_at_a_time_and_it_covers_its_mask(folder, scene, room):
    """Scales of the nodes at each frame's time, by stepping through the animation as viewers do."""
    loaded = trimesh.load(folder / "scene_animated.glb")
    gltf, binary = (
        gltf_of(folder / "scene_animated.glb"),
        (folder / "scene_animated.glb").read_bytes(),
    )
    start = 28 + struct.unpack("<I", binary[12:16])[0]

    def values(index: int) -> np.ndarray:
        accessor = gltf["accessors"][index]
        view = gltf["bufferViews"][accessor["bufferView"]]
        data = binary[start + view["byteOffset"] :][: view["byteLength"]]
        return np.frombuffer(data, "<f4").reshape(accessor["count"], -1)

    (animation,) = gltf["animations"]
    for t in TRAINING:
        shown = []
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            if channel["target"]["path"] == "scale":
                assert sampler["interpolation"] == "STEP"
                times = values(sampler["input"])[:, 0]
                assert (np.diff(times) > 0).all()
                scale = values(sampler["output"])[
                    np.searchsorted(times, t / 10 + 0.01, side="right") - 1
                ]
                shown += (
                    [gltf["nodes"][channel["target"]["node"]]["name"]] if scale.min() == 1 else []
                )
        assert shown == [f"mover_{t:05d}"]
        mesh = loaded.geometry[shown[0]]
        local = scene.cameras[[t]].to_camera(torch.from_numpy(np.array(mesh.vertices)))[0]
        seen = rasterize(local, torch.from_numpy(np.array(mesh.faces)), scene.cameras[t])
        covered = seen.face.numpy() >= 0
        assert covered[room.masks[t]].mean() > 0.97
        assert (covered & ~dilate(room.masks, 8)[t]).sum() == 0


def test_an_obj_has_the_same_mesh_with_y_up(folder, world):
    mesh = trimesh.load(folder / "scene.obj", process=False)
    assert len(mesh.faces) == len(world.atlas.faces)
    corners = mesh.vertices[mesh.faces] * [1, -1, -1]
    np.testing.assert_allclose(corners, world.atlas.vertices[world.atlas.faces], atol=1e-4)
    assert mesh.visual.material.image.size == (world.atlas.width, world.atlas.height)


def test_points_of_the_ply_have_the_colors_of_the_frames(folder, scene, room):
    cloud = trimesh.load(folder / "points.ply")
    xy, depth = scene.cameras[[4]].project(torch.from_numpy(np.array(cloud.vertices)))
    inside = ((xy[0] >= 0) & (xy[0] < torch.tensor([WIDTH, HEIGHT]))).all(1).numpy() & (
        depth[0] > 0
    ).numpy()
    column, row = xy[0].numpy()[inside].astype(int).T
    error = np.abs(
        np.asarray(cloud.colors)[inside, :3].astype(float) - room.frames[4][row, column]
    ).mean(1)
    assert np.median(error) < 8


def test_the_colmap_model_agrees_with_its_images(folder, scene):
    model = pycolmap.Reconstruction(folder / "colmap" / "sparse" / "0")
    assert model.num_reg_images() == len(TRAINING)
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 0.5
    cameras, names, _ = read_model(folder / "colmap" / "sparse" / "0")
    assert names == [f"{t:05d}.png" for t in TRAINING]
    torch.testing.assert_close(
        cameras.world_from_cam, scene.cameras.world_from_cam[TRAINING].double(), atol=1e-6, rtol=0
    )
    assert all((folder / "colmap" / "images" / name).is_file() for name in names)


def test_the_colmap_model_is_the_same_in_binary(folder, tmp_path):
    model = folder / "colmap" / "sparse" / "0"
    models = []
    for suffix in ("txt", "bin"):
        (tmp_path / suffix).mkdir()
        for path in model.glob(f"*.{suffix}"):
            shutil.copy(path, tmp_path / suffix)
        models.append(pycolmap.Reconstruction(tmp_path / suffix))
    text, binary = models
    assert set(text.points3D) == set(binary.points3D)
    for i in text.reg_image_ids():
        assert text.image(i).name == binary.image(i).name
        poses = [model.image(i).cam_from_world().matrix() for model in models]
        np.testing.assert_allclose(*poses, atol=1e-9)


def test_the_nerfstudio_folder_holds_what_its_transforms_name(folder, scene):
    root = folder / "nerfstudio"
    cameras, times, names = load_transforms(root / "transforms.json")
    assert times == TRAINING
    torch.testing.assert_close(
        cameras.world_from_cam, scene.cameras.world_from_cam[TRAINING].double()
    )
    meta = json.loads((root / "transforms.json").read_text())
    assert all((root / name).is_file() for name in [*names, meta["ply_file_path"]])
    assert all((root / frame["mask_path"]).is_file() for frame in meta["frames"])


def test_a_scene_without_movers_has_no_animated_file(source, scene, world, tmp_path):
    still = Scene(scene.cameras, scene.fps, scene.exposure, scene.background)
    (tmp_path / "scene_animated.glb").write_bytes(b"of an earlier run")
    paths = export_scene(replace(source, scene=still), tmp_path, ["glb"], world)
    assert paths == [tmp_path / "scene.glb"]
    assert [path.name for path in tmp_path.iterdir()] == ["scene.glb"]


def test_formats_are_read_from_text_and_unknown_ones_refused():
    assert parse_formats("glb, PLY,glb") == ["glb", "ply"]
    assert parse_formats("") == []
    with pytest.raises(InputError, match=r"'fbx'.*glb, usdz, ply, obj, colmap, nerfstudio, depth"):
        parse_formats("glb,fbx")


def test_depth_files_hold_the_depth_that_the_renderer_sees(source, tmp_path):
    scene = source.scene
    paths = {"walk": (scene.cameras, [float(t) for t in range(FRAMES)])}
    export_scene(replace(source, paths=paths), tmp_path, ["depth"])
    folder = tmp_path / "depth_maps"
    told = json.loads((folder / "walk.json").read_text())
    for t in (0, FRAMES - 1):
        true = scene.views(scene.cameras[t], t).merged.depth
        known = np.isfinite(true)
        exr = OpenEXR.File(str(folder / "walk" / f"{t:05d}.exr")).channels()["Z"].pixels
        assert exr.dtype == np.float16 and np.array_equal(np.isfinite(exr), known)
        assert np.abs(exr[known].astype(float) / true[known] - 1).max() < 1e-3
        image = cv2.imread(str(folder / "walk" / f"{t:05d}.png"), cv2.IMREAD_UNCHANGED)
        assert image.dtype == np.uint16 and np.array_equal(image > 0, known)
        read = image / told["png_steps_per_unit"]
        within = known & (true < told["far"]) & (true > told["near"])
        assert within.mean() > 0.9
        assert np.abs(read[within] / true[within] - 1).max() < 1e-3
    assert len(read_video(folder / "walk.mp4", keep=range(FRAMES))) == FRAMES


def test_a_shorter_video_leaves_no_depth_of_a_longer_one(source, tmp_path):
    scene = source.scene
    for count in (3, 2):
        paths = {"walk": (scene.cameras[:count], [float(t) for t in range(count)])}
        export_scene(replace(source, paths=paths), tmp_path, ["depth"])
    names = sorted(path.name for path in (tmp_path / "depth_maps" / "walk").iterdir())
    assert names == ["00000.exr", "00000.png", "00001.exr", "00001.png"]


def test_the_mesh_ends_where_no_image_shows_it(scene, world):
    corners = torch.from_numpy(world.atlas.vertices[world.atlas.faces]).double()
    meshes = scene.background.meshes
    filmed = _measure_filmed(meshes, corners, ExportOptions())
    assert filmed.min() > 0
    assert (filmed == 1).double().mean() > 0.9


def test_a_face_and_its_four_parts_have_one_area():
    corners = torch.from_numpy(np.random.default_rng(5).normal(size=(20, 3, 3)))

    def area(faces: torch.Tensor) -> float:
        a, b, c = faces.unbind(1)
        return float(torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2)

    assert area(_quarter(corners)) == pytest.approx(area(corners))
    assert len(_quarter(corners)) == 80


def test_streaks_over_depth_jumps_are_left_out_of_the_mesh(scene):
    meshes = scene.background.meshes
    with_streaks, without = (
        build_world_mesh(meshes, ExportOptions(edge_on=angle)) for angle in (0.0, 20.0)
    )

    def share_seen_edge_on(world: WorldMesh) -> float:
        a, b, c = (torch.from_numpy(world.vertices[world.faces[:, k]]) for k in range(3))
        normal = torch.linalg.cross(b - a, c - a)
        middle = (a + b + c) / 3
        rays = [middle - center for center in scene.cameras.centers.float()[TRAINING]]
        cosines = [torch.cosine_similarity(normal, ray, dim=1).abs() for ray in rays]
        seen = torch.stack(cosines).max(0).values < np.sin(np.radians(20))
        area = normal.norm(dim=1)
        return float(area[seen].sum() / area.sum())

    assert share_seen_edge_on(without) < 0.75 * share_seen_edge_on(with_streaks)
    assert len(without.faces) > 0.9 * len(with_streaks.faces)
