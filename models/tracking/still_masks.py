"""Given masks that mark the still part of the scene instead of what moves."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.tracking.lucas_kanade import lucas_kanade
from models.tracking.optical_flow import to_grey

# Share of the picture, and of its border, that inverted masks cover at least. The still part of a
# scene reaches to the border; a subject as large seldom fills it.
_LEAST_SHARE = 0.5
_LEAST_BORDER = 0.75
# Pairs of frames that are compared, and the frames between the two of a pair: a part of the clip,
# and at most so many.
_PAIRS = 6
_PART = 4
_MOST_FRAMES = 10
# Most corners of a frame, and their least distance in pixels.
_CORNERS = 400
_DISTANCE = 5
# Points that a pair needs, and the pixels that they must move: all that is at rest agrees.
_LEAST_POINTS = 40
_LEAST_MOTION = 1.5
# Pixels up to which a point agrees with a still scene, and the share of points that must agree.
_TOLERANCE = 1.0
_AGREEING = 0.75


def mark_still_part(frames: UInt8[np.ndarray, "F H W 3"], masks: Bool[np.ndarray, "F H W"]) -> bool:
    """Whether masks cover most of the picture and its border, and the points in them move as those
    of a still scene do."""
    border = np.concatenate([masks[:, [0, -1]].ravel(), masks[:, :, [0, -1]].ravel()])
    if masks.mean() < _LEAST_SHARE or border.mean() < _LEAST_BORDER:
        return False
    reach = min(max(1, len(frames) // _PART), _MOST_FRAMES)
    starts = np.unique(np.linspace(0, len(frames) - 1 - reach, _PAIRS).astype(int))
    shares = [_measure_agreement(frames, masks[t], t, reach) for t in starts]
    known = [share for share in shares if share is not None]
    return bool(known) and float(np.median(known)) >= _AGREEING


def _measure_agreement(
    frames: UInt8[np.ndarray, "F H W 3"], mask: Bool[np.ndarray, "H W"], t: int, reach: int
) -> float | None:
    """Share of the masked points of a frame that agree with one still scene; None where too few
    points move."""
    corners = cv2.goodFeaturesToTrack(
        to_grey(frames[t]), _CORNERS, 0.01, _DISTANCE, mask=mask.astype(np.uint8)
    )
    if corners is None:
        return None
    begin = corners[:, 0] + np.float32(0.5)
    queries = np.concatenate([np.zeros((len(begin), 1), np.float32), begin], 1)
    xy, visible = lucas_kanade(frames[t : t + reach + 1], queries)
    return _find_agreeing(xy[0][visible[-1]], xy[-1][visible[-1]])


def _find_agreeing(
    before: Float[np.ndarray, "n 2"], after: Float[np.ndarray, "n 2"]
) -> float | None:
    """Share of pairs of points that agree with one epipolar geometry; None for points that tell
    nothing."""
    if len(before) < _LEAST_POINTS:
        return None
    if np.median(np.linalg.norm(after - before, axis=1)) < _LEAST_MOTION:
        return None
    _, agrees = cv2.findFundamentalMat(before, after, cv2.FM_RANSAC, _TOLERANCE, 0.99, 500)
    return 0.0 if agrees is None else float(agrees.mean())
