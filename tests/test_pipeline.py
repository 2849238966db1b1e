from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from models.cameras import Cameras, look_at
from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.optimizer import FieldOptimizer
from models.field.world_box import normalization, transform_points
from models.pipeline import (
    TriangleMeshPipeline,
    WorldSpaceTrianglePipeline,
)
from models.render.metrics import psnr
from models.render.options import RenderOptions
from models.render.rendering import render_view
from models.render.seen import find_seen
from models.render.view_choice import choose_drawn, choose_nearest
from models.run.errors import InputError
from models.sfm.static_scene import solve_scene
from models.surface.meshing import BORDER_TRUST
from models.synthetic.folder import build_novel_cameras
from models.synthetic.sample import RoomOptions, render_room, render_views
from models.tools import (
    BatchSettings,
    DevicePixels,
    HostPixels,
    PixelOrder,
    TrainingFrames,
    sample_points,
)
from models.tracking.growing import grow_tracks
from models.tracking.options import TrackingOptions
from models.tracks import Tracks
from models.training.loop import LayerTraining, train
from models.training.options import Schedule

WIDTH, HEIGHT, NUM_FRAMES = 200, 112, 12
HELD_OUT = 4


def static_tracks(room, spacing: int = 8) -> Tracks:
    """Tracks of the room's static part under its true cameras."""
    options = TrackingOptions(spacing=spacing)
    tracks = grow_tracks(room.frames, allowed=~room.masks, options=options)
    points = solve_scene(tracks, room.cameras).points
    good = np.isfinite(points.xyz).all(1)
    agrees = torch.from_numpy(points.agrees[:, good])
    return Tracks(
        xy=torch.from_numpy(tracks.xy[:, good]),
        visible=agrees,
        confidence=agrees.float(),
        xyz=torch.from_numpy(points.xyz[good]).float()[None].expand(NUM_FRAMES, -1, -1),
        K=room.cameras.K,
        world_from_cam=room.cameras.world_from_cam,
        width=WIDTH,
        height=HEIGHT,
        fps=24.0,
        frame_indices=torch.arange(NUM_FRAMES),
        layer="background",
        video_path="",
    )


def small_field(seed: int = 0) -> ColorField:
    generator = torch.Generator().manual_seed(seed)
    grid = HashGrid(log2_entries=15, finest_resolution=512, generator=generator)
    return ColorField(grid, generator=generator)


@pytest.fixture(scope="module")
def scene():
    room = render_room(RoomOptions(NUM_FRAMES, WIDTH, HEIGHT, num_movers=1, num_tracks=0))
    tracks = static_tracks(room)
    times = [t for t in range(NUM_FRAMES) if t != HELD_OUT]
    meshes = TriangleMeshPipeline.from_tracks(tracks, times)
    pixels = sample_points(meshes, TrainingFrames(room.frames, times, room.masks))
    return SimpleNamespace(room=room, tracks=tracks, times=times, meshes=meshes, pixels=pixels)


@pytest.fixture(scope="module")
def trained(scene):
    renderer = WorldSpaceTrianglePipeline(
        small_field(), normalization(scene.meshes.cameras, scene.meshes.vertices)
    )
    positions = scene.meshes.vertices.numpy()
    schedule = Schedule(num_epochs=8, batch_size=1 << 14)
    layer = LayerTraining(renderer, scene.pixels, positions)
    train(layer, schedule, np.random.default_rng(0))
    return renderer


