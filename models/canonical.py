"""Canonical coordinates of a mover: one place per surface point, constant in time, where its colour lives.

A frame in which the mover is large is the reference, and its pixels are the coordinates. From there outwards in time,
points that appear get theirs from their neighbours by a local affine map. What errors that gathers on the way is then
evened out among the neighbours in all frames.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

NEIGHBOURS = 12
RIDGE = 0.3
"""How strongly a local map is held to the whole mover's: neighbours' worth of evidence."""
ROUNDS = 20
"""Times that places are evened out among neighbours."""


def canonical_coordinates(
    xy: Float[np.ndarray, "F N 2"], visible: Bool[np.ndarray, "F N"], masks: Bool[np.ndarray, "F H W"]
) -> Float[np.ndarray, "N 2"]:
    """Where each track of one mover lies in the reference frame's pixels, or would if it had been seen there.

    Args:
        masks: where the mover is; its box stands in where no track leads from one frame to the next.
    """
    place = np.full((xy.shape[1], 2), np.nan)
    reference = int(visible.sum(1).argmax())
    place[visible[reference]] = xy[reference, visible[reference]]
    home = _box(masks[reference], xy[reference, visible[reference]])
    for order in (range(reference + 1, len(xy)), range(reference - 1, -1, -1)):
        for t in order:
            fresh = visible[t] & np.isnan(place[:, 0])
            if not fresh.any():
                continue
            known = visible[t] & ~np.isnan(place[:, 0])
            box = _box(masks[t], xy[t, visible[t]])
            place[fresh] = local_map(xy[t, known], place[known], xy[t, fresh], box, home)
    return evened(xy, visible, place)


def evened(
    xy: Float[np.ndarray, "F N 2"], visible: Bool[np.ndarray, "F N"], place: Float[np.ndarray, "N 2"]
) -> Float[np.ndarray, "N 2"]:
    """Places that go with those of their neighbours: round each point, nearly an affine map of each frame.

    A place becomes the mean, over the frames that see its track, of the affine fit to its nearest tracks there; so an
    affine map of the image stays what it is, and an error that frames do not agree on goes.
    """
    fits = [_local_fit(xy[t], np.flatnonzero(seen)) for t, seen in enumerate(visible) if seen.sum() >= NEIGHBOURS]
    place = place.copy()
    for _ in range(ROUNDS):
        total, count = np.zeros_like(place), np.zeros(len(place))
        for own, near, weight in fits:
            total[own] += np.einsum("qk,qkc->qc", weight, place[near])
            count[own] += 1
        place = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], place)
    return place


def _local_fit(
    xy: Float[np.ndarray, "N 2"], own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "n k"]]:
    """Some points, the nearest of them to each, itself included, and by what an affine fit to these weights them."""
    points = xy[own].astype(np.float64)
    distance, index = cKDTree(points).query(points, NEIGHBOURS)
    reach = np.maximum(distance.mean(1), 1e-6)[:, None, None]
    design = np.concatenate([np.ones((*index.shape, 1)), (points[index] - points[:, None]) / reach], 2)
    normal = np.einsum("qki,qkj->qij", design, design) + np.diag([1e-9, 1e-4, 1e-4])
    weight = np.einsum("qj,qkj->qk", np.linalg.inv(normal)[:, 0], design)
    return own, own[index], weight / weight.sum(1, keepdims=True)


def local_map(
    source: Float[np.ndarray, "n 2"],
    target: Float[np.ndarray, "n C"],
    query: Float[np.ndarray, "q 2"],
    box: Float[np.ndarray, "2 2"],
    home: Float[np.ndarray, "2 2"],
) -> Float[np.ndarray, "q C"]:
    """Values at query points by an affine map fitted to the nearest of the known points (moving least squares).

    The local map is held to the affine map of all known points, and that one, where they are few, to the map that
    carries ``box`` (middle and half size) to ``home`` in the first two values.
    """
    guess = _carry(query, box, home, target.shape[1])
    if len(source) == 0:
        return guess
    whole = _fit_whole(source, target, _carry(source, box, home, target.shape[1]), box)
    base_query, base_source = guess + whole(query), _carry(source, box, home, target.shape[1]) + whole(source)
    left = target - base_source
    k = min(NEIGHBOURS, len(source))
    distance, index = cKDTree(source).query(query, k)
    distance, index = distance.reshape(len(query), k), index.reshape(len(query), k)
    reach = np.maximum(distance.mean(1, keepdims=True), 2.0)
    weight = 1.0 / ((distance / reach) ** 2 + 0.05)
    weight /= weight.sum(1, keepdims=True)
    design = np.concatenate([np.ones((*index.shape, 1)), (source[index] - query[:, None]) / reach[..., None]], 2)
    normal = np.einsum("qk,qki,qkj->qij", weight, design, design) + np.diag([1e-3, RIDGE, RIDGE])
    fitted = np.linalg.solve(normal, np.einsum("qk,qki,qkc->qic", weight, design, left[index]))[:, 0]
    return base_query + fitted


def _fit_whole(source: np.ndarray, target: np.ndarray, guess: np.ndarray, box: np.ndarray):
    """Affine correction to the guess over all points, with a ridge that fades as points are more."""
    scaled = (source - box[0]) / box[1]
    design = np.concatenate([np.ones((len(source), 1)), scaled], 1)
    normal = design.T @ design + np.diag([1e-6, 3.0, 3.0])
    coefficients = np.linalg.solve(normal, design.T @ (target - guess))

    def correction(points: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ones((len(points), 1)), (points - box[0]) / box[1]], 1) @ coefficients

    return correction


def _carry(points: np.ndarray, box: np.ndarray, home: np.ndarray, width: int) -> np.ndarray:
    carried = (points - box[0]) / box[1] * home[1] + home[0]
    return np.concatenate([carried, np.zeros((len(points), width - 2))], 1)


def _box(mask: Bool[np.ndarray, "H W"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "2 2"]:
    """Middle and half size (the same both ways) of a mask, or of points where the mask is empty."""
    rows, columns = np.nonzero(mask)
    found = np.stack([columns, rows], 1) + 0.5 if len(rows) else points
    if not len(found):
        return np.array([[0.0, 0.0], [1.0, 1.0]])
    size = max(1.0, float(np.sqrt(np.prod(found.std(0) + 0.5))) * 2)
    return np.array([np.median(found, 0), [size, size]])


def mover_box(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "2 2"]:
    """Middle and half size of a mover's mask, in pixels."""
    return _box(mask, np.zeros((0, 2)))
