"""Values at points of a mover's image by local affine maps from known points, the box that stands
in for points, and pairs of neighbouring points."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import Delaunay, QhullError, cKDTree

# Known points that a local map is fitted to.
_NEIGHBOURS = 12
# Ridge that holds a local map to the map of the whole mover, in units of the neighbours' total
# weight: the constant part hardly, the slopes more.
_LOCAL_RIDGE = np.diag([1e-3, 0.3, 0.3])
# Ridge that holds the map of the whole mover to the map of the boxes, in points.
_WHOLE_RIDGE = np.diag([1e-6, 3.0, 3.0])
# Weight of a neighbour at distance d is 1 / ((d / reach)^2 + this), with a reach of this many
# pixels at least.
_NEAREST = 0.05
_MIN_REACH = 2.0


def map_locally(
    source: Float[np.ndarray, "n 2"],
    target: Float[np.ndarray, "n C"],
    query: Float[np.ndarray, "q 2"],
    box: Float[np.ndarray, "2 2"],
    home: Float[np.ndarray, "2 2"],
) -> Float[np.ndarray, "q C"]:
    """Values at query points by an affine map fitted to the nearest known points (moving least
    squares).

    The local map is held to the affine map of all known points. If known points are few, the map of
    all points is held to the map that carries ``box`` to ``home`` in the first two values.

    Args:
        source: known points in pixels.
        target: their values.
        query: points in pixels.
        box: middle and half size of the mover in pixels.
        home: middle and half size of the mover in the first two values.
    """
    guess = _carry(query, box, home, target.shape[1])
    if len(source) == 0:
        return guess
    base_source = _carry(source, box, home, target.shape[1])
    correct = _fit_whole(source, target, base_source, box)
    left = target - (base_source + correct(source))
    index, weight, design = _design_neighbours(source, query)
    normal = np.einsum("qk,qki,qkj->qij", weight, design, design) + _LOCAL_RIDGE
    moment = np.einsum("qk,qki,qkc->qic", weight, design, left[index])
    return guess + correct(query) + np.linalg.solve(normal, moment)[:, 0]


def find_box(
    mask: Bool[np.ndarray, "H W"], points: Float[np.ndarray, "n 2"] | None = None
) -> Float[np.ndarray, "2 2"]:
    """Middle and half size in pixels of a mover's mask; of the points if the mask is empty.

    The half size is the same along both axes.
    """
    rows, columns = np.nonzero(mask)
    found = np.stack([columns, rows], 1) + 0.5 if len(rows) or points is None else points
    if not len(found):
        return np.array([[0.0, 0.0], [1.0, 1.0]])
    size = max(1.0, float(np.sqrt(np.prod(found.std(0) + 0.5))) * 2)
    return np.array([np.median(found, 0), [size, size]])


def find_home(
    inner: Float[np.ndarray, "n 2"],
    place: Float[np.ndarray, "n 2"],
    box: Float[np.ndarray, "2 2"],
) -> Float[np.ndarray, "2 2"]:
    """The box (middle and half size) in canonical coordinates that a box in pixels corresponds to.

    Args:
        inner: tracks of the frame in pixels.
        place: their canonical coordinates.
        box: in pixels.
    """
    spread = inner.std(0).mean()
    scale = place.std(0).mean() / spread if len(inner) > 3 and spread > 1 else 1.0
    return np.array([place.mean(0) + scale * (box[0] - inner.mean(0)), box[1] * scale])


def _design_neighbours(
    source: Float[np.ndarray, "n 2"], query: Float[np.ndarray, "q 2"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices (q, k) of the k nearest known points of each query point, their weights (q, k), and
    rows 1, x, y (q, k, 3) of the affine fit about the query point."""
    k = min(_NEIGHBOURS, len(source))
    distance, index = cKDTree(source).query(query, k)
    distance = distance.reshape(len(query), k)
    index = index.reshape(len(query), k)
    reach = np.maximum(distance.mean(1, keepdims=True), _MIN_REACH)
    weight = 1.0 / ((distance / reach) ** 2 + _NEAREST)
    weight /= weight.sum(1, keepdims=True)
    offset = (source[index] - query[:, None]) / reach[..., None]
    return index, weight, np.concatenate([np.ones((*index.shape, 1)), offset], 2)


def _fit_whole(
    source: Float[np.ndarray, "n 2"],
    target: Float[np.ndarray, "n C"],
    guess: Float[np.ndarray, "n C"],
    box: Float[np.ndarray, "2 2"],
) -> Callable[[Float[np.ndarray, "q 2"]], Float[np.ndarray, "q C"]]:
    """Affine correction of the guess over all points, with a ridge that counts less the more points
    there are."""
    design = _design_affine(source, box)
    normal = design.T @ design + _WHOLE_RIDGE
    coefficients = np.linalg.solve(normal, design.T @ (target - guess))
    return lambda points: _design_affine(points, box) @ coefficients


def _design_affine(
    points: Float[np.ndarray, "n 2"], box: Float[np.ndarray, "2 2"]
) -> Float[np.ndarray, "n 3"]:
    """Rows 1, x, y with the coordinates relative to a box."""
    return np.concatenate([np.ones((len(points), 1)), (points - box[0]) / box[1]], 1)


def _carry(
    points: Float[np.ndarray, "n 2"],
    box: Float[np.ndarray, "2 2"],
    home: Float[np.ndarray, "2 2"],
    width: int,
) -> Float[np.ndarray, "n width"]:
    """Points carried from a box to another, followed by zeros up to ``width`` values."""
    carried = (points - box[0]) / box[1] * home[1] + home[0]
    return np.concatenate([carried, np.zeros((len(points), width - 2))], 1)


def find_pairs(points: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, "P 2"]:
    """Pairs of points, in order, that a Delaunay triangulation joins; none for points on a line."""
    try:
        faces = Delaunay(points).simplices
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        faces = np.zeros((0, 3), np.int32)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [0, 2]]])
    return np.unique(np.sort(edges, 1), axis=0)
