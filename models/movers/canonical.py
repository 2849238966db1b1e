"""Canonical coordinates of a mover that is not rigid: a place for each surface point, constant in
time, at which the colour field is read.

Places are pixels of a reference frame, in which many of the mover's points are seen. Two neighbours
keep there the offset that they have in any image that shows both, after the similarity of the
whole mover between the two frames. The places that fit the offsets of all frames best follow from a
sparse linear system (a Poisson equation on the graph of neighbours), solved repeatedly with less
weight for offsets that disagree. Places carried from frame to frame would add up their errors: in a
long clip movers would shrink.

Points are complex numbers x + iy here, since a similarity of the plane is z -> a z + b.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from scipy import sparse
from scipy.sparse.linalg import cg

from models.movers.local_maps import find_box, find_pairs
from models.tracks import PointTracks

# Rounds of reweighted least squares for the places.
_ROUNDS = 8
# Disagreement at which a pair of neighbours counts half: this share of their distance plus this
# many pixels.
_RELATIVE_TOLERANCE = 0.25
_PIXEL_TOLERANCE = 0.5
# Weight that holds a place at its last estimate, in units of a pair's weight: decides the places
# that no pair determines.
_HOLD = 1e-4
# Conjugate gradients end at this gradient, in pixels, root mean square over the places.
_PRECISION = 1e-3
# Conjugate gradient steps of a solution, at most; a few hundred are usual.
_MAX_STEPS = 2000
# Longest pair of neighbours, in medians of its frame: longer ones cross gaps of the mover.
_LONGEST_PAIR = 6.0
# Tracks that two frames must share for a similarity between them.
_MIN_SHARED = 6
# Rounds of reweighting of the similarity between two frames, and the residual in pixels up to which
# a track keeps at least half of its weight.
_SIMILARITY_ROUNDS = 8
_SIMILARITY_TOLERANCE = 0.5


def canonical_coordinates(
    tracks: PointTracks, masks: Bool[np.ndarray, "F H W"]
) -> Float[np.ndarray, "N 2"]:
    """Place of each track of a mover in pixels of the reference frame, whether or not that frame
    sees the track.

    Args:
        tracks: of the mover.
        masks: of the mover. Its box replaces the tracks between two frames that share too few.

    Returns:
        Places; NaN for tracks that no frame sees.
    """
    maps = _find_maps_to_reference(tracks, masks)
    place = np.full(tracks.num_tracks, complex(np.nan, np.nan))
    for t, (factor, shift) in maps.items():
        fresh = tracks.visible[t] & np.isnan(place.real)
        place[fresh] = factor * _to_complex(tracks.xy[t, fresh]) + shift
    seen = ~np.isnan(place.real)
    if seen.any():
        pairs = _Pairs.of(tracks, seen, {t: factor for t, (factor, _) in maps.items()})
        place[seen] = pairs.solve_places(place[seen])
    return np.stack([place.real, place.imag], 1)


@dataclass(frozen=True)
class _Pairs:
    """P observations of two neighbouring tracks in a frame; two tracks may be neighbours in many
    frames."""

    first: Int[np.ndarray, "P"]
    """Number of a track among the seen tracks."""
    second: Int[np.ndarray, "P"]
    """Number of the other track; larger than ``first``."""
    offset: Complex[np.ndarray, "P"]
    """From the first to the second track, in pixels of the reference frame."""

    @staticmethod
    def of(
        tracks: PointTracks, seen: Bool[np.ndarray, "N"], factors: dict[int, complex]
    ) -> "_Pairs":
        """All pairs of neighbours in the frames of ``factors``.

        Args:
            seen: tracks that get a place.
            factors: by frame, scale and rotation from its pixels to the reference frame's.
        """
        number = (np.cumsum(seen) - 1).astype(np.int32)
        # Short types: a long clip has millions of pairs.
        pairs = [np.zeros((0, 2), np.int32)]
        offsets = [np.zeros(0, np.complex64)]
        for t, factor in factors.items():
            own = np.flatnonzero(tracks.visible[t])
            near = _find_neighbours(tracks.xy[t, own].astype(np.float64))
            pairs.append(number[own[near]])
            start = _to_complex(tracks.xy[t, own[near[:, 0]]])
            step = _to_complex(tracks.xy[t, own[near[:, 1]]]) - start
            offsets.append((factor * step).astype(np.complex64))
        first, second = np.concatenate(pairs).T
        return _Pairs(first, second, np.concatenate(offsets))

    def solve_places(self, start: Complex[np.ndarray, "N"]) -> Complex[np.ndarray, "N"]:
        """The places that fit the pairs best, by iteratively reweighted least squares.

        Args:
            start: decides the places of tracks without neighbours, and the common shift.
        """
        key, of_pair = np.unique(
            self.first.astype(np.int64) * len(start) + self.second, return_inverse=True
        )
        ends = np.stack([key // len(start), key % len(start)])
        weight = np.ones(len(self.first))
        place = start
        for _ in range(_ROUNDS):
            total = np.bincount(of_pair, weight, len(key))
            mean = sum(
                unit * np.bincount(of_pair, weight * part, len(key))
                for unit, part in ((1, self.offset.real), (1j, self.offset.imag))
            ) / np.maximum(total, np.finfo(float).tiny)
            place = _solve_poisson(ends, total, mean, place)
            left = np.abs(place[self.second] - place[self.first] - self.offset)
            tolerance = _RELATIVE_TOLERANCE * np.abs(self.offset) + _PIXEL_TOLERANCE
            weight = 1 / (1 + (left / tolerance) ** 2)
        return place


def _solve_poisson(
    ends: Int[np.ndarray, "2 P"],
    weight: Float[np.ndarray, "P"],
    offset: Complex[np.ndarray, "P"],
    before: Complex[np.ndarray, "N"],
) -> Complex[np.ndarray, "N"]:
    """The p that minimises the sum of weight |p_second - p_first - offset|^2 and _HOLD |p -
    before|^2.

    By conjugate gradients from ``before``: to factor the matrix takes minutes for a large mover in
    a long clip.
    """
    rows = np.arange(len(weight))
    ones = np.ones(len(weight))
    entries = np.concatenate([-ones, ones]), (np.concatenate([rows, rows]), ends.ravel())
    difference = sparse.csr_matrix(entries, (len(weight), len(before)))
    laplacian = (difference.T @ sparse.diags(weight.astype(float)) @ difference).tocsr()
    normal = laplacian + _HOLD * sparse.identity(len(before))
    left = difference.T @ (weight * offset) - laplacian @ before
    limit = {"rtol": 1e-9, "atol": _PRECISION * np.sqrt(len(before)), "maxiter": _MAX_STEPS}
    x, y = (
        cg(normal, part.copy(), M=sparse.diags(1 / normal.diagonal()), **limit)[0]
        for part in (left.real, left.imag)
    )
    return before + x + 1j * y


def _find_neighbours(points: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, "P 2"]:
    """``find_pairs`` without pairs much longer than most."""
    pairs = find_pairs(points)
    length = np.linalg.norm(points[pairs[:, 1]] - points[pairs[:, 0]], axis=1)
    return pairs[length <= _LONGEST_PAIR * np.median(length)] if len(pairs) else pairs


def _find_maps_to_reference(
    tracks: PointTracks, masks: Bool[np.ndarray, "F H W"]
) -> dict[int, tuple[complex, complex]]:
    """By frame that sees the mover, nearest to the reference first: a and b of the similarity z ->
    a z + b from its pixels to the reference frame's."""
    xy = tracks.xy
    visible = tracks.visible
    frames = np.flatnonzero(visible.any(1)).tolist()
    if not frames:
        return {}
    reference = int(visible.sum(1).argmax())
    maps = {reference: (1 + 0j, 0j)}
    middle = frames.index(reference)
    for order in (frames[middle:], frames[middle::-1]):
        for before, t in pairwise(order):
            shared = visible[t] & visible[before]
            step = _fit_similarity(_to_complex(xy[t, shared]), _to_complex(xy[before, shared]))
            if step is None:
                step = _map_boxes(*(find_box(masks[s], xy[s, visible[s]]) for s in (t, before)))
            factor, shift = maps[before]
            maps[t] = factor * step[0], factor * step[1] + shift
    return maps


