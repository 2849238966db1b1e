"""Values at points of a mover's picture from those known at others near them, and the box that
stands in for points."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

NEIGHBOURS = 12
RIDGE = 0.3
"""How strongly a local map is held to the whole mover's: neighbours' worth of evidence."""


def local_map(
    source: Float[np.ndarray, "n 2"],
    target: Float[np.ndarray, "n C"],
    query: Float[np.ndarray, "q 2"],
    box: Float[np.ndarray, "2 2"],
    home: Float[np.ndarray, "2 2"],
) -> Float[np.ndarray, "q C"]:
    """Values at query points by an affine map fitted to the nearest of the known points (moving
    least squares).

    The local map is held to the affine map of all known points, and that one, where they are few,
    to the map that carries ``box`` (middle and half size) to ``home`` in the first two values.
    """
    guess = _carry(query, box, home, target.shape[1])
    if len(source) == 0:
        return guess
    whole = _fit_whole(source, target, _carry(source, box, home, target.shape[1]), box)
    base_query = guess + whole(query)
    base_source = _carry(source, box, home, target.shape[1]) + whole(source)
    left = target - base_source
    k = min(NEIGHBOURS, len(source))
    distance, index = cKDTree(source).query(query, k)
    distance = distance.reshape(len(query), k)
    index = index.reshape(len(query), k)
    reach = np.maximum(distance.mean(1, keepdims=True), 2.0)
    weight = 1.0 / ((distance / reach) ** 2 + 0.05)
    weight /= weight.sum(1, keepdims=True)
    design = np.concatenate(
        [np.ones((*index.shape, 1)), (source[index] - query[:, None]) / reach[..., None]], 2
    )
    normal = np.einsum("qk,qki,qkj->qij", weight, design, design) + np.diag([1e-3, RIDGE, RIDGE])
    fitted = np.linalg.solve(normal, np.einsum("qk,qki,qkc->qic", weight, design, left[index]))[
        :, 0
    ]
    return base_query + fitted


def _fit_whole(source: np.ndarray, target: np.ndarray, guess: np.ndarray, box: np.ndarray):
    """Affine correction to the guess over all points, with a ridge that fades as points are
    more."""
    scaled = (source - box[0]) / box[1]
    design = np.concatenate([np.ones((len(source), 1)), scaled], 1)
    normal = design.T @ design + np.diag([1e-6, 3.0, 3.0])
    coefficients = np.linalg.solve(normal, design.T @ (target - guess))

    def correction(points: np.ndarray) -> np.ndarray:
        return (
            np.concatenate([np.ones((len(points), 1)), (points - box[0]) / box[1]], 1)
            @ coefficients
        )

    return correction


def _carry(points: np.ndarray, box: np.ndarray, home: np.ndarray, width: int) -> np.ndarray:
    carried = (points - box[0]) / box[1] * home[1] + home[0]
    return np.concatenate([carried, np.zeros((len(points), width - 2))], 1)


def mover_box(
    mask: Bool[np.ndarray, "H W"], points: Float[np.ndarray, "n 2"] | None = None
) -> Float[np.ndarray, "2 2"]:
    """Middle and half size (the same both ways) of a mover's mask, or of points where it is empty,
    in pixels."""
    rows, columns = np.nonzero(mask)
    found = np.stack([columns, rows], 1) + 0.5 if len(rows) or points is None else points
    if not len(found):
        return np.array([[0.0, 0.0], [1.0, 1.0]])
    size = max(1.0, float(np.sqrt(np.prod(found.std(0) + 0.5))) * 2)
    return np.array([np.median(found, 0), [size, size]])
