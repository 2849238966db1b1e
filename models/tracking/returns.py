"""Places that come back into view after an absence: their points get tracks that are seen on both
visits, so that cameras close a loop.

Key frames are matched by SIFT features (Lowe, "Distinctive image features from scale-invariant
keypoints", IJCV 2004), the matches are verified by a fundamental matrix, and each matched point is
followed for a few frames on both visits.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from models.clip import at_points
from models.run import SILENT, Progress
from models.tracking.lucas_kanade import lucas_kanade
from models.tracking.optical_flow import to_grey
from models.tracking.options import TrackingOptions
from models.tracking.sightings import Sightings
from models.tracks import PointTracks, find_lifetimes

# Key frames at most. More find shorter visits; time grows with the square.
_MOST_KEYS = 300
# Tracks of a frame that must still be visible in another for the two to be linked by tracks.
_LINKED = 30
# Features of a key frame by which places are sought, and features that are matched in the end.
_SOUGHT = 128
_MATCHED = 1000
# Cosine of two descriptors (their square roots) from which features may be of one point.
_ALIKE = 0.9
# Nearest descriptors of a pair of key frames, both ways, from which the pair is verified.
_LEAST_ALIKE = 12
# Ratio of the distances of the nearest and the second descriptor (Lowe's test).
_RATIO = 0.8
# RANSAC of a fundamental matrix: error in pixels, confidence and rounds.
_EPIPOLAR_ERROR = 1.0
_CONFIDENCE = 0.999
_ROUNDS = 2000
# Matches that a fundamental matrix must explain, in number and as a share of all.
_LEAST_MATCHES = 40
_LEAST_SHARE = 0.5
# Frames within which another return must lie.
_SUPPORT = 30
# Frames for which a matched point is followed before and after.
_CARRIED = 8
# Name of the bar.
_STAGE = "returns"


@dataclass(frozen=True)
class Return:
    """Points of a place in two frames."""

    frames: tuple[int, int]
    """The earlier and the later frame."""
    xy: Float[np.ndarray, "2 n 2"]
    """Pixels in both frames."""


def join_returns(
    frames: UInt8[np.ndarray, "F H W 3"],
    tracks: PointTracks,
    allowed: Bool[np.ndarray, "F H W"] | None = None,
    progress: Progress = SILENT,
    options: TrackingOptions = TrackingOptions(),
) -> PointTracks:
    """The tracks, and behind them a track for each point of a place that is seen again.

    Args:
        frames: RGB.
        allowed: False on pixels that have no tracks.
        progress: hears the stage "returns", and how many frames show a place again.
    """
    found = find_returns(frames, tracks, progress, options)
    if not found:
        return tracks
    parts = [_follow(frames, one, allowed) for one in found]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.joined(part)
    progress.say(f"{len(found)} frames show a place again: {len(joined.length)} points joined")
    return tracks.joined(*joined.dense())


def find_returns(
    frames: UInt8[np.ndarray, "F H W 3"],
    tracks: PointTracks,
    progress: Progress = SILENT,
    options: TrackingOptions = TrackingOptions(),
) -> list[Return]:
    """For each key frame, the earlier key frame that shows most of its place, if one does and no
    tracks link the two."""
    keys = np.arange(0, len(frames), -(-len(frames) // _MOST_KEYS))
    linked = _find_linked(tracks)
    places = _Places()
    found = []
    for done, t in enumerate(progress.over(keys, _STAGE)):
        features = _detect(frames[t])
        # Frames before the first that tracks or too little time part from this frame.
        before = np.flatnonzero((linked[keys[:done]] < t) & (keys[:done] <= t - options.absence))
        best = places.find_most_alike(features, len(before))
        places.add(features)
        if best is not None:
            one = _verify((int(keys[best]), int(t)), places.features[best], features)
            found += [] if one is None else [one]
    return [one for one in found if _is_supported(one, found)]


def _is_supported(one: Return, found: list[Return]) -> bool:
    """Whether frames near both frames show a common place too: two walls of one pattern do not for
    long."""
    distance = (np.abs(np.subtract(one.frames, other.frames)).max() for other in found)
    return sum(own <= _SUPPORT for own in distance) > 1


def _find_linked(tracks: PointTracks) -> Int[np.ndarray, "F"]:
    """For each frame the last frame that ``_LINKED`` of its tracks reach."""
    _, last = find_lifetimes(tracks.visible)
    linked = np.full(len(tracks), len(tracks) - 1)
    for t, seen in enumerate(tracks.visible):
        ends = last[seen]
        linked[t] = np.partition(ends, -_LINKED)[-_LINKED] if len(ends) >= _LINKED else t
    return np.maximum.accumulate(linked)


@dataclass(frozen=True)
class _Features:
    """SIFT features of a frame, strongest first."""

    xy: Float[np.ndarray, "n 2"]
    """Pixels."""
    descriptor: UInt8[np.ndarray, "n 128"]

    def describe(self, count: int | None = None) -> Float[np.ndarray, "m 128"]:
        """Square roots of the descriptors at length 1 (Arandjelovic and Zisserman, "Three things
        everyone should know to improve object retrieval", CVPR 2012), of the first ``count``
        features."""
        roots = np.sqrt(self.descriptor[:count].astype(np.float32))
        return roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-6)


def _detect(frame: UInt8[np.ndarray, "H W 3"]) -> _Features:
    """The strongest features of a frame."""
    points, descriptor = cv2.SIFT_create(_MATCHED).detectAndCompute(to_grey(frame), None)
    if not points:
        return _Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    order = np.argsort([-point.response for point in points], kind="stable")
    # OpenCV puts (0, 0) at the centre of the top-left pixel.
    xy = np.array([point.pt for point in points], np.float32) + np.float32(0.5)
    return _Features(xy[order], descriptor[order].astype(np.uint8))


class _Places:
    """Key frames by what they show."""

    def __init__(self):
        self.features: list[_Features] = []
        self._sought = np.zeros((_MOST_KEYS + 1, _SOUGHT, 128), np.float32)

    def add(self, features: _Features) -> None:
        """Takes the next key frame."""
        own = features.describe(_SOUGHT)
        self._sought[len(self.features), : len(own)] = own
        self.features.append(features)

    def find_most_alike(self, features: _Features, count: int) -> int | None:
        """Number of the key frame, among the first ``count``, that shares most features; None if
        none shares enough."""
        own = features.describe(_SOUGHT)
        if not (count and len(own)):
            return None
        likeness = self._sought[:count].reshape(-1, 128) @ own.T
        likeness = likeness.reshape(count, _SOUGHT, len(own))
        there = likeness.argmax(2)
        back = likeness.argmax(1)
        best = np.take_along_axis(likeness, there[..., None], 2)[..., 0]
        mutual = np.take_along_axis(back, there, 1) == np.arange(_SOUGHT)
        shared = (mutual & (best > _ALIKE)).sum(1)
        return int(shared.argmax()) if shared.max() >= _LEAST_ALIKE else None


def _verify(frames: tuple[int, int], a: _Features, b: _Features) -> Return | None:
    """The features of two frames that one fundamental matrix explains; None if these are too
    few."""
    matcher = cv2.BFMatcher()
    pairs = matcher.knnMatch(a.descriptor.astype(np.float32), b.descriptor.astype(np.float32), 2)
    pairs = [pair for pair in pairs if len(pair) == 2]
    good = [one for one, two in pairs if one.distance < _RATIO * two.distance]
    if len(good) < _LEAST_MATCHES:
        return None
    first, second = a.xy[[m.queryIdx for m in good]], b.xy[[m.trainIdx for m in good]]
    cv2.setRNGSeed(0)
    how = cv2.USAC_MAGSAC, _EPIPOLAR_ERROR, _CONFIDENCE, _ROUNDS
    _, kept = cv2.findFundamentalMat(first, second, *how)
    if kept is None or kept.sum() < max(_LEAST_MATCHES, _LEAST_SHARE * len(good)):
        return None
    kept = kept[:, 0] > 0
    return Return(frames, np.stack([first[kept], second[kept]]))


def _follow(
    frames: UInt8[np.ndarray, "F H W 3"],
    place: Return,
    allowed: Bool[np.ndarray, "F H W"] | None,
) -> Sightings:
    """Tracks of a place's points on both visits; points that a visit does not keep for some frames
    are left out."""
    num_frames = len(frames)
    count = place.xy.shape[1]
    xy = np.zeros((num_frames, count, 2), np.float32)
    visible = np.zeros((num_frames, count), bool)
    lasts = np.ones(count, bool)
    for t, start in zip(place.frames, place.xy, strict=True):
        part = slice(max(0, t - _CARRIED), min(num_frames, t + _CARRIED + 1))
        begin = np.full((count, 1), t - part.start, np.float32)
        found, seen = lucas_kanade(frames[part], np.concatenate([begin, start], 1))
        if allowed is not None:
            seen &= at_points(allowed[part], found)
        # The two stretches of frames may meet.
        fresh = seen & ~visible[part]
        xy[part][fresh] = found[fresh]
        visible[part] |= seen
        lasts &= seen.sum(0) > _CARRIED // 2
    rows = np.flatnonzero(lasts)
    return Sightings.of(xy[:, rows], visible[:, rows])
