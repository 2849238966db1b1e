"""What long clips are spared gives the same as the plain way of doing it, on random input."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from models.clip.frame_store import FrameStore
from models.clip.masks import at_points
from models.field import transform_points, world_box
from models.field.world_box import normalization
from models.motion.background_scene import measure_agreement
from models.motion.blobs import Blobs
from models.motion.motion_masks import split_windows
from models.motion.options import MotionOptions
from models.motion.segments import label_movers
from models.pipeline import Canvas, TriangleMeshPipeline
from models.run.files import write_tensors
from models.run.memory import measure_held_memory, return_freed
from models.run.process import paged
from models.run.process.paged import Shelf, allocate, copy_array, release_pages
from models.run.reading import load_tensors
from models.sfm.rotation import _fit_rotations, _Seen
from models.sfm.triangulation import choose_anchors, triangulate
from models.surface.fragments import find_used_vertices
from models.synthetic.sample import RoomOptions, render_room
from models.tracking.dis_flow import dis_flow, follow_by_flow
from models.tracking.flow_fields import FlowFields
from models.tracking.growing import grow_tracks, split_stretches
from models.tracking.options import TrackingOptions
from models.tracking.seeding import end_at_masks, half_life
from models.tracking.sightings import Sightings, dense_tracks
from models.tracks import PointTracks, Tracks, load_tracks, save_tracks
from models.training import refinement
from models.training.inputs import ClipInputs


def random_tracks(
    seed: int, num_frames: int = 12, num_tracks: int = 40
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    visible = random.random((num_frames, num_tracks)) < random.random(num_tracks)
    return random.uniform(0, 50, (num_frames, num_tracks, 2)).astype(np.float32), visible


@pytest.mark.parametrize("seed", range(4))
def test_sightings_hold_all_that_dense_tracks_tell(seed):
    xy, visible = random_tracks(seed)
    sightings = Sightings.of(xy, visible)
    again, seen = sightings.dense()
    np.testing.assert_array_equal(seen, visible)
    np.testing.assert_array_equal(again[visible], xy[visible])
    order = np.random.default_rng(seed).permutation(visible.shape[1])[:25]
    some, seen = sightings.chosen(order).joined(sightings).dense()
    np.testing.assert_array_equal(seen, np.concatenate([visible[:, order], visible], 1))
    np.testing.assert_array_equal(some[seen], np.concatenate([xy[:, order], xy], 1)[seen])


@pytest.mark.parametrize("seed", range(4))
def test_half_life_is_that_of_the_length_told_to_each_sighting(seed):
    length = random_tracks(seed)[1].sum(0)
    assert half_life(random_tracks(seed)[1]) == float(np.median(np.repeat(length, length))) / 2
    assert half_life(np.zeros((5, 3), bool)) == half_life(np.zeros((5, 0), bool)) == 0


@pytest.mark.parametrize("seed", range(2))
def test_agreement_counted_frame_by_frame_is_that_of_all_sightings_at_once(seed):
    xy, visible = random_tracks(seed, 20, 300)
    agrees = visible & (np.random.default_rng(seed).random(visible.shape) < 0.7)
    shape = len(xy), 11, 13  # cells of 4 pixels
    frame, track = np.nonzero(visible)
    row, column = (
        np.clip(xy[frame, track, k] / 4, 0, shape[2 - k] - 1).astype(int) for k in (1, 0)
    )
    where = np.ravel_multi_index((frame, row, column), shape)
    seen = np.bincount(where, minlength=np.prod(shape)).reshape(shape).astype(float)
    good = np.bincount(where, agrees[frame, track], np.prod(shape)).reshape(shape)
    seen_around, good_around = (
        ndimage.gaussian_filter(count, (1.0, 1.5, 1.5)) for count in (seen, good)
    )
    share = good_around / np.maximum(seen_around, 1e-3)
    mean = np.bincount(track, share.ravel()[where], 300) / np.maximum(visible.sum(0), 1)
    told, coverage = measure_agreement(PointTracks(xy, visible, 48, 40), agrees)
    np.testing.assert_array_equal(told, mean)
    assert coverage == (share[seen > 0] > 0.5).mean()


def test_a_track_that_is_not_seen_stays_where_it_was_last():
    xy, visible = random_tracks(0)
    filled = Sightings.of(xy, visible).dense()[0]
    for n in np.flatnonzero(visible.any(0)):
        seen = np.flatnonzero(visible[:, n])
        for t in range(len(xy)):
            last = seen[seen <= t].max() if (seen <= t).any() else seen[0]
            np.testing.assert_array_equal(filled[t, n], xy[last, n])


def test_points_followed_in_parts_are_those_followed_at_once():
    room = render_room(RoomOptions(num_frames=8, width=160, height=90))
    whole, parts = (
        grow_tracks(room.frames, allowed=~room.masks, options=options)
        for options in (TrackingOptions(), TrackingOptions(batch_values=8 * 50))
    )
    np.testing.assert_array_equal(whole.xy, parts.xy)
    np.testing.assert_array_equal(whole.visible, parts.visible)


@pytest.mark.parametrize("seed", range(3))
def test_sightings_gathered_frame_by_frame_are_those_of_dense_tracks(seed):
    xy, visible = random_tracks(seed)
    order = np.random.default_rng(seed).permutation(len(xy))
    parts = [(int(t), np.flatnonzero(visible[t]), xy[t, visible[t]]) for t in order]
    gathered, expected = (
        Sightings.gathered(parts, visible.shape[1], len(xy)),
        Sightings.of(xy, visible),
    )
    for name in ("xy", "frame", "first"):
        np.testing.assert_array_equal(getattr(gathered, name), getattr(expected, name))


def test_tracks_held_in_parts_are_those_held_whole():
    xy, visible = random_tracks(0)
    early, late = visible.copy(), visible.copy()
    early[7:], late[:6] = False, False
    ends = np.flatnonzero(late.any(0))
    parts = [
        (np.arange(len(visible[0])), Sightings.of(xy, early)),
        (ends, Sightings.of(xy[:, ends], late[:, ends])),
    ]
    for whole, again in zip(
        Sightings.of(xy, visible).dense(), dense_tracks(parts, len(visible[0])), strict=True
    ):
        np.testing.assert_array_equal(again, whole)


@pytest.fixture(scope="module")
def moved_room():
    return render_room(RoomOptions(num_frames=12, width=160, height=90))


def test_points_followed_by_flow_are_seen_where_the_tracker_says_until_a_mask(moved_room):
    frames, allowed = moved_room.frames, ~moved_room.masks
    queries = np.array(
        [[t, x, y] for t in (0, 5, 11) for x in range(4, 160, 12) for y in range(4, 90, 12)],
        np.float32,
    )
    start = queries[:, 0].astype(int)
    queries, start = (
        v[allowed[start, queries[:, 2].astype(int), queries[:, 1].astype(int)]]
        for v in (queries, start)
    )
    xy, visible = dis_flow(frames, queries)
    with FlowFields(frames) as fields:
        for masks in (None, allowed):
            found = follow_by_flow(fields, queries, range(12), masks)
            seen = visible if masks is None else end_at_masks(visible, xy, start, masks)
            for name in ("xy", "frame", "first"):
                np.testing.assert_array_equal(
                    getattr(found, name), getattr(Sightings.of(xy, seen), name)
                )
        nearby = follow_by_flow(fields, queries, range(3, 8), None)
        assert nearby.frame[nearby.length.repeat(nearby.length) > 1].max() < 8


def test_a_clip_seeded_in_stretches_is_covered_like_one_seeded_whole(moved_room):
    whole = grow_tracks(moved_room.frames, "dis_flow").visible.sum(1)
    tracks = grow_tracks(moved_room.frames, "dis_flow", options=TrackingOptions(stretch=3))
    xy, visible = tracks.xy, tracks.visible
    assert (visible.sum(1) > 0.8 * whole).all()
    assert visible.sum(0).max() == len(visible)
    assert ((xy[visible] >= 0) & (xy[visible] <= [160, 90])).all()


@pytest.mark.parametrize("num_frames", [1, 2, 100, 101, 1000])
def test_stretches_hold_every_frame_once_and_reach_into_those_before_them(num_frames):
    own, reach = zip(*split_stretches(num_frames), strict=True)
    assert [t for part in own for t in part] == list(range(num_frames))
    assert all(1 <= len(part) <= TrackingOptions().stretch for part in own)
    for n, wide in enumerate(reach):
        assert list(wide) == [t for part in own[max(0, n - 1) : n + 1] for t in part]


def random_blobs(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.random((9, 20, 25)) < random.uniform(0.02, 0.4)


@pytest.mark.parametrize("seed", range(8))
def test_blobs_found_frame_by_frame_are_those_of_the_whole_volume(seed):
    masks = random_blobs(seed)
    blobs = Blobs(masks)
    expected, count = ndimage.label(masks, np.ones((3, 3, 3)))
    np.testing.assert_array_equal(blobs.paint(np.arange(1, count + 1)), expected)
    np.testing.assert_array_equal(blobs.count_pixels(), np.bincount(expected.ravel())[1:])
    for n, lasts in enumerate(blobs.find_lasting(3, 2.0), 1):
        area = (expected == n).sum((1, 2))
        assert lasts == ((area > 0).sum() >= 3 and area[area > 0].mean() >= 2.0)


def test_movers_are_numbered_by_their_size():
    labels = label_movers(random_blobs(0))
    sizes = np.bincount(labels.ravel())[1:]
    assert (np.diff(sizes) <= 0).all()
    for n in range(1, len(sizes) + 1):
        area = (labels == n).sum((1, 2))
        assert (area > 0).sum() >= MotionOptions().shortest
        assert area[area > 0].mean() >= MotionOptions().smallest * labels[0].size


def test_a_clip_without_blobs_has_none():
    assert not Blobs(np.zeros((3, 4, 5), bool)).paint(np.zeros(0, np.uint8)).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_middle_sighting_is_that_of_a_running_count(seed):
    _, visible = random_tracks(seed)
    count = np.cumsum(visible, 0)
    np.testing.assert_array_equal(
        choose_anchors(visible), (count >= (count[-1] + 1) // 2).argmax(0)
    )


def test_values_at_points_are_those_of_one_look_up():
    random = np.random.default_rng(0)
    images, xy = random.integers(0, 9, (5, 30, 40), np.uint8), random.uniform(-5, 50, (5, 60, 2))
    x, y = xy[..., 0].astype(int).clip(0, 39), xy[..., 1].astype(int).clip(0, 29)
    np.testing.assert_array_equal(at_points(images, xy), images[np.arange(5)[:, None], y, x])


def test_points_projected_frame_by_frame_are_those_of_all_frames_at_once():
    cameras = render_room(RoomOptions(num_frames=6, width=160, height=90, num_tracks=400)).cameras
    points = torch.from_numpy(np.random.default_rng(0).uniform(-2, 2, (1000, 3)))
    together = cameras.project(points)
    for t in range(len(cameras)):
        for whole, own in zip(together, cameras[[t]].project(points), strict=True):
            assert torch.equal(whole[t], own[0])
        assert torch.equal(
            cameras.unproject(*together)[t], cameras[[t]].unproject(*(v[[t]] for v in together))[0]
        )


def test_tracks_are_left_in_their_file_until_they_are_looked_at(tmp_path):
    write_tensors(tmp_path / "a.pt", {"xy": torch.zeros(1 << 24)})
    before = measure_held_memory()
    values = load_tensors(tmp_path / "a.pt", mapped=True)["xy"]
    values.sum()
    if before is not None:
        assert measure_held_memory() - before < 16 << 20
    values[0] = 1
    assert load_tensors(tmp_path / "a.pt")["xy"][0] == 0


def mapped_memory() -> int | None:
    """Bytes of files' pages that this process holds; None where the system does not tell."""
    with suppress(OSError, IndexError):
        return int(Path("/proc/self/status").read_text().split("RssFile:")[1].split()[0]) * 1024
    return None


