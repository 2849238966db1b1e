"""How inputs are to be read: names, kinds of image files, bits, video streams, frame rates."""

import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.clip.images import read_alpha, write_images
from models.clip.masks import read_masks
from models.clip.sources.listing import list_images
from models.clip.sources.naming import sort_naturally
from models.clip.sources.repeats import find_pattern
from models.clip.sources.streams import find_stream, read_frame_rate, write_frame_rate
from models.clip.video import read_video
from models.clip.video_writer import write_video
from models.run.errors import InputError
from models.synthetic.sample import RoomOptions, render_room

FRAMES, WIDTH, HEIGHT = 6, 96, 64


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=0, num_tracks=0)).frames


def save(folder: Path, names: list[str], images: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, images, strict=True):
        cv2.imwrite(str(folder / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["t0.png", "t0.05.png", "t0.25.png", "t0.5.png", "t1.0.png", "t1.25.png", "t10.5.png"],
        ["z_-12.5.png", "z_-2.png", "z_-1.png", "z_0.png", "z_1.png", "z_10.png"],
        ["-2.png", "-1.png", "0.png", "1.png"],
        ["frame-1.png", "frame-2.png", "frame-10.png"],
        ["2024-01-05.png", "2024-02-03.png", "2024-10-01.png"],
        ["shot_v2.9.png", "shot_v2.10.png", "shot_v2.11.png"],
        ["a.1.2.9.png", "a.1.2.10.png", "a.1.10.1.png"],
        ["1305031102.175304.png", "1305031102.211214.png", "1305031103.011215.png"],
    ],
)
def test_names_are_ordered_by_their_numbers(names):
    mixed = np.random.default_rng(0).permutation(names).tolist()
    assert sort_naturally(mixed, str) == names


@given(st.lists(st.integers(-5000, 5000), min_size=1, unique=True), st.sampled_from([1, 10, 100]))
def test_names_of_numbers_that_python_writes_are_ordered_by_value(values, parts):
    # From 0, as times are: 1.9 and 1.11 alone may be parts of a version as well.
    numbers = sorted(value / parts for value in {0, *values})
    names = [f"at={number}.png" for number in numbers]
    assert sort_naturally(sorted(names), str) == names


def test_kinds_that_are_not_read_are_counted_and_tiff_is_read(frames, tmp_path):
    save(tmp_path, [f"{i}.{'tif' if i % 2 else 'TIFF'}" for i in range(FRAMES)], frames)
    for name in ("6.heic", "7.HEIC", "8.exr", "notes.txt", ".9.heic"):
        (tmp_path / name).touch()
    video = read_video(tmp_path)
    np.testing.assert_array_equal(video.frames, frames)
    assert "1 .exr and 2 .heic images are not read" in video.describe()[1]
    for path in tmp_path.glob("*.[tT]*"):
        path.unlink()
    with pytest.raises(InputError, match=r"no images that are read, but 1 \.exr and 2 \.heic"):
        read_video(tmp_path)


def test_pages_behind_the_first_of_a_tiff_are_told(frames, tmp_path):
    save(tmp_path, [f"{i}.tif" for i in range(FRAMES)], frames)
    assert len(read_video(tmp_path).describe()) == 1
    for i in (2, 4):
        cv2.imwritemulti(str(tmp_path / f"{i}.tif"), [frames[i], frames[0], frames[1]])
    assert "2 TIFF files hold several pages (first 2.tif)" in read_video(tmp_path).describe()[1]


def test_a_frame_in_two_kinds_of_files_is_refused_and_named(frames, tmp_path):
    save(tmp_path, [f"{i}.png" for i in range(FRAMES)], frames)
    save(tmp_path, ["3.JPG"], frames[3:4])
    with pytest.raises(InputError, match=r"both 3\.JPG and 3\.png"):
        read_video(tmp_path)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_16_bit_files_are_brought_to_8_by_one_factor(frames, tmp_path, bits):
    half = frames // 2 + 64
    largest = 2**bits - 1
    deep = np.round(half / 255 * largest).astype(np.uint16)
    deep[0] //= 3  # a dark frame stays dark
    save(tmp_path, [f"{i}.png" for i in range(FRAMES)], deep)
    video = read_video(tmp_path)
    assert np.abs(video.frames[1:].astype(int) - half[1:]).max() <= 1
    assert video.frames[0].mean() < half.mean() / 2
    assert f"{bits} bits" in video.notes[0]
    assert not np.any(read_video(tmp_path, 2, 1).frames - video.frames[:2])


