"""Drawing over frames: tracks, meshes, masks, and depth in colours."""

import colorsys
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from models.clip import choose_evenly
from models.tracks import PointTracks

Frame = UInt8[ndarray, "H W 3"]
_NUM_COLORS = 24
# Bits after the binary point of the coordinates given to OpenCV.
_SHIFT = 4
# Pixels; OpenCV's fixed-point drawing overflows beyond.
_FAR_OUTSIDE = 1e5
# Depths of a frame that take part in the range of a clip; more change its percentiles little.
_SAMPLED_DEPTHS = 10_000


def draw_tracks(
    frames: Iterable[Frame],
    tracks: PointTracks,
    *,
    groups: Int[ndarray, "N"] | None = None,
    tail: int = 8,
    max_tracks: int = 3000,
) -> Iterator[Frame]:
    """Copies of the frames with each visible track as a dot and a line through its last positions.

    Args:
        groups: number of the layer or object of each track, which decides on the colour; without
            groups each track has its own colour.
        tail: frames that the line goes back.
        max_tracks: draw at most this number of tracks, evenly chosen.
    """
    chosen = choose_evenly(tracks.num_tracks, max_tracks)
    points = _fix_points(tracks.xy[:, chosen])
    visible = np.asarray(tracks.visible)[:, chosen]
    # factors prime to the number of colours: neighbouring numbers get unlike colours
    color = (chosen * 7 if groups is None else np.asarray(groups)[chosen] * 5) % _NUM_COLORS
    return _draw_frames(
        frames, PointTracks(points, visible, tracks.width, tracks.height), color, tail
    )


def _draw_frames(
    frames: Iterable[Frame], tracks: PointTracks, color: Int[ndarray, "n"], tail: int
) -> Iterator[Frame]:
    """The generator of ``draw_tracks``; ``xy`` of the tracks are OpenCV's drawing coordinates."""
    points = tracks.xy
    visible = tracks.visible
    for t, frame in enumerate(frames):
        canvas = np.ascontiguousarray(frame).copy()
        for c in np.unique(color[visible[t]]):
            drawn = visible[t] & (color == c)
            # the first frame has no line behind it
            times = range(max(1, t - tail + 1), t + 1)
            segments = [_connect(points, visible, drawn, s) for s in times]
            _draw_color(canvas, points[t, drawn], segments, _make_palette()[c].tolist())
        yield canvas


def _draw_color(canvas: Frame, dots: ndarray, segments: list[ndarray], rgb: list[int]) -> None:
    """Draws the dots and lines of a colour into the canvas."""
    if segments:
        lines = list(np.concatenate(segments))
        cv2.polylines(canvas, lines, False, rgb, 1, cv2.LINE_AA, _SHIFT)
    radius = 3 << (_SHIFT - 1)
    for x, y in dots:
        cv2.circle(canvas, (int(x), int(y)), radius, rgb, -1, cv2.LINE_AA, _SHIFT)


def _connect(
    points: Int[ndarray, "F n 2"], visible: Bool[ndarray, "F n"], drawn: ndarray, t: int
) -> Int[ndarray, "M 2 2"]:
    """Lines from frame t - 1 to t of the drawn tracks that are visible in both."""
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
    """A copy of the frame with the edges of a mesh as thin lines; edges of vertices that are not
    finite are left out."""
    faces = np.asarray(faces)
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    # an edge of two faces is drawn once; whole numbers are sorted much faster than pairs
    low, high = np.sort(sides.astype(np.int64), axis=1).T
    edges = np.stack(np.divmod(np.unique(low * len(xy) + high), len(xy)), 1)
    edges = edges[np.isfinite(xy).all(-1)[edges].all(-1)]
    canvas = np.ascontiguousarray(frame).copy()
    cv2.polylines(canvas, list(_fix_points(xy)[edges]), False, color, 1, cv2.LINE_AA, _SHIFT)
    return cv2.addWeighted(canvas, opacity, np.ascontiguousarray(frame), 1 - opacity, 0)


def _fix_points(xy: Float[ndarray, "*N 2"]) -> Int[ndarray, "*N 2"]:
    """OpenCV's drawing coordinates: integers with _SHIFT bits after the point."""
    # OpenCV's pixel centres lie at whole numbers, those of this package at halves
    finite = np.nan_to_num(np.asarray(xy, np.float64), nan=-_FAR_OUTSIDE) - 0.5
    return np.round(np.clip(finite, -_FAR_OUTSIDE, _FAR_OUTSIDE) * (1 << _SHIFT)).astype(np.int32)


def _make_palette() -> UInt8[ndarray, "C 3"]:
    """Colours of evenly spaced hues, equal in saturation and value."""
    hues = np.arange(_NUM_COLORS) / _NUM_COLORS
    rgb = np.array([colorsys.hsv_to_rgb(hue, 0.8, 1.0) for hue in hues])
    return (rgb * 255).astype(np.uint8)


def measure_depth_range(
    depths: Iterable[Float[ndarray, "..."]], low: float = 2.0, high: float = 98.0
) -> tuple[float, float]:
    """Near and far of a whole clip, so that the colours of depth do not flicker.

    Args:
        depths: of any number of frames; each counts by some ten thousand pixels at most.
        low, high: percentiles of the positive finite depths.

    Returns:
        Near and far; (1, 2) without any depth.
    """
    samples = [np.ravel(depth)[:: max(1, np.size(depth) // _SAMPLED_DEPTHS)] for depth in depths]
    values = np.concatenate(samples) if samples else np.zeros(0)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 1.0, 2.0
    near, far = (float(v) for v in np.percentile(values, [low, high]))
    # equal depths still give a range
    return near, max(far, near * 1.001)


def colorize_depth(depth: Float[ndarray, "H W"], near: float, far: float) -> Frame:
    """Inverse depth in the turbo colours, red near and blue far; black if not positive and
    finite."""
    valid = np.isfinite(depth) & (depth > 0)
    inverse = 1 / np.where(valid, depth, 1)
    share = np.clip((inverse - 1 / far) / max(1 / near - 1 / far, 1e-12), 0, 1)
    bgr = cv2.applyColorMap(np.round(share * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.where(valid[..., None], bgr[..., ::-1], np.uint8(0))


def draw_mask(
    frame: Frame,
    mask: Bool[ndarray, "H W"],
    *,
    color: tuple[int, int, int] = (255, 60, 60),
    opacity: float = 0.5,
) -> Frame:
    """A copy of the frame with the mask's pixels tinted."""
    tinted = np.round(frame * (1 - opacity) + np.asarray(color) * opacity).astype(np.uint8)
    return np.where(mask[..., None], tinted, frame)