def large_tracks() -> Tracks:
    """Tracks of many points in 16 frames: 29 MB."""
    num_frames, num_tracks = 16, 1 << 17
    cameras, visible = (
        render_room(RoomOptions(num_frames, 32, 18, num_tracks=10)).cameras,
        torch.ones(16, 1 << 17, dtype=torch.bool),
    )
    values = {
        "xy": torch.rand(num_frames, num_tracks, 2),
        "visible": visible,
        "confidence": visible.float(),
    }
    poses = {
        "K": cameras.K,
        "world_from_cam": cameras.world_from_cam,
        "frame_indices": torch.arange(num_frames),
    }
    size = {"width": 32, "height": 18, "fps": 24.0, "layer": "background", "video_path": ""}
    xyz = torch.rand(1, num_tracks, 3).expand(num_frames, -1, -1)
    return Tracks(**values, xyz=xyz, **poses, **size)


def test_a_track_file_that_was_checked_holds_no_memory(tmp_path):
    tracks, path = large_tracks(), tmp_path / "a.pt"
    save_tracks(path, tracks)
    before = mapped_memory()
    again = load_tracks(path)
    if before is not None:
        assert mapped_memory() - before < 2 << 20
    assert torch.equal(again.xy, tracks.xy) and torch.equal(again.visible, tracks.visible)


