"""How much a novel view video flickers: the change from picture to picture that the motion of the
camera does not explain."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.paths import Clip, parse_path
from models.render import Scene

SAME_SURFACE = 0.02
"""Relative difference of depth up to which two pictures show the same surface."""
SMOOTHED = 1.0
"""Sigma in pixels of the smoothing of both pictures; more hides fine flicker."""
PAIRS = 12
"""Pairs of successive views that are compared; more are more exact and take longer."""


def measure_spiral_flicker(scene: Scene) -> dict[str, float]:
    """Flicker of the spiral round a still moment of the clip, with the scene's detail and by the
    field alone, in levels of 255. Movers are left out."""
    clip = Clip(scene.cameras, scene.depth, scene.background.meshes.clearance)
    cameras, times = parse_path("spiral").build(clip, (len(scene.cameras) - 1) / 2)
    chosen = np.linspace(0, len(cameras) - 2, min(PAIRS, len(cameras) - 1)).round().astype(int)
    still = replace(scene, moving=None)
    pairs = [(cameras[[i, i + 1]], times[i]) for i in chosen.tolist()]
    figures = {"flicker": still, "flicker_field": replace(still, detail=None)}
    return {name: _average(shown, pairs) for name, shown in figures.items()}


def _average(scene: Scene, pairs: Sequence[tuple[Cameras, float]]) -> float:
    """Root mean square over pairs of views."""
    return float(np.sqrt(np.mean([measure_flicker(scene, *pair) ** 2 for pair in pairs])))


def measure_flicker(scene: Scene, pair: Cameras, time: float) -> float:
    """Root mean square change, in levels of 255, of surface points between two views.

    The first picture is read, bilinearly, at the place of each pixel's surface point in it. Both are
    smoothed before: reading between pixels blurs, and fine texture would count as flicker. Pixels
    whose surface the first picture does not show, or that are filled in, do not count.

    Args:
        pair: two cameras.
        time: of both views, in frames of the clip.
    """
    first, second = (scene.render(pair[i], time) for i in (0, 1))
    at, depth = _carry(pair, second.depth)
    there = cv2.remap(first.depth.astype(np.float32), *at, cv2.INTER_NEAREST, borderValue=np.inf)
    inside = cv2.remap(first.covered.astype(np.uint8), *at, cv2.INTER_NEAREST) > 0
    same: Bool[np.ndarray, "H W"] = np.abs(there - depth) < SAME_SURFACE * depth
    counts = second.covered & inside & same
    change = _read(_smooth(first.rgb), at) - _smooth(second.rgb)
    return float(np.sqrt((change[counts] ** 2).mean())) if counts.any() else 0.0


def _carry(
    pair: Cameras, depth: Float[np.ndarray, "H W"]
) -> tuple[tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]], Float[np.ndarray, "H W"]]:
    """The second camera's pixels, with their depth, in the first camera: x and y in OpenCV's
    pixels, whose centres are whole numbers, and depth."""
    rows, columns = np.indices(depth.shape)
    xy = torch.from_numpy(np.stack([columns, rows], -1).reshape(-1, 2) + 0.5)
    finite = np.where(np.isfinite(depth), depth, 1).astype(np.float64)
    points = pair[1].unproject(xy[None], torch.from_numpy(finite).reshape(1, -1))[0]
    pixels, there = pair[0].project(points)
    x, y = (pixels[0].numpy().astype(np.float32) - 0.5).reshape(*depth.shape, 2).transpose(2, 0, 1)
    return (np.ascontiguousarray(x), np.ascontiguousarray(y)), there[0].numpy().reshape(depth.shape)


def _smooth(picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    return cv2.GaussianBlur(picture.astype(np.float32), (0, 0), SMOOTHED)


def _read(
    picture: Float[np.ndarray, "H W 3"],
    at: tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]],
) -> Float[np.ndarray, "H W 3"]:
    return cv2.remap(picture, *at, cv2.INTER_LINEAR)
