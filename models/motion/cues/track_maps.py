"""What long tracks tell of the pixels around them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from models.motion.cues.track_life import draw_track_life
from models.motion.cues.track_votes import draw_track_votes
from models.motion.options import MotionOptions
from models.sfm import StaticScene
from models.tracks import PointTracks


@dataclass(frozen=True)
class TrackMaps:
    """Values of the tracks around each pixel."""

    votes: Float[np.ndarray, "T h w"]
    """From -1 (static) to 1 (moving)."""
    life: Float[np.ndarray, "T h w"]
    """Logarithm of the frames in which the tracks are visible; NaN far from tracks."""

    @staticmethod
    def draw(
        tracks: PointTracks,
        scene: StaticScene,
        size: tuple[int, int],
        times: Sequence[int],
        options: MotionOptions = MotionOptions(),
    ) -> "TrackMaps":
        """Maps of some frames.

        Args:
            scene: with agreement of the same tracks.
            size: height and width of the maps.
        """
        votes = draw_track_votes(tracks, scene, size, times, options)
        return TrackMaps(votes, draw_track_life(tracks, size, times))