def test_cameras_of_tracks_that_were_looked_at_hold_no_memory_of_the_file(tmp_path):
    path = tmp_path / "background_points.pt"
    save_tracks(path, large_tracks())
    inputs = ClipInputs(
        tracks=load_tracks(path),
        movers=None,
        frames=np.zeros((16, 18, 32, 3), np.uint8),
        masks=None,
        shadows=None,
        held_out=[],
        files={"background": path},
    )
    before, tracks = mapped_memory(), inputs.unread_tracks()
    assert tracks.xy.sum() > 0
    cameras = tracks.cameras
    del tracks
    if before is not None:
        assert mapped_memory() - before < 2 << 20
    assert torch.equal(cameras.K, inputs.tracks.K)


def test_frames_are_held_once_and_leave_no_memory_behind():
    frame = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
    return_freed()
    before, store = measure_held_memory(), FrameStore(None)
    for _ in range(100):
        store.add(frame.copy())
    frames = store.array()
    return_freed()
    if before is not None:
        assert measure_held_memory() - before < 1.1 * frames.nbytes
    assert (frames == frame).all()


def test_the_canvas_of_meshes_is_that_of_their_corners():
    random = np.random.default_rng(0)
    places = [random.normal(0, 300, (50, 2)) for _ in range(4)]
    assert Canvas.around(places) == Canvas.around(
        [np.stack([xy.min(0), xy.max(0)]) for xy in places]
    )


