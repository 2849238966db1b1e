"""The tracker built in: Lucas-Kanade from frame to frame, started from a quick dense flow.

Source: Bouguet, "Pyramidal implementation of the affine Lucas Kanade feature tracker", 2001
(OpenCV's). On luma: colour helps on rendered frames, but in real video it is mostly noise and
shortens tracks.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.tracking.optical_flow import coarse_flow, grey, sample

WINDOW = 15
"""Side of the patch in pixels."""
FORWARD_BACKWARD_LIMIT = 1.0
"""A step whose way back misses its start by more than this, in pixels, ends the track."""
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)


def lucas_kanade(
    frames: UInt8[np.ndarray, "F H W 3"], queries: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Follows queries [t, x, y] both ways in time; a track ends where the way back does not agree.

    Past its end a point drifts with the dense flow, as a guess at where it is, and is not visible
    again.
    """
    num_frames = len(frames)
    num_queries = len(queries)
    start = queries[:, 0].astype(np.int64)
    xy = np.repeat(queries[None, :, 1:], num_frames, 0).astype(np.float32)
    visible = np.zeros((num_frames, num_queries), bool)
    visible[start, np.arange(num_queries)] = True
    for order in (range(num_frames), range(num_frames - 1, -1, -1)):
        _sweep(frames, order, start, xy, visible)
    return xy, visible


def _sweep(
    frames: np.ndarray, order: range, start: np.ndarray, xy: np.ndarray, visible: np.ndarray
) -> None:
    """Carries points along one direction of time, writing into xy and visible."""
    step = order.step
    corner = np.array(frames.shape[2:0:-1]) - np.float32(0.5)
    following = grey(frames[order[0]])
    for t in order[:-1]:
        current = following
        following = grey(frames[t + step])
        begun = np.flatnonzero(start <= t if step > 0 else start >= t)
        if len(begun) == 0:
            continue
        guess = xy[t, begun] + sample(coarse_flow(current, following), xy[t, begun])
        alive = visible[t, begun]
        moved, good = _step(current, following, xy[t, begun[alive]], guess[alive])
        xy[t + step, begun] = np.clip(guess, 0.5, corner)
        xy[t + step, begun[alive][good]] = moved[good]
        visible[t + step, begun[alive]] = good


def _step(
    a: np.ndarray, b: np.ndarray, xy: np.ndarray, guess: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One frame onwards: positions in b of points in a, and whether the way back agrees.

    Most points need only the finest level from the guess, a third of the work; the rest go through
    the pyramid.
    """
    if len(xy) == 0:
        return xy, np.zeros(0, bool)
    moved, good = _there_and_back(a, b, xy, guess, 0)
    rest = np.flatnonzero(~good)
    if len(rest):
        levels = max(1, min(4, int(np.log2(min(a.shape) / WINDOW))))
        moved[rest], good[rest] = _there_and_back(a, b, xy[rest], xy[rest], levels)
    return moved, good


def _there_and_back(
    a: np.ndarray, b: np.ndarray, xy: np.ndarray, guess: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    settings = {
        "winSize": (WINDOW, WINDOW),
        "criteria": _STOP,
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
    }
    source = xy - np.float32(0.5)  # OpenCV puts (0, 0) at the centre of the top-left pixel
    start = (guess - np.float32(0.5)).astype(np.float32)
    there, found, _ = cv2.calcOpticalFlowPyrLK(a, b, source, start, maxLevel=levels, **settings)
    back, returned, _ = cv2.calcOpticalFlowPyrLK(b, a, there, source.copy(), maxLevel=0, **settings)
    good = (found[:, 0] > 0) & (returned[:, 0] > 0)
    good &= np.linalg.norm(back - source, axis=-1) < FORWARD_BACKWARD_LIMIT
    good &= ((there >= 0) & (there <= np.array(a.shape[::-1]) - 1)).all(-1)
    return there + np.float32(0.5), good
