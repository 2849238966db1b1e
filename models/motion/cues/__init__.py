"""Log-odds that a pixel moves, one file for each cue.

- ``flow_odds``: optical flow that no static point explains.
- ``track_votes``: long tracks that agree, or do not agree, with a static point.
- ``track_life``: how long tracks last.
- ``colour_odds``: colours of movers against those of their surroundings.
- ``background_odds``: comparison with the background that other frames see, plain and in shadow.
- ``saliency_odds``: the outline that a saliency network draws round what moves.
"""

from models.motion.cues.background_odds import compare_with_background
from models.motion.cues.colour_odds import estimate_colour_odds
from models.motion.cues.flow_odds import estimate_motion_odds
from models.motion.cues.saliency_odds import (
    Appearance,
    Saliency,
    estimate_saliency_odds,
)
from models.motion.cues.track_life import estimate_life_odds
from models.motion.cues.track_maps import TrackMaps
from models.motion.cues.track_votes import sum_at_points, weigh_moving_tracks

__all__ = [
    "Appearance",
    "Saliency",
    "TrackMaps",
    "compare_with_background",
    "estimate_colour_odds",
    "estimate_life_odds",
    "estimate_motion_odds",
    "estimate_saliency_odds",
    "sum_at_points",
    "weigh_moving_tracks",
]