def test_faces_joined_are_those_of_the_frames_and_are_held_once():
    random = np.random.default_rng(0)
    faces = {t: torch.from_numpy(random.integers(0, 50, (10 + t, 3), np.int32)) for t in (0, 2, 5)}
    trust = {t: torch.rand(10 + t) for t in faces}
    cameras = render_room(RoomOptions(num_frames=6, width=32, height=18, num_tracks=10)).cameras
    meshes = TriangleMeshPipeline(
        cameras, torch.rand(50, 3), dict(faces), dict(trust), Canvas(0, 0, 1, 1)
    )
    all_faces, all_trust = meshes.join_in_place([0, 2, 5])
    assert torch.equal(all_faces, torch.cat(list(faces.values())))
    assert torch.equal(all_trust, torch.cat(list(trust.values())))
    for t in faces:
        assert torch.equal(meshes.faces[t], faces[t]) and torch.equal(meshes.trust[t], trust[t])
        assert (
            meshes.faces[t].untyped_storage().data_ptr() == all_faces.untyped_storage().data_ptr()
        )


@pytest.mark.parametrize("seed", range(2))
def test_arrays_in_files_hold_what_arrays_in_memory_hold(seed, monkeypatch):
    random = np.random.default_rng(seed)
    values = random.normal(size=(7, 50, 3)).astype(np.float32)
    plain = allocate(values.shape, np.float32)
    monkeypatch.setattr(paged, "LARGE", 0)
    held = allocate(values.shape, np.float32)
    assert not plain.any() and not held.any() and isinstance(held.base.base, memoryview)
    held[...] = values
    release_pages()
    np.testing.assert_array_equal(held, values)
    np.testing.assert_array_equal(copy_array(held), values)
    assert allocate((0, 5), bool).shape == (0, 5)


