"""Depth maps: read from files, aligned to points whatever their unit, and used for points, gaps and
movers."""

import functools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from models.clip.frames_of import ClipFrames
from models.depth.aligned import AlignedDepth, align_depth
from models.depth.maps import DepthMaps, read_depth
from models.depth.mover_depth import merge_depth
from models.depth.options import AlignmentOptions
from models.depth.points import align_to_scene, fill_gaps, settle_points
from models.run.errors import InputError
from models.sfm.static_scene import StaticScene
from models.sfm.triangulation import Points, triangulate
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tracks import PointTracks

FRAMES, WIDTH, HEIGHT = 8, 160, 90
TAKEN = ClipFrames.in_order(FRAMES, (WIDTH, HEIGHT))


@functools.cache
def room() -> SyntheticScene:
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=1, num_tracks=1500))


def static() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True pixels, visibility and points of the room's static tracks."""
    keep = ~room().track_is_foreground
    return room().track_xy[:, keep], room().track_visible[:, keep], room().track_xyz[0, keep]


def write(folder: Path, values: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for t, image in enumerate(values):
        np.save(folder / f"{t:05d}.npy", image.astype(np.float32))
    return folder


def align(folder: Path, values: np.ndarray, xyz: np.ndarray | None = None) -> AlignedDepth:
    _, visible, points = static()
    maps = read_depth(write(folder, values), TAKEN)
    return align_depth(maps, room().cameras, points if xyz is None else xyz, visible)


def pixels() -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), -1).reshape(-1, 2)


def error(depth: AlignedDepth, t: int) -> np.ndarray:
    """Relative error at every pixel that does not move."""
    off = np.abs(depth.at(t, pixels())[0].reshape(HEIGHT, WIDTH) / room().depth[t] - 1)
    return off[~room().masks[t]]


@settings(max_examples=12, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-0.2, 5.0), st.booleans())
def test_any_scale_and_shift_of_depth_or_inverse_depth_is_undone(
    tmp_path_factory, scale, shift, inverse
):
    drift = np.linspace(1, 1.5, FRAMES)[:, None, None]
    shift = max(
        shift, -0.9 / room().depth.max()
    )  # a map has no values below zero: they would mean "unknown"
    value = scale * drift / room().depth + (scale * shift if inverse else 0)
    depth = align(tmp_path_factory.mktemp("maps"), value if inverse else 1 / value)
    assert depth.inverse == inverse and depth.trusted
    for t in (0, 5):
        assert np.median(error(depth, t)) < 0.01
        assert (
            np.quantile(error(depth, t), 0.95) < 0.04
        )  # edges: a pixel's own depth against its centre's
    assert "explain" in depth.describe()


def test_points_that_are_wrong_do_not_matter(tmp_path):
    _, _, xyz = static()
    random = np.random.default_rng(0)
    wrong = np.where(random.random((len(xyz), 1)) < 0.2, xyz + random.normal(size=xyz.shape), xyz)
    depth = align(tmp_path, 3 / room().depth + 1, wrong)
    np.testing.assert_allclose(depth.scale, 1 / 3, rtol=0.02)


def warped() -> np.ndarray:
    """Inverse depth with a smooth error of 8 %, as monocular models have."""
    warp = gaussian_filter(np.random.default_rng(3).normal(size=(HEIGHT, WIDTH)), 14)
    return (1 + 0.08 * warp / warp.std()) / room().depth


def test_points_near_by_take_out_what_scale_and_shift_leave(tmp_path):
    depth = align(tmp_path, warped())
    alone = replace(depth, known=[np.zeros((0, 4))] * FRAMES)
    for t in (1, 6):
        assert np.median(error(depth, t)) < 0.6 * np.median(error(alone, t))


def test_the_uncertainty_is_about_the_error(tmp_path):
    depth = align(tmp_path, warped())
    z, spread = depth.at(4, pixels())
    off = np.abs(np.log(z) - np.log(room().depth[4].ravel()))[~room().masks[4].ravel()]
    inside = (off < 2 * spread[~room().masks[4].ravel()]).mean()
    assert 0.8 < inside <= 1


def test_zero_is_unknown_in_depth_and_the_far_shell_in_inverse_depth(tmp_path):
    values = room().depth.copy()
    values[:, :20, :30] = 0
    depth = align(tmp_path / "depth", values)
    z, spread = depth.at(2, np.array([[5.0, 5.0], [100.0, 60.0]]))
    assert np.isnan([z[0], spread[0]]).all() and np.isfinite([z[1], spread[1]]).all()
    with np.errstate(divide="ignore"):
        depth = align(tmp_path / "inverse", np.where(values > 0, 1 / values, 0))
    z, _ = depth.at(2, pixels())
    assert np.isfinite(z).all() and z.max() <= depth.farthest * (1 + 1e-9)
    assert depth.farthest < 1.2 * AlignmentOptions().far_shell * room().depth.max()
    assert depth.at(2, np.array([[5.0, 5.0]]))[0] > room().depth.max()


