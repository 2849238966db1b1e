"""Video streams of a file by ffmpeg's words, and their frame rates."""

import re
from dataclasses import dataclass
from fractions import Fraction

DEFAULT_FPS = 30.0
"""Frames per second of a clip that states no frame rate."""
# Frame rates in frames per second that are believed.
_LEAST_FPS = 0.1
_MOST_FPS = 1000
# ffmpeg's line on a stream of the input. Lines of metadata, whose words anybody can choose, are
# indented further.
_STREAM = re.compile(r"^  Stream #0:(\d+)\S*: Video: (.*)$", re.MULTILINE)
_NOT_PLAYED = re.compile(r"\((attached pic|still image|timed thumbnails|dependent)\)")
# The second after the side of the pixels is the height. A codec's tag, 0x31637661, has no comma.
_SIZE = re.compile(r", (\d+)x(\d+)")
# ffmpeg's names of pixels of more than 8 bits, without those of films, and of pixels with alpha.
_DEEP = re.compile(r", (gray\d\d|ya16|rgb48|bgr48|rgba64|bgra64|gbra?p\d\d)")
_ALPHA = re.compile(r", (yuva|rgba|bgra|argb|abgr|gbrap|ya8|ya16)")
# Pictures of the list of images of an AVIF file, which holds its video as well.
_IMAGE_ITEM = re.compile(r" 1 fps, 1 tbr, 1 tbn\b")
# Rates of television are 1000/1001 of a multiple of these, and ffmpeg prints two decimals of them.
_TELEVISION = (12, 15)
_PRINTED = 0.0051
# Largest denominator of a frame rate that a video file states.
_MOST_PARTS = 100_000


@dataclass(frozen=True)
class VideoStream:
    """A video stream of a file."""

    index: int
    """Of the stream among all streams of the file, from 0."""
    header: str
    """ffmpeg's words on it: codec, pixels, size, frame rate, flags."""

    @property
    def is_default(self) -> bool:
        """Marked by the file as the stream to be played."""
        return "(default)" in self.header

    @property
    def has_alpha(self) -> bool:
        """Decoded to pixels with an alpha channel."""
        return bool(_ALPHA.search(self.header))

    @property
    def is_deep(self) -> bool:
        """Decoded to grey or to colours of more than 8 bits, as numbers of objects are."""
        return bool(_DEEP.search(self.header))

    @property
    def area(self) -> int:
        """Pixels of a frame."""
        size = _SIZE.search(self.header)
        return int(size[1]) * int(size[2]) if size else 0


def find_stream(log: str) -> VideoStream | None:
    """The video stream that players show, by ffmpeg's words on the input; None if there is none.

    It is a stream marked as default, then the largest, then the first. Covers and thumbnails are
    not played.
    """
    before_output = log.split("\nOutput #0", 1)[0]
    streams = [VideoStream(int(row[1]), row[2]) for row in _STREAM.finditer(before_output)]
    played = [stream for stream in streams if not _NOT_PLAYED.search(stream.header)]

    def rank(stream: VideoStream) -> tuple[bool, bool, int]:
        is_video = not _IMAGE_ITEM.search(stream.header)
        return is_video, stream.is_default, stream.area

    return max(played, key=rank, default=None)


def read_frame_rate(header: str) -> float:
    """Frames per second that a stream states, or the default."""
    match = re.search(r"([\d.]+)(k?) (?:fps|tbr)", header)
    rate = float(match[1]) * (1000 if match[2] else 1) if match else 0.0
    if not _LEAST_FPS <= rate <= _MOST_FPS:
        return DEFAULT_FPS
    whole = round(rate * 1.001)
    exact = whole * 1000 / 1001
    is_television = any(whole % base == 0 for base in _TELEVISION) and rate != whole
    return exact if is_television and abs(exact - rate) < _PRINTED else rate


def write_frame_rate(fps: float) -> str:
    """A frame rate as a fraction, as 24000/1001, for ffmpeg."""
    rate = Fraction(fps).limit_denominator(_MOST_PARTS)
    return f"{rate.numerator}/{rate.denominator}"
