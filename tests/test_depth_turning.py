"""A camera that keeps its place gets relief from depth maps whose frames each have a scale and
shift of their own."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from models.clip.frames_of import ClipFrames
from models.depth.maps import read_depth
from models.depth.options import AlignmentOptions
from models.depth.turning import raise_relief
from models.run.errors import InputError
from models.sfm.static_scene import StaticScene
from models.sfm.triangulation import triangulate
from models.synthetic.sample import RoomOptions, SyntheticScene, render_room
from models.tracks import PointTracks

FRAMES, WIDTH, HEIGHT = 8, 160, 90
TAKEN = ClipFrames.in_order(FRAMES, (WIDTH, HEIGHT))


@functools.cache
def room(motion: str) -> SyntheticScene:
    return render_room(
        RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=0, num_tracks=700, motion=motion)
    )


def tracks(motion: str) -> PointTracks:
    return PointTracks(room(motion).track_xy, room(motion).track_visible, WIDTH, HEIGHT)


def flat_scene(motion: str) -> StaticScene:
    points = triangulate(tracks(motion), room(motion).cameras, flat=True)
    method = "still" if motion == "still" else "rotation"
    return StaticScene(room(motion).cameras, points, method, np.ones(FRAMES, bool), 0.1)


def write(folder: Path, values: np.ndarray) -> Path:
    for t, image in enumerate(values):
        np.save(folder / f"{t}.npy", image.astype(np.float32))
    return folder


@pytest.mark.parametrize("motion", ["turn", "still"])
@pytest.mark.parametrize("inverse", [True, None])
def test_points_get_their_distance_up_to_one_scale(tmp_path, motion, inverse):
    drift, middle = np.linspace(0.7, 1.4, FRAMES)[:, None, None], FRAMES // 2
    moved = np.where(np.arange(FRAMES) == middle, 0, 0.05 * np.arange(FRAMES))[:, None, None]
    values = drift / room(motion).depth + moved if inverse else drift * room(motion).depth
    maps = read_depth(write(tmp_path, values), TAKEN, inverse)
    before = flat_scene(motion)
    scene = raise_relief(tracks(motion), before, maps)
    center = room(motion).cameras.centers[0].numpy()
    truth, found = (
        np.linalg.norm(xyz - center, axis=1)
        for xyz in (room(motion).track_xyz[0], scene.points.xyz)
    )
    known = np.isfinite(found)
    assert known.mean() > 0.95 and np.nanmedian(found) == pytest.approx(1)
    ratio = found[known] / truth[known]
    assert np.quantile(np.abs(ratio / np.median(ratio) - 1), 0.9) < 0.03
    image, _ = scene.cameras.project(torch.from_numpy(scene.points.xyz))
    flat, _ = scene.cameras.project(torch.from_numpy(before.points.xyz))
    seen = scene.points.agrees
    np.testing.assert_allclose(image.numpy()[seen], flat.numpy()[seen], atol=1e-6)


def test_nothing_lies_beyond_the_far_shell(tmp_path):
    values = np.where(np.arange(WIDTH) < 60, 0, 1 / room("turn").depth)
    maps = read_depth(write(tmp_path, values), TAKEN, inverse=True)
    scene = raise_relief(tracks("turn"), flat_scene("turn"), maps)
    distance = np.linalg.norm(scene.points.xyz - room("turn").cameras.centers[0].numpy(), axis=1)
    assert np.nanmax(distance) == pytest.approx(AlignmentOptions().turning_far_shell)
    assert len(scene.points.residual) == scene.points.agrees.sum()


def test_maps_that_know_nothing_are_refused(tmp_path):
    maps = read_depth(write(tmp_path, np.zeros((FRAMES, HEIGHT, WIDTH))), TAKEN)
    with pytest.raises(InputError, match="fewer than 12 tracked points lie on known depth"):
        raise_relief(tracks("still"), flat_scene("still"), maps)
