"""Shadows of movers: found beside movers, measured, and drawn at the time of a view."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from clips import neutral_exposure, true_tracks
from heard import Heard

from models.cameras import Cameras
from models.detail.clip_detail import ClipDetail, weigh_around
from models.detail.frame_details import FrameDetail, FrameDetails
from models.detail.options import DetailOptions
from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.world_box import normalization
from models.motion.evidence import Evidence
from models.motion.options import MotionOptions
from models.motion.shadows import find_dark, find_shadows, keep_shadows
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.rendering import render_view
from models.render.scene import Layer, Scene
from models.run import SILENT
from models.sfm import Points, StaticScene
from models.synthetic.sample import RoomOptions, render_room
from models.tracks import PointTracks
from models.training.shadow_light import measure_light

WIDTH, HEIGHT, FRAMES = 160, 96, 12
K = torch.tensor([[[150.0, 0, 80], [0, 150, 48], [0, 0, 1]]], dtype=torch.float64)


def walk(gain: float) -> tuple[Evidence, Cameras, np.ndarray, np.ndarray]:
    """A square that crosses a plain before a camera at rest, with a patch of changed light beside
    it; its masks and those of the patch."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    still = 120 + 30 * texture / texture.std()
    images = np.repeat(still[None], FRAMES, 0)
    movers, patches = np.zeros((2, FRAMES, HEIGHT, WIDTH), bool)
    for t in range(FRAMES):
        left = 10 + 9 * t
        movers[t, 30:60, left : left + 20] = True
        patches[t, 60:72, left : left + 30] = True
    images[patches] *= gain
    images[movers] = (200, 40, 40)
    images += random.normal(0, 2, images.shape)
    flat = np.zeros((FRAMES, HEIGHT, WIDTH), np.float32)
    rgb = images.clip(0, 255).astype(np.uint8)
    evidence = Evidence(rgb, flat, flat, flat, flat + 1, {})
    poses = torch.eye(4, dtype=torch.float64).expand(FRAMES, 4, 4)
    return evidence, Cameras(K.expand(FRAMES, 3, 3), poses, WIDTH, HEIGHT), movers, patches


def find(gain: float, options: MotionOptions = MotionOptions()) -> tuple[np.ndarray, np.ndarray]:
    """The shadows found, and the patches of changed light."""
    evidence, cameras, movers, patches = walk(gain)
    dark = find_dark(evidence, cameras, movers, options=options)
    return keep_shadows(dark, movers, options), patches


def test_a_shadow_is_found_beside_its_mover():
    found, true = find(0.5)
    assert (found & true).sum() > 0.75 * true.sum()
    around = np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))) for mask in true]) > 0
    assert (found & ~around).sum() < 0.1 * true.sum()


@pytest.mark.parametrize("gain", [1.0, 1.3])
def test_ground_of_the_same_or_of_more_light_is_no_shadow(gain):
    assert not find(gain)[0].any()


