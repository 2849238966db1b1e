"""How much light the background keeps in the shadows of movers, frame by frame."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.render import Scene, fill_holes, render_view

# Longer side in pixels of the images that are compared.
_WORK_SIZE = 480
# Standard deviation in pixels over which light is averaged, and pixels beyond a shadow's mask over
# which the shadow ends softly.
_BLUR, _SOFT_EDGE = 1.5, 4
# Grey levels added to both pictures, so that dark pixels have no extreme ratios.
_FLOOR = 4.0
# Share of its light that a surface keeps, at least.
_DARKEST = 0.1


def measure_light(
    scene: Scene,
    t: int,
    frame: Float[np.ndarray, "H W 3"],
    movers: Bool[np.ndarray, "H W"],
    shadow: Bool[np.ndarray, "H W"],
) -> UInt8[np.ndarray, "H W 3"]:
    """255 times the share of its light that the background keeps in frame t: the frame divided by
    the scene's background, averaged; 255 outside the shadow. Behind movers it is carried on from
    around them.

    Args:
        frame: frame t without its exposure, 0 to 255.
        movers: True at pixels of movers.
        shadow: True at pixels in a mover's shadow.
    """
    height, width = shadow.shape
    shrink = min(1.0, _WORK_SIZE / max(height, width))
    size = max(1, round(shrink * width)), max(1, round(shrink * height))
    layer = scene.background
    view = scene.cameras[t].resized(*size)
    lit = render_view(layer.meshes, layer.renderer, view, scene.options).rgb.astype(np.float32)
    own = cv2.resize(frame.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    hidden, dark = (
        cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for mask in (movers, shadow)
    )
    side = 2 * _SOFT_EDGE + 1
    around = cv2.dilate(dark, np.ones((side, side), np.uint8))
    usable = ((hidden == 0) & (around > 0)).astype(np.float32)[..., None]
    shown, expected = (
        cv2.GaussianBlur(usable * (image + _FLOOR), (0, 0), _BLUR) for image in (own, lit)
    )
    ratio = np.clip(shown / np.maximum(expected, 1e-3), _DARKEST, 1)
    # 1 at the shadow, 0 where its soft edge ends
    inside = cv2.GaussianBlur(cv2.dilate(dark, np.ones((5, 5), np.uint8)), (0, 0), _SOFT_EDGE / 2)
    light = 1 - np.minimum(1, 1.5 * inside)[..., None] * (1 - ratio)
    light = fill_holes(light.astype(np.float32), hidden == 0)
    large = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)
    return (255 * large + 0.5).clip(0, 255).astype(np.uint8)