def test_a_shelf_keeps_every_array_and_holds_few(monkeypatch):
    monkeypatch.setattr(paged, "LARGE", 1 << 16)
    random = np.random.default_rng(0)
    kinds = np.int32, np.float32, np.float64, bool
    sizes = [*random.integers(0, 3000, 200), 50_000]
    arrays = [random.random((n, 3)).astype(kinds[i % 4]) for i, n in enumerate(sizes)]
    shelf = Shelf()
    kept = [shelf.keep(array.copy()) for array in arrays]
    release_pages()
    for array, own in zip(arrays, kept, strict=True):
        assert own.dtype == array.dtype
        np.testing.assert_array_equal(own, array)
    in_memory = sum(own.nbytes for own in kept if own.flags.owndata)
    assert in_memory < 1 << 16


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of maps")
def test_values_of_a_mapped_file_outlast_the_release_of_their_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(paged, "LARGE", 1 << 20)
    values = torch.arange(1 << 20)
    write_tensors(tmp_path / "a.pt", {"values": values})
    mapped = load_tensors(tmp_path / "a.pt", mapped=True)["values"]
    assert torch.equal(mapped, values)
    mapped[5] = -1
    release_pages()
    values[5] = -1
    assert torch.equal(mapped, values)


def test_tracks_and_points_in_files_are_those_in_memory(monkeypatch):
    room = render_room(RoomOptions(6, 96, 64, num_movers=0, num_tracks=10))

    def solve():
        tracks = grow_tracks(room.frames, "lucas_kanade")
        points = triangulate(tracks, room.cameras)
        few = tracks.restrict(points.agrees).select(np.isfinite(points.xyz).all(1))
        release_pages()
        return [few.xy, few.visible, points.xyz, points.agrees, points.residual]

    plain = solve()
    monkeypatch.setattr(paged, "LARGE", 0)
    for own, other in zip(solve(), plain, strict=True):
        np.testing.assert_array_equal(own, other)


