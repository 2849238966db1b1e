"""Votes of long tracks on which parts of an image move."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float

from models.motion.options import MotionOptions
from models.sfm import StaticScene
from models.tracks import PointTracks

# Share of its observations that agree with the scene above which a track votes for static, and
# below which for moving.
_STATIC_SHARE = 0.9
_MOVING_SHARE = 0.5
# Standard deviation in pixels of the reach of a static track's vote, and a factor that makes the
# vote nearly certain within 2 pixels.
_STATIC_REACH = 2.0
_STATIC_GAIN = 12.0
# Standard deviation of the reach over which tracks must mostly move: pixels in an image whose
# longer side is the reference size.
_CROWD_REACH = 5.0
_REFERENCE_SIZE = 480
# Share of moving tracks from which a crowd votes for moving, and the range up to a full vote.
_MAJORITY = 0.6
_MAJORITY_RANGE = 0.3
# Moving tracks within the reach that make a full vote.
_CROWD_SIZE = 3
# Ratio of votes for moving on pixels that certainly move to those on pixels that certainly do not,
# from which such votes count, and the log-odds of a vote for each unit of the ratio's logarithm
# above.
_RELIABLE = 10.0
_MOVING_TRACK_WEIGHT = 0.7


def draw_track_votes(
    tracks: PointTracks,
    scene: StaticScene,
    size: tuple[int, int],
    times: Sequence[int],
    options: MotionOptions = MotionOptions(),
) -> Float[np.ndarray, "T h w"]:
    """Votes of long tracks around them: -1 static, 1 moving, 0 unknown.

    A track is judged over its whole life, in many more frames than flow spans, and at full
    resolution: tracks detect a mover that for a while moves like a nearer static point. A single
    track that agrees with no point may have slipped at an edge; if most tracks around agree with no
    point, they move.

    Args:
        scene: with agreement of the same tracks.
        size: height and width of the images of votes.
        times: frames that get an image.
    """
    height, width = size
    observations = np.maximum(tracks.visible.sum(0), 1)
    share = scene.points.agrees.sum(0) / observations
    is_long = observations >= min(options.track_length, len(tracks))
    kinds = is_long & (share > _STATIC_SHARE), is_long & (share < _MOVING_SHARE)
    scale = np.array([width / tracks.width, height / tracks.height])
    crowd = _CROWD_REACH * max(height, width) / _REFERENCE_SIZE
    votes = np.zeros((len(times), height, width), np.float32)
    for vote, t in zip(votes, times, strict=True):
        points = (tracks.xy[t, tracks.visible[t] & kind] * scale for kind in kinds)
        vote[:] = _vote(np.stack([sum_at_points(xy, size) for xy in points]), crowd)
    return votes


def sum_at_points(
    xy: Float[np.ndarray, "n 2"], size: tuple[int, int], values: Float[np.ndarray, "n"] | float = 1
) -> Float[np.ndarray, "h w"]:
    """Sum of the values of the points in each pixel of an image of some height and width; their
    number if no values are given."""
    height, width = size
    total = np.zeros(size, np.float32)
    x, y = np.clip(xy.astype(int), 0, [width - 1, height - 1]).T
    np.add.at(total, (y, x), values)
    return total


def _vote(counts: Float[np.ndarray, "2 h w"], crowd: float) -> Float[np.ndarray, "h w"]:
    """Votes from the number of static and of moving tracks in each pixel.

    Args:
        crowd: standard deviation in pixels of the reach over which tracks must mostly move.
    """
    near = cv2.GaussianBlur(counts[0], (0, 0), _STATIC_REACH)
    static = -np.minimum(near * _STATIC_GAIN, 1)
    around = [cv2.GaussianBlur(count, (0, 0), crowd) for count in counts]
    share = around[1] / (around[0] + around[1] + 1e-9)
    majority = np.clip((share - _MAJORITY) / _MAJORITY_RANGE, 0, 1)
    # 4 pi crowd^2 pixels are the effective area of the blur.
    enough = np.minimum(around[1] * 4 * np.pi * crowd**2 / _CROWD_SIZE, 1)
    return static + (1 + static) * majority * enough


def weigh_moving_tracks(
    votes: Float[np.ndarray, "F h w"],
    moving: Bool[np.ndarray, "F h w"],
    static: Bool[np.ndarray, "F h w"],
) -> Float[np.ndarray, "F h w"]:
    """Log-odds that votes for moving add; their weight is how well they separate the pixels of
    which flow is certain in this clip.

    Votes alone find no mover: tracks slip at edges, and all tracks slip under poor cameras.
    """
    votes = np.maximum(votes, 0)
    usual = votes[static].mean() if static.any() else 1.0
    ratio = (votes[moving].mean() + 1e-4) / (usual + 1e-4)
    return _MOVING_TRACK_WEIGHT * max(0.0, np.log(ratio / _RELIABLE)) * votes
