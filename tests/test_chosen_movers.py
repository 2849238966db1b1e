"""Movers one by one: any of them is left out of pictures, with its shadow."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from clips import neutral_exposure, true_tracks

import demo_pipeline
from models.detail import ChosenMovers
from models.field import ColorField, HashGrid, normalization
from models.movers import MovingMeshPipeline, fit_canonical_box
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render import Layer, MovingLayer, Scene
from models.run import InputError
from models.synthetic.sample import RoomOptions, render_room
from models.tracks import Tracks

WIDTH, HEIGHT, FRAMES = 160, 96, 4


@pytest.fixture(scope="module")
def room():
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_tracks=3000))


@pytest.fixture(scope="module")
def movers(room) -> Tracks:
    """The cart's tracks as those of two movers: its left half is 1, its right half 2."""
    tracks = true_tracks(room, True)
    u = tracks.canonical[:, 0]
    return replace(tracks, label=1 + (u > u.median()).long())


@pytest.fixture(scope="module")
def scene(room, movers) -> Scene:
    tracks = true_tracks(room, False)
    meshes = TriangleMeshPipeline.from_tracks(tracks, range(FRAMES), room.masks)
    field = ColorField(HashGrid(log2_entries=12, finest_resolution=64))
    box = normalization(tracks.cameras, meshes.gather_used())
    moving = MovingMeshPipeline.from_tracks(movers, room.masks, list(range(FRAMES)))
    colors = WorldSpaceTrianglePipeline(field, fit_canonical_box(moving)[0])
    layer = Layer(meshes, WorldSpaceTrianglePipeline(field, box))
    exposure = neutral_exposure(FRAMES, WIDTH, HEIGHT)
    return Scene(tracks.cameras, 10.0, exposure, layer, MovingLayer(moving, colors))


def shown(scene: Scene) -> np.ndarray:
    """Pixels in which frame 1 shows movers."""
    return scene.rebuild(1).field.foreground.any(2)


def test_each_mover_shows_alone_and_both_make_the_whole(scene: Scene):
    assert scene.moving.meshes.numbers == [1, 2]
    whole, left, right = (shown(scene.keep_movers(kept)) for kept in ({1, 2}, {1}, {2}))
    assert left.sum() > 50 and right.sum() > 50
    columns = [np.nonzero(own)[1].mean() for own in (left, right)]
    assert columns[0] < columns[1]
    assert not (whole & ~(left | right)).any() or (whole & ~(left | right)).mean() < 0.01
    assert (left & right).sum() < 0.1 * whole.sum()


def test_without_movers_the_background_is_left(scene: Scene):
    bare = scene.keep_movers(set())
    assert bare.moving is None
    layers = bare.views(scene.cameras[1], 1)
    assert np.array_equal(layers.merged.rgb, layers.background.rgb)
    assert scene.keep_movers({1, 2}) is scene


def test_the_shadow_nearest_to_a_removed_mover_goes_with_it(scene: Scene, room):
    meshes = scene.moving.meshes
    dark = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    first, second = meshes.keep({1}), meshes.keep({2})
    left = ChosenMovers(first, second).keep_shadows(dark, 1)
    right = ChosenMovers(second, first).keep_shadows(dark, 1)
    row, middle = (int(places.mean()) for places in np.nonzero(room.masks[1]))
    begin, end = np.s_[row, : middle - 30], np.s_[row, middle + 30 :]
    assert (left[begin] == 90).all() and (left[end] == 255).all()
    assert (right[begin] == 255).all() and (right[end] == 90).all()
    none = meshes.keep(set())
    assert (ChosenMovers(none, meshes).keep_shadows(dark, 1) == 255).all()
    # a mover that has left the picture may still cast a shadow into it
    assert (ChosenMovers(none, none).keep_shadows(dark, 1) == 255).all()


def test_movers_are_chosen_by_number_and_others_refused(scene: Scene, movers: Tracks):
    keep = demo_pipeline.keep_chosen
    settings = demo_pipeline.Settings()
    assert keep(settings, scene) is scene
    assert keep(replace(settings, without=(1,)), scene).moving.meshes.numbers == [2]
    assert keep(replace(settings, only=(1,)), scene).moving.meshes.numbers == [1]
    assert demo_pipeline.find_numbers(SimpleNamespace(movers=movers)) == {1, 2}
    assert demo_pipeline.find_numbers(SimpleNamespace(movers=None)) == set()
    with pytest.raises(InputError, match="no mover 3; the numbers of the movers: 1, 2"):
        keep(replace(settings, without=(3,)), scene)
    with pytest.raises(InputError, match="none"):
        demo_pipeline.check_movers(replace(settings, only=(1,)), set())
    with pytest.raises(InputError, match="exclude each other"):
        demo_pipeline.check_settings(replace(settings, only=(1,), without=(2,)))
