"""Depth from outside, brought to the scene's scale and put to use.

Files in reading order:

- ``options`` - flags that name the sources, thresholds of alignment and use
- ``maps`` - depth maps in files
- ``sources`` - models and maps that the options ask for, opened
- ``fit`` - robust scale and shift of inverse depth
- ``aligned`` - depth maps in the scale of a scene
- ``points`` - depth maps for the points of the background, and points added in gaps
- ``turning`` - depth maps for a camera without parallax
- ``imported`` - another program's 3D tracks
- ``mover_depth`` - depth of movers from either of them
- ``apply`` - all of this on a scene, and on moving tracks
"""

from models.depth.apply import MovingTracks, apply_depth, refine_mover_depth
from models.depth.imported import Imported, fitting_cameras, read_imported
from models.depth.maps import DepthMaps
from models.depth.options import (
    AlignmentOptions,
    DepthOptions,
    ImportOptions,
    LearnedOptions,
    MoverDepthOptions,
    check_depth_options,
    check_learned_options,
    list_inputs,
)
from models.depth.sources import (
    DEPTH_FOLDER,
    make_depth_maps,
    open_depth_maps,
    open_masks,
    remove_old_depth,
)

__all__ = [
    "DEPTH_FOLDER",
    "AlignmentOptions",
    "DepthMaps",
    "DepthOptions",
    "ImportOptions",
    "Imported",
    "LearnedOptions",
    "MoverDepthOptions",
    "MovingTracks",
    "apply_depth",
    "check_depth_options",
    "check_learned_options",
    "fitting_cameras",
    "list_inputs",
    "make_depth_maps",
    "open_depth_maps",
    "open_masks",
    "read_imported",
    "refine_mover_depth",
    "remove_old_depth",
]
