"""Mapped cameras -> cameras that fit the tracks best, and doubt told.

- ``bundle``: bundle adjustment by COLMAP.
- ``evidence``: how well cameras explain tracks.
- ``growth``: cameras grown from two frames.
- ``intrinsics``: lens distortion and zoom.
- ``mirror``: a scene solved inside out, and its mirror image.
- ``causes``: the likely cause where cameras do not explain the tracks.
"""

from models.sfm.adjustment.bundle import LOSS_SCALE, bundle_adjust
from models.sfm.adjustment.causes import find_cause
from models.sfm.adjustment.evidence import Fit, adjust_fit, compare_cost, measure_fit, rescale
from models.sfm.adjustment.growth import grow_cameras
from models.sfm.adjustment.intrinsics import find_lens, find_zoom, straighten_points
from models.sfm.adjustment.mirror import choose_depth_order

__all__ = [
    "LOSS_SCALE",
    "Fit",
    "adjust_fit",
    "bundle_adjust",
    "choose_depth_order",
    "compare_cost",
    "find_cause",
    "find_lens",
    "find_zoom",
    "grow_cameras",
    "measure_fit",
    "rescale",
    "straighten_points",
]