def test_a_frame_with_hardly_a_point_takes_its_neighbours_scale(tmp_path):
    _, visible, xyz = static()
    few = visible.copy()
    few[3, np.flatnonzero(visible[3])[5:]] = False
    scales = np.arange(1, FRAMES + 1)[:, None, None]
    maps = read_depth(write(tmp_path, 1 / (scales * room().depth)), TAKEN)
    depth = align_depth(maps, room().cameras, xyz, few)
    assert depth.scale[3] == pytest.approx((depth.scale[2] + depth.scale[4]) / 2)
    with pytest.raises(InputError, match=r"no frame has 12 tracked points on known depth"):
        align_depth(maps, room().cameras, xyz, np.zeros_like(few))


def test_maps_that_tell_nothing_are_not_used(tmp_path):
    noise = np.random.default_rng(0).uniform(1, 2, room().depth.shape)
    depth = align(tmp_path, noise)
    assert not depth.trusted and "not used" in depth.describe()


@pytest.mark.parametrize("suffix", [".npy", ".png"])
@pytest.mark.parametrize("count", [FRAMES, 2 * FRAMES])
def test_maps_are_read_for_the_frames_taken_or_for_the_clip(tmp_path, suffix, count):
    for t in range(count):
        image = np.full((30, 40), 100 + t, np.uint16)
        path = tmp_path / f"frame{t}{suffix}"  # natural order: frame10 after frame9
        np.save(path, image) if suffix == ".npy" else cv2.imwrite(str(path), image)
    maps = read_depth(
        tmp_path, ClipFrames(np.arange(0, 2 * FRAMES, 2), (80, 60), original_count=2 * FRAMES)
    )
    step = count // FRAMES
    assert [float(maps[t][0, 0]) for t in range(FRAMES)] == [100 + step * t for t in range(FRAMES)]


def test_depth_that_cannot_be_used_is_refused_in_one_sentence(tmp_path):
    def refused(folder: Path, says: str) -> None:
        with pytest.raises(InputError, match=says):
            read_depth(folder, ClipFrames(np.arange(2), (80, 60), original_count=2))

    refused(tmp_path / "missing", "there is no such folder")
    refused(write(tmp_path / "three", np.ones((3, 30, 40))), "holds 3 depth maps .* expected 2")
    refused(write(tmp_path / "wide", np.ones((2, 30, 80))), "is 80x30, the frames are 80x60")
    refused(write(tmp_path / "colour", np.ones((2, 30, 40, 3))), "expected one number a pixel")
    grey = tmp_path / "grey"
    grey.mkdir()
    for t in range(2):
        cv2.imwrite(str(grey / f"{t}.png"), np.zeros((30, 40), np.uint8))
    refused(grey, "16-bit grey")
    (grey / "0.png").write_text("no image")
    refused(grey, "corrupt")
    (tmp_path / "three" / "00000.npy").write_text("no array")
    with pytest.raises(InputError, match=r"00000\.npy: is no readable array"):
        DepthMaps([tmp_path / "three" / "00000.npy"])[0]


