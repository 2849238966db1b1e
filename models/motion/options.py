"""Options of the masks made from motion, and of the static scene without movers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MotionOptions:
    """Thresholds for movers, and sizes of the parts of a clip that are worked on at once."""

    work_size: int = 480
    """Longer side in pixels of the images on which flow is computed. Larger images give finer
    masks; time and memory grow with their area."""
    whole_frames: int = 100
    """Frames of the longest clip that is worked on whole. Memory grows by some 14 MB a frame."""
    window_frames: int = 52
    """Frames of a longer clip whose masks are made at once. Memory grows with their number."""
    window_margin: int = 12
    """Frames to either side of a window whose evidence counts too."""
    coverage: float = 0.7
    """Share of the image over which tracks must agree with a scene. Below this share another scene
    is looked for: the given scene may follow a mover."""
    track_length: int = 6
    """Frames that a track must last for its vote on motion to count."""
    threshold: float = 3.0
    """Misfit of flow, in standard deviations of the frame's noise, at which motion is as likely as
    not. A larger threshold misses slow movers, a smaller threshold masks static pixels."""
    colour_weight: float = 0.9
    """Weight of the log-odds that colour gives, once something moves."""
    life_weight: float = 1.2
    """Weight of the log-odds against pixels whose tracks are much shorter than those of movers, as
    on water. A larger weight also takes off limbs that move fast."""
    background_weight: float = 1.0
    """Weight of the log-odds from comparison with the background seen in other frames."""
    blurred_weight: float = 0.3
    """Weight of the log-odds of flow where the background behind a pixel is known; flow is blurred
    over its patches. A larger weight draws outlines farther out."""
    shadow_weight: float = 3.0
    """Log-odds against motion of a pixel that looks like its background in a cast shadow."""
    shadow_reach: float = 0.12
    """Distance from a mover, as a share of the longer side, up to which its shadow is looked for.
    Time grows with it; 0 looks for no shadows."""
    smallest: float = 0.0012
    """Smallest area of a mover, averaged over its frames, as a share of the image; smaller movers
    are noise."""
    smallest_seed: float = 0.0004
    """The same for evidence of flow and tracks, before colour and background count."""
    shortest: int = 4
    """Frames that a mover must last, or all frames of a shorter clip."""
    mask_margin: int = 3
    """Pixels by which masks are grown before background points are looked for outside them."""
    movers_matter: float = 0.02
    """Share of all observations on movers from which cameras are solved again without them."""
