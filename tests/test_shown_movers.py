"""benchmarks/shown_movers.py: the share of movers that the background does not hide."""

from dataclasses import replace

import pytest
import torch
from clips import neutral_exposure, true_tracks

from benchmarks.shown_movers import measure_shown_movers, shift_camera
from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.world_box import normalization
from models.movers.moving_pipeline import MovingMeshPipeline, fit_canonical_box
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.scene import Layer, MovingLayer, Scene
from models.synthetic.sample import RoomOptions, render_room

WIDTH, HEIGHT, FRAMES = 160, 96, 6


@pytest.fixture(scope="module")
def room():
    return render_room(RoomOptions(num_frames=FRAMES, width=WIDTH, height=HEIGHT))


def build_scene(room, farther: float) -> Scene:
    """The room's scene, its mover ``farther`` times as far from the first camera as it is."""
    tracks = true_tracks(room, False)
    meshes = TriangleMeshPipeline.from_tracks(tracks, range(FRAMES), room.masks)
    movers = true_tracks(room, True)
    center = tracks.cameras.centers[0].to(movers.xyz)
    movers = replace(movers, xyz=center + farther * (movers.xyz - center))
    moving = MovingMeshPipeline.from_tracks(movers, room.masks, range(FRAMES))
    field = ColorField(HashGrid(log2_entries=12, finest_resolution=64))
    box = normalization(tracks.cameras, meshes.gather_used())
    layer = Layer(meshes, WorldSpaceTrianglePipeline(field, box))
    colors = WorldSpaceTrianglePipeline(field, fit_canonical_box(moving)[0])
    exposure = neutral_exposure(FRAMES, WIDTH, HEIGHT)
    return Scene(tracks.cameras, 10.0, exposure, layer, MovingLayer(moving, colors))


def test_a_mover_before_the_room_shows_and_one_behind_the_wall_does_not(room):
    before = measure_shown_movers(build_scene(room, 1.0))
    behind = measure_shown_movers(build_scene(room, 4.0))
    assert before["mover_shown"] > 0.9
    assert behind["mover_shown"] < 0.2
    assert before["mover_shown_least"] <= before["mover_shown"]


def test_a_scene_without_movers_has_no_figure(room):
    assert measure_shown_movers(replace(build_scene(room, 1.0), moving=None)) == {}


def test_a_camera_is_shifted_along_its_own_axis(room):
    camera = room.cameras[2]
    moved = shift_camera(camera, 1, 0.3)
    point = moved.centers.double()[None] if moved.centers.ndim == 1 else moved.centers.double()
    local = (point - camera.centers.double()) @ camera.world_from_cam[0, :3, :3].double()
    torch.testing.assert_close(local[0], torch.tensor([0, 0.3, 0], dtype=torch.float64))
