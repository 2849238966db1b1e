"""Learned masks through the real code of transformers, at a tiny configuration and random
weights."""

import numpy as np
import pytest
import torch
from heard import Heard
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learned import sam2 as sam2_masks
from models.learned.pretrained import open_pretrained
from models.learned.registry import open_mask_model
from models.learned.sam2 import SAM2, best_frame, follow_movers, is_followed
from models.synthetic.sample import RoomOptions, render_room

SIDE = 128
"""Of the images that the tiny SAM 2 sees."""


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def sam2(checkpoints):
    return open_pretrained(SAM2, str(checkpoints["sam2"]), False)


@pytest.mark.parametrize("kind", ["mask", "points"])
def test_frames_handed_over_one_by_one_give_what_the_whole_clip_gives(sam2, kind):
    from transformers import Sam2VideoInferenceSession

    frames = [picture(60, 80, seed) for seed in range(22)]
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 30:90, 40:100] = 1
    points = torch.tensor([[[[40.0, 30.0], [100.0, 90.0], [70.0, 60.0]]]])
    prompt = {"mask": mask} if kind == "mask" else {
        "point_coords": points, "point_labels": torch.tensor([[[2, 3, 1]]], dtype=torch.int32)
    }  # fmt: skip
    video = torch.cat([sam2_masks._prepare_image(frame, SIDE) for frame in frames])
    session = Sam2VideoInferenceSession(video, 60, 80, dtype=torch.float32)
    session.obj_id_to_idx(1)
    add = session.add_mask_inputs if kind == "mask" else session.add_point_inputs
    add(0, 0, prompt["mask"] if kind == "mask" else prompt)
    session.obj_with_new_inputs = [1]
    whole = sam2.propagate_in_video_iterator(session, start_frame_idx=0)
    for t, (found, expected) in enumerate(
        zip(sam2_masks._follow(sam2, iter(frames), prompt), whole, strict=True)
    ):
        assert expected.object_score_logits.max() > 0
        large = torch.nn.functional.interpolate(expected.pred_masks, (60, 80), mode="bilinear")[
            0, 0
        ]
        np.testing.assert_allclose(found, large, atol=1e-4, err_msg=f"frame {t}")
        assert found.std() > 0


def test_what_is_kept_of_a_clip_does_not_grow(sam2, monkeypatch):
    kept = []

    def watched(session, t, memory):
        forget(session, t, memory)
        outputs = session.output_dict_per_obj[0]
        kept.append((len(outputs["non_cond_frame_outputs"]), len(session.processed_frames)))

    forget = sam2_masks._forget
    monkeypatch.setattr(sam2_masks, "_forget", watched)
    prompt = {"mask": torch.ones(1, 1, SIDE, SIDE)}
    for _ in sam2_masks._follow(sam2, (picture(30, 40, t) for t in range(40)), prompt):
        pass
    assert max(kept) == (16, 0)


def test_a_mover_that_the_model_does_not_follow_keeps_its_mask(checkpoints):
    labels = render_room(RoomOptions(6, 80, 48, num_movers=1, num_tracks=0)).masks.astype(np.uint8)
    frames = np.stack([picture(48, 80, t) for t in range(6)])
    heard = Heard()
    model = open_mask_model("sam2", str(checkpoints["sam2"]))
    out = model(frames, labels, heard)
    np.testing.assert_array_equal(out, labels)
    assert heard.steps[-1] == ("learned masks", 7, 7)


def test_the_models_outline_replaces_that_of_motion(sam2, monkeypatch):
    """A stand-in for what trained weights do: the true masks, from which those of motion differ."""
    room = render_room(RoomOptions(8, 80, 48, num_movers=1, num_tracks=0))
    rough = np.stack([np.roll(mask, 2, 1) for mask in room.masks]).astype(np.uint8)
    index = {room.frames[t].tobytes(): t for t in range(8)}

    def know(model, frames, prompt):
        for frame in frames:
            yield np.where(room.masks[index[frame.tobytes()]], 3.0, -3.0).astype(np.float32)

    monkeypatch.setattr(sam2_masks, "_follow", know)
    np.testing.assert_array_equal(
        follow_movers(sam2, room.frames, rough), room.masks.astype(np.uint8)
    )


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_the_prompt_lies_in_the_mask(seed):
    random = np.random.default_rng(seed)
    mask = np.zeros((40, 50), bool)
    for _ in range(3):
        y, x = random.integers(0, 30, 2)
        mask[y : y + random.integers(1, 12), x : x + random.integers(1, 12)] = True
    (left, top), (right, bottom), *inside = sam2_masks._choose_points(mask)
    rows, columns = np.nonzero(mask)
    assert (left, right, top, bottom) == (
        columns.min(),
        columns.max() + 1,
        rows.min(),
        rows.max() + 1,
    )
    assert inside and all(mask[int(y), int(x)] for x, y in inside)


def test_the_frame_that_shows_a_mover_best_is_prompted():
    mask = np.zeros((9, 40, 60), bool)
    for t, size in enumerate([0, 4, 6, 10, 10, 10, 6, 30, 0]):  # frame 7: a burst of noise
        mask[t, 5 : 5 + size, 5 : 5 + size] = True
    assert best_frame(mask) in (3, 4, 5)
    assert is_followed(mask, mask) and not is_followed(~mask, mask)
