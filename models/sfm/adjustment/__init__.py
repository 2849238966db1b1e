"""Mapped cameras -> cameras that fit the tracks best, and doubt told.

- ``bundle``: bundle adjustment by COLMAP.
- ``evidence``: how well cameras explain tracks.
- ``intrinsics``: lens distortion and zoom.
- ``mirror``: a scene solved inside out, and its mirror image.
"""

from models.sfm.adjustment.bundle import bundle_adjust
from models.sfm.adjustment.intrinsics import find_lens, find_zoom, straighten_points
from models.sfm.adjustment.mirror import choose_depth_order

__all__ = ["bundle_adjust", "choose_depth_order", "find_lens", "find_zoom", "straighten_points"]
