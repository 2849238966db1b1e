"""Lens distortion on rays (x / z, y / z): the formulas of COLMAP, OpenCV and nerfstudio, and their
inverse.

Sources: Brown, "Decentering distortion of lenses", 1966, with OpenCV's rational radial factor;
Kannala and Brandt, "A generic camera model and calibration method for conventional, wide-angle, and
fish-eye lenses", 2006; parameter orders from COLMAP's ``sensor/models.h``; nerfstudio's perspective
camera has a fourth radial coefficient in the place of a denominator.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

# Newton's steps of the inverse; it converges quadratically and takes 4 to 8.
_STEPS = 40
# Largest error of an inverse, in focal lengths; 1e-5 px of an image 10,000 px wide.
_PRECISION = 1e-9
# Radius below which a fisheye's ratio of angle to radius is its limit 1.
_TINY = 1e-12


@dataclass(frozen=True)
class Distortion:
    """Coefficients of a lens, whichever model they came from."""

    radial: tuple[float, ...] = ()
    """Of r^2, r^4, ... of a perspective lens, or of the angle^2, angle^4, ... of a fisheye."""
    denominator: tuple[float, ...] = ()
    """Of r^2, r^4, ... under the radial factor."""
    tangential: tuple[float, float] = (0.0, 0.0)
    """OpenCV's p1 and p2."""
    fisheye: bool = False
    """The radius in the image grows as the angle, not as its tangent."""


def _radial(*k: float) -> Distortion:
    return Distortion(k)


def _opencv(k1: float, k2: float, p1: float, p2: float, *more: float) -> Distortion:
    return Distortion((k1, k2, *more[:1]), more[1:], (p1, p2))


def _nerfstudio(k1: float, k2: float, p1: float, p2: float, k3: float, k4: float) -> Distortion:
    return Distortion((k1, k2, k3, k4), (), (p1, p2))


def _fisheye(*k: float) -> Distortion:
    return Distortion(k, fisheye=True)


MODELS = {
    "SIMPLE_PINHOLE": (1, 0, _radial),
    "PINHOLE": (2, 0, _radial),
    "SIMPLE_RADIAL": (1, 1, _radial),
    "RADIAL": (1, 2, _radial),
    "OPENCV": (2, 4, _opencv),
    "FULL_OPENCV": (2, 8, _opencv),
    "NERFSTUDIO": (2, 6, _nerfstudio),
    "SIMPLE_FISHEYE": (1, 0, _fisheye),
    "FISHEYE": (2, 0, _fisheye),
    "SIMPLE_RADIAL_FISHEYE": (1, 1, _fisheye),
    "RADIAL_FISHEYE": (1, 2, _fisheye),
    "OPENCV_FISHEYE": (2, 4, _fisheye),
}
"""Name of each lens model -> number of its focal lengths, number of its coefficients (after the
focal lengths and the principal point), and the function that reads these."""


def bend_rays(distortion: Distortion, rays: Float[ndarray, "N 2"]) -> Float[ndarray, "N 2"]:
    """Rays -> places in the bent image, in focal lengths from the principal point."""
    x, y = rays.T
    square = x * x + y * y
    p1, p2 = distortion.tangential
    factor, _ = _find_factor(distortion, square)
    across = factor * x + 2 * p1 * x * y + p2 * (square + 2 * x * x)
    down = factor * y + p1 * (square + 2 * y * y) + 2 * p2 * x * y
    return np.stack([across, down], 1)


def straighten_rays(distortion: Distortion, bent: Float[ndarray, "N 2"]) -> Float[ndarray, "N 2"]:
    """The inverse of ``bend_rays``; NaN where no ray of the camera's front comes to that place."""
    invert = _invert_fisheye if distortion.fisheye else _invert_perspective
    with np.errstate(all="ignore"):
        return invert(distortion, bent)


def keeps_orientation(distortion: Distortion, rays: Float[ndarray, "N 2"]) -> Bool[ndarray, "N"]:
    """True for rays at which the image is not folded over itself."""
    with np.errstate(all="ignore"):
        return np.linalg.det(_find_slope(distortion, rays)) > 0


