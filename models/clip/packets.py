"""Packets of a video file, and signs of damage in their bytes that decoders do not report.

A bad disk, an interrupted download or a faulty card leaves zeros in a file. Decoders read zeros as
picture data.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Packets read beyond the number of frames asked for: packets are stored in decoding order.
_REORDERED = 64
# Zero bytes that may follow the data of a picture.
_STUFFING = 32
# Zero bytes in a row that compressed pictures do not hold, apart from flat areas.
_LONG_RUN = 48
# Mask and shift of the type of a NAL unit, and the types with picture data (ITU-T H.264 table 7-1,
# H.265 table 7-1).
_NAL_TYPES = {"h264": (0x1F, 0, range(1, 6)), "hevc": (0x3F, 1, range(32))}
_MPEG = {"mpeg1video", "mpeg2video", "mpeg4"}
_ARITHMETIC = {"vp8", "vp9", "av1"}
# Widths in bytes of the length in front of a NAL unit; 0 stands for start codes.
_LENGTH_WIDTHS = (4, 0, 2)
_START_CODE = re.compile(rb"\x00\x00\x01")
# Encoders put a 3 between such bytes within a NAL unit (ITU-T H.264 7.4.1).
_EMULATION = re.compile(rb"\x00\x00[\x00-\x02]")
# Three zero bytes stand in front of a start code only (MPEG).
_NO_START_CODE = re.compile(rb"\x00\x00\x00+[^\x00\x01]")
_RUN = re.compile(rb"\x00{%d}" % _LONG_RUN)
# ffmpeg's number for a missing time, and its flag for packets that are not shown.
_NO_TIME = -(1 << 63)
_DISCARD = 0x4


@dataclass(frozen=True)
class Packet:
    """A packet of a video stream."""

    pts: int | None
    """Presentation time of its frame, in the stream's time base."""
    dts: int | None
    """Decoding time, in the stream's time base."""
    discarded: bool = False
    """Marked by the container as not to be shown."""
    damaged: bool = False
    """Its bytes break the rules of its codec."""
    doubtful: bool = False
    """It holds a long run of zeros, which its codec allows."""


def read_packets(command: list[str], stream: int, count: int | None) -> list[Packet]:
    """Packets of a video stream in decoding order, each checked by its bytes.

    Args:
        command: ffmpeg with its input.
        stream: index of the stream in the file.
        count: frames of the clip that are asked for, or None for all.
    """
    copy = [*command, "-map", f"0:{stream}", "-c", "copy", "-copyinkf"]
    copy += ["-frames:v", str(count + _REORDERED)] if count else []
    lines = _list_packets(copy)
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.count(",") >= 5]
    codec = next((line.split(":")[1].strip() for line in lines if line.startswith("#codec_id")), "")
    contents = _read_contents(copy, [int(row[4]) for row in rows])
    damaged, doubtful = find_suspects(codec, contents)
    packets = []
    for k, row in enumerate(rows):
        discarded = _read_flags(row) & _DISCARD > 0
        times = _read_time(row[2]), _read_time(row[1])
        packets.append(Packet(*times, discarded, k in damaged, k in doubtful))
    return packets


def _list_packets(copy: list[str]) -> list[str]:
    """ffmpeg's table of packets: a line with times, size and flags for each, and the codec."""
    with tempfile.TemporaryFile() as table:
        streams = {"stdin": subprocess.DEVNULL, "stdout": table, "stderr": subprocess.DEVNULL}
        subprocess.run([*copy, "-f", "framecrc", "pipe:1"], check=False, **streams)
        table.seek(0)
        return table.read().decode(errors="replace").splitlines()


def _read_contents(copy: list[str], sizes: list[int]) -> Iterator[bytes]:
    """The bytes of each packet."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*copy, "-f", "rawvideo", "pipe:1"], **streams) as process:
        try:
            for size in sizes:
                yield process.stdout.read(size)
        finally:
            process.kill()


def _read_time(text: str) -> int | None:
    return None if int(text) == _NO_TIME else int(text)


def _read_flags(row: list[str]) -> int:
    return next((int(cell[2:], 16) for cell in row if cell.startswith("F=0x")), 0)


def find_suspects(codec: str, packets: Iterable[bytes]) -> tuple[set[int], set[int]]:
    """Indices of the damaged packets, and of the doubtful packets."""
    if codec in _NAL_TYPES:
        return _check_nal_units(codec, packets), set()
    damaged = set()
    doubtful = set()
    for k, data in enumerate(packets):
        if data and not data.strip(b"\0"):
            damaged.add(k)
        elif codec in _MPEG:
            # MPEG-1 and MPEG-2 are stuffed with zeros at constant bit rates.
            stuffed = codec == "mpeg4" and data.endswith(bytes(_STUFFING))
            if stuffed or _NO_START_CODE.search(data):
                damaged.add(k)
        elif _RUN.search(data):
            (damaged if codec in _ARITHMETIC else doubtful).add(k)
    return damaged, doubtful


def _check_nal_units(codec: str, packets: Iterable[bytes]) -> set[int]:
    """Indices of packets whose NAL units do not add up, or hold bytes that a NAL unit cannot hold.

    Lengths or start codes stand in front of the units. The container does not say which, so it is
    the form that fits most packets; no packet counts as damaged if no form fits more than half.
    """
    broken = {width: set() for width in _LENGTH_WIDTHS}
    count = 0
    for k, data in enumerate(packets):
        count += 1
        for width, found in broken.items():
            units = _split_by_length(data, width) if width else _split_by_start_code(data)
            if not units or not all(_is_whole(codec, data, *unit) for unit in units):
                found.add(k)
    best = min(broken.values(), key=len)
    return best if len(best) < count / 2 else set()


def _split_by_length(data: bytes, width: int) -> list[tuple[int, int]]:
    """Begin and end of each NAL unit; empty if the lengths do not add up to the packet's."""
    units = []
    at = 0
    while at < len(data):
        begin = at + width
        at = begin + int.from_bytes(data[at:begin], "big")
        if at == begin or at > len(data):
            return []
        units.append((begin, at))
    return units


def _split_by_start_code(data: bytes) -> list[tuple[int, int]]:
    """Begin and end of each NAL unit; empty if the packet does not begin with a start code."""
    starts = [match.start() for match in _START_CODE.finditer(data)]
    if not starts or data[: starts[0]].strip(b"\0"):
        return []
    return [(a + 3, b) for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def _is_whole(codec: str, data: bytes, begin: int, end: int) -> bool:
    """True for a NAL unit with a valid header and, in picture data, no bytes that the coding rules
    exclude."""
    mask, shift, pictures = _NAL_TYPES[codec]
    if begin >= end or data[begin] & 0x80:
        return False
    if (data[begin] >> shift) & mask not in pictures:
        return True
    stop = end
    while stop > max(begin, end - _STUFFING) and data[stop - 1] == 0:
        stop -= 1
    return data[stop - 1] != 0 and not _EMULATION.search(data, begin, stop)
