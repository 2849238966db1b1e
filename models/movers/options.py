"""Options of the moving layer: rigid shapes, contact with the ground, meshes and training
pixels."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MoverOptions:
    """How movers get their depth, and how their meshes are built and drawn."""

    rigid_frames: int = 100
    """Frames that the mapper gets at once. The time of mapping grows faster than the frames; longer
    clips are mapped in stretches."""
    rigid_overlap: int = 20
    """Frames that two neighbouring stretches share. More join their scales more surely and take
    longer."""
    rigid_registered: float = 0.8
    """Share of the frames with enough tracks that must be placed for a mover to count as rigid."""
    rigid_agreeing: float = 0.4
    """Share of the observations that must agree with the rigid shape. Tracks slip on smooth things,
    and at their outline. Larger takes more rigid movers for flat ones."""
    rigid_relief: float = 1.2
    """Largest depth range of a believable rigid shape, as a share of its width or height, whichever
    is larger. Deeper shapes are drawn flat. Larger believes more shapes of movers that deform."""
    sunk_share: float = 0.25
    """Share of a mover's points that may seem to lie behind the background, by errors of the
    background that no frame saw. A larger share lets a mover stand farther from the camera."""
    contact_share: float = 0.12
    """Share of a mover's height, from its lowest pixel up, that may touch the ground."""
    contact_error: float = 0.05
    """Standard deviation of the depth of the ground at the feet, as a share of the depth. The
    larger, the more apparent size and the path count."""
    in_the_air: float = 0.1
    """Probability that a mover does not touch the ground below it. The larger, the less other
    evidence is needed to lift it off the ground."""
    cut_depth: float = 0.3
    """How much nearer than the ground at the lower border a mover is that this border cuts, in the
    logarithm of depth; also the standard deviation of this guess. The larger, the nearer such
    movers stand."""
    size_drift: float = 0.02
    """Standard deviation from frame to frame of the apparent size of a mover that deforms, as a
    share. The larger, the more closely its depth follows the ground at the feet."""
    outline_step: int = 6
    """Pixels between the vertices along a mover's outline."""
    outline_margin: int = 3
    """Pixels by which a mesh reaches past its mask, so that the soft edge has colour."""
    edge_softness: float = 0.7
    """Standard deviation in pixels of the blur of a mask's outline."""
    longest_gap: int = 16
    """Largest distance in frames of two meshes between which movers are drawn."""
    subpixels: int = 3
    """Samples along each side of a pixel, in views by other cameras than a frame's own. Time grows
    with the square."""
    cells_per_pixel: float = 1.0
    """Cells of the hash grid's finest level along a pixel of the reference frame."""
    max_samples: int = 10_000_000
    """Training pixels that are kept at most. Memory grows with their number; each is
    learned many times."""
