"""Frames that are lost, damaged or misleading (blank, flashes, other scenes), found and named.

Damage is told by the decoder's log and the packets' bytes (``inspect_frames``); other faults are
found in small pictures of the frames (``find_misleading``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from models.clip.packets import Packet
from models.clip.sources.scenes import split_scenes

SIZE = (32, 18)
"""Width and height of the small pictures, in pixels."""
# Contrast (standard deviation in grey levels) under which a frame is blank.
_BLANK = 2.0
# Grey levels by which the mean of a flash differs from its neighbours'.
_FLASH = 40.0
# Neighbours on either side by which a flash is judged; a flash lasts fewer frames.
_REACH = 3
# A doubtful frame is damaged if it departs from its neighbours by this many grey levels plus this
# multiple of their own difference.
_DEPARTURE = 2.0
_DEPARTURE_RATIO = 1.5
# Frames of a second, at the usual rate.
_USUAL_REACH = 30
# Places by which a frame may be shown before or after its packet, in files without times.
_REORDER = 2
_FRAME = re.compile(r"decoder -> pts:(-?\d+)?.* keyframe:(\d)(?: frame_type:(\d))?")
_REFUSED = re.compile(r"Error (submitting packet to|while) decod")
# ffmpeg's numbers of frame types.
_INTRA = "1"
_BIDIRECTIONAL = "3"


@dataclass(frozen=True)
class _Decoded:
    """A frame of the decoder's log."""

    pts: int | None
    """Presentation time in the stream's time base."""
    is_key: bool
    """Decoded without any other frame."""
    is_bidirectional: bool
    """Decoded from an earlier and a later frame."""
    is_corrupt: bool
    """The decoder concealed a part of it."""


@dataclass
class Integrity:
    """State of the frames of a decoded file, by number from 0 in the order shown.

    A frame that the decoder did not give has a number too.
    """

    numbers: list[int] = field(default_factory=list)
    """Number of each frame that the decoder gave."""
    damaged: set[int] = field(default_factory=set)
    """Frames that are incomplete, or predicted from incomplete frames."""
    doubtful: set[int] = field(default_factory=set)
    """Frames whose packets hold a long run of zeros, which their codec allows."""
    lost: set[int] = field(default_factory=set)
    """Frames that the decoder did not give."""

    def number_taken(self, count: int, stride: int) -> list[int]:
        """Numbers of ``count`` frames: every ``stride``-th frame that the decoder gave."""
        after = max(self.numbers, default=-1) + 1 - len(self.numbers)
        places = [k * stride for k in range(count)]
        known = len(self.numbers)
        return [self.numbers[place] if place < known else place + after for place in places]


def inspect_frames(log: str, packets: Sequence[Packet] = ()) -> Integrity:
    """The state of each frame of a file.

    Args:
        log: of the decoder.
        packets: of the stream, in decoding order.
    """
    frames = _read_decoded(log)
    times = _match_times(packets, frames)
    if times is None:
        return _inspect_by_place(frames, packets)
    return _inspect_by_time(frames, packets, times, bool(_REFUSED.search(log)))


def _read_decoded(log: str) -> list[_Decoded]:
    """Frames of the decoder's log, in the order shown."""
    frames = []
    corrupt = False
    for line in log.splitlines():
        if "corrupt decoded frame" in line:
            corrupt = True
        elif match := _FRAME.search(line):
            pts, key, kind = match.groups()
            # A frame of gradual refresh is marked as key as well, but is no intra frame.
            is_key = key == "1" and kind in (None, _INTRA)
            frames.append(_Decoded(pts and int(pts), is_key, kind == _BIDIRECTIONAL, corrupt))
            corrupt = False
    return frames


def _match_times(packets: Sequence[Packet], frames: list[_Decoded]) -> list[int] | None:
    """Presentation time of each packet; None if times do not match packets to frames."""
    times = [packet.pts for packet in packets]
    if None in times and not any(frame.is_bidirectional for frame in frames):
        times = [packet.dts for packet in packets]
    shown = [frame.pts for frame in frames]
    unique = len(set(times)) == len(times) and len(set(shown)) == len(shown)
    return times if None not in times and unique and set(shown) <= set(times) else None


def _inspect_by_time(
    frames: list[_Decoded], packets: Sequence[Packet], times: list[int], refused: bool
) -> Integrity:
    """Damage spreads in decoding order, up to the next keyframe and to the frames shown before it.

    Args:
        refused: the decoder refused a packet.
    """
    given = {frame.pts: frame for frame in frames}
    first = min(given, default=0)
    last = max(given, default=0)
    damaged = set()
    lost = set()
    spoilt = False
    leading = first
    for packet, time in zip(packets, times, strict=True):
        frame = given.get(time)
        missing = frame is None and refused and first < time < last and not packet.discarded
        bad = packet.damaged or missing or (frame is not None and frame.is_corrupt)
        if frame is not None and frame.is_key and not bad:
            leading = time if spoilt else first
            spoilt = False
        spoilt = spoilt or bad
        if (spoilt or time < leading) and frame is not None:
            damaged.add(time)
        elif spoilt and not packet.discarded:
            lost.add(time)
    number = {time: k for k, time in enumerate(sorted(given.keys() | lost))}
    pairs = zip(packets, times, strict=True)
    doubtful = [time for packet, time in pairs if packet.doubtful and time in given]
    sets = ({number[time] for time in kind} for kind in (damaged, doubtful, lost))
    return Integrity([number[frame.pts] for frame in frames], *sets)