def _fit_similarity(
    source: Complex[np.ndarray, "n"], target: Complex[np.ndarray, "n"]
) -> tuple[complex, complex] | None:
    """a and b of the similarity that carries most of the points to their targets; None for too few
    points.

    Its scale is the ratio of the spreads (Horn 1987), not the least-squares scale, which errors
    make too small.
    """
    if len(source) < _MIN_SHARED:
        return None
    weight = np.ones(len(source))
    for _ in range(_SIMILARITY_ROUNDS):
        share = weight / weight.sum()
        middle = share @ source, share @ target
        own = source - middle[0]
        other = target - middle[1]
        turned = (share * own.conj()) @ other
        spread = np.sqrt(share @ np.abs(own) ** 2), np.sqrt(share @ np.abs(other) ** 2)
        if not (min(spread) > 0 and abs(turned) > 0):
            return None
        factor = spread[1] / spread[0] * turned / abs(turned)
        left = np.abs(other - factor * own)
        weight = 1 / (1 + (left / max(_SIMILARITY_TOLERANCE, float(np.median(left)))) ** 2)
    return complex(factor), complex(middle[1] - factor * middle[0])


def _map_boxes(
    box: Float[np.ndarray, "2 2"], home: Float[np.ndarray, "2 2"]
) -> tuple[complex, complex]:
    """a and b of the similarity that carries a box (middle and half size) to another."""
    scale = home[1, 0] / box[1, 0]
    return complex(scale), complex(*home[0]) - scale * complex(*box[0])


def _to_complex(xy: Float[np.ndarray, "n 2"]) -> Complex[np.ndarray, "n"]:
    """x + iy in double precision."""
    return xy[..., 0] + 1j * xy[..., 1].astype(np.float64)
