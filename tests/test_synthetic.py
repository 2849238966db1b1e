"""The synthetic room agrees with its own ground truth."""

import cv2
import numpy as np
import pytest
import torch

from models.run.errors import InputError
from models.synthetic.folder import NOVEL_VIEWS, build_novel_cameras, write_scene
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room, render_views

SMALL = {"num_frames": 6, "width": 96, "height": 64, "num_tracks": 200}


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return render_room(RoomOptions(**SMALL, num_movers=2, noise=0.0, seed=3))


def _pixels(scene: SyntheticScene) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frame, track, row and column of every visible observation."""
    frame, track = np.nonzero(scene.track_visible)
    column, row = np.floor(scene.track_xy[frame, track]).astype(int).T
    return frame, track, row, column


def _sampled(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    x, y = (xy.astype(np.float32) - 0.5).T  # OpenCV's pixel centres are whole numbers
    return cv2.remap(image.astype(np.float32), x[:, None], y[:, None], cv2.INTER_LINEAR)[:, 0]


def test_tracks_project_to_their_pixels_and_stay_in_the_image_where_visible(scene):
    xy, depth = scene.cameras.project(torch.from_numpy(scene.track_xyz))
    np.testing.assert_allclose(xy.numpy(), scene.track_xy, atol=1e-6)
    inside = (
        (scene.track_xy >= 0).all(-1) & (scene.track_xy < [96, 64]).all(-1) & (depth.numpy() > 0)
    )
    assert not (scene.track_visible & ~inside).any()
    assert (inside & ~scene.track_visible).any(), "no track is ever hidden"


def test_query_is_the_first_frame_that_sees_a_track(scene):
    assert scene.track_visible.any(0).all()
    for n, query in enumerate(scene.track_query):
        assert scene.track_visible[query, n] and not scene.track_visible[:query, n].any()


def test_depth_at_a_visible_track_is_its_projected_depth(scene):
    frame, track, row, column = _pixels(scene)
    expected = scene.cameras.project(torch.from_numpy(scene.track_xyz))[1].numpy()[frame, track]
    error = np.abs(scene.depth[frame, row, column] / expected - 1)
    at_center = (
        np.abs(scene.track_xy[frame, track] - np.stack([column, row], 1) - 0.5).max(1) < 1e-5
    )
    assert at_center.sum() >= SMALL["num_tracks"]
    assert error[at_center].max() < 1e-5
    assert np.median(error) < 0.005 and np.quantile(error, 0.9) < 0.03


def test_a_hidden_track_lies_behind_the_depth_map(scene):
    expected = scene.cameras.project(torch.from_numpy(scene.track_xyz))[1].numpy()
    inside = (scene.track_xy >= 1).all(-1) & (scene.track_xy < [95, 63]).all(-1)
    frame, track = np.nonzero(inside & ~scene.track_visible)
    column, row = np.floor(scene.track_xy[frame, track]).astype(int).T
    nearest = np.min(
        [scene.depth[frame, row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)], 0
    )
    assert (nearest < expected[frame, track] * 1.001).mean() > 0.99


def test_mask_holds_the_foreground_tracks_and_no_other(scene):
    frame, track, row, column = _pixels(scene)
    foreground = scene.track_is_foreground[track]
    assert foreground.any() and not foreground.all()
    at_center = (
        np.abs(scene.track_xy[frame, track] - np.stack([column, row], 1) - 0.5).max(1) < 1e-5
    )
    in_mask = scene.masks[frame, row, column]
    np.testing.assert_array_equal(in_mask[at_center], foreground[at_center])
    inner = (
        np.array(
            [cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) for mask in scene.masks]
        )
        > 0
    )
    outer = (
        np.array(
            [cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) for mask in scene.masks]
        )
        > 0
    )
    assert foreground[inner[frame, row, column]].all()
    assert outer[frame, row, column][foreground].all()


def test_static_points_stand_still_and_carts_move_rigidly(scene):
    static = scene.track_xyz[:, ~scene.track_is_foreground]
    assert np.ptp(static, axis=0).max() == 0
    moving = scene.track_xyz[:, scene.track_is_foreground]
    assert np.linalg.norm(moving[-1] - moving[0], axis=-1).min() > 0.2
    distances = np.linalg.norm(moving[:, :, None] - moving[:, None], axis=-1)
    rigid = np.ptp(distances, axis=0) < 1e-9
    carts = np.unique(rigid, axis=0)  # the points of one cart share a row
    assert len(carts) == 2 and (carts.sum(0) == 1).all()


def test_static_points_keep_their_colour_from_frame_to_frame():
    still_light = render_room(
        RoomOptions(num_frames=3, width=240, height=160, num_movers=0, noise=0.0, num_tracks=3000)
    )
    seen = still_light.track_visible.all(0)
    colours = [
        _sampled(frame, xy[seen])
        for frame, xy in zip(still_light.frames, still_light.track_xy, strict=True)
    ]
    shift = np.abs(still_light.track_xy[-1, seen] - still_light.track_xy[0, seen]).max(1)
    assert np.median(shift) > 5
    difference = np.abs(colours[0] - colours[-1]).mean(1)
    unrelated = np.abs(colours[0] - np.roll(colours[-1], 1, axis=0)).mean(1)
    assert np.median(difference) < 0.15 * np.median(unrelated)


def test_the_same_seed_gives_the_same_frames_and_another_one_others(scene):
    again = render_room(RoomOptions(**SMALL, num_movers=2, noise=0.0, seed=3))
    np.testing.assert_array_equal(again.frames, scene.frames)
    np.testing.assert_array_equal(again.track_xyz, scene.track_xyz)
    assert (
        render_room(RoomOptions(**SMALL, num_movers=2, noise=0.0, seed=4)).frames != scene.frames
    ).mean() > 0.5


def test_noise_has_the_asked_deviation(scene):
    noisy = render_room(RoomOptions(**SMALL, num_movers=2, noise=4.0, seed=3))
    np.testing.assert_array_equal(noisy.depth, scene.depth)
    inside = (scene.frames > 30) & (scene.frames < 225)
    assert np.std((noisy.frames.astype(float) - scene.frames)[inside]) == pytest.approx(4, rel=0.05)


def test_views_from_the_clips_own_cameras_are_its_frames(scene):
    rgb, depth, masks = render_views(scene.cameras, range(6), num_frames=6, seed=3, num_movers=2)
    np.testing.assert_array_equal(rgb, scene.frames)
    np.testing.assert_array_equal(depth, scene.depth)
    np.testing.assert_array_equal(masks, scene.masks)


def test_novel_views_stand_where_they_say(scene):
    for kind, axis in (("right", [1.0, 0, 0]), ("up", [0, -1.0, 0])):
        cameras, times = build_novel_cameras(scene, kind)
        assert times.tolist() == [0, 4]
        local = scene.cameras[torch.from_numpy(times)].to_camera(cameras.centers[:, None])[:, 0]
        np.testing.assert_allclose(
            local, np.tile(axis, (2, 1)) * 0.05 * scene.mean_depth, atol=1e-9
        )
    cameras, times = build_novel_cameras(scene, "spiral")
    radius = (cameras.centers - scene.cameras.centers[times[0]]).norm(dim=1) / scene.mean_depth
    assert len(cameras) == 12 and set(times) == {3}
    assert radius.min() == pytest.approx(0.03) and radius.max() == pytest.approx(0.08)


def test_without_movers_nothing_is_masked_or_moves():
    scene = render_room(RoomOptions(**SMALL, num_movers=0))
    assert not scene.masks.any() and not scene.track_is_foreground.any()


@pytest.mark.parametrize("motion", ["turn", "still"])
def test_a_turning_or_still_camera_has_one_centre(motion):
    scene = render_room(RoomOptions(**SMALL, motion=motion, num_movers=0, noise=0.0))
    assert np.ptp(scene.cameras.centers.numpy(), axis=0).max() == 0
    turned = not torch.equal(scene.cameras.world_from_cam[0], scene.cameras.world_from_cam[-1])
    assert turned == (motion == "turn") == bool((scene.frames[0] != scene.frames[-1]).any())


def test_camera_moves_sideways_with_parallax(scene):
    shift = scene.track_xy[-1] - scene.track_xy[0]
    depth = scene.cameras.project(torch.from_numpy(scene.track_xyz))[1].numpy()[0]
    static = ~scene.track_is_foreground
    near, far = static & (depth < np.median(depth) * 0.8), static & (depth > np.median(depth) * 1.1)
    assert np.abs(np.median(shift[near, 0]) - np.median(shift[far, 0])) > 3


def test_what_cannot_be_rendered_is_refused():
    for wrong in ({"num_movers": 9}, {"motion": "dive"}, {"num_frames": 0}, {"width": 0}):
        with pytest.raises(InputError):
            render_room(RoomOptions(**{**SMALL, **wrong}))
    with pytest.raises(InputError):
        build_novel_cameras(render_room(RoomOptions(**{**SMALL, "num_frames": 1})), "sideways")


def test_written_folder_holds_the_scene(scene, tmp_path):
    write_scene(scene, tmp_path)
    frames = [cv2.imread(str(path))[..., ::-1] for path in sorted((tmp_path / "frames").iterdir())]
    np.testing.assert_array_equal(frames, scene.frames)
    masks = [cv2.imread(str(path), 0) for path in sorted((tmp_path / "masks").iterdir())]
    np.testing.assert_array_equal(masks, scene.masks * 255)
    np.testing.assert_allclose(np.load(tmp_path / "depth.npz")["depth"], scene.depth, rtol=1e-3)
    truth = np.load(tmp_path / "truth.npz")
    np.testing.assert_array_equal(truth["track_xy"], scene.track_xy)
    assert truth["image_size"].tolist() == [64, 96] and (tmp_path / "video.mp4").stat().st_size > 0
    for name, kind in NOVEL_VIEWS.items():
        poses = build_novel_cameras(scene, kind)[0].world_from_cam
        np.testing.assert_array_equal(truth[f"novel_{name}_world_from_cam"], poses)
        for folder in (name, f"{name}_masks"):
            assert (
                len(list((tmp_path / "novel" / folder).iterdir()))
                == len(truth[f"novel_{name}_time"])
                == len(poses)
            )
