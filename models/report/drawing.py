"""Drawn over frames to judge a run by: tracks, meshes, masks, and depth in colours."""

import colorsys
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

Frame = UInt8[ndarray, "H W 3"]
_NUM_COLORS = 24
_SHIFT = 4
"""Bits after the binary point of the coordinates given to OpenCV."""
_FAR_OUTSIDE = 1e5
"""Pixels; OpenCV's fixed-point drawing overflows beyond."""


def draw_tracks(
    frames: Iterable[Frame],
    xy: Float[ndarray, "F N 2"],
    visible: Bool[ndarray, "F N"],
    *,
    groups: Int[ndarray, "N"] | None = None,
    tail: int = 8,
    max_tracks: int = 3000,
) -> Iterator[Frame]:
    """Copies of the frames with each visible track as a dot and the way it came over the last
    ``tail`` frames.

    Args:
        xy: pixels, the centre of the top-left one at (0.5, 0.5).
        groups: number of the layer or object of each track, which gives its colour; without it each
            has its own.
        max_tracks: draw at most so many, evenly chosen.
    """
    chosen = np.unique(np.linspace(0, xy.shape[1] - 1, min(max_tracks, xy.shape[1])).astype(int))
    points = _fixed_point(xy[:, chosen])
    visible = np.asarray(visible)[:, chosen]
    color = (chosen * 7 if groups is None else np.asarray(groups)[chosen] * 5) % _NUM_COLORS
    return _drawn(frames, points, visible, color, tail)


def _drawn(
    frames: Iterable[Frame],
    points: Int[ndarray, "F n 2"],
    visible: Bool[ndarray, "F n"],
    color: ndarray,
    tail: int,
) -> Iterator[Frame]:
    for t, frame in enumerate(frames):
        canvas = np.ascontiguousarray(frame).copy()
        for c in np.unique(color[visible[t]]):
            drawn = visible[t] & (color == c)
            segments = [
                _segments(points, visible, drawn, s) for s in range(max(1, t - tail + 1), t + 1)
            ]
            rgb = _palette()[c].tolist()
            if segments:
                cv2.polylines(
                    canvas, list(np.concatenate(segments)), False, rgb, 1, cv2.LINE_AA, _SHIFT
                )
            for x, y in points[t, drawn]:
                cv2.circle(
                    canvas, (int(x), int(y)), 3 << (_SHIFT - 1), rgb, -1, cv2.LINE_AA, _SHIFT
                )
        yield canvas


def _segments(points: ndarray, visible: ndarray, drawn: ndarray, t: int) -> Int[ndarray, "M 2 2"]:
    """The way from frame t - 1 to t of the tracks drawn, where seen in both."""
    both = drawn & visible[t] & visible[t - 1]
    return np.stack([points[t - 1, both], points[t, both]], 1)


def draw_mesh(
    frame: Frame,
    xy: Float[ndarray, "V 2"],
    faces: Int[ndarray, "T 3"],
    *,
    color: tuple[int, int, int] = (80, 255, 120),
    opacity: float = 0.6,
) -> Frame:
    """A copy of the frame with the edges of a mesh as thin lines; vertices that are not finite are
    left out."""
    faces = np.asarray(faces)
    edges = np.unique(
        np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1),
        axis=0,
    )
    edges = edges[np.isfinite(xy).all(-1)[edges].all(-1)]
    canvas = np.ascontiguousarray(frame).copy()
    cv2.polylines(canvas, list(_fixed_point(xy)[edges]), False, color, 1, cv2.LINE_AA, _SHIFT)
    return cv2.addWeighted(canvas, opacity, np.ascontiguousarray(frame), 1 - opacity, 0)


def _fixed_point(xy: Float[ndarray, "*N 2"]) -> Int[ndarray, "*N 2"]:
    """OpenCV's drawing coordinates: integers with _SHIFT bits after the point, pixel centres at
    whole numbers."""
    finite = (
        np.nan_to_num(np.asarray(xy, np.float64), nan=-_FAR_OUTSIDE) - 0.5
    )  # ours are at halves
    return np.round(np.clip(finite, -_FAR_OUTSIDE, _FAR_OUTSIDE) * (1 << _SHIFT)).astype(np.int32)


def _palette() -> UInt8[ndarray, "C 3"]:
    """Colours of evenly spaced hues, equal in saturation and value."""
    hues = np.arange(_NUM_COLORS) / _NUM_COLORS
    rgb = np.array([colorsys.hsv_to_rgb(hue, 0.8, 1.0) for hue in hues])
    return (rgb * 255).astype(np.uint8)


def depth_range(
    depths: Iterable[Float[ndarray, "..."]], low: float = 2.0, high: float = 98.0
) -> tuple[float, float]:
    """Near and far of a whole clip: percentiles of its positive finite depths, so that colours do
    not flicker.

    Each frame counts by at most some ten thousand pixels. With no depth at all: (1, 2).
    """
    samples = [np.ravel(depth)[:: max(1, np.size(depth) // 10_000)] for depth in depths]
    values = np.concatenate(samples) if samples else np.zeros(0)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 1.0, 2.0
    near, far = (float(v) for v in np.percentile(values, [low, high]))
    return near, max(far, near * 1.001)


def colorize_depth(depth: Float[ndarray, "H W"], near: float, far: float) -> Frame:
    """Inverse depth in the turbo colours, red near and blue far; black where there is none (not
    positive, NaN, Inf)."""
    valid = np.isfinite(depth) & (depth > 0)
    inverse = 1 / np.where(valid, depth, 1)
    share = np.clip((inverse - 1 / far) / max(1 / near - 1 / far, 1e-12), 0, 1)
    bgr = cv2.applyColorMap(np.round(share * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.where(valid[..., None], bgr[..., ::-1], np.uint8(0))


def mask_overlay(
    frame: Frame,
    mask: Bool[ndarray, "H W"],
    *,
    color: tuple[int, int, int] = (255, 60, 60),
    opacity: float = 0.5,
) -> Frame:
    """A copy of the frame with the mask's pixels tinted."""
    tinted = np.round(frame * (1 - opacity) + np.asarray(color) * opacity).astype(np.uint8)
    return np.where(mask[..., None], tinted, frame)