def test_normalization_maps_all_vertices_into_the_cube_and_back(scene):
    vertices = scene.meshes.vertices.double()
    matrix = normalization(scene.meshes.cameras, vertices)
    cube = transform_points(matrix, vertices)
    assert cube.abs().max() <= 1 + 1e-9
    assert cube.amax(0)[2] == pytest.approx(1) and cube.amin(0)[2] == pytest.approx(-1)
    torch.testing.assert_close(
        transform_points(torch.linalg.inv(matrix), cube), vertices, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("sweep", [0, 30, 100, 160, 300, 359])
def test_normalization_holds_for_cameras_that_turn_far(sweep):
    angles = torch.deg2rad(torch.linspace(-sweep / 2, sweep / 2, 21).double())
    zero, up = torch.zeros(3).double(), torch.tensor([0.0, -1, 0]).double()
    poses = [look_at(zero, torch.stack([a.sin(), a * 0, a.cos()]), up) for a in angles]
    K = torch.tensor([[200.0, 0, 100], [0, 200, 56], [0, 0, 1]]).double().repeat(21, 1, 1)
    cameras = Cameras(K, torch.stack(poses), WIDTH, HEIGHT)
    xy = torch.rand(21, 40, 2, generator=torch.Generator().manual_seed(0)).double() * torch.tensor(
        [WIDTH, HEIGHT]
    )
    vertices = cameras.unproject(xy, torch.full((21, 40), 3.0).double()).reshape(-1, 3)
    matrix = normalization(cameras, vertices)
    cube = transform_points(matrix, vertices)
    assert cube.isfinite().all() and cube.abs().max() <= 1 + 1e-9
    torch.testing.assert_close(
        transform_points(torch.linalg.inv(matrix), cube), vertices, rtol=1e-5, atol=1e-5
    )


def test_views_off_the_path_ask_frames_aside_with_less_weight_than_any_surface_of_the_nearest(
    scene,
):
    meshes, cameras = scene.meshes, scene.meshes.cameras
    pose = cameras.world_from_cam[[5]].clone()
    pose[:, :3, 3] += 0.06 * meshes.depth_scale * pose[:, :3, 1]
    off = replace(cameras[5], world_from_cam=pose)
    options = RenderOptions(blended_off_path=6)
    near, far = choose_nearest(meshes, off, 6), choose_drawn(meshes, off, options)
    count = len(near.frames)
    assert far.frames[:count] == near.frames and far.weights[:count] == near.weights
    assert 1 <= len(far.frames) - count <= 2 and len(set(far.frames)) == len(far.frames)
    assert max(far.weights[count:]) < BORDER_TRUST * min(near.weights)
    assert choose_drawn(meshes, cameras[5]) == choose_nearest(meshes, cameras[5], 4)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 1.0])
def test_depth_gets_no_more_of_the_cube_than_parallax_tells(scene, share):
    cameras, vertices = scene.meshes.cameras, scene.meshes.vertices.double()
    centers = cameras.centers.mean(0) + share * (cameras.centers - cameras.centers.mean(0))
    poses = cameras.world_from_cam.clone()
    poses[:, :3, 3] = centers
    box = transform_points(
        normalization(replace(cameras, world_from_cam=poses), vertices), vertices
    )
    depth = box[:, 2].max() - box[:, 2].min()
    across = (box[:, :2].max(0).values - box[:, :2].min(0).values).max()
    torch.testing.assert_close(across, torch.tensor(2.0).double(), atol=1e-6, rtol=0)
    path = 2 * (centers - centers.mean(0)).norm(dim=1).max()
    assert depth <= 2 + 1e-6
    if share < 0.1:
        inverse = 1 / cameras.to_camera(vertices)[:, :, 2]
        parallax = 0.5 * float(
            (inverse.amax() - inverse.amin()) * path
        )  # half of it, against half the width
        assert depth / 2 <= max(1e-3, 4 * parallax / 0.3) + 1e-6


def test_normalization_ignores_vertices_that_are_not_finite(scene):
    vertices = scene.meshes.vertices
    more = torch.cat([vertices, torch.full((1, 3), torch.nan)])
    assert torch.equal(
        normalization(scene.meshes.cameras, vertices), normalization(scene.meshes.cameras, more)
    )


