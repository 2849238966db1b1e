"""Learned depth through the real code of transformers, at tiny configurations and random
weights."""

import numpy as np
import pytest
import torch
from heard import Heard

from models.clip.frames_of import ClipFrames
from models.depth.maps import read_depth
from models.learned.depth import IMAGENET_MEAN, IMAGENET_STD, write_depth_maps
from models.learned.pretrained import open_pretrained
from models.learned.registry import DEPTH_MODELS, open_depth_model


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_depth_anything_is_asked_as_its_authors_do(checkpoints):
    frame = picture(42, 70)  # the size it works at: nothing is resized
    found = open_depth_model("depth_anything", str(checkpoints["depth_anything"]))(frame)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    image = ((torch.from_numpy(frame) / 255 - mean) / std).permute(2, 0, 1)[None]
    model = open_pretrained(
        DEPTH_MODELS["depth_anything"], str(checkpoints["depth_anything"]), False
    )
    with torch.no_grad():
        expected = model(pixel_values=image).predicted_depth[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6 * max(1e-6, expected.max()))
    metric = open_depth_model("depth_anything", str(checkpoints["metric"]))(frame)
    assert np.isfinite(metric).all() and metric.min() >= 1 / 20, "the inverse of at most 20 m"


def test_depth_pro_is_asked_as_its_authors_do(checkpoints):
    frame = picture(32, 32)
    found = open_depth_model("depth_pro", str(checkpoints["depth_pro"]))(frame)
    model = open_pretrained(DEPTH_MODELS["depth_pro"], str(checkpoints["depth_pro"]), False)
    with torch.no_grad():
        image = torch.from_numpy(frame).permute(2, 0, 1)[None] / 127.5 - 1
        expected = torch.nn.functional.interpolate(
            model(pixel_values=image).predicted_depth[None], (32, 32), mode="bilinear"
        )
    np.testing.assert_allclose(found, expected[0, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", DEPTH_MODELS)
def test_depth_has_the_frames_size_and_is_kept_in_files(checkpoints, tmp_path, name):
    frames = np.stack([picture(45, 81, seed) for seed in range(3)])
    (tmp_path / "00007.npy").touch()
    model = open_depth_model(name, str(checkpoints[name]))
    heard = Heard()
    write_depth_maps(tmp_path, frames, model, heard)
    assert heard.steps == [("depth", done, 3) for done in range(4)]
    assert sorted(p.name for p in tmp_path.glob("*.npy")) == [f"{t:05d}.npy" for t in range(3)]
    maps = read_depth(tmp_path, ClipFrames.in_order(3, (81, 45)))
    for t in range(3):
        np.testing.assert_allclose(maps[t], np.maximum(model(frames[t]), 0), rtol=2e-3, atol=1e-6)
