"""Options of stereoscopic videos."""

from dataclasses import dataclass
from typing import Literal

from models.run import InputError


@dataclass(frozen=True)
class StereoVideoOptions:
    """Where the eyes are and where they look."""

    separation: float = 0.03
    """Distance between the eyes as a share of the depth of convergence; a larger value deepens the
    scene and tires the eyes. For people, whose eyes are 65 mm apart, it is 0.03 at two metres."""
    max_disparity: float = 0.02
    """Largest disparity relative to the plane of the screen, as a share of the picture's width. A
    scene with more disparity gets a smaller separation."""
    convergence: Literal["middle", "movers"] = "middle"
    """What is shown in the plane of the screen: the middle of the picture, or the movers."""
    sampled_views: int = 4
    """Views of the video whose depth is measured for the two; more follow a long path better."""
    tag: bool = True
    """Mark the files as stereoscopic, and VR180 as spherical."""

    def check(self) -> None:
        """Refuses values that cannot be used.

        Raises:
            InputError: a value is out of range.
        """
        sizes = self.separation, self.max_disparity
        if not all(0 < size < 1 for size in sizes) or self.sampled_views < 1:
            raise InputError(
                "--eyes.separation and --eyes.max_disparity must lie between 0 and 1, and "
                "--eyes.sampled_views must be at least 1"
            )
