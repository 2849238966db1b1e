"""Video files through ffmpeg, frame by frame: upright, square pixels, 8-bit RGB; and their damage."""

import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, Literal

import imageio_ffmpeg
import numpy as np
from numpy import ndarray

from models.clip.frame_checks import Integrity, inspect_frames
from models.clip.packets import read_packets
from models.clip.sources.listing import IMAGE_SUFFIXES
from models.clip.sources.streams import VideoStream, find_stream
from models.run import MAX_PIXELS, MAX_SIDE, InputError

Pixels = Literal["8 bits", "16 bits", "alpha"]

SCALE_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
"""Options of ffmpeg's scaler for exact colours."""
# imageio-ffmpeg takes a program of this name before its own.
_VARIABLE = "IMAGEIO_FFMPEG_EXE"
# Without a list, ffmpeg also "plays" text files, subtitles and playlists that point at other files.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,gif,apng,h264,hevc,ivf,"
    "yuv4mpegpipe,mxf,dv,mjpeg,webp_anim"
)
_CURE = "give a video that plays, or a folder of images"
# Light of 203 cd/m2 becomes 1 (ITU-R BT.2408), colours those of BT.709; the brighter half is bent
# instead of clipped.
_TONE_MAP = (
    "zscale=tin={transfer}:pin=bt2020:min=bt2020nc:t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,"
    "tonemap=mobius:param=0.5:desat=0,zscale=t=bt709:m=bt709:r=tv,format=yuv444p"
)


def decode(
    path: Path,
    stream: VideoStream,
    max_frames: int | None,
    stride: int,
    log: IO[bytes],
    pixels: Pixels = "8 bits",
) -> Iterator[ndarray]:
    """Yields frames of a video file, (H, W, 3) uint8 or uint16; ffmpeg writes PPM images, which
    state their size.

    Interlaced frames are deinterlaced, and high dynamic range is mapped to standard dynamic range.

    Args:
        log: receives ffmpeg's log, for ``inspect_file``.
        pixels: yield colours of 8 or of 16 bits, or alpha as grey of 8 bits.

    Raises:
        InputError: no frame can be decoded, or the size changes.
    """
    filters = [*_choose_repairs(stream.header), f"select='not(mod(n\\,{stride}))'"]
    filters += ["alphaextract"] if pixels == "alpha" else []
    filters += [
        f"scale='clip(round(iw*sar),1,{MAX_SIDE})':ih:{SCALE_FLAGS}",
        "setsar=1",
        "format=rgb48be" if pixels == "16 bits" else "format=rgb24",
    ]
    command = [*_make_input(path), "-debug_ts", "-map", f"0:{stream.index}"]
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
        raise InputError(f"{path}: {reason}; {_CURE}")


def find_ffmpeg() -> str:
    """The program that reads and writes videos.

    Raises:
        InputError: there is none, or the variable of the environment names something else.
    """
    return _check_ffmpeg(os.environ.get(_VARIABLE))


@cache
def _check_ffmpeg(named: str | None) -> str:
    """The program that the variable names; that of imageio-ffmpeg without the variable."""
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        if named:
            said = subprocess.run(
                [program, "-version"], stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            if not said.stdout.startswith(b"ffmpeg version"):
                raise OSError(None, "it is not ffmpeg")
    except (OSError, ValueError, RuntimeError) as error:
        if not named:
            raise InputError(
                f"no ffmpeg is found; install imageio-ffmpeg, or name a program by {_VARIABLE}"
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{named}: cannot be run as ffmpeg ({reason}), and the variable {_VARIABLE} names it; "
            "unset the variable or correct it"
        ) from error
    return program


def _make_input(path: Path) -> list[str]:
    """The beginning of an ffmpeg command that reads a video file, and nothing else."""
    command = [find_ffmpeg(), "-nostdin", "-hide_banner", "-nostats"]
    command += ["-protocol_whitelist", "file", "-format_whitelist", _CONTAINERS]
    command += ["-max_pixels", str(MAX_PIXELS)]
    return [*command, "-i", f"file:{path.absolute()}"]


def open_stream(path: Path) -> VideoStream:
    """The video stream of a file that players show.

    Raises:
        InputError: the file holds none.
    """
    command = _make_input(path)
    said = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).stderr.decode(errors="surrogateescape")
    # The name of the file stands in the log, and may hold any words.
    stream = find_stream(said.replace(command[-1], ""))
    if stream is None:
        reason = _explain_failure(path, said)
        raise InputError(f"{path}: {reason}; {_CURE}")
    return stream


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
    command = [find_ffmpeg(), "-hide_banner", "-filters"]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return " zscale " in known and " tonemap " in known


def inspect_file(path: Path, stream: VideoStream, log: str, count: int | None) -> Integrity:
    """The state of each frame of a file that was decoded.

    Args:
        log: of the decoder.
        count: frames from the beginning that were asked for, or None for all.
    """
    return inspect_frames(log, read_packets(_make_input(path), stream.index, count))


def read_log(log: IO[bytes]) -> str:
    """All text of a log."""
    log.seek(0)
    return log.read().decode(errors="replace")


def _read_ppm(stream: IO[bytes]) -> ndarray | None:
    """The next PPM image of a stream, (H, W, 3) uint8 or uint16; None at its end."""
    if stream.readline() != b"P6\n":
        return None
    width, height = map(int, stream.readline().split())
    # The third line is the maximum, 255 or 65535.
    kind = np.dtype(np.uint8 if stream.readline() == b"255\n" else ">u2")
    size = width * height * 3 * kind.itemsize
    data = stream.read(size)
    if len(data) < size:
        return None
    image = np.frombuffer(data, kind).reshape(height, width, 3)
    return image.astype(kind.newbyteorder("="), copy=False)


def _explain_failure(path: Path, log: str) -> str:
    """Why no frame was decoded, as a clause."""
    if path.stat().st_size == 0:
        return "the file is empty"
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return "is an image file, of which no video can be read"
    if "\nInput #0" in f"\n{log}" and not find_stream(log):
        return "holds no video stream"
    if "Invalid data found" in log or "not on whitelist" in log:
        return "is no video, or it is corrupt or cut short"
    return "no frame of it can be decoded, it may be corrupt or cut short"
