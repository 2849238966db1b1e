"""Canonical coordinates of a mover: one place per surface point, constant in time, where its colour
lives.

They are the pixels of a frame in which many of its points are seen. Two neighbours lie as far apart
there as in any image that shows both, turned and scaled as the whole mover is; the places that fit
best what all frames say of all neighbours follow from one sparse system (a Poisson equation on the
graph of neighbours), solved again with less weight for what disagrees. Were places carried from
frame to frame, errors would add up: in a long clip movers would shrink.

Points are complex numbers x + iy here, since a similarity of the plane is then z -> a z + b.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from scipy import sparse
from scipy.sparse.linalg import cg
from scipy.spatial import Delaunay, QhullError

from models.movers.local_maps import mover_box

ROUNDS = 8
"""Times that the places are solved for."""
TOLERANCE = 0.25, 0.5
"""Disagreement at which a pair of neighbours counts half: share of their distance, and pixels."""
HOLD = 1e-4
"""Weight that holds a place where it was before, in pairs' worth: decides where no pair does."""
PRECISION = 1e-3
"""Pixels of slope, in the mean over all places, at which a solution is good enough."""
MOST_STEPS = 2000
"""Of conjugate gradients for one solution; a few hundred are usual."""
LONGEST = 6.0
"""Length of the longest pairs, in medians of a frame's."""
LEAST_SHARED = 6
"""Tracks that two frames must share to tell how the mover went from one to the other."""
STEP_ROUNDS = 8
STEP_TOLERANCE = 0.5
"""Pixels of disagreement that are nothing yet."""


def canonical_coordinates(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    masks: Bool[np.ndarray, "F H W"],
) -> Float[np.ndarray, "N 2"]:
    """Where each track of one mover lies in the reference frame's pixels, or would if it had been
    seen there.

    Args:
        masks: where the mover is; its box stands in where no track leads from one frame to the
            next.

    Returns NaN for tracks that no frame sees.
    """
    maps = _maps_to_reference(xy, visible, masks)
    place = np.full(xy.shape[1], complex(np.nan, np.nan))
    for t, (factor, shift) in maps.items():
        fresh = visible[t] & np.isnan(place.real)
        place[fresh] = factor * _complex(xy[t, fresh]) + shift
    seen = ~np.isnan(place.real)
    if seen.any():
        pairs = _Pairs.of(xy, visible, seen, {t: factor for t, (factor, _) in maps.items()})
        place[seen] = pairs.places(place[seen])
    return np.stack([place.real, place.imag], 1)


