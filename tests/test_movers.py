from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from clips import neutral_exposure
from heard import Heard
from scipy.ndimage import map_coordinates

from models.cameras import Cameras
from models.field.color_field import ColorField
from models.field.world_box import transform_points
from models.movers.canonical import _HOLD, _solve_poisson, canonical_coordinates
from models.movers.depth import find_contact
from models.movers.local_maps import map_locally
from models.movers.mesh import MovingMesh
from models.movers.moving_pipeline import (
    MovingMeshPipeline,
    _reduce_samples,
    _set_apart,
    fit_canonical_box,
)
from models.movers.options import MoverOptions
from models.movers.pixels import sample_movers
from models.movers.soft_mask import SoftMask
from models.pipeline import WorldSpaceTrianglePipeline
from models.synthetic.sample import RoomOptions, render_room
from models.tools import TrainingFrames
from models.tracks import PointTracks, Tracks

BOX = np.array([[50.0, 40.0], [20.0, 20.0]])


@pytest.fixture(scope="module")
def room():
    """A room with one cart, and the cart's true tracks as a foreground file would hold them."""
    scene = render_room(RoomOptions(num_frames=8, width=160, height=96, num_tracks=800))
    own = np.asarray(scene.track_is_foreground)
    xy, visible = np.asarray(scene.track_xy)[:, own], np.asarray(scene.track_visible)[:, own]
    canonical = np.zeros((own.sum(), 3))
    canonical[:, :2] = canonical_coordinates(PointTracks(xy, visible, 160, 96), scene.masks)
    seen = np.isfinite(canonical).all(1)
    tracks = Tracks(
        xy=torch.as_tensor(xy[:, seen]).float(),
        visible=torch.as_tensor(visible[:, seen]),
        confidence=torch.as_tensor(visible[:, seen]).float(),
        xyz=torch.as_tensor(np.asarray(scene.track_xyz)[:, own][:, seen]).float(),
        K=scene.cameras.K,
        world_from_cam=scene.cameras.world_from_cam,
        width=160,
        height=96,
        fps=24.0,
        frame_indices=torch.arange(8),
        layer="foreground",
        video_path="",
        canonical=torch.as_tensor(canonical[seen]).float(),
        label=torch.ones(int(seen.sum()), dtype=torch.int64),
    )
    return scene, tracks


def no_faces() -> tuple[torch.Tensor, torch.Tensor]:
    """Faces and their movers of a mesh without triangles."""
    return torch.zeros(0, 3).long(), torch.zeros(0).long()


def test_a_local_map_reproduces_any_affine_map():
    random = np.random.default_rng(0)
    source, query = random.uniform(30, 70, (200, 2)), random.uniform(35, 65, (50, 2))
    matrix, shift = np.array([[1.2, 0.3], [-0.2, 0.9]]), np.array([5.0, -3.0])
    home = np.stack([BOX[0] @ matrix.T + shift, BOX[1]])
    found = map_locally(source, source @ matrix.T + shift, query, BOX, home)
    np.testing.assert_allclose(found, query @ matrix.T + shift, atol=0.3)


def test_a_local_map_without_points_carries_the_box():
    found = map_locally(np.zeros((0, 2)), np.zeros((0, 2)), BOX[:1], BOX, BOX + 7.0)
    np.testing.assert_allclose(found, BOX[:1] + 7.0)


def test_canonical_coordinates_of_a_shifting_patch_are_its_place_in_the_reference_frame():
    random = np.random.default_rng(1)
    base = random.uniform(20, 60, (120, 2))
    shift = np.stack([3.0 * np.arange(10), -1.0 * np.arange(10)], 1)
    xy = base[None] + shift[:, None]
    start = random.integers(0, 6, 120)
    times = np.arange(10)[:, None]
    visible = (times >= start) & (times < start + 5)
    masks = np.zeros((10, 100, 120), bool)
    for t in range(10):
        x, y = (20 + shift[t]).astype(int)
        masks[t, y : y + 40, x : x + 40] = True
    place = canonical_coordinates(PointTracks(xy, visible, 120, 100), masks)
    reference = int(visible.sum(1).argmax())
    np.testing.assert_allclose(place, base + shift[reference], atol=0.5)


