"""LDR-FLIP: how large the difference between two images is to a person who flips between them, 0 to
1 a pixel.

Source of all formulas and constants: Andersson, Nilsson, Akenine-Möller, Oskarsson, Åström and
Fairchild, "FLIP: a difference evaluator for alternating images", Proc. ACM on Computer Graphics and
Interactive Techniques 3 (2), 2020, and its published Python implementation: contrast sensitivity
filters (section 4.1.1), HyAB distance with Hunt adjustment in CIELAB (4.1.2), mapping of errors
(4.1.3), edge and point detectors (4.2), their combination (4.3).
"""

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import correlate1d

PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * np.pi / 180
"""Of the paper's viewer: 0.7 m before a screen of 3840 pixels and 0.7 m width."""
XYZ_FROM_RGB = np.array(
    [
        [10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794],
        [2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897],
        [1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382],
    ]
)
"""Of linear sRGB, D65."""
WHITE = XYZ_FROM_RGB.sum(1)
SHIFT = np.array([16.0, 0.0, 0.0])
OPPONENT = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
"""YCxCz of XYZ relative to white, less SHIFT."""
SENSITIVITY = {0: ((1.0, 0.0047),), 1: ((1.0, 0.0053),), 2: ((34.1, 0.04), (13.5, 0.025))}
"""Table 1: pairs (a, b) of each opponent channel's Gaussians, in degrees squared."""
WIDEST = 0.04
FEATURE_WIDTH = 0.082
"""Width of the detectors in degrees."""
COLOR_POWER, FEATURE_POWER = 0.7, 0.5
KNEE, KNEE_VALUE = 0.4, 0.95
"""Colour errors up to this share of the largest fill this share of the range."""


def flip_map(
    a: UInt8[np.ndarray, "H W 3"],
    b: UInt8[np.ndarray, "H W 3"],
    pixels_per_degree: float = PIXELS_PER_DEGREE,
) -> Float[np.ndarray, "H W"]:
    """FLIP error of each pixel of two sRGB images; symmetric, 0 where equal."""
    opponent = [_opponent_of_srgb(image) for image in (a, b)]
    color = _color_error(*(_perceived(image, pixels_per_degree) for image in opponent))
    feature = _feature_error(*((image[..., 0] + 16) / 116 for image in opponent), pixels_per_degree)
    return color ** (1 - feature)


def _opponent_of_srgb(image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    value = image / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear @ (OPPONENT @ (XYZ_FROM_RGB / WHITE[:, None])).T - SHIFT


def _perceived(opponent: Float[np.ndarray, "H W 3"], ppd: float) -> Float[np.ndarray, "H W 3"]:
    """Hunt-adjusted CIELAB of the image as blurred by the eye."""
    seen = (
        np.stack([_filtered(opponent[..., k], SENSITIVITY[k], ppd) for k in range(3)], -1) + SHIFT
    )
    rgb_from_opponent = np.linalg.inv(OPPONENT @ (XYZ_FROM_RGB / WHITE[:, None]))
    return _hunt_lab((seen @ rgb_from_opponent.T).clip(0, 1))


def _filtered(
    channel: Float[np.ndarray, "H W"], gaussians: tuple, ppd: float
) -> Float[np.ndarray, "H W"]:
    """The sum of Gaussians a sqrt(pi / b) exp(-pi^2 r^2 / b), cut to a square, of sum 1; each is
    separable."""
    radius = int(np.ceil(3 * np.sqrt(WIDEST / (2 * np.pi**2)) * ppd))
    x = np.arange(-radius, radius + 1) / ppd
    total, weight = np.zeros_like(channel), 0.0
    for a, b in gaussians:
        g = np.exp(-(np.pi**2) * x**2 / b)
        mass = a * np.sqrt(np.pi / b) * g.sum() ** 2
        total += mass * _separable(channel, g / g.sum(), g / g.sum())
        weight += mass
    return total / weight


def _separable(
    image: Float[np.ndarray, "H W"], along_x: np.ndarray, along_y: np.ndarray
) -> Float[np.ndarray, "H W"]:
    return correlate1d(correlate1d(image, along_x, 1, mode="nearest"), along_y, 0, mode="nearest")


def _hunt_lab(linear: Float[np.ndarray, "*S 3"]) -> Float[np.ndarray, "*S 3"]:
    t = linear @ (XYZ_FROM_RGB / WHITE[:, None]).T
    delta = 6 / 29
    f = np.where(t > delta**3, np.cbrt(t), t / (3 * delta**2) + 4 / 29)
    lightness = 116 * f[..., 1] - 16
    a, b = 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])
    return np.stack([lightness, 0.01 * lightness * a, 0.01 * lightness * b], -1)


def _hyab(a: Float[np.ndarray, "*S 3"], b: Float[np.ndarray, "*S 3"]) -> Float[np.ndarray, "*S"]:
    difference = a - b
    return np.abs(difference[..., 0]) + np.hypot(difference[..., 1], difference[..., 2])


def _color_error(
    a: Float[np.ndarray, "H W 3"], b: Float[np.ndarray, "H W 3"]
) -> Float[np.ndarray, "H W"]:
    """HyAB distance to a power, brought to 0 to 1 by two straight lines; the largest is from green
    to blue."""
    green, blue = _hunt_lab(np.eye(3))[1:]
    most = _hyab(green, blue) ** COLOR_POWER
    knee, error = KNEE * most, _hyab(a, b) ** COLOR_POWER
    above = KNEE_VALUE + (error - knee) / (most - knee) * (1 - KNEE_VALUE)
    return np.where(error < knee, KNEE_VALUE / knee * error, above).clip(0, 1)


def _feature_error(
    a: Float[np.ndarray, "H W"], b: Float[np.ndarray, "H W"], ppd: float
) -> Float[np.ndarray, "H W"]:
    """The larger change of edges and of points, each by derivatives of a Gaussian of lightness (0
    to 1)."""
    deviation = 0.5 * FEATURE_WIDTH * ppd
    radius = int(np.ceil(3 * deviation))
    x = np.arange(-radius, radius + 1)
    g = np.exp(-(x**2) / (2 * deviation**2))
    largest = 0.0
    for derivative in (-x * g, (x**2 / deviation**2 - 1) * g):
        positive = derivative > 0
        kernel = derivative / np.where(
            positive, derivative[positive].sum(), -derivative[derivative < 0].sum()
        )
        strength = [
            np.hypot(_separable(i, kernel, g / g.sum()), _separable(i, g / g.sum(), kernel))
            for i in (a, b)
        ]
        largest = np.maximum(largest, np.abs(strength[0] - strength[1]))
    return (largest / np.sqrt(2)) ** FEATURE_POWER
