"""Static points fitted to the flow of each pixel: inverse depth and misfit, row by row, in a form
that compilers turn into vector code, and pixel by pixel in plain numpy."""

import numpy as np
from jaxtyping import Float

from models.run import njit, run_tasks, split_range

# Standard deviation of a good flow vector in pixels of the work size.
_FLOW_NOISE = 0.25
# A flow vector whose way back misses its start by more than this many pixels plus this share of its
# length is not believed.
ROUND_TRIP_LIMIT = 1.0
_ROUND_TRIP_SHARE = 0.02
# Rounds of the reweighted fit. More take more time.
_ROUNDS = 3
# Misfit in standard deviations at which a flow vector has 0.7 of its weight. Larger lets wrong flow pull
# more.
_SOFT = 3.0
# Largest misfit of a flow vector, in squared standard deviations. Larger lets a wrong vector count more.
_MOST = 400.0
# Smallest z-depth of a point in another frame, relative to its depth in the first. Larger bends the fit
# to points close to the other camera.
_NEAREST = 1e-3
# Frames of which the worst quarter is two: the kernel keeps the two largest misfits.
_MOST_FRAMES = 11
# Rows of the image are handed to threads in this many parts.
_PARTS = 16
# Without checks of divisors, loops over a row become vector code.
_ROWS = {
    **{"cache": True, "nogil": True, "error_model": "numpy"},
    **{"fastmath": True, "forceinline": True},
}


class FlowVectors:
    """Flow from a frame to n other frames, and what is known of its errors."""

    def __init__(
        self,
        flow: Float[np.ndarray, "n h w 2"],
        error: Float[np.ndarray, "n h w"],
        covariance: Float[np.ndarray, "h w 3"],
        infinity: Float[np.ndarray, "n 3 3"],
        epipole: Float[np.ndarray, "n 3"],
    ):
        """
        Args:
            flow: pixels.
            error: pixels by which the flow back misses the start.
            covariance: (xx, xy, yy) of the flow in square pixels.
            infinity: homographies at infinity from the frame to the others.
            epipole: images of the frame's centre in the others; a static point at pixel x and
                inverse depth rho is seen at infinity @ x + rho * epipole.
        """
        rows = np.float32
        self.arrays = (
            np.ascontiguousarray(flow.transpose(3, 0, 1, 2), rows),
            np.ascontiguousarray(error, rows),
            np.ascontiguousarray(covariance.transpose(2, 0, 1), rows),
            infinity.astype(rows),
            epipole.astype(rows),
        )
        self.shape = error.shape


