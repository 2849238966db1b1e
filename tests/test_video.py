import os
import subprocess
import sys

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from models.clip.images import read_image, write_images
from models.clip.sources.naming import natural_key
from models.clip.video import read_video
from models.clip.video_writer import VideoWriter, write_video
from models.run.errors import InputError
from models.run.files import check_output_dir


def clip(num: int = 6, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth moving colours, which survive the halved colour resolution of the codec."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    phase, speed, waves = (
        rng.uniform(0, 6, 3),
        rng.uniform(0.1, 0.4, 3),
        rng.uniform(-0.08, 0.08, (2, 3)),
    )
    frames = [
        np.sin(x[..., None] * waves[0] + y[..., None] * waves[1] + phase + t * speed)
        for t in range(num)
    ]
    return np.round(127.5 + 100 * np.stack(frames)).astype(np.uint8)


def ffmpeg(*arguments) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


def mean_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (2, 3)])
def test_a_written_video_reads_back_at_even_size_and_nearly_lossless(tmp_path, size):
    frames = clip(4, *size)
    write_video(tmp_path / "a.mp4", frames, 24)
    video = read_video(tmp_path / "a.mp4")
    assert video.fps == pytest.approx(24)
    assert video.original_size == (size[1] + size[1] % 2, size[0] + size[0] % 2)
    assert (video.height, video.width) == (video.original_size[1], video.original_size[0])
    padded = np.pad(frames, ((0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
    assert mean_error(video.frames, padded) < 2
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_written_video_is_what_browsers_play(tmp_path):
    write_video(tmp_path / "a.mp4", clip(), 24)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(tmp_path / "a.mp4")]
    report = subprocess.run(command, capture_output=True, text=True).stderr
    assert "h264" in report and "yuv420p" in report
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), (
        "a browser can start before the whole file is there"
    )


def test_readers_that_ignore_the_colour_tag_see_the_same_colours(tmp_path):
    frames = clip()
    write_video(tmp_path / "a.mp4", frames, 24)
    ok, bgr = cv2.VideoCapture(str(tmp_path / "a.mp4")).read()
    assert ok and mean_error(bgr[..., ::-1], frames[0]) < 3


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("stride, max_frames", [(1, None), (2, None), (3, 2), (1, 4)])
def test_stride_and_max_frames_choose_every_nth_frame(tmp_path, kind, stride, max_frames):
    frames, path = clip(7), tmp_path / "a.mp4"
    if kind == "file":
        write_video(path, frames, 30)
    else:
        path = tmp_path / "frames"
        write_images(path, frames, range(7))
    video = read_video(path, max_frames, stride)
    expected = list(range(7))[::stride][:max_frames]
    assert video.frame_indices.tolist() == expected
    assert video.fps == pytest.approx(30 / stride)
    assert mean_error(video.frames, frames[expected]) < 2
    assert video.original_frames in (7, None)


def test_images_read_back_exactly_and_in_natural_order(tmp_path):
    frames = clip(12, 5, 7)
    for i, frame in enumerate(frames):
        suffix = ".PNG" if i % 2 else ".bmp"
        (tmp_path / f"frame{i}{suffix}").write_bytes(
            cv2.imencode(suffix.lower(), frame[..., ::-1])[1].tobytes()
        )
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._frame0.png").write_bytes(b"left by another system")
    video = read_video(tmp_path)
    np.testing.assert_array_equal(video.frames, frames)
    assert video.original_frames == 12


def test_natural_order_compares_numbers_by_value():
    names = ["f10.png", "f9.png", "F1.png", "f01b.png", "10.png", "a.png"]
    assert sorted(names, key=natural_key) == [
        "10.png",
        "a.png",
        "F1.png",
        "f01b.png",
        "f9.png",
        "f10.png",
    ]


def test_grey_alpha_and_16_bit_images_become_8_bit_rgb(tmp_path):
    rgb = clip(1, 9, 11)[0]
    bgr, grey = rgb[..., ::-1], rgb[..., 0]
    alpha = np.random.default_rng(0).integers(0, 256, (9, 11, 1), dtype=np.uint8)
    variants = {
        "grey": (grey, np.repeat(grey[..., None], 3, 2)),
        "alpha": (np.concatenate([bgr, alpha], 2), rgb),
        "deep": (bgr.astype(np.uint16) * 257, rgb),
        "deepgrey": (grey.astype(np.uint16) * 257, np.repeat(grey[..., None], 3, 2)),
    }
    for name, (stored, expected) in variants.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), stored)
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), expected)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_large_frames_are_reduced_keeping_their_aspect(tmp_path, kind):
    frames, path = clip(2, 60, 120), tmp_path / "a.mp4"
    if kind == "file":
        write_video(path, frames, 30)
    else:
        path = tmp_path / "frames"
        write_images(path, frames, range(2))
    video = read_video(path, max_size=40)
    assert (video.width, video.height, video.original_size) == (40, 20, (120, 60))
    assert (
        mean_error(video.frames, cv2.resize(frames[0], (40, 20), interpolation=cv2.INTER_AREA)) < 20
    )