def fit_rotations_densely(tracks: PointTracks, focal: float, rounds: int):
    """``_fit_rotations`` over all frames times all tracks, in plain numpy."""

    def align(source, target, weight):
        u, _, vt = np.linalg.svd((weight[:, None] * target).T @ source)
        return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt

    visible = tracks.visible
    offset = tracks.xy - [tracks.width / 2, tracks.height / 2]
    rays = np.concatenate([offset / focal, np.ones_like(offset[..., :1])], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    rotations = [np.eye(3)]
    for t in range(1, len(rays)):
        both = (visible[t - 1] & visible[t]).astype(float)
        rotations.append(rotations[-1] @ align(rays[t], rays[t - 1], both))
    rotations = np.stack(rotations)
    weight = visible.astype(float)
    for _ in range(rounds):
        direction = (weight[..., None] * (rays @ rotations.transpose(0, 2, 1))).sum(0)
        direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
        rotations = np.stack([align(rays[t], direction, weight[t]) for t in range(len(rays))])
        turned = rays @ rotations.transpose(0, 2, 1)
        miss = focal * np.linalg.norm(turned - direction, axis=-1)
        weight = visible / (1 + miss**2)
    return rotations[0].T @ rotations, float(np.median(miss[visible]))


@pytest.mark.parametrize("seed", range(3))
def test_rotations_from_observations_are_those_from_dense_arrays(seed):
    room = render_room(RoomOptions(9, 96, 64, seed, 0, "turn", num_tracks=80))
    random = np.random.default_rng(seed)
    xy = (room.track_xy + random.normal(0, 0.3, room.track_xy.shape)).astype(np.float32)
    visible = room.track_visible & (random.random(xy.shape[:2]) < 0.8)
    tracks = PointTracks(xy, visible, 96, 64)
    found, miss = _fit_rotations(_Seen.of(tracks), 90.0, 5)
    plain, plain_miss = fit_rotations_densely(tracks, 90.0, 5)
    np.testing.assert_allclose(found, plain, atol=1e-9)
    np.testing.assert_allclose(miss, plain_miss, atol=1e-9)


@pytest.mark.parametrize("pool", [300, 100_000])
def test_the_vertices_of_a_mesh_are_found_whatever_the_size_of_the_pool(pool):
    faces = torch.from_numpy(np.random.default_rng(0).integers(0, 300, (60, 3), np.int32))
    used, own = find_used_vertices(faces, pool)
    assert torch.equal(used, torch.unique(faces).long()) and used.dtype == own.dtype == torch.int64
    assert torch.equal(used[own], faces.long())


def test_the_vertices_of_all_faces_are_found_without_sorting_them():
    random = np.random.default_rng(0)
    faces = {t: torch.from_numpy(random.integers(0, 500, (60, 3))) for t in range(5)}
    trust = {t: torch.ones(60) for t in faces}
    cameras = render_room(RoomOptions(num_frames=5, width=32, height=18, num_tracks=10)).cameras
    meshes = TriangleMeshPipeline(cameras, torch.rand(500, 3), faces, trust, Canvas(0, 0, 1, 1))
    used = torch.unique(torch.cat([f.flatten() for f in faces.values()]))
    assert torch.equal(meshes.gather_used(), meshes.vertices[used])
    point = torch.rand(3)
    nearest = (meshes.vertices[used].double() - point.double()).norm(dim=1).min()
    assert meshes.clearance(point) == pytest.approx(float(nearest))


@pytest.mark.parametrize("seed", range(3))
def test_the_box_of_many_vertices_is_that_of_all_at_once(seed, monkeypatch):
    cameras = render_room(RoomOptions(num_frames=5, width=32, height=18, num_tracks=10)).cameras
    random = torch.Generator().manual_seed(seed)
    vertices = torch.randn(4000, 3, generator=random)
    vertices[::90] = torch.inf
    whole = normalization(cameras, vertices)
    monkeypatch.setattr(world_box, "_PART", 300)
    parts = normalization(cameras, vertices)
    image = transform_points(parts, vertices[torch.isfinite(vertices).all(1)].double())
    assert float(image.abs().max()) <= 1 + 1e-9
    # the median, of fewer vertices then, sets how far the box's camera stands behind
    torch.testing.assert_close(parts, whole, rtol=0.2, atol=0.05)


def test_distances_of_many_vertices_are_those_of_all_at_once(monkeypatch):
    random = np.random.default_rng(0)
    positions = random.normal(size=(1000, 3)).astype(np.float32)
    positions[7] = np.inf
    poses = random.normal(size=(9, 4, 4))
    whole, parts = np.empty((2, 1000), np.float32)
    refinement._measure_distances(positions, poses, whole)
    monkeypatch.setattr(refinement, "_PART", 90)
    refinement._measure_distances(positions, poses, parts)
    np.testing.assert_array_equal(whole, parts)
    assert whole[7] == 0 and whole[8] > 0


def test_windows_of_a_clip_cover_every_frame_once_and_short_clips_are_whole():
    options = MotionOptions()
    for count in (1, 50, 100):
        assert split_windows(count) == [(range(count), range(count))]
    for count in (101, 250, 1000):
        windows = split_windows(count)
        assert [t for _, own in windows for t in own] == list(range(count))
        for around, own in windows:
            assert len(around) <= options.window_frames + 2 * options.window_margin
            assert around[0] == max(0, own[0] - options.window_margin)
            assert around[-1] == min(count - 1, own[-1] + options.window_margin)
