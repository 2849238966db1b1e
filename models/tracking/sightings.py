"""Tracks while they are grown: sightings alone, in a long clip a small part of all frames times all
points."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from models.run import allocate, njit


@dataclass(frozen=True)
class Sightings:
    """S sightings of N tracks in F frames, track by track and in the order of time."""

    xy: Float[np.ndarray, "S 2"]
    """Pixels."""
    frame: Int[np.ndarray, "S"]
    first: Int[np.ndarray, "N1"]
    """Row of each track's first sighting, and at the end S."""
    num_frames: int

    @staticmethod
    def of(xy: Float[np.ndarray, "F N 2"], visible: Bool[np.ndarray, "F N"]) -> "Sightings":
        """Those of dense arrays."""
        first = np.concatenate([[0], np.cumsum(visible.sum(0))])
        return Sightings(*_seen(xy, visible, first), first, len(visible))

    @staticmethod
    def gathered(
        parts: list[tuple[int, Int[np.ndarray, "n"], Float[np.ndarray, "n 2"]]],
        num_tracks: int,
        num_frames: int,
    ) -> "Sightings":
        """From frames, the tracks seen in them and where, in any order; no track twice in a
        frame."""
        count = np.zeros(num_tracks, np.int64)
        for _, tracks, _ in parts:
            count[tracks] += 1
        first = np.concatenate([[0], np.cumsum(count)])
        xy = np.empty((first[-1], 2), np.float32)
        frame = np.empty(first[-1], np.int32)
        row = first[:-1].copy()
        for t, tracks, places in sorted(parts, key=lambda part: part[0]):
            xy[row[tracks]] = places
            frame[row[tracks]] = t
            row[tracks] += 1
        return Sightings(xy, frame, first, num_frames)

    @property
    def length(self) -> Int[np.ndarray, "N"]:
        """Sightings of each track."""
        return np.diff(self.first)

    def at(self, t: int) -> Float[np.ndarray, "n 2"]:
        """Where the tracks seen in frame t are."""
        return self.xy[self.frame == t]

    def joined(self, other: "Sightings") -> "Sightings":
        """These tracks, and after them the others."""
        first = np.concatenate([self.first, other.first[1:] + self.first[-1]])
        pairs = (self.xy, other.xy), (self.frame, other.frame)
        return Sightings(*(np.concatenate(pair) for pair in pairs), first, self.num_frames)

    def chosen(self, tracks: Int[np.ndarray, "n"]) -> "Sightings":
        """Some of the tracks, in the given order."""
        first = np.concatenate([[0], np.cumsum(self.length[tracks])])
        rows = np.arange(first[-1]) + np.repeat(
            self.first[tracks] - first[:-1], self.length[tracks]
        )
        return Sightings(self.xy[rows], self.frame[rows], first, self.num_frames)

    def dense(self) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
        """Positions, where a track is not seen those of its last sighting (or its first), and
        visibility."""
        return dense_tracks([(np.arange(len(self.length)), self)], len(self.length))


def dense_tracks(
    parts: list[tuple[Int[np.ndarray, "n"], Sightings]], num_tracks: int
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """``Sightings.dense`` of tracks in parts, each with the numbers of its tracks among all; the
    list is emptied."""
    num_frames = parts[0][1].num_frames
    xy = allocate((num_frames, num_tracks, 2), np.float32)
    visible = allocate((num_frames, num_tracks), bool)
    while parts:
        numbers, part = parts.pop()
        track = np.repeat(numbers, part.length)
        xy[part.frame, track] = part.xy
        visible[part.frame, track] = True
    # Positions of frames without an observation, for overlays and as guesses.
    _hold(xy, visible)
    return xy, visible


@njit(cache=True)
def _seen(xy, visible, first):
    """Positions and frames of all sightings, track by track; numpy's indices of them would take
    twice as much."""
    out = np.empty((first[-1], 2), xy.dtype)
    frame = np.empty(first[-1], np.int32)
    row = first[:-1].copy()
    for t in range(len(visible)):
        for n in range(visible.shape[1]):
            if visible[t, n]:
                out[row[n], 0] = xy[t, n, 0]
                out[row[n], 1] = xy[t, n, 1]
                frame[row[n]] = t
                row[n] += 1
    return out, frame


@njit(cache=True)
def _hold(xy, visible):
    """Gives positions to frames in which a track is not seen."""
    latest = np.zeros(visible.shape[1], np.int64)
    for n in range(len(latest)):
        while latest[n] + 1 < len(visible) and not visible[latest[n], n]:
            latest[n] += 1
    for t in range(len(visible)):
        for n in range(len(latest)):
            if visible[t, n]:
                latest[n] = t
            xy[t, n] = xy[latest[n], n]