@pytest.mark.parametrize("seed", range(3))
def test_canonical_coordinates_do_not_shrink_along_a_long_clip_with_tracks_that_stay_behind(
    seed: int,
):
    """A mover goes to and fro for 300 frames; tracks last 20 of them, and a fifth of them are of
    what is behind."""
    random = np.random.default_rng(seed)
    times, surface = np.arange(300)[:, None], random.uniform(-30, 30, (3000, 2))
    path = np.stack([80 + 15 * np.sin(times / 15), np.full(times.shape, 60.0)], 2)
    start, behind = random.integers(-19, 300, 3000), random.random(3000) < 0.2
    visible = (times >= start) & (times < start + 20)
    moved = np.where(behind[:, None], path[np.clip(start + 10, 0, 299), 0], path)
    xy = surface + moved + random.normal(0, 0.1, (300, 3000, 2))
    place = canonical_coordinates(PointTracks(xy, visible, 4, 4), np.zeros((300, 4, 4), bool))
    for t in range(10, 300, 20):
        own = visible[t] & ~behind
        scale = place[own].std(0) / xy[t, own].std(0)
        assert (np.abs(scale - 1) < 0.12).all()
    error = (place - surface - path[visible.sum(1).argmax()])[~behind]
    assert np.median(np.abs(error)) < 1.5


@pytest.mark.parametrize("count", (1, 2, 3, 30))
def test_canonical_coordinates_of_few_points_or_of_points_on_a_line_are_finite(count: int):
    xy = np.stack([np.linspace(10, 40, count), np.full(count, 20.0)], 1) + np.zeros((6, 1, 1))
    visible = np.ones((6, count + 1), bool)
    visible[:, -1] = False
    visible[3] = False
    tracks = PointTracks(np.pad(xy, ((0, 0), (0, 1), (0, 0))), visible, 60, 50)
    place = canonical_coordinates(tracks, np.zeros((6, 50, 60), bool))
    np.testing.assert_allclose(place[:-1], xy[0], atol=0.1)
    assert np.isnan(place[-1]).all()


@pytest.mark.parametrize("seed", range(3))
def test_places_are_the_least_squares_solution(seed: int):
    random = np.random.default_rng(seed)
    ends, weight = random.integers(0, 40, (2, 200)), random.uniform(0.1, 1, 200)
    offset, before = (random.normal(0, 3, (n, 2)) @ [1, 1j] for n in (200, 40))
    rows = np.zeros((200, 40))
    np.add.at(rows, (np.arange(200), ends[0]), -1)
    np.add.at(rows, (np.arange(200), ends[1]), 1)
    stacked = np.concatenate([np.sqrt(weight)[:, None] * rows, np.sqrt(_HOLD) * np.eye(40)])
    wanted = np.concatenate([np.sqrt(weight) * offset, np.sqrt(_HOLD) * before])
    found, true = (
        _solve_poisson(ends, weight, offset, before),
        np.linalg.lstsq(stacked, wanted, rcond=None)[0],
    )
    error = found - true
    assert np.abs(error - error.mean()).max() < 0.01 * np.abs(true - true.mean()).max()


def test_contact_depth_is_that_of_the_ground_below_the_feet():
    inverse = np.linspace(1 / 9, 1 / 2, 80)
    ground = np.repeat(1 / inverse[:, None], 100, 1)
    mask = np.zeros((80, 100), bool)
    mask[20:60, 30:50] = True
    contact = find_contact(mask, ground)
    edge = 2 / (inverse[59] + inverse[60])
    assert contact.depth == pytest.approx(edge, rel=1e-6) and not contact.is_cut


