"""Options of the detail layer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DetailOptions:
    """Colours of the clip's frames in views. Distances are shares of the scene's depth."""

    frames: int = 2
    """Nearest frames whose colours the background gets; 0 draws the colour fields alone. More
    frames have less noise and are less sharp."""
    mover_frames: int = 4
    """The same for movers, by time."""
    quality: int = 95
    """JPEG quality of the stored frames, 1 to 100; a larger value takes more disk."""
    depth_tolerance: float = 0.1
    """Relative difference of depth beyond which a frame does not see the view's surface, and beyond
    which neighbouring pixels form an outline; a larger value takes colours from surfaces behind
    it."""
    outline_reach: int = 4
    """Pixels within which a surface may take the place of another at an outline; a larger value
    mends worse meshes and takes longer."""
    unlike: float = 20.0
    """Grey levels by which frames may differ under a surface before the colour field is preferred;
    a larger value takes colours from surfaces that fit less."""
    whole: float = 0.0025
    """Distance from the camera path up to which frames' colours count in full."""
    far: float = 0.0125
    """Distance from the camera path beyond which they do not count: they show each error of the
    surface there. A larger value gives sharper and more broken views."""