@functools.cache
def short_tracks() -> tuple[PointTracks, StaticScene]:
    """Noisy tracks of which half last three frames, too few to tell their depth well."""
    random = np.random.default_rng(1)
    xy, visible, _ = static()
    xy = (xy + random.normal(scale=0.3, size=xy.shape)).astype(np.float32)
    middle = np.array([np.flatnonzero(v)[v.sum() // 2] if v.any() else 0 for v in visible.T])
    short = random.random(xy.shape[1]) < 0.5
    visible = visible & ~(short & (np.abs(np.arange(FRAMES)[:, None] - middle) > 1))
    tracks = PointTracks(xy, visible, WIDTH, HEIGHT)
    points = triangulate(tracks, room().cameras)
    scene = StaticScene(room().cameras, points, "given", np.ones(FRAMES, bool), 0.2)
    return tracks, scene


def depth_error(points: Points, chosen: np.ndarray) -> np.ndarray:
    """Relative error of depth from the first camera."""
    _, truth = room().cameras[[0]].project(torch.from_numpy(static()[2]))
    _, found = room().cameras[[0]].project(torch.from_numpy(points.xyz))
    off = (found / truth - 1).abs()[0].numpy()[chosen]
    return off[np.isfinite(off)]


def test_points_of_little_parallax_come_nearer_to_the_truth(tmp_path):
    tracks, scene = short_tracks()
    unsure = scene.points.uncertainty > 0.1
    assert unsure.sum() > 100
    maps = read_depth(write(tmp_path, 2 * warped() + 0.3), TAKEN)
    settled = settle_points(tracks, scene, align_to_scene(maps, scene))
    before, after = depth_error(scene.points, unsure), depth_error(settled.points, unsure)
    assert np.quantile(after, 0.9) < 0.9 * np.quantile(before, 0.9)
    assert np.median(after) < np.median(before)
    sure = ~unsure
    assert np.median(depth_error(settled.points, sure)) < 1.05 * np.median(
        depth_error(scene.points, sure)
    )


def test_gaps_are_filled_on_the_surface_and_nothing_else_is(tmp_path):
    tracks, scene = short_tracks()
    xy = tracks.xy
    maps = read_depth(write(tmp_path, warped()), TAKEN)
    depth, free = align_to_scene(maps, scene), ~room().masks
    full, _ = fill_gaps(tracks, scene, depth, free, 4)
    assert full.num_tracks - tracks.num_tracks < 5
    hole = (xy[..., 0] < 90) & (xy[..., 1] < 60)
    cut = scene.points.restrict(~hole)
    filled, with_more = fill_gaps(tracks, replace(scene, points=cut), depth, free, 4)
    added = slice(tracks.num_tracks, None)
    seen, points = with_more.points.agrees[:, added], with_more.points.xyz[added]
    assert len(points) >= 4 and filled.visible.shape == with_more.points.agrees.shape
    np.testing.assert_array_equal(filled.visible[:, added], seen)
    assert len(with_more.points.residual) == with_more.points.agrees.sum()
    _, z = (v.numpy() for v in scene.cameras.project(torch.from_numpy(points)))
    t, n = np.nonzero(seen)
    x, y = filled.xy[t, added.start + n].astype(int).T
    assert free[t, y, x].all()
    off = np.abs(z[t, n] / room().depth[t, y, x] - 1)
    assert np.median(off) < 0.08


def test_movers_get_their_relief_and_distance_from_the_maps(tmp_path):
    own = room().track_is_foreground & (room().track_visible.sum(0) >= 3)
    xy, visible = room().track_xy[:, own], room().track_visible[:, own]
    _, truth = (
        v.numpy() for v in room().cameras.project(torch.from_numpy(room().track_xyz[:, own]))
    )
    depth = align(tmp_path, 0.5 / room().depth)
    contact = np.repeat(
        1.1 * np.median(truth, 1, keepdims=True), own.sum(), 1
    )  # the ground seen behind it
    found = merge_depth(
        depth, PointTracks(xy, visible, WIDTH, HEIGHT), np.ones(own.sum(), int), contact
    )
    before, after = (np.abs(z / truth - 1)[visible] for z in (contact, found))
    assert np.median(after) < 0.3 * np.median(before)
    assert np.isfinite(found).all() and (found > 0).all()


def test_a_relief_that_movers_have_stays_and_its_distance_gains(tmp_path):
    own = room().track_is_foreground & (room().track_visible.sum(0) == FRAMES)
    xy, visible = room().track_xy[:, own], room().track_visible[:, own]
    _, truth = (
        v.numpy() for v in room().cameras.project(torch.from_numpy(room().track_xyz[:, own]))
    )
    depth = align(
        tmp_path, 1 / room().depth + 0.01 * np.random.default_rng(0).normal(size=room().depth.shape)
    )
    found = merge_depth(
        depth, PointTracks(xy, visible, WIDTH, HEIGHT), np.ones(own.sum(), int), 1.15 * truth
    )
    relief, expected = (z / np.median(z, 1, keepdims=True) for z in (found, truth))
    assert np.abs(relief / expected - 1).max() < 0.03
    assert np.median(np.abs(found / truth - 1)) < 0.1


def test_movers_keep_their_contact_depth_where_maps_say_nothing(tmp_path):
    own = room().track_is_foreground
    xy, visible = room().track_xy[:, own], room().track_visible[:, own]
    depth = align(tmp_path, np.where(room().masks, 0, room().depth))
    contact = np.repeat(np.linspace(1, 2, FRAMES)[:, None], own.sum(), 1)
    visible = visible & room().masks[np.arange(FRAMES)[:, None], *_pixel(xy)]
    np.testing.assert_array_equal(
        merge_depth(
            depth, PointTracks(xy, visible, WIDTH, HEIGHT), np.ones(own.sum(), int), contact
        ),
        contact,
    )


def _pixel(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return xy[..., 1].astype(int).clip(0, HEIGHT - 1), xy[..., 0].astype(int).clip(0, WIDTH - 1)