def test_training_points_project_onto_the_centres_of_their_pixels(scene):
    pixels = scene.pixels
    index = np.random.default_rng(0).integers(0, len(pixels), 3000)
    points = torch.from_numpy(pixels.points(index, scene.meshes.vertices.numpy())).double()
    frame = pixels.frame[index]
    xy, depth = scene.meshes.cameras[torch.from_numpy(frame).long()].project(points[:, None])
    row, column = np.divmod(pixels.pixel[index], WIDTH)
    np.testing.assert_allclose(xy[:, 0].numpy(), np.stack([column, row], 1) + 0.5, atol=0.01)
    assert (depth > 0).all()
    np.testing.assert_allclose(
        pixels.rgb[index], scene.room.frames[frame, row, column] / 255, atol=3e-4
    )


def test_training_points_lie_on_the_surface_that_is_drawn(scene):
    meshes, pixels = scene.meshes, scene.pixels
    index = np.flatnonzero(pixels.frame == 6)
    points = torch.from_numpy(pixels.points(index, meshes.vertices.numpy())).double()
    _, depth = meshes.cameras[[6]].project(points)
    drawn = meshes.fragments(6, meshes.cameras[6]).depth.numpy().ravel()[pixels.pixel[index]]
    np.testing.assert_allclose(depth[0].numpy(), drawn, rtol=1e-3)


def test_the_mesh_of_a_frame_covers_it_and_has_the_true_depth(scene):
    for t in (0, 6, 11):
        drawn = scene.meshes.fragments(t, scene.meshes.cameras[t])
        assert (drawn.face >= 0).float().mean() > 0.995
        static = ~scene.room.masks[t]
        error = np.abs(drawn.depth.numpy() / scene.room.depth[t] - 1)[static]
        assert np.median(error) < 0.03


def test_held_out_frames_contribute_nothing(scene):
    frames = scene.room.frames.copy()
    frames[HELD_OUT] = 255 - frames[HELD_OUT]
    footage = TrainingFrames(frames, range(NUM_FRAMES), scene.room.masks)
    again = sample_points(scene.meshes, footage)
    assert HELD_OUT not in scene.meshes.faces
    assert HELD_OUT not in scene.pixels.frame
    for name in ("frame", "pixel", "face", "rgb", "vertices"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scene.pixels, name))


