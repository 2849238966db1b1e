"""Tracks while they are grown: sightings alone, in a long clip a small part of all frames times all points."""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Bool, Float, Int


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
        track, frame = np.nonzero(visible.T)
        first = np.searchsorted(track, np.arange(visible.shape[1] + 1))
        return Sightings(xy[frame, track], frame.astype(np.int32), first, len(visible))

    @staticmethod
    def gathered(
        parts: list[tuple[int, Int[np.ndarray, "n"], Float[np.ndarray, "n 2"]]], num_tracks: int, num_frames: int
    ) -> "Sightings":
        """From frames, the tracks seen in them and where, in any order; no track twice in a frame."""
        count = np.zeros(num_tracks, np.int64)
        for _, tracks, _ in parts:
            count[tracks] += 1
        first = np.concatenate([[0], np.cumsum(count)])
        xy, frame, row = np.empty((first[-1], 2), np.float32), np.empty(first[-1], np.int32), first[:-1].copy()
        for t, tracks, places in sorted(parts, key=lambda part: part[0]):
            xy[row[tracks]], frame[row[tracks]] = places, t
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

    def continued(self, tracks: Int[np.ndarray, "n"], further: "Sightings") -> "Sightings":
        """Some of the tracks, each followed by what comes after its end of another: that track's first sighting."""
        later = np.ones(len(further.frame), bool)
        later[further.first[:-1]] = False
        owner = np.repeat(np.arange(len(self.length)), self.length), np.repeat(tracks, further.length)[later]
        order = np.argsort(np.concatenate(owner), kind="stable")
        xy, frame = np.concatenate([self.xy, further.xy[later]]), np.concatenate([self.frame, further.frame[later]])
        length = self.length
        length[tracks] += further.length - 1
        return Sightings(xy[order], frame[order], np.concatenate([[0], np.cumsum(length)]), self.num_frames)

    def chosen(self, tracks: Int[np.ndarray, "n"]) -> "Sightings":
        """Some of the tracks, in the given order."""
        first = np.concatenate([[0], np.cumsum(self.length[tracks])])
        rows = np.arange(first[-1]) + np.repeat(self.first[tracks] - first[:-1], self.length[tracks])
        return Sightings(self.xy[rows], self.frame[rows], first, self.num_frames)

    def dense(self) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
        """Positions, where a track is not seen those of its last sighting (or its first), and visibility."""
        shape = self.num_frames, len(self.first) - 1
        xy, visible = np.zeros((*shape, 2), np.float32), np.zeros(shape, bool)
        _spread_out(self.xy, self.frame, self.first, xy, visible)
        return xy, visible


@numba.njit(cache=True)
def _spread_out(places, frame, first, xy, visible):
    latest = first[:-1].copy()
    for t in range(len(xy)):
        for n in range(len(latest)):
            row = latest[n]
            if row == first[n + 1]:  # a track without any sighting
                continue
            if row + 1 < first[n + 1] and frame[row + 1] == t:
                row += 1
                latest[n] = row
            visible[t, n] = frame[row] == t
            xy[t, n] = places[row]