def test_contact_says_whether_the_lower_border_cuts_a_mover():
    mask = np.zeros((80, 100), bool)
    mask[20:, 30:50] = True
    assert find_contact(mask, np.ones((80, 100))).is_cut


def test_holes_below_the_feet_and_a_few_pixels_are_no_contact():
    mask = np.zeros((80, 100), bool)
    mask[20:60, 30:50] = True
    assert find_contact(mask, np.full((80, 100), np.inf)) is None
    mask[:59] = mask[:, :47] = False
    assert find_contact(mask, np.ones((80, 100))) is None


def test_the_mesh_of_a_mover_covers_its_mask_and_alpha_is_soft_only_at_the_outline(room):
    scene, tracks = room
    meshes = MovingMeshPipeline.from_tracks(tracks, scene.masks, list(range(8)))
    matrix, finest = fit_canonical_box(meshes)
    renderer = WorldSpaceTrianglePipeline(ColorField(), matrix)
    assert 128 <= finest <= 2048
    for t in meshes.meshes:
        picture = meshes.draw(renderer, scene.cameras[t], t)
        assert (picture.alpha[scene.masks[t]] > 0.3).mean() > 0.97
        far = ~scene.masks[t] & (picture.alpha > 0.5)
        assert far.mean() < 0.01


def footage_of(scene) -> TrainingFrames:
    return TrainingFrames(scene.frames, range(8), scene.masks, neutral_exposure(8, 160, 96))


def test_pixels_of_movers_lie_in_the_box_of_their_field(room):
    scene, tracks = room
    meshes = MovingMeshPipeline.from_tracks(tracks, scene.masks, list(range(8)))
    pixels = sample_movers(meshes, scene.cameras, footage_of(scene))
    matrix, _ = fit_canonical_box(meshes)
    inside = transform_points(matrix, torch.from_numpy(pixels.places.copy()).double()).abs() <= 1
    assert inside.all(1).float().mean() > 0.97


def test_of_many_pixels_of_movers_a_share_of_each_frame_is_kept(room):
    scene, tracks = room
    meshes = MovingMeshPipeline.from_tracks(tracks, scene.masks, list(range(8)))
    given = meshes, scene.cameras, footage_of(scene)
    whole = sample_movers(*given)
    limit = len(whole) // 4
    heard = Heard()
    few = sample_movers(*given, progress=heard, options=MoverOptions(max_samples=limit))
    assert 0.9 * limit < len(few) < 1.1 * limit
    total = len(meshes.meshes)
    assert heard.steps == [("mover pixels", i, total) for i in range(total + 1)]
    for t in meshes.meshes:
        own, kept = (
            {tuple(p) for p in pixels.places[pixels.frame == t].tolist()} for pixels in (whole, few)
        )
        assert kept <= own and 0.1 * len(own) < len(kept) < 0.4 * len(own)
    rows = {
        tuple(p): tuple(c) for p, c in zip(whole.places.tolist(), whole.rgb.tolist(), strict=True)
    }
    assert all(
        rows[tuple(p)] == tuple(c)
        for p, c in zip(few.places.tolist(), few.rgb.tolist(), strict=True)
    )


def test_between_frames_a_mover_is_between_its_places(room):
    scene, tracks = room
    meshes = MovingMeshPipeline.from_tracks(tracks, scene.masks, [2, 4])
    assert meshes.find_frames(2.0) == [(2, 1.0)]
    assert meshes.find_frames(2.5) == [(2, 0.75), (4, 0.25)]
    mesh = meshes.meshes[2]
    before, later = (mesh.place(time, meshes.cameras.centers.double()) for time in (2.0, 2.5))
    assert mesh.times.tolist() == [2, 4]
    torch.testing.assert_close(before, mesh.xyz)
    straight = before + 0.25 * (mesh.places[1] - before)
    assert (later - straight).norm(dim=1).max() < 0.06 * (mesh.places[1] - before).norm(dim=1).max()


