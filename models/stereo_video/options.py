"""Options of stereoscopic videos."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StereoVideoOptions:
    """Where the eyes are and where they look."""

    separation: float = 0.03
    """Distance between the eyes as a share of the depth of convergence; a larger value deepens the
    scene and tires the eyes. People have 0.03 at two metres."""
    max_disparity: float = 0.02
    """Largest shift of a point between the eyes beside the plane of the screen, as a share of the
    picture's width; the eyes come nearer to each other where it would be passed."""
    convergence: Literal["middle", "movers"] = "middle"
    """What is shown in the plane of the screen: the middle of the picture, or the movers."""
    sampled_views: int = 8
    """Views of the video whose depth is measured for the two; more follow a long path better."""
    tag: bool = True
    """Mark the files as stereoscopic, and VR180 as spherical."""
