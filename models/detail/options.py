"""Options of the detail layer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DetailOptions:
    """Detail of the clip's frames in views. Distances between cameras are shares of the scene's
    depth."""

    frames: int = 2
    """Nearest frames whose detail a view gets; 0 draws the colour field alone. More frames
    suppress their noise and take longer."""
    quality: int = 92
    """JPEG quality of the stored detail, 1 to 100; a larger value takes more disk."""
    similar: float = 8.0
    """Grey levels by which the renderings of frame and view may differ before the frame's detail
    fades; a larger value takes detail from surfaces that fit less."""
    depth_tolerance: float = 0.05
    """Relative difference of depth beyond which a frame does not see the view's surface; a larger
    value takes detail from surfaces behind it."""
    whole: float = 0.02
    """Distance from a frame's camera up to which its detail is drawn whole."""
    far: float = 0.06
    """Distance from a frame's camera beyond which it gives no detail."""
    largest_shift: float = 4.0
    """Pixels by which detail may be shifted to fit the view; a larger value mends worse meshes and
    follows noise further."""