def solved_walk(gain: float) -> tuple[np.ndarray, np.ndarray, PointTracks, StaticScene, np.ndarray]:
    """``walk`` as the scripts have it: frames, masks, tracks on the plain, the scene, shadows."""
    evidence, cameras, movers, patches = walk(gain)
    random = np.random.default_rng(1)
    xy = random.uniform(0, [WIDTH, HEIGHT], (300, 2)).astype(np.float32)
    K = cameras.K[0].numpy()
    xyz = np.column_stack([(xy - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones(len(xy))])
    visible = np.ones((FRAMES, len(xy)), bool)
    tracks = PointTracks(np.repeat(xy[None], FRAMES, 0), visible, WIDTH, HEIGHT)
    points = Points(xyz, visible, np.zeros(visible.sum()), np.zeros(len(xy)))
    scene = StaticScene(cameras, points, "given", np.ones(FRAMES, bool), 0.0)
    return evidence.images, movers, tracks, scene, patches


def test_shadows_are_found_from_masks_and_the_scene_alone():
    *given, true = solved_walk(0.5)
    heard = Heard()
    found = find_shadows(*given, heard)
    assert (found & true).sum() > 0.75 * true.sum()
    assert not (found & given[1]).any()
    assert heard.steps[-1] == ("shadows", FRAMES, FRAMES)
    *given, _ = solved_walk(1.0)
    assert not find_shadows(*given).any()


def test_a_reach_of_nothing_and_a_clip_without_movers_have_no_shadows():
    frames, movers, tracks, scene, _ = solved_walk(0.5)
    given = tracks, scene, SILENT
    assert not find_shadows(frames, movers, *given, MotionOptions(shadow_reach=0)).any()
    assert not find_shadows(frames, np.zeros_like(movers), *given).any()


def test_dark_pixels_away_from_every_mover_are_no_shadow():
    dark, movers = np.zeros((2, FRAMES, HEIGHT, WIDTH), bool)
    movers[:, 10:30, 10:30] = True
    dark[:, 30:40, 10:30] = True
    dark[:, 70:90, 100:150] = True
    kept = keep_shadows(dark, movers)
    assert kept[:, 30:40, 10:30].all() and not kept[:, 70:].any()


def test_times_between_frames_are_interpolated_and_the_nearest_counts_outside():
    times = np.array([2, 4, 8])
    assert weigh_around(times, 5) == [(4, 0.75), (8, 0.25)]
    assert weigh_around(times, 4) == [(4, 1.0)]
    assert weigh_around(times, 0) == [(2, 1.0)] and weigh_around(times, 9) == [(8, 1.0)]
    assert weigh_around(times[:0], 1) == []


@pytest.fixture(scope="module")
def room():
    return render_room(RoomOptions(num_frames=6, width=WIDTH, height=HEIGHT))


@pytest.fixture(scope="module")
def scene(room) -> Scene:
    """The static layer of a room, whose colours have learned nothing."""
    tracks = true_tracks(room, False)
    meshes = TriangleMeshPipeline.from_tracks(tracks, range(6), room.masks)
    field = ColorField(HashGrid(log2_entries=12, finest_resolution=64))
    box = normalization(tracks.cameras, meshes.gather_used())
    layer = Layer(meshes, WorldSpaceTrianglePipeline(field, box))
    return Scene(tracks.cameras, 10.0, neutral_exposure(6, WIDTH, HEIGHT), layer)


def darken(scene: Scene, t: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The scene's picture of frame t with a shadow, and the shadow's mask."""
    layer = scene.background
    frame = render_view(layer.meshes, layer.renderer, scene.cameras[t]).rgb.astype(np.float32)
    shadow = np.zeros((HEIGHT, WIDTH), bool)
    shadow[50:80, 40:90] = True
    frame[shadow] *= share
    return frame, shadow


def test_the_light_in_a_shadow_is_measured_and_carried_on_behind_the_mover(scene):
    frame, shadow = darken(scene, 2, 0.5)
    movers = np.zeros_like(shadow)
    movers[55:70, 60:70] = True
    frame[movers] = 255
    light = measure_light(scene, 2, frame, movers, shadow & ~movers) / 255
    assert np.abs(light[55:75, 45:58] - 0.5).max() < 0.08
    assert np.abs(light[58:66, 63:67] - 0.5).max() < 0.15
    assert light[:35].min() > 0.99 and light[:, 110:].min() > 0.99


def test_the_light_of_a_frame_is_stored_and_divided_out_beside_the_mover():
    light = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    light[20:50, 30:90] = 128
    movers = np.zeros((HEIGHT, WIDTH), bool)
    movers[30:40, 40:60] = True
    frame = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    detail = FrameDetail.of(frame, np.ones(3), movers, light)
    assert np.abs(detail.rgb[22:28, 32:88].astype(int) - 199).max() <= 1
    assert (detail.rgb[movers] == 100).all() and (detail.rgb[60:] == 100).all()
    again = FrameDetail.decode(detail.encode(95))
    assert np.abs(again.light.astype(int) - light)[::2, ::2].mean() < 2
    assert FrameDetail.decode(FrameDetail.of(frame, np.ones(3), movers).encode(95)).light is None


def test_a_shadow_is_drawn_at_its_time_and_not_on_the_background_alone(scene):
    light = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    light[50:80, 40:90] = 128
    details = {}
    for t in range(6):
        frame, _ = darken(scene, t, 1.0)
        still = np.zeros((HEIGHT, WIDTH), bool)
        lit = frame * (light / 255 if t == 3 else 1.0)
        details[t] = FrameDetail.of(lit, np.ones(3), still, light if t == 3 else None).encode(95)
    stored = FrameDetails(details, (WIDTH, HEIGHT))
    full = replace(scene, detail=ClipDetail(stored, DetailOptions(far=1.0, whole=0.5)))
    for time, share in ((3, 0.5), (3.5, 0.75), (1, 1.0)):
        views = full.views(scene.cameras[3], time)
        ratio = (views.merged.rgb.astype(float) + 1) / (views.background.rgb + 1.0)
        assert abs(np.median(ratio[55:75, 45:85]) - share) < 0.05
        assert np.median(ratio[:40]) == 1
    # the stored colours have no shadow: another time does not show it
    plain = full.views(scene.cameras[3], 0).background.rgb.astype(float)
    assert np.abs(plain - darken(scene, 3, 1.0)[0])[55:75, 45:85].mean() < 4
