"""Lucas-Kanade tracker: from frame to frame, started from coarse dense flow.

Source: Bouguet, "Pyramidal implementation of the affine Lucas Kanade feature tracker", 2001, as in
OpenCV. It works on luma: colour helps on rendered frames, but in real video it is mostly noise and
shortens tracks.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.tracking.optical_flow import estimate_coarse_flow, sample_field, to_grey

# Side of the patch in pixels.
_WINDOW = 15
# Forward-backward error in pixels beyond which a track ends.
_MAX_ERROR = 1.0
# Pyramid levels of the second try, from the full size down.
_MAX_LEVELS = 4
# Iterations, and the step in pixels, at which the search for a patch stops.
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)


def lucas_kanade(
    frames: UInt8[np.ndarray, "F H W 3"], queries: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Follows queries [t, x, y] forwards and backwards, until the forward-backward check fails.

    Beyond its end a point moves with the dense flow, as a guess, and is not visible again.
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
    """Carries points in one direction of time, and writes into xy and visible."""
    step = order.step
    corner = np.array(frames.shape[2:0:-1]) - np.float32(0.5)
    following = to_grey(frames[order[0]])
    for t in order[:-1]:
        current = following
        following = to_grey(frames[t + step])
        begun = np.flatnonzero(start <= t if step > 0 else start >= t)
        if len(begun) == 0:
            continue
        guess = xy[t, begun] + sample_field(estimate_coarse_flow(current, following), xy[t, begun])
        # Ended tracks only drift with the dense flow.
        alive = visible[t, begun]
        moved, good = _step(current, following, xy[t, begun[alive]], guess[alive])
        xy[t + step, begun] = np.clip(guess, 0.5, corner)
        xy[t + step, begun[alive][good]] = moved[good]
        visible[t + step, begun[alive]] = good


def _step(
    a: np.ndarray, b: np.ndarray, xy: np.ndarray, guess: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in b of points in a, and True where the forward-backward check holds.

    Most points need only the finest level from the guess, a third of the work. The others go
    through the pyramid.
    """
    if len(xy) == 0:
        return xy, np.zeros(0, bool)
    moved, good = _follow_and_check(a, b, xy, guess, 0)
    # The guess was off by more than a window: search from coarse to fine.
    rest = np.flatnonzero(~good)
    if len(rest):
        levels = max(1, min(_MAX_LEVELS, int(np.log2(min(a.shape) / _WINDOW))))
        moved[rest], good[rest] = _follow_and_check(a, b, xy[rest], xy[rest], levels)
    return moved, good


def _follow_and_check(
    a: np.ndarray, b: np.ndarray, xy: np.ndarray, guess: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    """``_step`` through ``levels`` levels above the full size."""
    settings = {
        "winSize": (_WINDOW, _WINDOW),
        "criteria": _STOP,
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
    }
    # OpenCV puts (0, 0) at the centre of the top-left pixel.
    source = xy - np.float32(0.5)
    start = (guess - np.float32(0.5)).astype(np.float32)
    there, found, _ = cv2.calcOpticalFlowPyrLK(a, b, source, start, maxLevel=levels, **settings)
    back, returned, _ = cv2.calcOpticalFlowPyrLK(b, a, there, source.copy(), maxLevel=0, **settings)
    good = (found[:, 0] > 0) & (returned[:, 0] > 0)
    good &= np.linalg.norm(back - source, axis=-1) < _MAX_ERROR
    good &= ((there >= 0) & (there <= np.array(a.shape[::-1]) - 1)).all(-1)
    return there + np.float32(0.5), good
