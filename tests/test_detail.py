"""Detail of the frames: kept in a file, carried along surfaces, averaged where frames agree."""

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from clips import neutral_exposure, true_tracks

from models.cameras import Cameras, look_at
from models.detail.carry import carry_details
from models.detail.clip_detail import ClipDetail
from models.detail.frame_details import (
    MIDDLE,
    FrameDetail,
    FrameDetails,
    load_details,
    save_details,
)
from models.detail.options import DetailOptions
from models.detail.source_maps import SourceMap, map_static
from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.world_box import normalization
from models.movers.moving_pipeline import MovingMeshPipeline, fit_canonical_box
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.metrics import psnr
from models.render.scene import Layer, MovingLayer, Scene
from models.run.errors import InputError
from models.synthetic.sample import RoomOptions, render_room
from models.training.frame_details import add_details

WIDTH, HEIGHT, FRAMES = 160, 96, 8
SIZE = WIDTH, HEIGHT
HELD_OUT = 4
TRAINING = [t for t in range(FRAMES) if t != HELD_OUT]


def smooth_picture(random: np.random.Generator, sigma: float = 3.0) -> np.ndarray:
    noise = random.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigma)
    return (128 + 40 * blurred / blurred.std()).clip(0, 255).astype(np.uint8)


def stay(weight: float = 1.0, shift: float = 0.0) -> SourceMap:
    rows, columns = np.indices((HEIGHT, WIDTH), np.float32)
    return SourceMap(columns + np.float32(shift), rows, np.full(rows.shape, weight, np.float32))


def detail_of(rendering: np.ndarray, residual: np.ndarray) -> FrameDetail:
    stored = (residual + MIDDLE + 0.5).clip(0, 255).astype(np.uint8)
    grey = cv2.cvtColor(rendering, cv2.COLOR_RGB2GRAY)
    return FrameDetail(stored, grey, np.zeros(grey.shape, bool))


def test_a_stored_frame_is_read_with_little_loss():
    random = np.random.default_rng(0)
    rendering = smooth_picture(random)
    texture = random.normal(0, 6, (HEIGHT, WIDTH, 1))
    frame = (rendering + texture).clip(0, 255).astype(np.uint8)
    movers = random.random((HEIGHT, WIDTH)) > 0.5
    factor = np.full((HEIGHT, WIDTH, 3), 1.1)
    detail = FrameDetail.measure(frame, factor, rendering, movers)
    assert np.abs(detail.residual - (frame / factor - rendering + MIDDLE)).max() <= 0.51
    again = FrameDetail.decode(detail.encode(92))
    assert np.abs(again.residual.astype(float) - detail.residual).mean() < 0.5 * 6
    assert np.abs(again.grey.astype(float) - detail.grey).mean() < 2
    assert (again.movers == movers).all()


def test_a_surface_is_found_in_the_frame_where_its_camera_sees_it():
    random = np.random.default_rng(1)
    K = torch.tensor([[[150.0, 0, 81], [0, 140, 47], [0, 0, 1]]], dtype=torch.float64)
    up = torch.tensor([0.0, -1, 0], dtype=torch.float64)
    target = torch.tensor([0.1, 0, 4.0], dtype=torch.float64)
    eyes = [torch.from_numpy(random.normal(0, 0.2, 3)) for _ in range(2)]
    frame, view = (Cameras(K, look_at(eye, target, up)[None], WIDTH, HEIGHT) for eye in eyes)
    depth = random.uniform(3, 5, (HEIGHT, WIDTH)).astype(np.float32)
    depth[:5] = np.inf
    found = map_static(frame, view, depth, np.full((HEIGHT, WIDTH), 4.0, np.float32))
    rows, columns = np.indices(depth.shape)
    xy = torch.from_numpy(np.stack([columns, rows], -1).reshape(1, -1, 2) + 0.5)
    world = view.unproject(xy, torch.from_numpy(depth.reshape(1, -1)).double())[0]
    true_xy, z = (part[0].numpy() for part in frame.project(world))
    known = np.isfinite(depth).ravel()
    got = np.stack([found.x, found.y], -1).reshape(-1, 2)[known]
    np.testing.assert_allclose(got, true_xy[known] - 0.5, atol=2e-3)
    trusted = found.weight.ravel() > 0
    assert trusted.any() and not trusted[~known].any()
    assert (np.abs(z[trusted] / 4 - 1) < DetailOptions().depth_tolerance).all()


def test_detail_that_frames_share_is_kept_and_noise_of_each_is_not():
    random = np.random.default_rng(2)
    rendering = smooth_picture(random)
    shared = random.normal(0, 8, rendering.shape)
    noises = [random.normal(0, 8, rendering.shape) for _ in range(2)]
    one = carry_details(rendering, [(detail_of(rendering, shared), stay())])
    assert np.abs(one - shared).mean() < 1
    both = carry_details(rendering, [(detail_of(rendering, shared), stay())] * 2)
    assert np.abs(both - shared).mean() < 1
    mixed = carry_details(rendering, [(detail_of(rendering, shared + n), stay()) for n in noises])
    plain_mean = shared + np.mean(noises, 0)
    assert np.square(mixed - shared).mean() < np.square(plain_mean - shared).mean()
    noise = carry_details(rendering, [(detail_of(rendering, n), stay()) for n in noises])
    assert np.square(noise).mean() < 0.4 * np.square(np.mean(noises, 0)).mean()


