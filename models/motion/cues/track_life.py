"""How long tracks last: points on a mover last, points on water, in gaps and at outlines do not."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float

from models.motion.cues.track_votes import sum_at_points
from models.tracks import PointTracks

# Standard deviation of the reach of a track: pixels in an image whose longer side is the reference
# size.
_REACH = 6.0
_REFERENCE_SIZE = 480
# Share of a track in a pixel below which no track is near.
_NEAR = 1e-4
# Quantile of the life of tracks on movers that counts as usual.
_USUAL = 0.6
# Lives shorter than the usual by more than this factor, as a logarithm, tell against motion, and
# the difference of logarithms up to which they do so more and more.
_MARGIN = 0.7
_RANGE = 2.0


def draw_track_life(
    tracks: PointTracks, size: tuple[int, int], times: Sequence[int]
) -> Float[np.ndarray, "T h w"]:
    """Mean logarithm of the number of frames in which the tracks around each pixel are visible; NaN
    far from tracks.

    Args:
        size: height and width of the images.
        times: frames that get an image.
    """
    height, width = size
    life = np.log(np.maximum(tracks.visible.sum(0), 1)).astype(np.float32)
    scale = np.array([width / tracks.width, height / tracks.height])
    reach = _REACH * max(size) / _REFERENCE_SIZE
    out = np.full((len(times), height, width), np.nan, np.float32)
    for image, t in zip(out, times, strict=True):
        own = tracks.visible[t]
        count, total = (
            cv2.GaussianBlur(sum_at_points(tracks.xy[t, own] * scale, size, values), (0, 0), reach)
            for values in (1.0, life[own])
        )
        np.divide(total, count, out=image, where=count > _NEAR)
    return out


def estimate_life_odds(
    life: Float[np.ndarray, "F h w"], probability: Float[np.ndarray, "F h w"]
) -> Float[np.ndarray, "F h w"]:
    """Log-odds, 0 or less, of pixels whose tracks are much shorter than those of movers.

    Args:
        life: see ``draw_track_life``.
        probability: of motion, found so far.
    """
    known = np.isfinite(life)
    moving = life[known & (probability > 0.5)]
    if not len(moving):
        return np.zeros(life.shape, np.float32)
    lack = np.quantile(moving, _USUAL) - life - _MARGIN
    return -np.where(known, np.clip(lack, 0, _RANGE), 0).astype(np.float32)