def fit_static_points(
    vectors: FlowVectors, nearest: float
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Misfit, number of believed flow vectors, and inverse depth of the static point that fits the
    flow of each pixel best; see ``Evidence``.

    The path of a static point is linear in its inverse depth. Rounds of reweighting make the fit
    robust.

    Args:
        nearest: the largest inverse depth.

    Raises:
        ValueError: more than 11 frames; of so many, more than the two worst would be left out.
    """
    count, height, width = vectors.shape
    if count > _MOST_FRAMES:
        raise ValueError(f"flow to {count} frames; at most {_MOST_FRAMES} can be compared")
    out = np.empty((3, height, width), np.float32)
    parts = split_range(height, _PARTS)

    def fit(i: int) -> None:
        # flow residuals and their derivatives, weights, the z-depth and its derivative
        scratch = np.empty((count, 9, width), np.float32)
        _fit_rows(*vectors.arrays, np.float32(nearest), scratch, out, *parts[i])

    run_tasks(fit, len(parts))
    return out[0], out[1], out[2]


@njit(**_ROWS)
def _fit_rows(flow, error, covariance, infinity, epipole, nearest, scratch, out, begin, end):
    """Writes misfit, count and inverse depth of rows [begin, end) to out (3, h, w)."""
    count, _, width = error.shape
    top = np.empty(width, np.float32)
    bottom = np.empty(width, np.float32)
    largest = np.empty((2, width), np.float32)
    for y in range(begin, end):
        misfit, known, rho = out[0, y], out[1, y], out[2, y]
        known[:] = 0
        rho[:] = 0
        for k in range(count):
            given = flow[0, k, y], flow[1, k, y], error[k, y], covariance[:, y]
            _set_up(*given, infinity[k], epipole[k], y, error.shape[1], scratch[k], known)
        for turn in range(_ROUNDS):
            top[:] = 0
            bottom[:] = np.float32(1e-9)
            for k in range(count):
                _add_normal(scratch[k], rho, turn > 0, top, bottom)
            for x in range(width):
                rho[x] = min(max(top[x] / bottom[x], np.float32(0)), nearest)
        misfit[:] = 0
        largest[:] = 0
        for k in range(count):
            _add_misfit(scratch[k], rho, misfit, largest)
        _average(known, largest, misfit)


@njit(**_ROWS)
def _set_up(flow_x, flow_y, error, covariance, A, c, y, height, row, known):
    """Writes what the rounds need of one frame's flow in row y, and counts believed vectors."""
    half = np.float32(0.5)
    width = len(error)
    v0 = np.float32(y) + half
    noise = np.float32(_FLOW_NOISE**2)
    limit = np.float32(ROUND_TRIP_LIMIT)
    share = np.float32(_ROUND_TRIP_SHARE)
    for x in range(width):
        u0 = np.float32(x) + half
        e = error[x]
        u = u0 + flow_x[x]
        v = v0 + flow_y[x]
        failed = e > limit + share * (abs(flow_x[x]) + abs(flow_y[x]))
        outside = (u < 0) | (v < 0) | (u > width) | (v > height)
        sure = np.float32(0) if failed | outside else np.float32(1)
        own = noise + np.float32(0.25) * e * e
        xx = covariance[0, x] + own
        xy = covariance[1, x]
        yy = covariance[2, x] + own
        weight = sure / (xx * yy - xy * xy)
        p0 = A[0, 0] * u0 + A[0, 1] * v0 + A[0, 2]
        p1 = A[1, 0] * u0 + A[1, 1] * v0 + A[1, 2]
        p2 = A[2, 0] * u0 + A[2, 1] * v0 + A[2, 2]
        row[0, x] = u * p2 - p0
        row[1, x] = v * p2 - p1
        row[2, x] = u * c[2] - c[0]
        row[3, x] = v * c[2] - c[1]
        row[4, x] = weight * yy
        row[5, x] = -weight * xy
        row[6, x] = weight * xx
        row[7, x] = p2
        row[8, x] = c[2]
        known[x] += sure


@njit(**_ROWS)
def _measure(row, rho, x):
    """1 / z, and the squared misfit in variances, of the static point at inverse depth rho."""
    inverse_z = np.float32(1) / max(row[7, x] + rho * row[8, x], np.float32(_NEAREST))
    ex = (row[0, x] + rho * row[2, x]) * inverse_z
    ey = (row[1, x] + rho * row[3, x]) * inverse_z
    double = np.float32(2)
    e2 = row[4, x] * ex * ex + double * row[5, x] * ex * ey + row[6, x] * ey * ey
    return inverse_z, e2


@njit(**_ROWS)
def _add_normal(row, rho, soften, top, bottom):
    """Adds one frame's flow to the normal equation of each pixel's inverse depth."""
    one = np.float32(1)
    scale = np.float32(1 / _SOFT**2)
    for x in range(len(rho)):
        inverse_z, e2 = _measure(row, rho[x], x)
        weight = inverse_z * inverse_z
        if soften:
            weight /= np.sqrt(one + scale * e2)
        rx, ry, jx, jy = row[0, x], row[1, x], row[2, x], row[3, x]
        xx, xy, yy = row[4, x], row[5, x], row[6, x]
        top[x] -= weight * (xx * rx * jx + xy * (rx * jy + ry * jx) + yy * ry * jy)
        bottom[x] += weight * (xx * jx * jx + np.float32(2) * xy * jx * jy + yy * jy * jy)


@njit(**_ROWS)
def _add_misfit(row, rho, total, largest):
    """Adds one frame's squared misfit of each pixel to the sum, and to the two largest."""
    for x in range(len(rho)):
        _, e2 = _measure(row, rho[x], x)
        e2 = min(e2, np.float32(_MOST))
        total[x] += e2
        largest[1, x] = max(largest[1, x], min(largest[0, x], e2))
        largest[0, x] = max(largest[0, x], e2)


@njit(**_ROWS)
def _average(known, largest, misfit):
    """Root mean square misfit from the sums, without the worst quarter, in place: something else may
    have drawn its flow along."""
    for x in range(len(known)):
        total = misfit[x]
        total -= largest[0, x] if known[x] >= 4 else np.float32(0)
        total -= largest[1, x] if known[x] >= 8 else np.float32(0)
        kept = known[x] - np.floor(known[x] / 4)
        misfit[x] = np.sqrt(max(total, np.float32(0)) / max(kept, np.float32(1)))


def fit_plainly(
    vectors: FlowVectors, nearest: float
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """``fit_static_points`` in numpy, in double precision; the plain reference."""
    (dx, dy), error, (xx, xy, yy), infinity, epipole = map(np.float64, vectors.arrays)
    n, height, width = error.shape
    u0, v0 = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    u, v = u0 + dx, v0 + dy
    sure = error <= ROUND_TRIP_LIMIT + _ROUND_TRIP_SHARE * (abs(dx) + abs(dy))
    sure &= (u >= 0) & (v >= 0) & (u <= width) & (v <= height)
    own = _FLOW_NOISE**2 + 0.25 * error**2
    covariance = np.stack([xx + own, xy + 0 * own, xy + 0 * own, yy + own], -1)
    weight = np.linalg.inv(covariance.reshape(n, height, width, 2, 2)) * sure[..., None, None]
    p = np.einsum("nij,jhw->inhw", infinity, np.stack([u0, v0, np.ones_like(u0)]))
    c = epipole.T[..., None, None]
    start = np.stack([u * p[2] - p[0], v * p[2] - p[1]], -1)
    slope = np.stack([u * c[2] - c[0], v * c[2] - c[1]], -1)
    rho = np.zeros((height, width))
    for turn in range(_ROUNDS + 1):
        z = np.maximum(p[2] + rho * c[2], _NEAREST)[..., None]
        miss = (start + rho[..., None] * slope) / z
        squares = np.einsum("...i,...ij,...j", miss, weight, miss)
        if turn == _ROUNDS:
            break
        soft = 1 / np.sqrt(1 + squares / _SOFT**2) if turn else np.ones_like(squares)
        r, j = start / z, slope / z
        top = -(soft * np.einsum("...i,...ij,...j", r, weight, j)).sum(0)
        bottom = 1e-9 + (soft * np.einsum("...i,...ij,...j", j, weight, j)).sum(0)
        rho = np.clip(top / bottom, 0, nearest)
    known = sure.sum(0)
    kept = known - known // 4
    ordered = np.sort(np.where(sure, np.minimum(squares, _MOST), np.inf), 0)
    chosen = np.arange(n)[:, None, None] < kept
    mean = np.where(chosen, ordered, 0).sum(0) / np.maximum(kept, 1)
    return np.sqrt(mean), known.astype(float), rho