@pytest.mark.parametrize("seed", range(3))
def test_a_mover_is_found_between_frames_though_its_distances_are_guesses(seed: int):
    """Its directions bend smoothly and the camera moves; each frame's distance is off by a factor
    of its own."""
    random = np.random.default_rng(seed)
    path = lambda t: np.array([0.3 * t - 0.02 * t**2, 0.1 * t + 0.015 * t**2, 6.0])  # noqa: E731
    centers = torch.arange(8)[:, None] * torch.from_numpy(random.normal(0, 0.1, (1, 3)))
    shape = random.normal(0, 0.3, (20, 3))
    truth = {t: torch.from_numpy(path(t) + shape) for t in range(8)}
    known = [1, 2, 4, 5]
    factors = random.permutation([0.8, 0.95, 1.05, 1.25])
    places = [
        centers[t] + factor * (truth[t] - centers[t])
        for t, factor in zip(known, factors, strict=True)
    ]
    mesh = MovingMesh(2, torch.tensor(known), torch.stack(places), torch.zeros(20, 5), *no_faces())
    found = mesh.place(3.0, centers) - centers[3]
    true = truth[3] - centers[3]
    cosine = torch.nn.functional.cosine_similarity(found, true, dim=1)
    straight = torch.nn.functional.cosine_similarity(
        (places[1] + places[2]) / 2 - centers[3], true, dim=1
    )
    assert torch.arccos(cosine.clamp(max=1)).max() < 0.2 * torch.arccos(straight.clamp(max=1)).max()
    lengths = [(places[i] - centers[known[i]]).norm(dim=1) for i in (1, 2)]
    torch.testing.assert_close(found.norm(dim=1), (lengths[0] + lengths[1]) / 2)


def test_a_mover_that_stands_still_does_not_follow_a_camera_that_shakes():
    random = torch.Generator().manual_seed(4)
    shape = torch.randn(20, 3, generator=random).double() * 0.3 + torch.tensor([0.0, 0.0, 6.0])
    known = [1, 2, 4, 5]
    centers = torch.zeros(8, 3).double()
    centers[[3]] = torch.tensor([0.1, -0.3, 0.05]).double()
    mesh = MovingMesh(
        2, torch.tensor(known), torch.stack([shape] * 4), torch.zeros(20, 5), *no_faces()
    )
    torch.testing.assert_close(mesh.place(3.0, centers), shape)


def test_a_mover_stays_where_it_is_past_the_places_known():
    places, centers = torch.randn(2, 5, 3), torch.randn(9, 3).double()
    mesh = MovingMesh(4, torch.tensor([3, 4]), places, torch.zeros(5, 5), *no_faces())
    for time in (2.5, 4.0, 4.4, 5.0):
        torch.testing.assert_close(mesh.place(time, centers), places[1])
    with pytest.raises(ValueError, match="frame 6"):
        MovingMesh(6, torch.tensor([3, 4]), places, torch.zeros(5, 5), *no_faces())


def test_a_mover_is_not_drawn_long_before_it_comes(room):
    scene, tracks = room
    masks = scene.masks.copy()
    masks[:5] = False
    meshes = MovingMeshPipeline.from_tracks(tracks, masks, list(range(8)))
    assert not meshes.find_frames(1.0)
    assert meshes.find_frames(6.0) == [(6, 1.0)]


def test_the_state_of_moving_meshes_survives(room):
    scene, tracks = room
    meshes = MovingMeshPipeline.from_tracks(tracks, scene.masks, [1, 3])
    again = MovingMeshPipeline.from_state(meshes.state(), meshes.cameras)
    for t, mesh in meshes.meshes.items():
        torch.testing.assert_close(again.meshes[t].xyz, mesh.xyz)
        assert torch.equal(again.alpha[t].values, meshes.alpha[t].values)
        assert (again.alpha[t].left, again.alpha[t].top) == (
            meshes.alpha[t].left,
            meshes.alpha[t].top,
        )


