"""The boxes by which an MP4 says that it is stereoscopic or spherical.

Source: Google, "Spherical Video V2 RFC" (spatial-media): ``st3d`` and ``sv3d`` stand in the sample
entry of the video track. ISO/IEC 14496-12 gives the boxes around them.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# Boxes from the file down to the entry of the video's samples.
_WAY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
# Bytes of stsd before its entries, and of a sample entry of video before its boxes.
_STSD_HEAD = 8
_ENTRY_HEAD = 78
# Half of the sphere is cut away: a quarter at the left and at the right, as 0.32 fixed point.
_QUARTER = 1 << 30


@dataclass(frozen=True)
class Box:
    """A box of an MP4 file."""

    kind: bytes
    start: int
    """First byte of its head."""
    body: int
    """First byte after its head."""
    end: int


def tag_stereo(data: bytes, mode: int, is_half_sphere: bool) -> bytes:
    """The bytes of an MP4 with a ``st3d`` box, and with ``sv3d`` for a half sphere.

    Args:
        data: a file with one video track.
        mode: ``stereo_mode``: 1 top-bottom, 2 left-right.

    Raises:
        ValueError: the file has no video track.
    """
    added = _box(b"st3d", struct.pack(">IB", 0, mode))
    if is_half_sphere:
        added += _make_projection()
    path = _find_way(data)
    entry = next(_boxes(data, path[-1].body + _STSD_HEAD, path[-1].end))
    changed = bytearray(data)
    for box in (*path, entry):
        struct.pack_into(">I", changed, box.start, box.end - box.start + len(added))
    # sample data behind the inserted boxes move with them
    moov = path[0]
    for table in _find_offset_tables(data, moov):
        _shift_offsets(changed, table, moov.end, len(added))
    return bytes(changed[: entry.end] + added + changed[entry.end :])


def _make_projection() -> bytes:
    """sv3d of an equirectangular half sphere that looks straight ahead."""
    source = _box(b"svhd", struct.pack(">I", 0) + b"spacelayer\0")
    pose = _box(b"prhd", struct.pack(">Iiii", 0, 0, 0, 0))
    bounds = _box(b"equi", struct.pack(">IIIII", 0, 0, 0, _QUARTER, _QUARTER))
    return _box(b"sv3d", source + _box(b"proj", pose + bounds))


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def _boxes(data: bytes, begin: int, end: int) -> Iterator[Box]:
    """The boxes between two bytes."""
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin + 8)
            head = 16
        size = size or end - begin
        if size < head:
            raise ValueError("a box of the MP4 is shorter than its head")
        yield Box(kind, begin, begin + head, begin + size)
        begin += size


def _find_way(data: bytes) -> list[Box]:
    """The boxes from the file down to stsd of its first track."""
    begin, end = 0, len(data)
    way = []
    for kind in _WAY:
        box = next((box for box in _boxes(data, begin, end) if box.kind == kind), None)
        if box is None:
            raise ValueError(f"the MP4 has no {kind.decode()} box")
        way.append(box)
        begin, end = box.body, box.end
    return way


def _find_offset_tables(data: bytes, moov: Box) -> list[Box]:
    """Tables of the places of samples, of all tracks."""
    tables = []
    for track in (box for box in _boxes(data, moov.body, moov.end) if box.kind == b"trak"):
        box = track
        for kind in (b"mdia", b"minf", b"stbl"):
            box = next(inner for inner in _boxes(data, box.body, box.end) if inner.kind == kind)
        inside = _boxes(data, box.body, box.end)
        tables += [table for table in inside if table.kind in (b"stco", b"co64")]
    return tables


def _shift_offsets(data: bytearray, table: Box, behind: int, by: int) -> None:
    """Moves the places of samples that lie behind a byte."""
    form = ">I" if table.kind == b"stco" else ">Q"
    (count,) = struct.unpack_from(">I", data, table.body + 4)
    for k in range(count):
        place = table.body + 8 + k * struct.calcsize(form)
        (offset,) = struct.unpack_from(form, data, place)
        if offset >= behind:
            struct.pack_into(form, data, place, offset + by)
