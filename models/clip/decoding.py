"""Video files through ffmpeg, frame by frame: upright, square pixels, 8-bit RGB; and their damage."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np
from numpy import ndarray

from models.clip.frame_checks import Integrity, inspect_frames
from models.clip.packets import read_packets
from models.run import MAX_PIXELS, MAX_SIDE, InputError

DEFAULT_FPS = 30.0
"""Frames per second of a clip that states no frame rate."""
SCALE_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
"""Options of ffmpeg's scaler for exact colours."""
# Frame rates in frames per second that are believed.
_LEAST_FPS = 0.1
_MOST_FPS = 1000
# Without a list, ffmpeg also "plays" text files, subtitles and playlists that point at other files.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,gif,apng,h264,hevc,ivf,"
    "yuv4mpegpipe,mxf,dv"
)
# Light of 203 cd/m2 becomes 1 (ITU-R BT.2408), colours those of BT.709; the brighter half is bent
# instead of clipped.
_TONE_MAP = (
    "zscale=tin={transfer}:pin=bt2020:min=bt2020nc:t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,"
    "tonemap=mobius:param=0.5:desat=0,zscale=t=bt709:m=bt709:r=tv,format=yuv444p"
)


def decode(path: Path, max_frames: int | None, stride: int, log: IO[bytes]) -> Iterator[ndarray]:
    """Yields frames of a video file, (H, W, 3) uint8; ffmpeg writes PPM images, which state their
    size.

    Interlaced frames are deinterlaced, and high dynamic range is mapped to standard dynamic range.

    Args:
        log: receives ffmpeg's log, for ``inspect_file`` and ``read_frame_rate``.

    Raises:
        InputError: no frame can be decoded, or the size changes.
    """
    filters = [*_choose_repairs(_read_header(path)), f"select='not(mod(n\\,{stride}))'"]
    filters += [
        f"scale='clip(round(iw*sar),1,{MAX_SIDE})':ih:{SCALE_FLAGS}",
        "setsar=1",
        "format=rgb24",
    ]
    command = [*_make_input(path), "-debug_ts", "-map", "0:v:0"]
    command += ["-vf", ",".join(filters), "-fps_mode", "passthrough"]
    command += ["-frames:v", str(max_frames)] if max_frames else []
    command += ["-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
    shape = None
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
    ) as process:
        try:
            while (image := _read_ppm(process.stdout)) is not None:
                shape = shape or image.shape
                if image.shape != shape:
                    raise InputError(
                        f"{path}: the frame size changes within the video; re-encode it at one size"
                    )
                yield image
        finally:
            # An early stop must not wait for the other frames; after the last frame ffmpeg has ended.
            process.kill()
    if shape is None:
        reason = _explain_failure(path, read_log(log))
        raise InputError(f"{path}: {reason}; give a video that plays, or a folder of images")


def _make_input(path: Path) -> list[str]:
    """The beginning of an ffmpeg command that reads a video file, and nothing else."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-nostats"]
    command += ["-protocol_whitelist", "file", "-format_whitelist", _CONTAINERS]
    command += ["-max_pixels", str(MAX_PIXELS)]
    return [*command, "-i", f"file:{path.absolute()}"]


def _read_header(path: Path) -> str:
    """ffmpeg's line on the first video stream of a file; empty if there is none."""
    said = subprocess.run(
        _make_input(path), stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).stderr
    lines = said.decode(errors="replace").splitlines()
    return next((line for line in lines if ": Video: " in line), "")


def _choose_repairs(header: str) -> list[str]:
    """Filters that the kind of video needs, by its header."""
    filters = []
    if re.search(r"\b(top|bottom) (coded )?first", header):
        filters.append("bwdif=mode=send_frame")
    if (transfer := re.search(r"smpte2084|arib-std-b67", header)) and _has_tone_map():
        filters.append(_TONE_MAP.format(transfer=transfer[0]))
    return filters


@cache
def _has_tone_map() -> bool:
    """Whether this ffmpeg was built with the filters of the tone map."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-filters"]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return " zscale " in known and " tonemap " in known


def inspect_file(path: Path, log: str, count: int | None) -> Integrity:
    """The state of each frame of a file that was decoded.

    Args:
        log: of the decoder.
        count: frames from the beginning that were asked for, or None for all.
    """
    return inspect_frames(log, read_packets(_make_input(path), count))


def read_log(log: IO[bytes]) -> str:
    """All text of a log."""
    log.seek(0)
    return log.read().decode(errors="replace")


def _read_ppm(stream: IO[bytes]) -> ndarray | None:
    """The next PPM image of a stream, (H, W, 3) uint8; None at its end."""
    if stream.readline() != b"P6\n":
        return None
    width, height = map(int, stream.readline().split())
    # The third line is the maximum, 255.
    stream.readline()
    data = stream.read(width * height * 3)
    if len(data) < width * height * 3:
        return None
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _explain_failure(path: Path, log: str) -> str:
    """Why no frame was decoded, as a clause."""
    if path.stat().st_size == 0:
        return "the file is empty"
    if "matches no streams" in log:
        return "holds no video stream"
    if "Invalid data found" in log or "not on whitelist" in log:
        return "is no video, or it is corrupt or cut short"
    return "no frame of it can be decoded, it may be corrupt or cut short"


def read_frame_rate(log: str) -> float:
    """Frames per second that the file states by ffmpeg's log, or the default."""
    match = re.search(r"Video: .*?([\d.]+)(k?) (?:fps|tbr)", log)
    rate = float(match[1]) * (1000 if match[2] else 1) if match else 0.0
    return rate if _LEAST_FPS <= rate <= _MOST_FPS else DEFAULT_FPS