@pytest.mark.parametrize("seed", range(5))
def test_a_soft_mask_is_that_of_the_whole_image_everywhere(seed: int):
    random = np.random.default_rng(seed)
    mask = np.zeros((40, 60), bool)
    (top, bottom), (left, right) = (
        np.sort(random.integers(0, 41, 2)),
        np.sort(random.integers(0, 61, 2)),
    )
    mask[top : bottom + 1, left : right + 1] = (
        random.random((40, 60))[top : bottom + 1, left : right + 1] < 0.7
    )
    mask[random.integers(40), random.integers(60)] = True
    xy = random.uniform(-3, 63, (40_000, 2)).astype(np.float32)
    soft = (cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7) * 255 + 0.5).astype(np.uint8)
    places = np.clip(xy[:, ::-1] - 0.5, 0, [39, 59]).T  # past the border is what is at it
    np.testing.assert_allclose(
        SoftMask.of(mask, 0.7).at(xy),
        map_coordinates(soft.astype(np.float64), places, order=1) / 255,
        atol=0.02,
    )


def test_a_view_of_more_points_a_pixel_is_their_mean(room):
    """Alpha and colours of a frame's own view, and of one a hair beside it, are nearly the same."""
    scene, tracks = room
    meshes = MovingMeshPipeline.from_tracks(tracks, scene.masks, list(range(8)))
    renderer = WorldSpaceTrianglePipeline(ColorField(), fit_canonical_box(meshes)[0])
    poses = scene.cameras.world_from_cam.clone()
    poses[:, :3, 3] += 1e-7
    beside = Cameras(scene.cameras.K, poses, scene.cameras.width, scene.cameras.height)
    own, other = (meshes.draw(renderer, cameras[3], 3) for cameras in (scene.cameras, beside))
    assert own.rgb.shape == other.rgb.shape
    assert np.abs(own.alpha - other.alpha).mean() < 0.005
    seen = (own.alpha > 0.99) & (other.alpha > 0.99)
    assert np.abs(own.rgb - other.rgb)[seen].max() < 0.02
    assert np.median(np.abs(own.depth[seen] / other.depth[seen] - 1)) < 0.01
    pieces = np.random.default_rng(0).random((4, 6, 4)).astype(np.float32)
    whole = _reduce_samples(pieces, pieces[..., 0], 2)
    block = pieces[2:, 4:].reshape(4, 4)
    np.testing.assert_allclose(whole.alpha[1, 2], block[:, 3].mean(), rtol=1e-5)
    np.testing.assert_allclose(
        whole.rgb[1, 2], (block[:, :3] * block[:, 3:]).sum(0) / block[:, 3].sum(), rtol=1e-5
    )
    assert whole.depth[1, 2] == block[:, 0].min()


@pytest.mark.parametrize("relief", [0.0, 40.0])
def test_movers_do_not_share_places_of_the_colour_field(room, relief: float):
    """Flat movers and movers with a 3D shape, one of them far smaller than the others."""
    _, tracks = room
    random = np.random.default_rng(5)
    count = len(tracks.label)
    label = torch.from_numpy(random.integers(1, 4, count))
    label[:9] = 4
    canonical = random.uniform(0, 1, (count, 3)) * [60, 50, relief]
    canonical = torch.from_numpy(canonical).float()
    places = _set_apart(replace(tracks, canonical=canonical, label=label))
    assert torch.equal(places[:, :2], canonical[:, :2])
    ranges = [
        (float(w.min()), float(w.max())) for w in (places[label == n, 2] for n in range(1, 5))
    ]
    assert all(before[1] < after[0] for before, after in pairwise(ranges))
    meshes = MovingMeshPipeline.from_tracks(tracks, room[0].masks, list(range(8)))
    for number, mesh in enumerate(meshes.meshes.values()):
        meshes.meshes[mesh.frame] = replace(mesh, movers=torch.full_like(mesh.movers, number + 1))
    matrix, _ = fit_canonical_box(meshes)
    inside = transform_points(matrix, tracks.canonical.double()).abs() <= 1
    assert inside.all(1).float().mean() > 0.9
