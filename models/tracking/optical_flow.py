"""Dense optical flow between two frames, and values read from such fields at points.

Points are in pixels whose top-left centre is (0.5, 0.5); OpenCV's fields have it at (0, 0).
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_COARSE = 2
"""Factor by which frames are reduced for ``coarse_flow``."""
_SMALLEST = 24
"""Side in pixels below which OpenCV's DIS has no pyramid level to start from."""


def grey(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """Luma of an RGB frame."""
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def fine_flow(
    a: UInt8[np.ndarray, "H W"], b: UInt8[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 2"]:
    """Where each pixel of a went in b, in pixels.

    Source: Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016, with
    variational refinement. OpenCV's presets stop at half the size; the whole size is much more
    exact, and sparser patches pay for part of it.
    """
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)
    method.setPatchStride(4)
    method.setGradientDescentIterations(12)
    method.setVariationalRefinementIterations(2)
    return _calculated(method, a, b)


def coarse_flow(
    a: UInt8[np.ndarray, "H W"], b: UInt8[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 2"]:
    """A quick guess at ``fine_flow``, good to a pixel or two where the motion is smooth."""
    size = max(1, a.shape[1] // _COARSE), max(1, a.shape[0] // _COARSE)
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (a, b)]
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = cv2.resize(_calculated(method, *small), a.shape[::-1])
    return flow * np.array([a.shape[1] / size[0], a.shape[0] / size[1]], np.float32)


def _calculated(method: cv2.DISOpticalFlow, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if min(a.shape) < _SMALLEST:
        return np.zeros((*a.shape, 2), np.float32)
    return method.calc(a, b, None)


def sample(
    field: Float[np.ndarray, "H W C"], xy: Float[np.ndarray, "*n 2"]
) -> Float[np.ndarray, "*n C"]:
    """Bilinear values of an image or field at points; the border repeats."""
    at = xy.astype(np.float32) - np.float32(0.5)
    flat = at.reshape(-1, 2)
    out = np.empty((len(flat), field.shape[2]), field.dtype)
    for first in range(0, len(flat), _ROW):  # remap takes at most 32767 columns
        part = flat[None, first : first + _ROW]
        out[first : first + _ROW] = cv2.remap(
            field, part[..., 0], part[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )[0]
    return out.reshape(*xy.shape[:-1], field.shape[2])


_ROW = 1 << 14
