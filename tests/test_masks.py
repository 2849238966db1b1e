import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from models.clip.frames_of import ClipFrames
from models.clip.images import write_images
from models.clip.masks import dilate, read_masks, write_masks
from models.clip.video_writer import write_video
from models.run.errors import InputError


def random_masks(num: int = 5, height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """Blobs of several pixels, so that codecs and resizing keep them."""
    noise = np.random.default_rng(seed).normal(size=(num, height, width))
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 4) > 0 for frame in noise])


def test_masks_read_back_as_written(tmp_path):
    masks = random_masks()
    write_masks(tmp_path, masks)
    np.testing.assert_array_equal(
        read_masks(tmp_path, ClipFrames(np.arange(5) * 3, (32, 24))), masks
    )


def test_masks_of_the_whole_clip_are_chosen_by_frame_number(tmp_path):
    masks = random_masks(9)
    write_masks(tmp_path, masks)
    indices = np.array([0, 3, 6])
    for original_frames in (9, None):
        read = read_masks(tmp_path, ClipFrames(indices, (32, 24), original_count=original_frames))
        np.testing.assert_array_equal(read, masks[indices])


def test_a_mask_video_is_read_like_a_folder(tmp_path):
    masks = random_masks()
    write_video(
        tmp_path / "m.mp4", (np.repeat(mask[..., None] * np.uint8(255), 3, 2) for mask in masks), 24
    )
    read = read_masks(tmp_path / "m.mp4", ClipFrames.in_order(5, (32, 24)))
    assert (read == masks).mean() > 0.99


def test_any_bright_channel_marks_what_moves(tmp_path):
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 200, 0], [0, 0, 255], [127, 127, 127]], np.uint8)
    write_images(tmp_path, colors[None, :, None], [0])
    assert read_masks(tmp_path, ClipFrames.in_order(1, (1, 5)))[0, :, 0].tolist() == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_masks_of_the_original_size_are_reduced_with_the_frames(tmp_path):
    masks = random_masks(2)
    write_masks(tmp_path, masks.repeat(3, 1).repeat(3, 2))
    np.testing.assert_array_equal(
        read_masks(tmp_path, ClipFrames(np.arange(2), (32, 24), original_size=(96, 72))), masks
    )


@pytest.mark.parametrize(
    "num, size, original_frames, reason",
    [
        (4, (32, 24), 8, "holds 5 masks, expected 4 .* or the 8 of the clip"),
        (6, (32, 24), None, "holds 5 masks, expected 6"),
        (5, (32, 25), 5, "is 32x24, expected 32x25 or 64x50"),
    ],
)
def test_a_wrong_number_or_size_is_refused_with_what_was_expected(
    tmp_path, num, size, original_frames, reason
):
    write_masks(tmp_path, random_masks())
    with pytest.raises(InputError, match=reason):
        original_size = 2 * size[0], 2 * size[1]
        read_masks(tmp_path, ClipFrames(np.arange(num), size, original_size, original_frames))


def test_missing_empty_and_dark_masks_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "labels", random_masks(2).astype(np.uint8), range(2))
    for name, reason in {
        "missing": "no such",
        "empty": "no images",
        "labels": "brightest mask value is 1",
    }.items():
        with pytest.raises(InputError, match=reason):
            read_masks(tmp_path / name, ClipFrames.in_order(2, (32, 24)))


def test_masks_without_anything_moving_are_read(tmp_path):
    write_masks(tmp_path, np.zeros((2, 24, 32), bool))
    assert not read_masks(tmp_path, ClipFrames.in_order(2, (32, 24))).any()


@pytest.mark.parametrize("pixels", [0, 1, 4])
def test_dilation_adds_all_pixels_within_the_radius(pixels):
    masks = random_masks(3, seed=pixels) & (np.random.default_rng(1).random((3, 24, 32)) < 0.02)
    expected = np.stack(
        [distance_transform_edt(~mask) <= pixels if mask.any() else mask for mask in masks]
    )
    np.testing.assert_array_equal(dilate(masks, pixels), expected)
