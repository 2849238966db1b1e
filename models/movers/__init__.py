"""Masks and tracks of movers -> canonical places, depth, and a mesh at any time."""

from models.movers.canonical import canonical_coordinates
from models.movers.contact import lift_mover
from models.movers.moving_pipeline import MovingMeshPipeline, canonical_normalization
from models.movers.pixels import sample_movers
from models.movers.rigid import metric_depth, solve_rigid

__all__ = [
    "MovingMeshPipeline",
    "canonical_coordinates",
    "canonical_normalization",
    "lift_mover",
    "metric_depth",
    "sample_movers",
    "solve_rigid",
]