@pytest.mark.parametrize("shift", [-1.5, 0.8, 2.0])
def test_detail_that_lies_beside_its_place_is_moved_there(shift: float):
    random = np.random.default_rng(3)
    rendering = smooth_picture(random, 2.0)
    residual = 8 * (smooth_picture(random, 1.0) / 128.0 - 1)
    aside = stay(shift=shift)
    found = carry_details(rendering, [(detail_of(rendering, residual), aside)])
    unmoved = cv2.remap(residual.astype(np.float32), aside.x, aside.y, cv2.INTER_LINEAR)
    inner = slice(8, -8), slice(8, -8)
    error, before = (np.square(d[inner] - residual[inner]).mean() for d in (found, unmoved))
    assert error < 0.5 * before


def test_a_frame_that_looks_otherwise_or_does_not_see_the_surface_gives_no_detail():
    random = np.random.default_rng(4)
    rendering, other = smooth_picture(random), smooth_picture(random)
    residual = np.full(rendering.shape, 20.0)
    unlike = carry_details(rendering, [(detail_of(other, residual), stay())])
    assert np.abs(unlike).mean() < 6
    unseen = carry_details(rendering, [(detail_of(rendering, residual), stay(0.0))])
    assert not unseen.any() and not carry_details(rendering, []).any()


@pytest.fixture(scope="module")
def room():
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_tracks=4000))


@pytest.fixture(scope="module")
def scene(room) -> Scene:
    """A scene whose colour fields have learned nothing: all that its views show is detail."""
    tracks = true_tracks(room, False)
    meshes = TriangleMeshPipeline.from_tracks(tracks, TRAINING, room.masks)
    field = ColorField(HashGrid(log2_entries=12, finest_resolution=64))
    box = normalization(tracks.cameras, meshes.vertices[meshes.used])
    moving = MovingMeshPipeline.from_tracks(true_tracks(room, True), room.masks, TRAINING)
    colors = WorldSpaceTrianglePipeline(field, fit_canonical_box(moving)[0])
    layer = Layer(meshes, WorldSpaceTrianglePipeline(field, box))
    exposure = neutral_exposure(FRAMES, WIDTH, HEIGHT)
    return Scene(tracks.cameras, 10.0, exposure, layer, MovingLayer(moving, colors))


@pytest.fixture(scope="module")
def details(room, scene) -> dict[int, FrameDetail]:
    exposure = scene.exposure
    return {
        t: FrameDetail.measure(
            room.frames[t], exposure.factor(t), scene.render_plain(t), room.masks[t]
        )
        for t in TRAINING
    }


def with_detail(scene: Scene, details: dict[int, FrameDetail]) -> Scene:
    stored = FrameDetails({t: detail.encode(95) for t, detail in details.items()}, SIZE)
    return replace(scene, detail=ClipDetail(stored, DetailOptions(far=1.0, whole=0.5)))


@pytest.mark.parametrize(("t", "of_movers"), [(HELD_OUT, False), (2, False), (2, True), (5, True)])
def test_frames_are_rebuilt_from_the_detail_of_others(room, scene, details, t, of_movers):
    rebuilt = with_detail(scene, details).rebuild(t)
    mask = room.masks[t] == of_movers
    plain, detailed = (
        psnr(views.merged.rgb, room.frames[t], mask) for views in (rebuilt.field, rebuilt.detailed)
    )
    assert detailed > plain + 3


def test_a_frame_is_rebuilt_without_its_own_detail(room, scene, details):
    t = 2
    others = {s: detail for s, detail in details.items() if s != t}
    pictures = [with_detail(scene, d).rebuild(t).detailed.merged.rgb for d in (details, others)]
    assert (pictures[0] == pictures[1]).all()


def test_a_view_far_from_all_frames_has_no_detail(room, scene, details):
    far = scene.cameras[2]
    pose = far.world_from_cam.clone()
    pose[0, :3, 3] += 0.3 * scene.background.meshes.depth_scale * pose[0, :3, 0]
    view = Cameras(far.K, pose, WIDTH, HEIGHT)
    stored = FrameDetails({t: detail.encode(95) for t, detail in details.items()}, SIZE)
    pictures = [
        replace(scene, moving=None, detail=detail).render(view, 2).rgb
        for detail in (None, ClipDetail(stored))
    ]
    assert (pictures[0] == pictures[1]).all()


def test_the_file_of_detail_is_read_again_and_belongs_to_one_model(tmp_path, details):
    path = tmp_path / "detail.pt"
    save_details(path, details.items(), 92, "this model")
    stored = load_details(path, "this model", SIZE)
    assert all(t in stored for t in TRAINING) and HELD_OUT not in stored
    assert (stored[3].movers == details[3].movers).all()
    with pytest.raises(InputError, match="another model"):
        load_details(path, "that model", SIZE)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: pickle.dumps(print),
    ],
)
def test_a_damaged_file_of_detail_is_refused_in_a_sentence(tmp_path, details, damage):
    path = tmp_path / "detail.pt"
    save_details(path, details.items(), 92, "model")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"detail\.pt"):
        load_details(path, "model", SIZE)


@pytest.mark.parametrize("part", ["residual", "grey", "movers"])
def test_pictures_of_the_wrong_size_or_kind_are_refused_in_a_sentence(tmp_path, details, part):
    for image in (torch.zeros(9, dtype=torch.uint8), details[3].encode(92)[part][:40]):
        data = details[2].encode(92) | {part: image}
        with pytest.raises(InputError, match="detail"):
            FrameDetails({2: data}, SIZE)[2]


def test_a_scene_without_a_file_of_detail_is_drawn_by_its_field(tmp_path, scene):
    assert add_details(scene, tmp_path / "model.pt") is scene
