"""Pinhole pictures on the half sphere of VR180: equirectangular, 180 degrees wide and high."""

import math
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from models.cameras import Cameras

# Largest side of a half sphere in pixels: decoders of headsets take frames 8192 wide.
_LARGEST = 4096


def map_half_sphere(rgb: UInt8[np.ndarray, "H W 3"], view: Cameras) -> UInt8[np.ndarray, "S S 3"]:
    """The picture of a camera (``view`` of length 1) on its half sphere, black where it does not
    reach.

    The side has as many pixels as keep the resolution of the middle of the picture.
    """
    K = view.K[0].double().numpy()
    x, y = _find_pixels(*K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist())
    return cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


@lru_cache(4)
def _find_pixels(
    fx: float, fy: float, cx: float, cy: float
) -> tuple[Float[np.ndarray, "S S"], Float[np.ndarray, "S S"]]:
    """The pixel, from OpenCV's origin, of each pixel of the half sphere."""
    side = min(_LARGEST, 2 * round(math.pi * max(fx, fy) / 2))
    angle = ((np.arange(side) + 0.5) / side - 0.5) * math.pi
    longitude, latitude = np.meshgrid(angle, angle)
    # y of the image and latitude both grow downwards here
    forward = np.cos(latitude) * np.cos(longitude)
    forward = np.maximum(forward, 1e-6)
    x = fx * np.cos(latitude) * np.sin(longitude) / forward + cx - 0.5
    y = fy * np.sin(latitude) / forward + cy - 0.5
    return x.astype(np.float32), y.astype(np.float32)
