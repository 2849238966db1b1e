"""Two frames' pictures of the same surfaces, moved to one place by the flow between them.

Surfaces are off by a fraction of a pixel, and leaves and water move between frames. A mean of two
pictures that do not meet is blurred.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float

# Largest displacement in pixels: larger ones are other surfaces.
_REACH = 16.0
# Longer side in pixels of the smallest pictures that OpenCV's flow takes.
_LEAST_SIDE = 12
# Side in pixels of the window in which pictures are compared before and after they are moved.
_WINDOW = 7
# Standard deviation in pixels of the border between moved and unmoved pixels.
_BORDER = 1.0


def align_pair(
    first: Float[np.ndarray, "H W 3"],
    second: Float[np.ndarray, "H W 3"],
    usable: Bool[np.ndarray, "H W"],
    share: float,
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W 3"]]:
    """Both pictures, moved where that makes them more alike: the first by the second's share of the
    flow between them, the second by the first's.

    Flow: Kroeger et al., "Fast optical flow using dense inverse search", 2016, as in OpenCV.

    Args:
        first: colours, 0 to 255.
        second: colours, 0 to 255.
        usable: pixels of which both have colours.
        share: of the first picture in the mean, 0 to 1.
    """
    if not usable.any() or max(usable.shape) < _LEAST_SIDE:
        return first, second
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setVariationalRefinementIterations(0)  # no better here, and twice as slow
    greys = [cv2.cvtColor(_to_bytes(image), cv2.COLOR_RGB2GRAY) for image in (first, second)]
    # Offsets are so small that the flow at a pixel serves for the place between both pictures.
    offset = flow.calc(greys[0], greys[1], None).clip(-_REACH, _REACH)
    moved_first = _move(first, np.float32(share - 1) * offset)
    moved_second = _move(second, np.float32(share) * offset)
    better = _compare(moved_first, moved_second) < _compare(first, second)
    weight = cv2.GaussianBlur((better & usable).astype(np.float32), (0, 0), _BORDER)[..., None]
    return first + weight * (moved_first - first), second + weight * (moved_second - second)


def _to_bytes(image: Float[np.ndarray, "H W 3"]) -> np.ndarray:
    return image.clip(0, 255).astype(np.uint8)


def _move(
    image: Float[np.ndarray, "H W 3"], offset: Float[np.ndarray, "H W 2"]
) -> Float[np.ndarray, "H W 3"]:
    """The image read at an offset, in pixels, from each pixel."""
    height, width = image.shape[:2]
    x = np.arange(width, dtype=np.float32) + offset[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + offset[..., 1]
    return cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _compare(
    first: Float[np.ndarray, "H W 3"], second: Float[np.ndarray, "H W 3"]
) -> Float[np.ndarray, "H W"]:
    """Mean difference of two pictures round each pixel, in grey levels."""
    return cv2.blur(average_channels(np.abs(first - second)), (_WINDOW, _WINDOW))


def average_channels(image: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """Mean of the three channels, several times as fast as numpy's."""
    return cv2.transform(image, np.full((1, 3), 1 / 3, np.float32))
