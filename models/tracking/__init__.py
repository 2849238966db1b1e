"""Frames -> 2D tracks.

In reading order:

- ``options``: settings that a person may tune.
- ``optical_flow``: dense flow between two frames.
- ``lucas_kanade``: a tracker from frame to frame.
- ``flow_fields``: the flow of many pairs of frames, computed ahead and cached.
- ``sightings``: tracks as lists of observations.
- ``dis_flow``: a tracker by chains of dense flow.
- ``names``: trackers by name.
- ``seeding``: where and in which order new tracks start; thinning.
- ``growing``: tracks that cover every frame.
- ``returns``: places that come back into view after an absence.
- ``still_masks``: given masks that mark the still part of the scene.
"""

from models.learned import Tracker
from models.tracking.growing import grow_tracks, track_points
from models.tracking.names import (
    TRACKERS,
    find_tracker_file,
    open_tracker,
    register_tracker,
)
from models.tracking.options import TrackingOptions
from models.tracking.returns import join_returns
from models.tracking.seeding import half_life, thin
from models.tracking.still_masks import mark_still_part

__all__ = [
    "TRACKERS",
    "Tracker",
    "TrackingOptions",
    "find_tracker_file",
    "grow_tracks",
    "half_life",
    "join_returns",
    "mark_still_part",
    "open_tracker",
    "register_tracker",
    "thin",
    "track_points",
]
