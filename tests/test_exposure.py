import cv2
import numpy as np
import pytest

from models.clip import exposure
from models.clip.exposure import estimate_exposure
from models.sfm.sharpening import _fit_slopes, sharpen_tracks
from models.sfm.triangulation import triangulate
from models.synthetic.sample import RoomOptions, render_room
from models.tracks import PointTracks


@pytest.fixture(scope="module")
def room():
    """A static room with its true tracks."""
    return render_room(
        RoomOptions(num_frames=10, width=240, height=136, num_movers=0, num_tracks=1500)
    )


def exposed(frames: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return (frames * gain[:, None, None, :] + 0.5).clip(0, 255).astype(np.uint8)


def test_gains_put_on_a_clip_are_recovered(room):
    gain = np.exp(0.15 * np.sin(np.arange(10) * 0.8))[:, None] * np.array([1.0, 0.97, 1.03])[None]
    gain[:, 1:] = gain[:, :1]
    frames = exposed(room.frames, 0.8 * gain)
    found = estimate_exposure(
        frames, np.asarray(room.track_xy), np.asarray(room.track_visible), list(range(10))
    )
    expected = np.log(gain) - np.median(np.log(gain), 0)
    np.testing.assert_allclose(found.gain, expected, atol=0.02)


def test_a_clip_of_one_exposure_has_hardly_any(room):
    found = estimate_exposure(
        room.frames, np.asarray(room.track_xy), np.asarray(room.track_visible), list(range(10))
    )
    assert np.abs(found.gain).max() < 0.02
    assert np.abs(found.shading).mean() < 0.02


def test_frames_kept_out_are_not_looked_at_and_take_their_neighbours_exposure(room):
    gain = np.linspace(0.8, 1.0, 10)[:, None].repeat(3, 1)
    frames = exposed(room.frames, gain)
    known = [t for t in range(10) if t != 4]
    tracks = np.asarray(room.track_xy), np.asarray(room.track_visible)
    found = estimate_exposure(frames, *tracks, known)
    frames[4] = 0
    again = estimate_exposure(frames, *tracks, known)
    np.testing.assert_array_equal(found.gain, again.gain)
    np.testing.assert_allclose(found.gain[4], (found.gain[3] + found.gain[5]) / 2, atol=1e-5)


def dense_exposure(
    frames: np.ndarray, xy: np.ndarray, visible: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Plain form: every track in every frame, with weight 0 where it is not seen."""
    height, width = frames.shape[1:3]
    options = exposure.ExposureOptions()
    grid = exposure._choose_grid(width, height, options)
    color = np.stack([exposure._sample_colors(f, p) for f, p in zip(frames, xy, strict=True)])
    weight = visible & (color > options.dark).all(-1) & (color < options.bright).all(-1)
    weight[:, weight.sum(0) < 2] = False
    value = np.log(np.maximum(color, 1.0))
    cell = [exposure._find_cells(p, width, height, grid) for p in xy]
    steps = [np.zeros(3)]
    for a, b in zip(range(len(value) - 1), range(1, len(value)), strict=True):
        both = weight[a] & weight[b]
        steps.append(
            np.median(value[b, both] - value[a, both], 0) if both.sum() >= 8 else np.zeros(3)
        )
    gain = np.cumsum(steps, 0)
    gain = (gain - np.median(gain, 0)).astype(np.float32)
    robust, shading = weight.astype(np.float32), np.zeros((len(value), *grid, 3), np.float32)
    for _ in range(exposure._ROUNDS):
        model = gain[:, None] + np.stack(
            [s.reshape(-1, 3)[c] for s, c in zip(shading, cell, strict=True)]
        )
        own = (robust[..., None] * (value - model)).sum(0) / np.maximum(robust.sum(0), 1e-9)[
            :, None
        ]
        left = value - own - gain[:, None]
        shading = np.stack(
            [
                exposure._smooth_cells(e, r, c, grid, options.prior)
                for e, r, c in zip(left, robust, cell, strict=True)
            ]
        )
        mean = shading.mean((1, 2))
        gain, shading = gain + mean, shading - mean[:, None, None]
        robust = weight / (1 + (np.abs(value - own - model).max(-1) / 0.05) ** 2)
    return gain - np.median(gain, 0), shading


@pytest.mark.parametrize("seed", range(3))
def test_sightings_alone_tell_the_exposure_that_all_tracks_in_all_frames_do(seed):
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (7, 48, 64, 3), np.uint8)
    frames = np.stack([cv2.blur(f, (15, 15)) for f in frames])
    xy = random.uniform(-5, 70, (7, 200, 2)).astype(np.float32)
    visible = random.random((7, 200)) < 0.4
    found = estimate_exposure(frames, xy, visible, list(range(7)))
    gain, shading = dense_exposure(frames, xy, visible)
    np.testing.assert_array_equal(found.gain, gain.astype(np.float32))
    np.testing.assert_array_equal(found.shading, shading)


def test_dividing_by_the_factor_undoes_the_exposure(room):
    gain = np.exp(0.2 * np.cos(np.arange(10)))[:, None].repeat(3, 1)
    frames = exposed(room.frames, 0.7 * gain)
    found = estimate_exposure(
        frames, np.asarray(room.track_xy), np.asarray(room.track_visible), list(range(10))
    )
    own = [cv2.blur(frames[t] / found.factor(t), (9, 9)) for t in (0, 5)]
    truth = [cv2.blur(room.frames[t].astype(float), (9, 9)) for t in (0, 5)]
    ratio = [np.median(a[b > 30] / b[b > 30]) for a, b in zip(own, truth, strict=True)]
    assert ratio[0] == pytest.approx(ratio[1], rel=0.02)


def test_sharpening_pulls_disturbed_tracks_back_to_the_truth(room):
    random = np.random.default_rng(0)
    truth, visible = np.asarray(room.track_xy), np.asarray(room.track_visible)
    noisy = truth + random.normal(0, 0.5, truth.shape)
    size = room.cameras.width, room.cameras.height
    points = triangulate(PointTracks(noisy, visible, *size), room.cameras)
    disturbed = PointTracks(noisy.astype(np.float32), points.agrees, *size)
    sharp = sharpen_tracks(room.frames, disturbed, room.cameras, points)
    before = np.linalg.norm(noisy - truth, axis=-1)[sharp.visible]
    # one patch serves as the measure of all: what counts is how sightings agree with each other
    again = triangulate(sharp, room.cameras)
    assert np.median(again.residual) < 0.5 * np.median(points.residual)
    assert np.median(before) > 0.4


def test_sharpening_never_shows_what_was_not_visible(room):
    truth, visible = np.asarray(room.track_xy), np.asarray(room.track_visible)
    size = room.cameras.width, room.cameras.height
    points = triangulate(PointTracks(truth, visible, *size), room.cameras)
    tracks = PointTracks(truth.astype(np.float32), points.agrees, *size)
    seen = sharpen_tracks(room.frames, tracks, room.cameras, points).visible
    assert not (seen & ~points.agrees).any()


@pytest.mark.parametrize("steepness", [0.0, 0.005, 0.02])
def test_a_plane_seen_at_a_slant_is_fitted_beside_another_surface(steepness):
    random = np.random.default_rng(0)
    offset = random.uniform(-12, 12, (200, 12, 2))
    angle = random.uniform(0, 2 * np.pi, 200)
    slope = steepness * np.stack([np.cos(angle), np.sin(angle)], 1)
    change = np.einsum("nki,ni->nk", offset, slope) + random.normal(0, 0.002, (200, 12))
    change[:, :3] += 0.4  # a quarter of the neighbours lie on a surface in front
    error = np.linalg.norm(_fit_slopes(offset, change) - slope, axis=1)
    assert np.median(error) < 0.001
    assert (error < 0.003).mean() > 0.9