def test_masked_pixels_contribute_nothing(scene):
    masks = np.zeros_like(scene.room.masks)
    masks[:, 20:60, 30:90] = True
    frames = np.where(masks[..., None], np.uint8(77), scene.room.frames)
    first, second = (
        sample_points(scene.meshes, TrainingFrames(f, scene.times, masks))
        for f in (frames, scene.room.frames)
    )
    assert not masks[first.frame, first.pixel // WIDTH, first.pixel % WIDTH].any()
    np.testing.assert_array_equal(first.rgb, second.rgb)
    unmasked = sample_points(scene.meshes, TrainingFrames(frames, scene.times))
    assert len(unmasked) - len(first) == pytest.approx(masks[scene.times].sum(), rel=0.01)


def test_a_limit_takes_the_same_share_of_every_frame(scene):
    limit = len(scene.pixels) // 4
    few = sample_points(scene.meshes, TrainingFrames(scene.room.frames, scene.times), limit)
    counts = np.bincount(few.frame, minlength=NUM_FRAMES)[scene.times]
    assert len(few) == pytest.approx(limit, rel=0.03)
    assert counts.min() > 0.85 * counts.mean()
    kept = [set(few.pixel[few.frame == t].tolist()) for t in scene.times[:2]]
    assert len(kept[0] & kept[1]) < 0.5 * len(kept[0])


def test_the_nearest_frame_of_a_training_camera_is_that_frame(scene):
    for t in scene.times:
        nearest = choose_nearest(scene.meshes, scene.meshes.cameras[t], 4)
        frames, weights = nearest.frames, nearest.weights
        assert scene.meshes.nearest_frame(scene.meshes.cameras[t]) == t
        assert frames[0] == t and weights[0] == max(weights)
        assert sum(weights) == pytest.approx(1)
        assert len(set(frames)) == 4


def test_a_held_out_camera_is_seen_from_its_neighbours(scene):
    frames = choose_nearest(scene.meshes, scene.meshes.cameras[HELD_OUT], 2).frames
    assert sorted(frames) == [HELD_OUT - 1, HELD_OUT + 1]


def test_vertices_lie_on_the_canvas(scene):
    canvas, meshes = scene.meshes.canvas, scene.meshes
    for t in scene.times:
        used = meshes.vertices[meshes.faces[t].unique()].double()
        xy = meshes.cameras[[t]].project(used)[0][0] - torch.tensor([canvas.left, canvas.top])
        assert (xy > -0.1).all() and (xy < torch.tensor([canvas.width, canvas.height]) + 0.1).all()


def test_tracks_without_points_are_refused(scene):
    tracks = scene.tracks
    blind = Tracks(**{**vars(tracks), "visible": torch.zeros_like(tracks.visible)})
    with pytest.raises(InputError, match="no frame has enough tracked points"):
        TriangleMeshPipeline.from_tracks(blind, range(NUM_FRAMES))


def test_a_training_view_is_close_to_its_frame(scene, trained):
    drawn = render_view(scene.meshes, trained, scene.meshes.cameras[6])
    static = ~scene.room.masks[6]
    assert drawn.covered.mean() > 0.99
    assert psnr(drawn.rgb, scene.room.frames[6], static) > 24


def test_a_held_out_view_is_close_to_its_frame(scene, trained):
    drawn = render_view(scene.meshes, trained, scene.meshes.cameras[HELD_OUT])
    assert psnr(drawn.rgb, scene.room.frames[HELD_OUT], ~scene.room.masks[HELD_OUT]) > 23.3


def test_a_novel_view_is_close_to_the_truth(scene, trained):
    cameras, times = build_novel_cameras(scene.room, "right")
    truth, depth, masks = render_views(cameras, times, NUM_FRAMES)
    drawn = render_view(scene.meshes, trained, cameras[1])
    assert drawn.rgb.shape == truth[1].shape
    assert psnr(drawn.rgb, truth[1], ~masks[1]) > 22.5
    error = np.abs(drawn.depth / depth[1] - 1)[~masks[1] & drawn.covered]
    assert np.median(error) < 0.03


def test_a_view_from_far_away_is_filled_with_colours(scene, trained):
    cameras, _ = build_novel_cameras(scene.room, "right")
    pose = cameras.world_from_cam[:1].clone()
    pose[:, :3, 3] -= 3 * pose[:, :3, 2]
    drawn = render_view(scene.meshes, trained, Cameras(cameras.K[:1], pose, WIDTH, HEIGHT))
    assert 0.02 < (~drawn.covered).mean() < 0.98
    assert np.isinf(drawn.depth[~drawn.covered]).any()
    assert drawn.rgb[~drawn.covered].mean() > 20


@pytest.mark.parametrize("offset", [[0, 0, 0], [0.3, -0.5, 0.1], [-2.0, 0, -1.0]])
def test_pixels_are_seen_that_lie_inside_the_image_of_a_frame_with_a_mesh(scene, trained, offset):
    view = shifted(scene.meshes.cameras[NUM_FRAMES - 1], offset)
    drawn = render_view(scene.meshes, trained, view)
    rows, columns = np.nonzero(np.isfinite(drawn.depth))
    xy = torch.from_numpy(np.stack([columns + 0.5, rows + 0.5], 1))[None]
    z = torch.from_numpy(drawn.depth[rows, columns]).double()[None]
    frames = scene.meshes.cameras[list(scene.meshes.faces)]
    pixels, depth = frames.project(view.unproject(xy, z)[0])
    inside = ((pixels >= 0) & (pixels <= torch.tensor([WIDTH, HEIGHT]))).all(-1) & (depth > 0)
    expected = np.zeros(drawn.depth.shape, bool)
    expected[rows, columns] = inside.any(0).numpy()
    np.testing.assert_array_equal(find_seen(scene.meshes, view, drawn.depth), expected)
    np.testing.assert_array_equal(drawn.covered, expected)
    assert expected.all() == (offset == [0, 0, 0])


# Points of a pixel are read apart, as the plain path reads them, unless they lie within a quarter of a
# cell.
APART = RenderOptions(merged_cells=0.25)


def both_paths(scene, renderer, camera):
    """The same view by the plain path and by the CPU kernels."""
    pictures = []
    try:
        for renderer.field.backend in ("torch", "auto"):
            pictures.append(render_view(scene.meshes, renderer, camera, APART))
    finally:
        renderer.field.backend = "auto"
    return pictures


def shifted(camera: Cameras, offset: list[float]) -> Cameras:
    """One camera, moved along its own axes."""
    pose = camera.world_from_cam.clone()
    pose[0, :3, 3] += pose[0, :3, :3] @ torch.tensor(offset, dtype=pose.dtype)
    return Cameras(camera.K, pose, WIDTH, HEIGHT).resized(WIDTH // 2 + 1, HEIGHT // 2)


def turned(camera: Cameras, degrees: float) -> Cameras:
    """One camera, turned about its own vertical axis."""
    pose = camera.world_from_cam.clone()
    turn = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    pose[0, :3, :3] = pose[0, :3, :3] @ torch.from_numpy(turn).to(pose)
    return replace(camera, world_from_cam=pose)


@pytest.mark.parametrize("offset", [[0, 0, 0], [0.05, -0.02, 0.1], [0.3, 0, -1.0], [0, 0, -60.0]])
def test_a_view_in_tiles_is_that_of_the_plain_path(scene, trained, offset):
    plain, fast = both_paths(scene, trained, shifted(scene.meshes.cameras[HELD_OUT], offset))
    np.testing.assert_array_equal(fast.covered, plain.covered)
    close = np.isclose(fast.depth, plain.depth, rtol=1e-5)
    assert close.mean() > 0.9999
    assert psnr(fast.rgb, plain.rgb) > 60
    assert np.abs(fast.rgb.astype(int) - plain.rgb)[close].max() <= 3


@pytest.mark.parametrize("offset", [[0, 0, 0], [0.05, -0.02, 0.1], [0.3, 0, -1.0]])
def test_points_of_a_cell_are_read_together_without_being_seen(scene, trained, offset):
    camera = shifted(scene.meshes.cameras[HELD_OUT], offset)
    together, apart = (
        render_view(scene.meshes, trained, camera, options) for options in (RenderOptions(), APART)
    )
    np.testing.assert_array_equal(together.depth, apart.depth)
    assert psnr(together.rgb, apart.rgb) > 45


def test_a_view_that_the_nearest_frames_do_not_show_whole_asks_further_frames(scene):
    meshes, cameras = scene.meshes, scene.meshes.cameras
    options = RenderOptions(blended=1, blended_off_path=len(meshes.faces))
    drawn = {}
    for degrees in (0, 6):
        view = turned(cameras[5], degrees)
        drawn[degrees] = choose_drawn(meshes, view, options).frames
    assert drawn[0] == [5]
    assert len(drawn[6]) == len(meshes.faces)
    alone = replace(options, missing_most=1.0)
    assert len(choose_drawn(meshes, turned(cameras[5], 6), alone).frames) == 1


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_meshes_can_be_joined(scene, trained, count):
    cameras, pictures = scene.meshes.cameras, []
    for tile_pixels in (RenderOptions.tile_pixels, 1):
        options = RenderOptions(blended=count, tile_pixels=tile_pixels)
        pictures.append(render_view(scene.meshes, trained, cameras[HELD_OUT], options))
    np.testing.assert_array_equal(pictures[0].rgb, pictures[1].rgb)
    np.testing.assert_array_equal(pictures[0].depth, pictures[1].depth)


def test_a_view_does_not_depend_on_the_threads(scene, trained):
    threads, pictures = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            pictures.append(render_view(scene.meshes, trained, scene.meshes.cameras[HELD_OUT]))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(pictures[0].rgb, pictures[1].rgb)


def test_a_face_that_names_no_vertex_is_refused(scene, trained):
    meshes = scene.meshes
    broken = {t: faces + len(meshes.vertices) for t, faces in meshes.faces.items()}
    broken = TriangleMeshPipeline(
        meshes.cameras, meshes.vertices, broken, meshes.trust, meshes.canvas
    )
    broken.depth_scale = meshes.depth_scale
    # Without further frames: measuring what those show would refuse the face first.
    options = RenderOptions(blended_off_path=RenderOptions.blended)
    with pytest.raises(ValueError, match="vertex that does not exist"):
        render_view(broken, trained, meshes.cameras[0], options)
    with pytest.raises(ValueError, match="name vertices"):
        broken.fragments(0, meshes.cameras[0])


def test_batches_of_all_forms_are_the_same(scene):
    pixels, vertices = scene.pixels, scene.meshes.shared_vertices()
    matrix = normalization(scene.meshes.cameras, scene.meshes.vertices)
    settings = BatchSettings(matrix, vertices, least_weight=0.5)
    index = np.random.default_rng(5).integers(0, len(pixels), 1001)
    fast = HostPixels(pixels, settings).batch(torch.from_numpy(index))
    there = DevicePixels(pixels, settings).batch(torch.from_numpy(index))
    points = torch.from_numpy(pixels.points(index, vertices)).double()
    plain = (
        transform_points(matrix, points).float(),
        torch.from_numpy(pixels.rgb[index].astype(np.float32)),
        torch.from_numpy(pixels.trust[pixels.face[index]].clip(0.5)),
    )
    for values in zip(
        (fast.points, fast.rgb, fast.weight),
        plain,
        (there.points, there.rgb, there.weight),
        strict=True,
    ):
        for other in values[1:]:
            np.testing.assert_allclose(values[0], other, rtol=1e-5, atol=2e-5)
    assert torch.equal(fast.frame, there.frame)
    assert (fast.frame.numpy() == pixels.frame[index]).all()
    assert fast.weight.min() >= 0.5 > pixels.trust.min()
    none = torch.zeros(0, dtype=torch.int64)
    assert len(HostPixels(pixels, settings).batch(none).points) == 0


def test_each_pass_takes_every_pixel_once_in_an_order_of_its_own():
    frame = np.repeat(np.arange(10), 100)
    order = PixelOrder(frame, 5, torch.device("cpu"))
    drawn = torch.cat([order.draw(count) for count in (1, 333, 1666, 1000)]).reshape(3, 1000)
    assert (drawn.sort(1).values == torch.arange(1000)).all()
    assert not torch.equal(drawn[0], drawn[1])
    assert (drawn[0, :500] < 500).float().mean() < 0.6
    later = PixelOrder(frame, 5, torch.device("cpu"))
    later.drawn = 1500  # as a resumed run
    assert torch.equal(later.draw(700), drawn.flatten()[1500:2200])


@pytest.mark.parametrize("seed", range(3))
def test_a_pass_over_many_pixels_takes_groups_of_frames_from_the_whole_clip(seed):
    sizes = np.random.default_rng(seed).integers(20, 90, 40)
    frame = np.repeat(3 * np.arange(40), sizes)
    count = len(frame)
    order = PixelOrder(frame, seed, torch.device("cpu"), group=count // 5 + 1)
    drawn = torch.cat([order.draw(k) for k in (1, 333, 3 * count - 334)]).reshape(3, count)
    assert (drawn.sort(1).values == torch.arange(count)).all()
    groups = [np.unique(frame[part]) for part in np.array_split(drawn[0].numpy(), 5)]
    # the border of two groups need not lie at a fifth of the pixels
    assert all(len(own) < 20 and own[-1] - own[0] > 40 for own in groups)
    second = np.unique(frame[drawn[1, : count // 5].numpy()])
    assert set(second) != set(groups[0])
    later = PixelOrder(frame, seed, torch.device("cpu"), group=count // 5 + 1)
    later.drawn = count + 700  # as a resumed run
    assert torch.equal(later.draw(700), drawn.flatten()[count + 700 : count + 1400])


def test_short_clips_are_learned_in_smaller_batches():
    sizes = [Schedule(2.5).choose_batch_size(pixels, 800) for pixels in (10**5, 5 * 10**6, 10**8)]
    assert sizes == [1 << 13, 1 << 13, 1 << 15]
    shared = [Schedule(2.5).choose_batch_size(10**7, 800, ranks) for ranks in (1, 2, 4, 64)]
    assert shared == [1 << 14, 1 << 14, 1 << 13, 1 << 13]
    assert Schedule(2.5, batch_size=100).choose_batch_size(10**8, 800) == 100


def test_a_sample_costs_twenty_bytes_whatever_is_left_out(scene):
    few = sample_points(scene.meshes, TrainingFrames(scene.room.frames, scene.times), limit=1000)
    assert (
        few.frame.strides == few.pixel.strides == few.face.strides == few.rgb.strides[:1] == (16,)
    )
    assert few.frame.base is not None and few.frame.base.nbytes < 16 * 1500


def test_training_without_a_gpu_is_repeatable_to_the_bit_whether_watched_or_not(scene):
    fields, schedule, positions = [], Schedule(num_epochs=0.1, batch_size=1 << 12), []
    matrix = normalization(scene.meshes.cameras, scene.meshes.vertices)
    for score in (None, lambda: 20.0):
        renderer = WorldSpaceTrianglePipeline(small_field(), matrix)
        generator = np.random.default_rng(3)
        positions.append(scene.meshes.vertices.numpy().copy())
        layer = LayerTraining(renderer, scene.pixels, positions[-1], score=score)
        history = train(layer, schedule, generator)
        fields.append(renderer.field)
    assert history.heldout_steps[-1] == history.steps[-1]
    assert len(history.heldout_steps) == len(history.heldout_psnr) > 1
    assert all(torch.equal(a, b) for a, b in zip(*(f.parameters() for f in fields), strict=True))
    assert (positions[0] == positions[1]).all() and (
        positions[0] != scene.meshes.vertices.numpy()
    ).any()


def test_training_that_meets_bad_values_says_so(scene):
    renderer = WorldSpaceTrianglePipeline(small_field(), torch.full((4, 4), torch.nan))
    layer = LayerTraining(renderer, scene.pixels, scene.meshes.shared_vertices())
    with pytest.raises(FloatingPointError, match="mesh or the tracks"):
        train(layer, Schedule(0.05), np.random.default_rng(0))


def test_colours_in_chunks_are_those_of_one_pass(scene, trained):
    points = scene.meshes.vertices[:500]
    whole = trained(points).detach()
    torch.testing.assert_close(trained.colors(points, chunk=64), whole, rtol=1e-5, atol=1e-6)
    assert trained.colors(points[:0]).shape == (0, 3)


def test_the_field_overfits_a_small_image(scene):
    image = torch.from_numpy(scene.room.frames[0, ::4, ::4].copy())
    rows, columns = torch.meshgrid(
        *(torch.linspace(-0.9, 0.9, n) for n in image.shape[:2]), indexing="ij"
    )
    points = torch.stack([columns, rows, 0 * rows], -1).reshape(-1, 3)
    field, target = small_field(), image.reshape(-1, 3)
    optimizer = FieldOptimizer(field)
    for _ in range(300):
        loss, _ = field.loss_and_grad(points, target)
        optimizer.step()
    assert loss < 1e-3
    assert (field(points).detach() - target / 255).abs().max() < 0.5