def _inspect_by_place(frames: list[_Decoded], packets: Sequence[Packet]) -> Integrity:
    """The same without times: a packet's place in the stream is its frame's, apart from
    reordering."""
    reach = _REORDER if any(frame.is_bidirectional for frame in frames) else 0
    around = range(-reach, reach + 1)
    bad = {k + d for k, packet in enumerate(packets) if packet.damaged for d in around}
    damaged = set()
    spoilt = False
    for number, frame in enumerate(frames):
        if frame.is_corrupt or number in bad:
            spoilt = True
        elif frame.is_key:
            spoilt = False
        if spoilt:
            damaged.add(number)
    doubtful = {k for k, packet in enumerate(packets) if packet.doubtful and k < len(frames)}
    return Integrity(list(range(len(frames))), damaged, doubtful)


def reduce_frame(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "18 32"]:
    """The small picture of a frame: mean grey levels."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)


def find_misleading(
    pictures: Float[np.ndarray, "F 18 32"],
    damaged: set[int] = frozenset(),
    doubtful: set[int] = frozenset(),
    reach: int = _USUAL_REACH,
) -> dict[int, str]:
    """The fault of each frame to leave out, by its index; empty if fewer than 2 frames would be
    left.

    Args:
        damaged: frames known to be incomplete.
        doubtful: frames that are damaged if they depart from their neighbours.
        reach: frames that a dissolve may last.
    """
    damaged = damaged | _find_departing(pictures, doubtful - damaged, damaged)
    wrong = {t: "damaged" for t in sorted(damaged) if t < len(pictures)}
    contrast = pictures.std((1, 2))
    mean = pictures.mean((1, 2))
    for t in range(len(pictures)):
        if t not in wrong and contrast[t] < _BLANK:
            wrong[t] = "blank"
    for t in _find_flashes(mean, [t for t in range(len(pictures)) if t not in wrong]):
        wrong[t] = "a flash"
    sound = [t for t in range(len(pictures)) if t not in wrong]
    if len(sound) < 2:
        return {}
    scenes, mixed = split_scenes(pictures[sound], reach)
    longest = max(scenes, key=len)
    others = [scene for scene in scenes if scene is not longest]
    wrong |= {sound[k]: "another scene" for scene in others for k in scene}
    wrong |= {sound[k]: "a dissolve or wipe to another scene" for k in mixed}
    return wrong if len(longest) >= 2 else {}


def _find_departing(
    pictures: Float[np.ndarray, "F 18 32"], doubtful: set[int], damaged: set[int]
) -> set[int]:
    """Doubtful frames that differ from the nearest sound frames by much more than these differ from
    each other.

    Empty if half of the frames are doubtful: the zeros are the codec's own, of flat areas.
    """
    suspect = doubtful | damaged
    sound = np.array([t for t in range(len(pictures)) if t not in suspect], int)
    if len(sound) < 2 or len(doubtful) >= len(sound):
        return set()
    departing = set()
    for t in doubtful:
        place = min(max(int(np.searchsorted(sound, t)), 1), len(sound) - 1)
        before = pictures[sound[place - 1]]
        after = pictures[sound[place]]
        step = min(np.abs(pictures[t] - side).mean() for side in (before, after))
        if step > _DEPARTURE + _DEPARTURE_RATIO * np.abs(before - after).mean():
            departing.add(t)
    return departing


def _find_flashes(mean: Float[np.ndarray, "F"], sound: list[int]) -> list[int]:
    """Frames much brighter or darker than the median of their neighbours on either side."""
    found = []
    for k, t in enumerate(sound):
        before = sound[max(0, k - _REACH) : k]
        after = sound[k + 1 : k + 1 + _REACH]
        if len(before) < 2 or len(after) < 2:
            continue
        step = [mean[t] - np.median(mean[side]) for side in (before, after)]
        if min(abs(step[0]), abs(step[1])) > _FLASH and step[0] * step[1] > 0:
            found.append(t)
    return found


def describe_frames(wrong: dict[int, str]) -> str:
    """The frames with their faults in words, such as "3, 7 to 9 (blank); 12 (damaged)"."""
    parts = []
    for reason in dict.fromkeys(wrong.values()):
        numbers = sorted(t for t, why in wrong.items() if why == reason)
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
        texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
        parts.append(f"{', '.join(texts)} ({reason})")
    return "; ".join(parts)