@pytest.mark.parametrize("factor", [257, 256])
def test_full_16_bit_frames_are_read_as_they_are(frames, tmp_path, factor):
    dark = frames // (8 if factor == 257 else 1)
    save(tmp_path, [f"{i}.png" for i in range(FRAMES)], dark.astype(np.uint16) * factor)
    video = read_video(tmp_path)
    assert np.abs(video.frames.astype(int) - dark).max() <= 1 and not video.notes


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_alpha_of_frames_is_told(frames, tmp_path, suffix):
    alpha = np.full((FRAMES, HEIGHT, WIDTH, 1), 255, np.uint8)
    rgba = np.concatenate([frames, alpha], 3)
    names = [f"{i}{suffix}" for i in range(FRAMES)]

    def note(images: np.ndarray) -> tuple[str, ...]:
        for name, image in zip(names, images, strict=True):
            stored = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA)
            cv2.imwrite(str(tmp_path / name), stored, [cv2.IMWRITE_WEBP_QUALITY, 101])
        return read_video(tmp_path).notes

    assert not note(rgba)
    rgba[3, 5:20, 5:30, 3] = 0
    (told,) = note(rgba)
    assert "alpha" in told and f"3{suffix}" in told and "--mask_path" in told
    assert (read_alpha(tmp_path / names[3]) == rgba[3, ..., 3]).all()


@pytest.mark.parametrize("name", ["dynamic_mask_{}.png", "{}_mask.jpg", "Mask.{}.png"])
def test_masks_beside_frames_are_masks(frames, tmp_path, name):
    save(tmp_path, [f"frame_{i}.png" for i in range(FRAMES)], frames)
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    masks[:, 16:40, 24:64] = True
    for i, mask in enumerate(masks):
        cv2.imwrite(str(tmp_path / name.format(i)), mask * np.uint8(255))
        cv2.imwrite(str(tmp_path / f"enlarged_dynamic_mask_{i}.png"), np.full_like(frames[0], 255))
    video = read_video(tmp_path)
    np.testing.assert_array_equal(video.frames, frames)
    assert video.masks_beside and "masks" in video.notes[0]
    np.testing.assert_array_equal(read_masks(tmp_path, video.clip_frames), masks)


def test_a_single_mask_beside_frames_is_left_out_and_named(frames, tmp_path):
    write_images(tmp_path, frames, range(FRAMES))
    write_images(tmp_path / "masks_of_all", frames, range(FRAMES))
    cv2.imwrite(str(tmp_path / "mask.png"), frames[0])
    listing = list_images(tmp_path)
    assert len(listing.frames) == FRAMES and not listing.masks and "mask.png" in listing.notes[0]


LOG = """\
Input #0, matroska,webm, from 'clip.mkv':
  Metadata:
    title           : Video: 240 fps
                    : Stream #0:0: Video: h264, yuv420p, 9999x9999, 240 fps (default)
  Stream #0:0: Video: mjpeg (Baseline), yuvj420p, 4000x3000, 90k tbr, 90k tbn (attached pic)
  Stream #0:1(eng): Audio: aac, 48000 Hz, stereo, fltp (default)
  Stream #0:2(und): Video: h264 (High) (avc1 / 0x31637661), yuv420p, 1920x1080, 50 fps, 50 tbr
  Stream #0:3[0x4](und): Video: hevc, yuv420p10le(tv), 640x360, 59.94 fps, 59.94 tbr (default)
    Metadata:
      title           : Stream #0:9: Video: vp9, 9000x9000, 10 fps (default)
Output #0, image2pipe, to 'pipe:':
  Stream #0:0: Video: ppm, rgb24, 8000x8000, 12 fps (default)
"""