def _find_slope(distortion: Distortion, rays: Float[ndarray, "N 2"]) -> Float[ndarray, "N 2 2"]:
    """Derivative of the place in the bent image by the ray."""
    factor, growth = _find_factor(distortion, (rays**2).sum(1))
    outer = 2 * growth[:, None, None] * rays[:, :, None] * rays[:, None, :]
    tangential = _tangential_slope(*distortion.tangential, *rays.T)
    return factor[:, None, None] * np.eye(2) + outer + tangential


def _find_factor(distortion: Distortion, square: ndarray) -> tuple[ndarray, ndarray]:
    """Factor of the radius, and its derivative by the squared radius."""
    find = _fisheye_factor if distortion.fisheye else _perspective_factor
    return find(distortion, square)


def _tangential_slope(p1: float, p2: float, x: ndarray, y: ndarray) -> Float[ndarray, "N 2 2"]:
    """Derivative of the tangential shift by the ray."""
    across = np.stack([2 * p1 * y + 6 * p2 * x, 2 * p1 * x + 2 * p2 * y], 1)
    down = np.stack([2 * p1 * x + 2 * p2 * y, 6 * p1 * y + 2 * p2 * x], 1)
    return np.stack([across, down], 1)


def _evaluate(coefficients: tuple[float, ...], s: ndarray) -> tuple[ndarray, ndarray]:
    """1 + c1 s + c2 s^2 + ..., and its derivative by s."""
    polynomial = np.polynomial.Polynomial([1.0, *coefficients])
    return polynomial(s), polynomial.deriv()(s)


def _perspective_factor(distortion: Distortion, square: ndarray) -> tuple[ndarray, ndarray]:
    top, top_slope = _evaluate(distortion.radial, square)
    below, below_slope = _evaluate(distortion.denominator, square)
    return top / below, (top_slope * below - top * below_slope) / below**2


def _fisheye_factor(distortion: Distortion, square: ndarray) -> tuple[ndarray, ndarray]:
    radius = np.maximum(np.sqrt(square), _TINY)
    angle = np.arctan(radius)
    value, slope = _evaluate(distortion.radial, angle**2)
    bent = angle * value
    # d bent / d angle times d angle / d radius
    growth = (value + 2 * angle**2 * slope) / (1 + radius**2)
    near = radius <= _TINY
    factor = np.where(near, 1.0, bent / radius)
    return factor, np.where(near, 0.0, (growth - factor) / (2 * radius**2))


def _invert_perspective(
    distortion: Distortion, bent: Float[ndarray, "N 2"]
) -> Float[ndarray, "N 2"]:
    """Rays by Newton's method, which starts at the bent place."""
    rays = bent.astype(np.float64)
    for _ in range(_STEPS):
        error = bend_rays(distortion, rays) - bent
        slope = _find_slope(distortion, rays)
        a, b, c, d = slope.reshape(-1, 4).T
        step = np.stack([d * error[:, 0] - b * error[:, 1], a * error[:, 1] - c * error[:, 0]], 1)
        step /= (a * d - b * c)[:, None]
        rays = rays - step
        if not np.any(np.abs(step) > _PRECISION):
            break
    good = np.abs(bend_rays(distortion, rays) - bent).max(1) < _PRECISION
    good &= np.isfinite(rays).all(1)
    rays[~good] = np.nan
    good &= keeps_orientation(distortion, rays)
    return np.where(good[:, None], rays, np.nan)


def _invert_fisheye(distortion: Distortion, bent: Float[ndarray, "N 2"]) -> Float[ndarray, "N 2"]:
    """Rays by Newton's method on the angle."""
    radius = np.linalg.norm(bent, axis=1)
    angle = radius.copy()
    for _ in range(_STEPS):
        value, slope = _evaluate(distortion.radial, angle**2)
        angle = angle - (angle * value - radius) / (value + 2 * angle**2 * slope)
    value, slope = _evaluate(distortion.radial, angle**2)
    good = np.abs(angle * value - radius) < _PRECISION
    good &= (value + 2 * angle**2 * slope > 0) & (angle >= 0) & (angle < np.pi / 2)
    factor = np.where(radius > _TINY, np.tan(angle) / np.maximum(radius, _TINY), 1.0)
    return np.where(good[:, None], bent * factor[:, None], np.nan)
