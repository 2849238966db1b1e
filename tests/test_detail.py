"""Colours of the frames: kept in a file, carried to the surfaces of a view, snapped to outlines."""

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from clips import neutral_exposure, true_tracks

from models.cameras import Cameras, look_at
from models.detail.alignment import align_pair
from models.detail.carry import Source, carry_surfaces, mix_colors
from models.detail.clip_detail import ClipDetail, _share_by_cost
from models.detail.frame_details import (
    BACKGROUND,
    MOVER,
    OUTLINE,
    FrameDetail,
    FrameDetails,
    load_details,
    save_details,
)
from models.detail.options import DetailOptions
from models.detail.source_maps import map_surface
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
K = torch.tensor([[[150.0, 0, 81], [0, 140, 47], [0, 0, 1]]], dtype=torch.float64)


def texture(random: np.random.Generator, sigma: float = 1.5) -> np.ndarray:
    noise = random.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigma)
    return (128 + 40 * blurred / blurred.std()).clip(0, 255).astype(np.uint8)


def camera_at(x: float) -> Cameras:
    """A camera that looks along z from (x, 0, 0)."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = x
    return Cameras(K, pose[None], WIDTH, HEIGHT)


def frame_of(rgb: np.ndarray) -> FrameDetail:
    return FrameDetail.of(rgb, np.ones(rgb.shape), np.zeros(rgb.shape[:2], bool))


def test_a_stored_frame_is_read_with_little_loss():
    random = np.random.default_rng(0)
    frame = texture(random)
    movers = np.zeros((HEIGHT, WIDTH), bool)
    movers[20:40, 30:50] = True
    detail = FrameDetail.of(frame, np.full(frame.shape, 1.1), movers)
    assert np.abs(detail.rgb - frame / 1.1).max() <= 0.51
    again = FrameDetail.decode(detail.encode(95))
    assert np.abs(again.rgb.astype(float) - detail.rgb).mean() < 4
    assert (again.layers == detail.layers).all()
    assert ((detail.layers == MOVER) == movers).all()
    assert detail.layers[18, 35] == OUTLINE and detail.layers[10, 35] == BACKGROUND


def test_a_surface_is_found_in_the_frame_where_its_camera_sees_it():
    random = np.random.default_rng(1)
    up = torch.tensor([0.0, -1, 0], dtype=torch.float64)
    target = torch.tensor([0.1, 0, 4.0], dtype=torch.float64)
    eyes = [torch.from_numpy(random.normal(0, 0.2, 3)) for _ in range(2)]
    frame, view = (Cameras(K, look_at(eye, target, up)[None], WIDTH, HEIGHT) for eye in eyes)
    depth = random.uniform(3, 5, (HEIGHT, WIDTH)).astype(np.float32)
    depth[:5] = np.inf
    found = map_surface(frame, view, depth)
    rows, columns = np.indices(depth.shape)
    xy = torch.from_numpy(np.stack([columns, rows], -1).reshape(1, -1, 2) + 0.5)
    world = view.unproject(xy, torch.from_numpy(depth.reshape(1, -1)).double())[0]
    true_xy, z = (part[0].numpy() for part in frame.project(world))
    known = np.isfinite(depth).ravel()
    got = np.stack([found.x, found.y], -1).reshape(-1, 2)
    np.testing.assert_allclose(got[known], true_xy[known] - 0.5, atol=2e-3)
    np.testing.assert_allclose(found.z.ravel()[known], z[known], rtol=1e-5)
    assert not found.is_inside(WIDTH, HEIGHT).ravel()[~known].any()


def test_the_rendering_shows_where_frames_have_no_weight():
    random = np.random.default_rng(2)
    rendering, other = texture(random), texture(random).astype(np.float32)
    weight = random.uniform(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    mixed = mix_colors(rendering, [(other, weight)])
    share = weight[..., None]
    np.testing.assert_allclose(mixed, share * other + (1 - share) * rendering, atol=1e-3)
    whole = np.ones_like(weight)
    np.testing.assert_allclose(mix_colors(rendering, [(other, whole)] * 2), other, atol=1e-3)
    assert (mix_colors(rendering, []) == rendering).all()


def test_shares_change_smoothly_as_a_view_moves_past_frames():
    frames = np.arange(8.0)
    before = None
    for at in np.linspace(2, 5, 61):
        cost = sorted((abs(t - at), int(t)) for t in frames)
        share = {t: s for (_, t), s in _share_by_cost(cost, 3)}
        assert sum(share.values()) == pytest.approx(1) and min(share.values()) >= 0
        if before is not None:
            assert all(abs(share.get(t, 0) - before.get(t, 0)) < 0.25 for t in range(8))
        before = share
    assert _share_by_cost([(0.0, 3), (1.0, 2), (1.0, 4)], 2)[0][1] == pytest.approx(1, abs=1e-5)
    still = _share_by_cost([(0.0, t) for t in range(5)], 2)
    assert [share for _, share in still] == [0.5, 0.5] and not _share_by_cost([], 2)


def two_planes(outline: int) -> tuple[np.ndarray, np.ndarray, list[Source]]:
    """What a camera at 0 sees of a near plane left of an outline and of a far plane: its picture
    and depth, and frames from both sides of it."""
    random = np.random.default_rng(3)
    near, far = texture(random), texture(random)
    columns = np.arange(WIDTH)

    def seen_from(x: float) -> tuple[np.ndarray, np.ndarray]:
        shift = {z: 150 * x / z for z in (2.0, 4.0)}
        rows = np.indices((HEIGHT, WIDTH), np.float32)
        far_rgb, near_rgb = (
            cv2.remap(plane, rows[1] + np.float32(shift[z]), rows[0], cv2.INTER_LINEAR)
            for plane, z in ((far, 4.0), (near, 2.0))
        )
        is_near = np.broadcast_to(columns + shift[2.0] < outline, (HEIGHT, WIDTH))
        depth = np.where(is_near, np.float32(2), np.float32(4))
        return np.where(is_near[..., None], near_rgb, far_rgb), depth

    sources = []
    for x in (-0.08, 0.08):
        rgb, depth = seen_from(x)
        sources.append(Source(frame_of(rgb), camera_at(x), depth, 0.5))
    return *seen_from(0), sources


def test_an_outline_drawn_beside_its_place_is_snapped_to_the_frames():
    truth, depth, sources = two_planes(80)
    wrong = depth.copy()
    wrong[::2, 77:80] = 4  # a ragged outline
    wrong[1::2, 80:83] = 2
    blurred = cv2.GaussianBlur(truth, (0, 0), 4)
    options = DetailOptions()
    snapped = carry_surfaces(camera_at(0), blurred, wrong, sources, options)
    kept = carry_surfaces(camera_at(0), blurred, wrong, sources, replace(options, unlike=1e-6))
    ragged = wrong != depth
    errors = [np.abs(part.rgb[ragged] - truth[ragged]).mean() for part in (snapped, kept)]
    assert errors[0] < 0.75 * errors[1]
    assert (snapped.depth != depth)[ragged].mean() < 0.5


def test_a_surface_that_frames_do_not_see_keeps_its_rendering():
    random = np.random.default_rng(4)
    truth, depth, sources = two_planes(80)
    blurred = cv2.GaussianBlur(truth, (0, 0), 4)
    # frames that show other things are not taken for the surface, however near they are
    others = [
        replace(source, frame=frame_of(texture(random)), depth=np.full_like(source.depth, 1.0))
        for source in sources
    ]
    hidden = carry_surfaces(camera_at(0), blurred, depth, others)
    assert (hidden.rgb == blurred).mean() > 0.5
    inner = slice(8, -8), slice(20, 60)
    seen = carry_surfaces(camera_at(0), blurred, depth, sources)
    assert np.abs(seen.rgb[inner] - truth[inner]).mean() < 3


def test_noise_of_frames_is_drawn_to_the_rendering_and_detail_is_not():
    random = np.random.default_rng(5)
    truth, depth, sources = two_planes(0)  # the far plane alone
    noisy = []
    for source in sources:
        rgb = source.frame.rgb + random.normal(0, 6, truth.shape)
        noisy.append(replace(source, frame=frame_of(rgb.clip(0, 255).astype(np.uint8))))
    inner = slice(8, -8), slice(12, -12)
    # a rendering that is right is better than two noisy frames, and a blurred one is worse
    right = carry_surfaces(camera_at(0), truth, depth, noisy).rgb
    error = np.square(right - truth)[inner].mean()
    assert error < 0.5 * 6**2 / 2
    blurred = cv2.GaussianBlur(truth, (0, 0), 3)
    sharp = carry_surfaces(camera_at(0), blurred, depth, noisy).rgb
    error, before = (np.square(rgb - truth.astype(float))[inner].mean() for rgb in (sharp, blurred))
    assert error < 0.1 * before


@pytest.fixture(scope="module")
def room():
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_tracks=4000))


@pytest.fixture(scope="module")
def scene(room) -> Scene:
    """A scene whose colour fields have learned nothing: all that its views show is detail."""
    tracks = true_tracks(room, False)
    meshes = TriangleMeshPipeline.from_tracks(tracks, TRAINING, room.masks)
    field = ColorField(HashGrid(log2_entries=12, finest_resolution=64))
    box = normalization(tracks.cameras, meshes.gather_used())
    moving = MovingMeshPipeline.from_tracks(true_tracks(room, True), room.masks, TRAINING)
    colors = WorldSpaceTrianglePipeline(field, fit_canonical_box(moving)[0])
    layer = Layer(meshes, WorldSpaceTrianglePipeline(field, box))
    exposure = neutral_exposure(FRAMES, WIDTH, HEIGHT)
    return Scene(tracks.cameras, 10.0, exposure, layer, MovingLayer(moving, colors))


@pytest.fixture(scope="module")
def details(room, scene) -> dict[int, FrameDetail]:
    return {
        t: FrameDetail.of(room.frames[t], scene.exposure.factor(t), room.masks[t]) for t in TRAINING
    }


def with_detail(scene: Scene, details: dict[int, FrameDetail]) -> Scene:
    stored = FrameDetails({t: detail.encode(95) for t, detail in details.items()}, SIZE)
    return replace(scene, detail=ClipDetail(stored, DetailOptions(far=1.0, whole=0.5)))


@pytest.mark.parametrize(("t", "of_movers"), [(HELD_OUT, False), (2, False)])
def test_frames_are_rebuilt_from_the_colours_of_others(room, scene, details, t, of_movers):
    rebuilt = with_detail(scene, details).rebuild(t)
    mask = room.masks[t] == of_movers
    plain, detailed = (
        psnr(views.merged.rgb, room.frames[t], mask) for views in (rebuilt.field, rebuilt.detailed)
    )
    assert detailed > plain + 3


def test_movers_take_the_colours_of_the_frames_that_they_are_drawn_from(room, scene, details):
    t = 5
    full = with_detail(scene, details)
    mask = room.masks[t]
    # another view has the frame's own colours
    view = replace(full.cameras[t], width=WIDTH + 1)
    own = full.views(view, t).merged.rgb[:, :WIDTH]
    assert (
        psnr(own, room.frames[t], mask)
        > psnr(full.rebuild(t).field.merged.rgb, room.frames[t], mask) + 3
    )
    rebuilt = full.rebuild(t)
    apart = rebuilt.detailed.foreground.astype(int) - rebuilt.field.foreground
    assert np.abs(apart).max() <= 1


def test_a_frame_is_rebuilt_without_its_own_colours(scene, details):
    t = 2
    others = {s: detail for s, detail in details.items() if s != t}
    pictures = [with_detail(scene, d).rebuild(t).detailed.merged.rgb for d in (details, others)]
    assert (pictures[0] == pictures[1]).all()


@pytest.mark.parametrize("change", ["far away", "small"])
def test_a_view_far_away_or_of_few_pixels_is_drawn_by_the_field_alone(scene, details, change):
    view = scene.cameras[2]
    if change == "far away":
        pose = view.world_from_cam.clone()
        pose[0, :3, 3] += 0.3 * scene.background.meshes.depth_scale * pose[0, :3, 1]
        view = replace(view, world_from_cam=pose)
    else:
        view = view.resized(WIDTH // 2, HEIGHT // 2)
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
    assert (stored[3].layers == details[3].layers).all()
    with pytest.raises(InputError, match="another model"):
        load_details(path, "that model", SIZE)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: pickle.dumps(print)],
)
def test_a_damaged_file_of_detail_is_refused_in_a_sentence(tmp_path, details, damage):
    path = tmp_path / "detail.pt"
    save_details(path, details.items(), 92, "model")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"detail\.pt"):
        load_details(path, "model", SIZE)


@pytest.mark.parametrize("part", ["rgb", "layers"])
def test_pictures_of_the_wrong_size_or_kind_are_refused_in_a_sentence(details, part):
    good = details[3].encode(92)
    small = FrameDetail.of(np.zeros((9, 9, 3), np.uint8), np.ones(3), np.zeros((9, 9), bool))
    for image in (torch.zeros(9, dtype=torch.uint8), small.encode(92)[part]):
        with pytest.raises(InputError, match="detail"):
            FrameDetails({2: good | {part: image}}, SIZE)[2]


def test_a_scene_without_a_file_of_detail_is_drawn_by_its_field(tmp_path, scene):
    assert add_details(scene, tmp_path / "model.pt") is scene


@pytest.mark.parametrize(("apart", "share"), [(0.0, 0.5), (0.7, 0.5), (0.7, 0.2), (1.6, 0.8)])
def test_pictures_that_are_a_little_apart_meet_between_their_places(apart, share):
    image = texture(np.random.default_rng(3), 2.0).astype(np.float32)

    def shift(by: float) -> np.ndarray:
        matrix = np.float32([[1, 0, by], [0, 1, 0]])
        return cv2.warpAffine(image, matrix, SIZE, flags=cv2.INTER_CUBIC, borderMode=1)

    everywhere = np.ones((HEIGHT, WIDTH), bool)
    first, second = shift(0.0), shift(apart)
    moved = align_pair(first, second, everywhere, share)
    inner = slice(8, -8), slice(8, -8)
    expected = shift((1 - share) * apart)[inner]
    for own, before in zip(moved, (first, second), strict=True):
        error = np.abs(own[inner] - expected).mean()
        assert error <= 0.35 * np.abs(before[inner] - expected).mean() + 0.5
    apart_now = np.abs(moved[0] - moved[1]).mean()
    assert apart_now <= np.abs(first - second).mean()


def test_pictures_that_share_nothing_or_are_tiny_stay():
    random = np.random.default_rng(0)
    first, second = (texture(random).astype(np.float32) for _ in range(2))
    for same in align_pair(first, second, np.zeros((HEIGHT, WIDTH), bool), 0.5):
        assert same is first or same is second
    tiny = first[:5, :7], second[:5, :7]
    moved = align_pair(*tiny, np.ones((5, 7), bool), 0.5)
    np.testing.assert_array_equal(moved[0], tiny[0])
