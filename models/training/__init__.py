"""Clip and tracks -> trained scene."""

from models.training.fit_scene import MASK_MARGIN, train_scene
from models.training.inputs import (
    ClipInputs,
    check_same_clip,
    held_out_frames,
    load_inputs,
    needed_memory,
)
from models.training.loop import History, Schedule, train

__all__ = [
    "MASK_MARGIN",
    "ClipInputs",
    "History",
    "Schedule",
    "check_same_clip",
    "held_out_frames",
    "load_inputs",
    "needed_memory",
    "train",
    "train_scene",
]