@dataclass(frozen=True)
class _Pairs:
    """P sightings of neighbours in some frame; the same two may be neighbours in many."""

    first: Int[np.ndarray, "P"]
    second: Int[np.ndarray, "P"]
    """Which of the tracks that are seen, ``first`` < ``second``."""
    offset: Complex[np.ndarray, "P"]
    """From the first to the second, in the reference frame's pixels."""

    @staticmethod
    def of(
        xy: Float[np.ndarray, "F N 2"],
        visible: Bool[np.ndarray, "F N"],
        seen: Bool[np.ndarray, "N"],
        factors: dict[int, complex],
    ) -> "_Pairs":
        """All neighbours in the frames that have a factor from their pixels to the reference
        frame's."""
        number = (np.cumsum(seen) - 1).astype(np.int32)
        pairs, offsets = (
            [np.zeros((0, 2), np.int32)],
            [np.zeros(0, np.complex64)],
        )  # millions in a long clip
        for t, factor in factors.items():
            own = np.flatnonzero(visible[t])
            near = _neighbours(xy[t, own].astype(np.float64))
            pairs.append(number[own[near]])
            step = _complex(xy[t, own[near[:, 1]]]) - _complex(xy[t, own[near[:, 0]]])
            offsets.append((factor * step).astype(np.complex64))
        first, second = np.concatenate(pairs).T
        return _Pairs(first, second, np.concatenate(offsets))

    def places(self, start: Complex[np.ndarray, "N"]) -> Complex[np.ndarray, "N"]:
        """The places that fit best; ``start`` decides for tracks that have no neighbours, and where
        all lie."""
        key, of_pair = np.unique(
            self.first.astype(np.int64) * len(start) + self.second, return_inverse=True
        )
        ends = np.stack([key // len(start), key % len(start)])
        weight = np.ones(len(self.first))
        place = start
        for _ in range(ROUNDS):
            total = np.bincount(of_pair, weight, len(key))
            mean = sum(
                unit * np.bincount(of_pair, weight * part, len(key))
                for unit, part in ((1, self.offset.real), (1j, self.offset.imag))
            ) / np.maximum(total, np.finfo(float).tiny)
            place = _poisson(ends, total, mean, place)
            left = np.abs(place[self.second] - place[self.first] - self.offset)
            weight = 1 / (1 + (left / (TOLERANCE[0] * np.abs(self.offset) + TOLERANCE[1])) ** 2)
        return place


def _poisson(
    ends: Int[np.ndarray, "2 P"],
    weight: Float[np.ndarray, "P"],
    offset: Complex[np.ndarray, "P"],
    before: Complex[np.ndarray, "N"],
) -> Complex[np.ndarray, "N"]:
    """p that minimises the sum of weight |p_second - p_first - offset|^2 and HOLD |p - before|^2.

    By conjugate gradients from ``before``: to factor the matrix takes minutes for a large mover in
    a long clip.
    """
    rows = np.arange(len(weight))
    ones = np.ones(len(weight))
    entries = np.concatenate([-ones, ones]), (np.concatenate([rows, rows]), ends.ravel())
    difference = sparse.csr_matrix(entries, (len(weight), len(before)))
    laplacian = (difference.T @ sparse.diags(weight.astype(float)) @ difference).tocsr()
    normal = laplacian + HOLD * sparse.identity(len(before))
    left = difference.T @ (weight * offset)
    left = left - laplacian @ before
    limit = {"rtol": 1e-9, "atol": PRECISION * np.sqrt(len(before)), "maxiter": MOST_STEPS}
    x, y = (
        cg(normal, part.copy(), M=sparse.diags(1 / normal.diagonal()), **limit)[0]
        for part in (left.real, left.imag)
    )
    return before + x + 1j * y


def _neighbours(points: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, "P 2"]:
    """Pairs (in order) that a Delaunay triangulation joins, but for those much longer than most."""
    try:
        faces = Delaunay(points).simplices
    except (QhullError, ValueError):  # fewer than three, or on one line
        faces = np.zeros((0, 3), np.int32)
    pairs = np.unique(
        np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [0, 2]]]), 1), axis=0
    )
    length = np.linalg.norm(points[pairs[:, 1]] - points[pairs[:, 0]], axis=1)
    return pairs[length <= LONGEST * np.median(length)] if len(pairs) else pairs


def _maps_to_reference(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    masks: Bool[np.ndarray, "F H W"],
) -> dict[int, tuple[complex, complex]]:
    """For each frame that sees the mover, nearest to the reference first: a, b of the map z -> a z
    + b to that one."""
    frames = np.flatnonzero(visible.any(1)).tolist()
    if not frames:
        return {}
    reference = int(visible.sum(1).argmax())
    maps = {reference: (1 + 0j, 0j)}
    middle = frames.index(reference)
    for order in (frames[middle:], frames[middle::-1]):
        for before, t in pairwise(order):
            shared = visible[t] & visible[before]
            boxes = (mover_box(masks[s], xy[s, visible[s]]) for s in (t, before))
            step = _similarity(_complex(xy[t, shared]), _complex(xy[before, shared])) or _box_map(
                *boxes
            )
            factor, shift = maps[before]
            maps[t] = factor * step[0], factor * step[1] + shift
    return maps


def _similarity(
    source: Complex[np.ndarray, "n"], target: Complex[np.ndarray, "n"]
) -> tuple[complex, complex] | None:
    """a, b of the map that carries most of the points to their targets; None for too few points.

    Its scale is the ratio of the spreads (Horn 1987), not that of least squares, which errors make
    too small.
    """
    if len(source) < LEAST_SHARED:
        return None
    weight = np.ones(len(source))
    for _ in range(STEP_ROUNDS):
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
        weight = 1 / (1 + (left / max(STEP_TOLERANCE, float(np.median(left)))) ** 2)
    return complex(factor), complex(middle[1] - factor * middle[0])


def _box_map(
    box: Float[np.ndarray, "2 2"], home: Float[np.ndarray, "2 2"]
) -> tuple[complex, complex]:
    """a, b of the map that carries a box (middle and half size) to another."""
    scale = home[1, 0] / box[1, 0]
    return complex(scale), complex(*home[0]) - scale * complex(*box[0])


def _complex(xy: Float[np.ndarray, "n 2"]) -> Complex[np.ndarray, "n"]:
    return xy[..., 0] + 1j * xy[..., 1].astype(np.float64)
