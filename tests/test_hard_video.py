"""Video as phones, cameras and bad disks make it: right for the good part, and the bad part
named."""

import os
import re
import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from forks import ask, fork_server
from hypothesis import given, settings
from hypothesis import strategies as st

from models.clip.frame_checks import (
    describe_frames,
    find_misleading,
    inspect_frames,
    reduce_frame,
)
from models.clip.images import write_images
from models.clip.video import read_video
from models.clip.video_writer import write_video
from models.run.errors import InputError
from models.synthetic.sample import RoomOptions, render_room

FRAMES, WIDTH, HEIGHT = 14, 176, 112


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return render_room(RoomOptions(FRAMES, WIDTH, HEIGHT, num_movers=0, num_tracks=0)).frames


@pytest.fixture(scope="module")
def source(frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip, nearly lossless."""
    path = tmp_path_factory.mktemp("source") / "clip.mp4"
    write_video(path, frames, 25)
    return path


@pytest.fixture(scope="module")
def whole(source) -> np.ndarray:
    """The clip as it is read back."""
    return read_video(source).frames


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b).mean())


def test_a_variable_frame_rate_gives_each_frame_once(source, whole, tmp_path):
    pauses = "setpts='(N+floor(N/3)*4)/25/TB'"
    ffmpeg("-i", source, "-vf", pauses, "-fps_mode", "vfr", "-crf", 10, tmp_path / "vfr.mp4")
    video = read_video(tmp_path / "vfr.mp4")
    assert len(video) == FRAMES
    assert error(video.frames, whole) < 4


@pytest.mark.parametrize(
    "codec", [("libx265", "-x265-params", "log-level=none"), ("libx264",), ("libvpx-vp9",)]
)
def test_ten_bits_become_eight(source, whole, tmp_path, codec):
    ffmpeg(
        "-i", source, "-c:v", *codec, "-pix_fmt", "yuv420p10le", "-crf", 8, tmp_path / "deep.mkv"
    )
    assert error(read_video(tmp_path / "deep.mkv").frames, whole) < 4


def perceptual_quantizer(frames: np.ndarray) -> np.ndarray:
    """sRGB-like frames as 16-bit values of SMPTE ST 2084, white at 203 cd/m2."""
    light = ((frames / 255) ** 2.4 * 203 / 10000) ** 0.1593017578125
    signal = ((0.8359375 + 18.8515625 * light) / (1 + 18.6875 * light)) ** 78.84375
    return (signal * 65535).round().astype(np.uint16)


def test_high_dynamic_range_comes_out_in_usual_colours(frames, tmp_path):
    for t, frame in enumerate(perceptual_quantizer(frames[:6])):
        cv2.imwrite(str(tmp_path / f"{t}.png"), frame[..., ::-1])
    tags = "setparams=color_trc=smpte2084:color_primaries=bt2020:colorspace=bt2020nc"
    deep = ["-vf", f"scale=out_color_matrix=bt2020,format=yuv420p10le,{tags}", "-c:v", "libx265"]
    ffmpeg(
        "-i",
        tmp_path / "%d.png",
        *deep,
        "-x265-params",
        "log-level=none",
        "-crf",
        8,
        tmp_path / "hdr.mp4",
    )
    found = read_video(tmp_path / "hdr.mp4").frames
    grey = [x.astype(float).mean(-1).ravel() for x in (found, frames[:6])]
    assert np.corrcoef(*grey)[0, 1] > 0.95
    assert 0.85 < grey[0].std() / grey[1].std() < 1.15, "washed out"


def comb(image: np.ndarray) -> float:
    """How much neighbouring rows differ where rows two apart do not: high where two fields are
    woven together."""
    rows = image.astype(int)
    return float((np.abs(rows[2:-2] - rows[1:-3]) - np.abs(rows[2:-2] - rows[:-4])).clip(0).mean())


def test_interlaced_frames_are_made_whole(tmp_path):
    x = np.arange(WIDTH)
    moving = [
        np.repeat(127 + 100 * np.sign(np.sin((x - 4 * t) / 9))[None, :, None], HEIGHT, 0)
        for t in range(24)
    ]
    write_video(tmp_path / "p.mp4", [np.repeat(m, 3, 2).astype(np.uint8) for m in moving], 50)
    woven = ["-vf", "tinterlace=interleave_top,setfield=tff", "-c:v", "mpeg2video", "-qscale:v", 2]
    ffmpeg("-i", tmp_path / "p.mp4", *woven, "-flags", "+ilme+ildct", tmp_path / "i.mpg")
    found = read_video(tmp_path / "i.mpg").frames
    raw = tmp_path / "raw.png"
    ffmpeg("-i", tmp_path / "i.mpg", "-vf", "select=eq(n\\,5)", "-frames:v", 1, raw)
    assert comb(found[5]) < 0.3 * comb(cv2.imread(str(raw)))


def test_a_cut_that_starts_between_keyframes_begins_at_a_whole_frame(source, whole, tmp_path):
    ffmpeg("-i", source, "-c:v", "libx264", "-g", 6, "-bf", 3, "-crf", 8, tmp_path / "b.mp4")
    ffmpeg("-ss", 0.16, "-i", tmp_path / "b.mp4", "-c", "copy", tmp_path / "cut.mp4")
    found = read_video(tmp_path / "cut.mp4").frames
    for frame in found:
        assert min(error(frame, own) for own in whole) < 6


GROUP = 5
"""Frames from one keyframe to the next in damaged files."""
H264 = ["-c:v", "libx264", "-bf", 0, "-crf", 8, "-sc_threshold", 0]
CODECS = {
    "h264.mp4": H264,
    "h264.mkv": H264,
    "bframes.mp4": ["-c:v", "libx264", "-bf", 2, "-crf", 8, "-sc_threshold", 0],
    "hevc.mp4": ["-c:v", "libx265", "-crf", 8, "-x265-params", "log-level=none:scenecut=0"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-q:v", 2],
    "mjpeg.avi": ["-c:v", "mjpeg", "-q:v", 2],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-crf", 8, "-b:v", 0, "-deadline", "realtime"],
}
"""Damaged files by name, and their encoders' arguments."""
PLACES = {
    "begin": [(7, 0.0, 0.4)],
    "middle": [(7, 0.3, 0.7)],
    "end": [(7, 0.6, 1.0)],
    "whole": [(7, 0.0, 1.0)],
    "a keyframe": [(5, 0.3, 0.7)],
    "two packets": [(2, 0.3, 0.7), (11, 0.2, 0.6)],
}
"""Packets, in decoding order, and the part of each that is zeroed, as a bad disk does."""


def read_contents(path: Path) -> list[bytes]:
    """The bytes of each packet of a file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path)]
    copy = [*command, "-map", "0:v:0", "-c", "copy"]
    table = subprocess.run([*copy, "-f", "framecrc", "-"], capture_output=True, text=True).stdout
    rows = [line.split(",") for line in table.splitlines() if line[:1].isdigit()]
    data = subprocess.run([*copy, "-f", "rawvideo", "-"], capture_output=True).stdout
    ends = np.cumsum([int(row[4]) for row in rows])
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def write_damaged(source: Path, path: Path, encoder: list, place: list) -> None:
    """The clip in groups of five frames, with zeros in some of its packets."""
    ffmpeg("-i", source, *encoder, "-g", GROUP, "-pix_fmt", "yuvj420p", path)
    data = bytearray(path.read_bytes())
    contents = read_contents(path)
    for number, begin, end in place:
        packet = contents[number]
        at = data.index(packet)
        begin, end = at + round(begin * len(packet)), at + round(end * len(packet))
        data[begin:end] = bytes(end - begin)
    path.write_bytes(data)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CODECS)
def test_damaged_packets_cost_only_the_frames_that_need_them_and_those_are_named(
    source, tmp_path, name, place
):
    write_damaged(source, tmp_path / f"good-{name}", CODECS[name], [])
    good = read_video(tmp_path / f"good-{name}")
    assert len(good) == FRAMES and not good.notes
    write_damaged(source, tmp_path / name, CODECS[name], PLACES[place])
    video = read_video(tmp_path / name)
    assert 0 < FRAMES - len(video) <= (GROUP + 2) * len(PLACES[place])
    assert "damaged" in video.notes[0]
    assert error(video.frames, good.frames[video.frame_indices]) < 1, (
        "what is left is whole, under its own number"
    )


def test_the_decoders_words_name_damaged_frames_until_the_next_keyframe():
    line = "[dec] decoder -> pts:{} duration:1 keyframe:{}\n"
    log = "".join(
        ("corrupt decoded frame\n" if t in (3, 8) else "") + line.format(t, int(t % 6 == 0))
        for t in range(12)
    )
    assert inspect_frames(log).damaged == {3, 4, 5, 8, 9, 10, 11}
    assert inspect_frames("").damaged == set()


@pytest.mark.parametrize("name", ["sound.m4a", "void.mp4", "headers.mp4"])
def test_files_without_a_frame_are_refused(tmp_path, name):
    path = tmp_path / name
    if name == "sound.m4a":
        ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", path)
    elif name == "headers.mp4":
        ffmpeg("-f", "lavfi", "-i", "color=s=64x64:d=0.2", "-frames:v", 0, path)
    else:
        path.touch()
    with pytest.raises(InputError, match=name):
        read_video(path)


def made_worse(frames: np.ndarray, kind: str) -> np.ndarray:
    worse = frames.copy()
    if kind == "black":
        worse[6:8] = 3
    elif kind == "white":
        worse[6] = 255
    elif kind == "flash":
        worse[7] = np.minimum(worse[7].astype(int) * 2 + 90, 255)
    elif kind == "another scene":
        other = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
        worse[9:] = cv2.resize(other, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        worse[9:] += np.arange(5, dtype=np.uint8)[:, None, None, None]
    elif kind == "repeat":
        worse[4], worse[9] = worse[3], worse[8]
    elif kind == "blur":
        worse[5] = cv2.GaussianBlur(worse[5], (0, 0), 6)
    elif kind == "exposure":
        worse = (
            (worse * np.linspace(0.5, 1.3, FRAMES)[:, None, None, None])
            .clip(0, 255)
            .astype(np.uint8)
        )
    return worse


LEFT_OUT = {"black": {6, 7}, "white": {6}, "flash": {7}, "another scene": set(range(9, 14))}


@pytest.mark.parametrize(
    "kind", ["black", "white", "flash", "another scene", "repeat", "blur", "exposure", "good"]
)
def test_only_frames_that_would_mislead_are_left_out(frames, tmp_path, kind):
    write_images(tmp_path / "in", made_worse(frames, kind), range(FRAMES))
    video = read_video(tmp_path / "in")
    assert set(range(FRAMES)) - set(video.frame_indices.tolist()) == LEFT_OUT.get(kind, set())
    assert bool(video.notes) == (kind in LEFT_OUT or kind == "repeat")
    every = read_video(tmp_path / "in", keep=range(FRAMES))
    assert len(every) == FRAMES, "frames asked for by number are all there"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0, 120))
def test_no_clip_is_emptied_and_steady_clips_are_left_alone(seed, count, contrast):
    random = np.random.default_rng(seed)
    base = cv2.resize(random.standard_normal((5, 5)).astype(np.float32), (64, 48)) * contrast + 127
    clip = np.stack([np.roll(base, t, 1) for t in range(count)])
    pictures = np.stack(
        [reduce_frame(np.repeat(p[..., None], 3, 2).clip(0, 255).astype(np.uint8)) for p in clip]
    )
    wrong = find_misleading(pictures)
    assert len(wrong) < max(count - 1, 1)
    assert contrast < 10 or not wrong


def test_frames_are_named_in_runs():
    assert (
        describe_frames({3: "blank", 7: "damaged", 8: "damaged", 9: "damaged", 5: "blank"})
        == "3, 5 (blank); 7 to 9 (damaged)"
    )


@pytest.fixture(scope="module")
def server():
    with fork_server() as process:
        yield process


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs each case in a fork")
@pytest.mark.parametrize("kind", ["black", "another scene", "damaged"])
def test_hard_video_goes_through_all_scripts(server, source, frames, tmp_path, kind):
    if kind == "damaged":
        write_damaged(source, tmp_path / "in.mp4", H264, PLACES["middle"])
        (tmp_path / "in.mp4").rename(tmp_path / "in")
    else:
        write_images(tmp_path / "in", made_worse(frames, kind), range(FRAMES))
    tracked = ask(
        server, "background", {"video_path": "in", "output_dir": "out", "spacing": 7}, tmp_path
    )
    assert tracked["code"] == 0, tracked["log"][-2000:]
    left_out = LEFT_OUT.get(kind)
    tracks = torch.load(tmp_path / "out" / "background_points.pt", weights_only=True)
    if left_out:
        assert re.search(rf"frames left out: {min(left_out)}\b", tracked["log"])
        assert set(range(FRAMES)) - set(tracks["frame_indices"].tolist()) == left_out
    track_file = {"background_path": "out/background_points.pt"}
    followed = ask(server, "foreground", {"video_path": "in", **track_file}, tmp_path)
    assert followed["code"] == 0, followed["log"][-2000:]
    shown = ask(server, "demo", {**track_file, "output_dir": "d", "num_epochs": 0.2}, tmp_path)
    assert shown["code"] == 0, shown["log"][-2000:]
    assert len(read_video(tmp_path / "d" / "reconstruction.mp4", keep=range(99))) == len(
        tracks["frame_indices"]
    )
