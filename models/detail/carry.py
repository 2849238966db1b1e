"""Detail of some frames -> detail of a view.

A frame's detail lies at the surface. Geometry says which pixel of the frame shows the surface of
each pixel of the view, flow between the two renderings removes the misalignment that is left, and
the detail of all frames is averaged as far as they agree.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from models.detail.frame_details import MIDDLE, FrameDetail
from models.detail.options import DetailOptions
from models.detail.source_maps import SourceMap

# Standard deviation in pixels of the window in which frames are compared.
_WINDOW = 2.0
# Squared grey levels that keep the comparison stable where there is no detail.
_LEAST_POWER = 1.0
# Weight below which no detail is drawn.
_LEAST_WEIGHT = 1e-3


def carry_details(
    rendering: UInt8[np.ndarray, "H W 3"],
    sources: list[tuple[FrameDetail, SourceMap]],
    options: DetailOptions = DetailOptions(),
) -> Float[np.ndarray, "H W 3"]:
    """Detail of a view in grey levels; 0 where no frame is sure.

    Args:
        rendering: of the view, without exposure.
        sources: detail of frames and their pixels for the view.
    """
    grey = cv2.cvtColor(rendering, cv2.COLOR_RGB2GRAY)
    carried = [_carry_frame(grey, frame, pixels, options) for frame, pixels in sources]
    carried = [(detail, weight) for detail, weight in carried if weight.any()]
    if not carried:
        return np.zeros(rendering.shape, np.float32)
    return _average(*zip(*carried, strict=True))


def _carry_frame(
    grey: UInt8[np.ndarray, "H W"], frame: FrameDetail, pixels: SourceMap, options: DetailOptions
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """A frame's detail at the view's pixels, and its weight."""
    seen = cv2.remap(
        frame.grey, pixels.x, pixels.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    # where the frame sees nothing, the view itself keeps the flow calm
    known = np.where(pixels.weight > 0, seen, grey)
    flow = _align(grey, known)
    length = np.hypot(flow[..., 0], flow[..., 1])
    rows, columns = np.indices(grey.shape, np.float32)
    at = columns + flow[..., 0], rows + flow[..., 1]
    x, y, weight, aligned = (
        cv2.remap(image, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for image in (pixels.x, pixels.y, pixels.weight, known)
    )
    unlike = np.abs(aligned.astype(np.float32) - grey)
    weight = weight * np.exp(-((cv2.blur(unlike, (3, 3)) / options.similar) ** 2))
    weight *= np.clip(options.largest_shift - length, 0, 1) * (pixels.weight > 0)
    weight[weight < _LEAST_WEIGHT] = 0
    detail = cv2.remap(frame.residual, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return detail.astype(np.float32) - MIDDLE, weight


def _align(
    grey: UInt8[np.ndarray, "H W"], other: UInt8[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 2"]:
    """Flow in pixels from a picture to another that nearly fits."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow.setFinestScale(1)
    return flow.calc(grey, other, None)


def _average(
    details: list[Float[np.ndarray, "H W 3"]], weights: list[Float[np.ndarray, "H W"]]
) -> Float[np.ndarray, "H W 3"]:
    """Weighted mean of frames' detail, shrunk by their agreement.

    Detail that frames share is of the scene, the rest is noise. With a share c of common power in
    each, the mean of n frames has the least squared error if it is multiplied by
    n c / (1 + (n - 1) c) (Wiener filter).
    """
    weight = np.stack(weights)[..., None]
    detail = np.stack(details)
    total = weight.sum(0)
    sure = weight.max(0)
    mean = (weight * detail).sum(0) / np.maximum(total, _LEAST_WEIGHT)
    if len(details) == 1:
        return sure * mean
    count = np.maximum(total, _LEAST_WEIGHT) ** 2 / np.maximum((weight**2).sum(0), _LEAST_WEIGHT)
    power = _smooth((weight * detail**2).sum((0, -1)) / np.maximum(total, _LEAST_WEIGHT)[..., 0])
    of_mean = _smooth((mean**2).sum(-1))
    # power of the mean = power of each * (c + (1 - c) / n)
    n = count[..., 0]
    ratio = of_mean / (power + _LEAST_POWER)
    shared = np.clip((n * ratio - 1) / np.maximum(n - 1, 1e-3), 0, 1)
    shared = np.where(n > 1.2, shared, 1)
    gain = n * shared / (1 + (n - 1) * shared)
    return sure * gain[..., None] * mean


def _smooth(image: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    return cv2.GaussianBlur(image, (0, 0), _WINDOW)
