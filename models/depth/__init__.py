"""Depth from outside, brought to the scene's scale and put to use."""

from models.depth.imported import Imported, fitting_cameras, read_imported
from models.depth.maps import DepthMaps
from models.depth.options import (
    DEPTH_FOLDER,
    DepthOptions,
    LearnedOptions,
    check_depth_options,
    check_learned_options,
    depth_maps,
    forget_depth,
    open_masks,
    tracks_depth,
    weights_and_maps,
    with_depth,
)

__all__ = [
    "DEPTH_FOLDER",
    "DepthMaps",
    "DepthOptions",
    "Imported",
    "LearnedOptions",
    "check_depth_options",
    "check_learned_options",
    "depth_maps",
    "fitting_cameras",
    "forget_depth",
    "open_masks",
    "read_imported",
    "tracks_depth",
    "weights_and_maps",
    "with_depth",
]