def test_the_stream_that_players_show_is_found_by_ffmpegs_own_lines():
    stream = find_stream(LOG)
    assert stream.index == 3 and "hevc" in stream.header
    assert find_stream(LOG.replace(" (default)", "")).index == 2
    assert find_stream(LOG.split("  Stream #0:1")[0]) is None


@pytest.mark.parametrize("base", [12, 15, 24, 30, 48, 60, 120, 240])
def test_television_rates_are_exact(base):
    rate = base * 1000 / 1001
    assert read_frame_rate(f"h264, 64x64, {rate:.2f} fps, 90k tbn") == pytest.approx(rate, abs=1e-9)
    assert write_frame_rate(rate) == f"{base * 1000}/1001"
    assert write_frame_rate(rate / 7) in (f"{base * 1000}/7007", f"{base * 1000 // 7}/1001")
    assert read_frame_rate(f"h264, 64x64, {base} fps") == base


@pytest.mark.parametrize("rate", ["12.50", "23.81", "25", "0.50", "29.50"])
def test_other_rates_are_as_stated(rate):
    assert read_frame_rate(f"h264, 64x64, {rate} fps, 1k tbn") == float(rate)


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


def test_a_default_stream_behind_a_thumbnail_is_read_at_its_exact_rate(frames, tmp_path):
    write_video(tmp_path / "clip.mp4", frames, 24000 / 1001)
    write_video(tmp_path / "small.mp4", frames[:1, ::2, ::2], 24000 / 1001)
    both = ["-map", 0, "-map", 1, "-c", "copy", "-metadata", "title=Video: 240 fps"]
    flags = ["-disposition:v:0", 0, "-disposition:v:1", "default"]
    inputs = ["-i", tmp_path / "small.mp4", "-i", tmp_path / "clip.mp4"]
    ffmpeg(*inputs, *both, *flags, tmp_path / "two.mkv")
    video = read_video(tmp_path / "two.mkv")
    np.testing.assert_array_equal(video.frames, read_video(tmp_path / "clip.mp4").frames)
    assert video.fps == pytest.approx(24000 / 1001, abs=1e-9)


ANIMATED = {
    "a.webp": ["-c:v", "libwebp_anim", "-lossless", 1],
    "a.avif": ["-c:v", "libaom-av1", "-cpu-used", 8, "-crf", 10],
    "a.mjpeg": ["-c:v", "mjpeg", "-q:v", 2],
    "frames": ["-c:v", "mjpeg", "-q:v", 2, "-f", "mjpeg"],
}


@pytest.mark.parametrize("name", ANIMATED)
def test_animated_images_and_raw_jpegs_are_videos(frames, tmp_path, name):
    write_video(tmp_path / "clip.mp4", frames, 25)
    ffmpeg("-i", tmp_path / "clip.mp4", *ANIMATED[name], tmp_path / name)
    video = read_video(tmp_path / name)
    assert len(video) == FRAMES and not video.notes
    coded = read_video(tmp_path / "clip.mp4").frames
    assert np.abs(video.frames.astype(int) - coded).mean() < 8
    assert video.fps == pytest.approx(25)


@pytest.mark.parametrize("period, rate", [(5, "30000/1001"), (4, "32000/1001")])
def test_frames_repeated_by_telecine_are_named(tmp_path, period, rate):
    pan = render_room(RoomOptions(12, WIDTH, HEIGHT, num_movers=0, num_tracks=0)).frames
    write_video(tmp_path / "film.mp4", pan, 24000 / 1001)
    repeat = ["-vf", f"fps={rate}", "-c:v", "libx264", "-crf", 20, "-bf", 0]
    ffmpeg("-i", tmp_path / "film.mp4", *repeat, tmp_path / "television.mp4")
    noise = np.random.default_rng(0).normal(0, 1, (20, HEIGHT, WIDTH, 3))
    shown = read_video(tmp_path / "television.mp4").frames
    noisy = (shown + noise[: len(shown)]).clip(0, 255).astype(np.uint8)
    write_images(tmp_path / "frames", noisy, range(len(noisy)))
    assert find_pattern(pan) is None
    assert f"every {period}th frame nearly repeats" in read_video(tmp_path / "frames").notes[0]
