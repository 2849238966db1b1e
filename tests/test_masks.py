import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from heard import Heard
from scipy.ndimage import distance_transform_edt

from models.clip.frames_of import ClipFrames
from models.clip.images import write_images
from models.clip.masks import dilate, name_large_masks, read_masks, write_masks
from models.clip.video_writer import write_video
from models.run.errors import InputError
from models.synthetic.sample import RoomOptions, render_room
from models.tracking.still_masks import mark_still_part


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


def test_missing_and_empty_masks_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, reason in {"missing": "no such", "empty": "no images"}.items():
        with pytest.raises(InputError, match=reason):
            read_masks(tmp_path / name, ClipFrames.in_order(2, (32, 24)))


LABELS = {
    "0 and 1": lambda masks: masks.astype(np.uint8),
    "0 and 1 in 16 bits": lambda masks: masks.astype(np.uint16),
    "16-bit numbers": lambda masks: masks.astype(np.uint16) * 700,
    "12-bit white": lambda masks: masks.astype(np.uint16) * 4095,
    "16-bit white": lambda masks: masks.astype(np.uint16) * 65535,
    "dark grey": lambda masks: masks.astype(np.uint8) * 90,
}


@pytest.mark.parametrize("kind", LABELS)
def test_every_value_other_than_0_moves_in_masks_without_white(tmp_path, kind):
    masks = random_masks(3)
    for i, image in enumerate(LABELS[kind](masks)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    heard = Heard()
    read = read_masks(tmp_path, ClipFrames.in_order(3, (32, 24)), progress=heard)
    np.testing.assert_array_equal(read, masks)
    assert bool(heard.sentences) == (kind != "16-bit white")


def test_labels_beside_white_move_and_soft_borders_do_not(tmp_path):
    labels = np.zeros((24, 32), np.uint8)
    labels[3:9, 4:12] = 3
    labels[12:20, 15:30] = 255
    cv2.imwrite(str(tmp_path / "0.png"), labels)
    frames = ClipFrames.in_order(1, (32, 24))
    np.testing.assert_array_equal(read_masks(tmp_path, frames)[0], labels > 0)
    soft = cv2.blur(np.where(labels == 255, 255, 0).astype(np.uint8), (2, 2))
    cv2.imwrite(str(tmp_path / "0.png"), soft)
    np.testing.assert_array_equal(read_masks(tmp_path, frames)[0], soft > 127)


@pytest.mark.parametrize("value", [1, 60, 255])
def test_a_mask_video_may_hold_any_value(tmp_path, value):
    masks = random_masks()
    images = np.repeat(masks[..., None] * np.uint8(value), 3, 3)
    write_lossless(tmp_path / "m.mkv", images)
    read = read_masks(tmp_path / "m.mkv", ClipFrames.in_order(5, (32, 24)))
    np.testing.assert_array_equal(read, masks)


@pytest.mark.parametrize("stored", ["gray16le", "rgb48le", "gray12le"])
@pytest.mark.parametrize("value", [2, 700])
def test_a_mask_video_may_hold_numbers_of_16_bits(tmp_path, stored, value):
    masks = random_masks()
    images = masks.astype(np.uint16) * np.uint16(value)
    if stored == "rgb48le":
        images = np.stack([0 * images, 0 * images, images], -1)
    write_lossless(tmp_path / "m.mkv", images, stored)
    read = read_masks(tmp_path / "m.mkv", ClipFrames.in_order(5, (32, 24)))
    np.testing.assert_array_equal(read, masks)


def test_the_alpha_channel_of_a_mask_video_is_the_mask(tmp_path):
    masks = random_masks()
    color = np.random.default_rng(2).integers(0, 256, (*masks.shape, 3), np.uint8)
    images = np.concatenate([color, masks[..., None] * np.uint8(255)], 3)
    write_lossless(tmp_path / "m.mov", images)
    read = read_masks(tmp_path / "m.mov", ClipFrames.in_order(5, (32, 24)))
    np.testing.assert_array_equal(read, masks)


def write_lossless(path: Path, images: np.ndarray, stored: str = "rgb24") -> None:
    size = f"{images.shape[2]}x{images.shape[1]}"
    codec = "ffv1"
    if images.shape[-1] == 4:
        stored, codec = "rgba", "qtrle"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-s", size]
    command += ["-pix_fmt", stored, "-i", "-", "-c:v", codec, str(path)]
    subprocess.run(command, input=images.tobytes(), check=True)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
@pytest.mark.parametrize("color", ["photograph", "white", "black", "the mask itself"])
def test_alpha_is_the_mask_where_the_colours_are_none(tmp_path, color, suffix):
    masks = random_masks(3)
    masks[1] = False
    noise = np.random.default_rng(1).integers(0, 256, (3, 24, 32, 3), np.uint8)
    fill = {"photograph": noise, "white": np.full_like(noise, 255), "black": np.zeros_like(noise)}
    own = np.repeat(masks[..., None] * np.uint8(255), 3, 3)
    for i, (image, mask) in enumerate(zip(fill.get(color, own), masks, strict=True)):
        stored = np.dstack([image, mask.astype(np.uint8) * 255])
        cv2.imwrite(str(tmp_path / f"{i}{suffix}"), stored, [cv2.IMWRITE_WEBP_QUALITY, 101])
    heard = Heard()
    read = read_masks(tmp_path, ClipFrames.in_order(3, (32, 24)), progress=heard)
    np.testing.assert_array_equal(read, masks)
    if color == "photograph":
        assert "alpha" in heard.sentences[0]


def test_masks_of_most_of_the_picture_are_named_and_can_be_inverted(tmp_path):
    masks = np.zeros((2, 24, 32), bool)
    masks[:, 4:9, 6:14] = True
    write_masks(tmp_path, ~masks)
    frames = ClipFrames.in_order(2, (32, 24))
    heard = Heard()
    wrong = read_masks(tmp_path, frames, progress=heard)
    assert "--invert_masks" in heard.sentences[0] and "95 %" in heard.sentences[0]
    named = name_large_masks(wrong, invert=False)
    with pytest.raises(InputError, match=r"no tracks.*95 %.*--invert_masks"), named:
        raise InputError("no tracks")
    heard = Heard()
    np.testing.assert_array_equal(read_masks(tmp_path, frames, True, heard), masks)
    assert not heard.sentences


def test_masks_without_anything_moving_are_read(tmp_path):
    write_masks(tmp_path, np.zeros((2, 24, 32), bool))
    heard = Heard()
    assert not read_masks(tmp_path, ClipFrames.in_order(2, (32, 24)), progress=heard).any()
    assert "mark nothing as moving" in heard.sentences[0]


@pytest.mark.parametrize("grown", [0, 40])
def test_inverted_masks_are_recognised_by_their_tracks(grown):
    room = render_room(RoomOptions(6, 240, 136, num_movers=1, num_tracks=0, seed=3))
    masks = dilate(np.asarray(room.masks), grown)
    assert mark_still_part(room.frames, ~masks)
    assert not mark_still_part(room.frames, masks)
    noise = np.random.default_rng(0).integers(0, 256, (6, 17, 30, 3), np.uint8)
    crowd = np.stack([cv2.resize(image, (240, 136)) for image in noise])
    assert not mark_still_part(crowd, ~masks), "no still scene explains these"


@pytest.mark.parametrize("pixels", [0, 1, 4])
def test_dilation_adds_all_pixels_within_the_radius(pixels):
    masks = random_masks(3, seed=pixels) & (np.random.default_rng(1).random((3, 24, 32)) < 0.02)
    expected = np.stack(
        [distance_transform_edt(~mask) <= pixels if mask.any() else mask for mask in masks]
    )
    np.testing.assert_array_equal(dilate(masks, pixels), expected)
