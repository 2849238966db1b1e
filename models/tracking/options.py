"""Settings of tracking that a person may tune."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrackingOptions:
    """Density of the tracks, and the checks that end them."""

    spacing: int = 8
    """Distance of tracked points in pixels. Larger gives fewer tracks, in less time."""
    corner_quality: float = 2e-5
    """Smallest eigenvalue of the gradient matrix (grey levels 0 to 1) of a new corner. Larger
    leaves blank areas without tracks."""
    dense_rounds: int = 3
    """Rounds of seeding for dense flow. More rounds cover more evenly, and each computes the flow
    again that it needs."""
    stretch: int = 100
    """Frames that dense flow seeds before all tracks are carried on. Memory and disk grow with
    it."""
    absence: int = 60
    """Frames after which a place that comes back into view is joined to its earlier visit; 0 joins
    none. Larger joins fewer visits."""
    batch_values: int = 1 << 25
    """Points times frames in a single call of a tracker. Memory grows with it, by 9 bytes each."""
    link_error: float = 0.7
    """Forward-backward error in pixels up to which dense flow links two frames. Larger keeps more
    tracks, and worse."""
    link_cost: float = 0.01
    """Squared pixels that each link adds to the cost of a chain. Larger prefers long intervals."""
    unlike_cost: float = 0.01
    """Squared pixels that a grey level of difference from the query's patch adds to the cost of a
    chain. Larger prefers chains that keep their appearance."""
    seen_difference: float = 25.0
    """Mean difference from the query's patch in grey levels up to which a point is visible. Larger
    follows points through stronger changes of light, and onto occluders."""
    lost_difference: float = 40.0
    """Mean difference in grey levels from which a link is refused. Larger bridges longer
    occlusions."""
