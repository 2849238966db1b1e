"""Settings of structure from motion that a person may tune."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CameraOptions:
    """How cameras are solved from tracks, and how tracks are sharpened. Lengths in pixels."""

    enough_tracks: int = 150
    """Tracks that a frame keeps when short tracks are left out, if it has as many. Larger keeps
    more short tracks, which may slip."""
    rotation_error: float = 1.0
    """Median residual, at an image width of 640, up to which a pure rotation explains the tracks.
    Larger takes more clips as turning, without depth."""
    tracking_noise: float = 0.35
    """The same bound in small images, set by the noise of the tracks."""
    still_motion: float = 0.5
    """Largest image motion of a camera that counts as standing still."""
    most_mapped: int = 24
    """Keyframes that a mapper starts from; the frames between them are registered. Time grows with
    its square."""
    most_keyframes: int = 200
    """Frames whose cameras are adjusted together; a longer clip has keyframes adjusted. Time grows
    with its square."""
    window_frames: int = 90
    """Least frames of a window, where points are in view for a short part of a long clip and windows
    are mapped one by one. Larger drifts less. Time grows with it."""
    keyframes_per_track: int = 8
    """Keyframes that a track of median length should be visible in. Larger gives denser
    keyframes."""
    well_mapped: float = 0.9
    """Share of the keyframes that the mapper must register. With fewer, twice as many are
    tried."""
    convincing: float = 0.8
    """Mean reprojection error in pixels up to which a mapping of all keyframes is taken without
    trying the other mapper. Smaller takes more time."""
    registration_error: float = 4.0
    """Reprojection error up to which a point supports the pose of a frame between keyframes."""
    doubtful: float = 0.5
    """Share of the observations that must agree with the cameras, solved or given; below it a
    warning tells doubt. Movers and slipped tracks seldom hold half of them."""
    sharpening_rounds: int = 2
    """Rounds of aligning patches and solving the scene again. Time grows with it."""
    sharpening_reach: float = 2.5
    """Largest correction of an observation. Larger mends stronger drift and admits false
    matches."""
    similar: float = 0.8
    """Correlation of patches from which an alignment is accepted, up to 1."""
    unlike: float = 0.4
    """Correlation of patches below which an observation is dropped, as occluded or slipped."""