def test_rotation_in_the_file_is_applied(tmp_path):
    write_video(tmp_path / "a.mp4", clip(3), 24)
    ffmpeg("-display_rotation", 90, "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "turned.mp4")
    upright, turned = read_video(tmp_path / "a.mp4"), read_video(tmp_path / "turned.mp4")
    assert mean_error(turned.frames, np.rot90(upright.frames, 1, (1, 2))) < 1


def test_pixels_that_are_not_square_are_made_square(tmp_path):
    write_video(tmp_path / "a.mp4", clip(3), 24)
    ffmpeg("-i", tmp_path / "a.mp4", "-vf", "setsar=2/1", tmp_path / "wide.mp4")
    assert read_video(tmp_path / "wide.mp4").original_size == (128, 48)


def refused_inputs(folder) -> dict:
    frames = clip(3)
    write_video(folder / "good.mp4", frames, 24)
    data = (folder / "good.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 3])
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    (folder / "text.txt").write_text("words that a player would draw as a picture\n" * 50)
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\ngood.mp4\n#EXT-X-ENDLIST\n")
    (folder / "void.mp4").touch()
    write_video(folder / "still.mp4", frames[:1], 24)
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", folder / "sound.m4a")
    write_images(folder / "one", frames[:1], [0])
    cv2.imwritemulti(str(folder / "stack.tiff"), list(frames))
    (folder / "empty").mkdir()
    write_images(folder / "broken", frames, range(3))
    image = (folder / "broken" / "00001.png").read_bytes()
    (folder / "broken" / "00001.png").write_bytes(image[: len(image) // 2])
    write_images(folder / "mixed", frames, range(3))
    cv2.imwrite(str(folder / "mixed" / "00002.png"), frames[0, :20])
    return {
        "missing.mp4": "no such file",
        "cut.mp4": "corrupt",
        "noise.mp4": "no video",
        "text.txt": "no video",
        "list.m3u8": "no video",
        "void.mp4": "empty",
        "sound.m4a": "no video stream",
        "still.mp4": "needs at least 2",
        "stack.tiff": "is an image file",
        "one": "needs at least 2",
        "empty": "no images",
        "broken": r"00001\.png.*corrupt",
        "mixed": r"00002\.png: is 64x20 but 00000\.png is 64x48",
    }


def test_inputs_that_cannot_be_used_are_refused_by_name_with_the_reason(tmp_path, capfd):
    for name, reason in refused_inputs(tmp_path).items():
        capfd.readouterr()
        with pytest.raises(InputError, match=reason) as caught:
            read_video(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", ""), "the codec's own words stay off the terminal"


def test_a_cut_jpeg_is_refused(tmp_path):
    data = cv2.imencode(".jpg", clip(1)[0])[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.jpg"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("settings", [{"stride": 0}, {"max_frames": 0}, {"max_size": 3}])
def test_settings_out_of_range_are_refused(tmp_path, settings):
    write_video(tmp_path / "a.mp4", clip(2), 24)
    with pytest.raises(InputError, match=next(iter(settings))):
        read_video(tmp_path / "a.mp4", **settings)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_video(tmp_path / "missing" / "a.mp4", clip(2), 24)
    with pytest.raises(InputError, match="in the way"):
        check_output_dir(tmp_path / "file")
    with pytest.raises(InputError):
        check_output_dir(tmp_path / "file" / "below")
    with pytest.raises(InputError):
        write_images(tmp_path / "file" / "below", clip(1), [0])


FULL_DISK = """
import resource, sys
import numpy as np
from models.run.errors import InputError
from models.clip.video_writer import write_video
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
try:
    write_video(sys.argv[1], noise, 24)
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are POSIX")
def test_a_disk_that_fills_up_leaves_a_sentence_and_no_file(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.mp4")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert "a.mp4: cannot be written" in run.stdout
    assert not list(tmp_path.iterdir())


def test_an_error_while_writing_leaves_the_old_video_and_no_leftovers(tmp_path):
    write_video(tmp_path / "a.mp4", clip(2), 24)
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", 24) as writer:
        writer.add(clip(1)[0])
        raise RuntimeError("the renderer failed")
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_frames_of_another_size_or_type_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the first was"):
        write_video(tmp_path / "a.mp4", [clip(1)[0], clip(1, 20, 20)[0]], 24)
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "a.mp4", clip(2).astype(float), 24)
    with pytest.raises(ValueError, match="no frame"):
        write_video(tmp_path / "a.mp4", [], 24)


def test_images_of_an_earlier_run_do_not_mix_with_new_ones(tmp_path):
    write_images(tmp_path, clip(5), range(5))
    (tmp_path / "mine.png").touch()
    write_images(tmp_path, clip(2), [0, 3])
    assert sorted(os.listdir(tmp_path)) == ["00000.png", "00003.png", "mine.png"]
