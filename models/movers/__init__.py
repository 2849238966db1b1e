"""Masks and tracks of movers -> canonical coordinates, depth, and a mesh at any time.

options - limits, sizes and margins that a person may tune
canonical - place of each track on its mover, constant in time, in 2D
rigid_places - the same of a rigid mover, in 3D
depth - z-depths of a mover's tracks: relative ones, and their scale in the world
lifting - labels, canonical coordinates, depths and world positions of the tracks of all movers
local_maps - values at points from nearby known points
mesh - the mesh of a frame, and its vertices between frames
mesh_building - tracks and mask of a frame to its mesh
soft_mask - a mask with a soft outline
moving_pipeline - the meshes of all frames, drawn at any time by any camera
pixels - training pixels of the movers' colour field
"""

from models.movers.canonical import canonical_coordinates
from models.movers.lifting import (
    MoverShapes,
    label_tracks,
    lift_tracks,
    make_foreground_tracks,
    solve_mover_shapes,
)
from models.movers.moving_pipeline import MoverPicture, MovingMeshPipeline, fit_canonical_box
from models.movers.options import MoverOptions
from models.movers.pixels import MovingPixels, sample_movers

__all__ = [
    "MoverOptions",
    "MoverPicture",
    "MoverShapes",
    "MovingMeshPipeline",
    "MovingPixels",
    "canonical_coordinates",
    "fit_canonical_box",
    "label_tracks",
    "lift_tracks",
    "make_foreground_tracks",
    "sample_movers",
    "solve_mover_shapes",
]
