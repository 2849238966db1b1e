"""Dense optical flow between two frames, and values read from such fields at points.

Points are in pixels whose top-left centre is (0.5, 0.5); OpenCV's fields have it at (0, 0).
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# Factor by which frames are reduced for the coarse flow.
_COARSE = 2
# Side in pixels below which OpenCV's DIS has no pyramid level to start from.
_SMALLEST = 24
# Points in a call of cv2.remap, which takes at most 32767 columns.
_ROW = 1 << 14


def to_grey(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
    """Luma of an RGB frame."""
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def estimate_fine_flow(
    a: UInt8[np.ndarray, "H W"], b: UInt8[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 2"]:
    """Displacement in pixels of each pixel of a to its match in b.

    Source: Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016, with
    variational refinement. OpenCV's presets stop at half the size. The whole size is much more
    exact; sparser patches save part of its cost.
    """
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)
    method.setPatchStride(4)
    method.setGradientDescentIterations(12)
    method.setVariationalRefinementIterations(2)
    return _calculate(method, a, b)


def estimate_coarse_flow(
    a: UInt8[np.ndarray, "H W"], b: UInt8[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 2"]:
    """The same at half the size: fast, and exact to a pixel or two in smooth motion."""
    size = max(1, a.shape[1] // _COARSE), max(1, a.shape[0] // _COARSE)
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (a, b)]
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = cv2.resize(_calculate(method, *small), a.shape[::-1])
    return flow * np.array([a.shape[1] / size[0], a.shape[0] / size[1]], np.float32)


def _calculate(
    method: cv2.DISOpticalFlow, a: UInt8[np.ndarray, "h w"], b: UInt8[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 2"]:
    """Flow of a and b; zero for images too small for the method."""
    if min(a.shape) < _SMALLEST:
        return np.zeros((*a.shape, 2), np.float32)
    return method.calc(a, b, None)


def sample_field(
    field: Float[np.ndarray, "H W C"], xy: Float[np.ndarray, "*n 2"]
) -> Float[np.ndarray, "*n C"]:
    """Bilinear values of an image or flow field at pixels; the border repeats."""
    # OpenCV puts (0, 0) at the centre of the top-left pixel.
    at = xy.astype(np.float32) - np.float32(0.5)
    flat = at.reshape(-1, 2)
    out = np.empty((len(flat), field.shape[2]), field.dtype)
    for first in range(0, len(flat), _ROW):
        part = flat[None, first : first + _ROW]
        out[first : first + _ROW] = cv2.remap(
            field, part[..., 0], part[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )[0]
    return out.reshape(*xy.shape[:-1], field.shape[2])
