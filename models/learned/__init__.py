"""Other people's models behind three function types: tracker, depth model, mask model."""

from models.learned.depth import (
    check_depth_model,
    open_depth_model,
    remove_depth_maps,
    write_depth_maps,
)
from models.learned.sam2 import MaskModel, check_mask_model, open_mask_model
from models.learned.third_party import SUBMODULES
from models.learned.trackers import LEARNED, Tracker, open_learned

__all__ = [
    "LEARNED",
    "SUBMODULES",
    "MaskModel",
    "Tracker",
    "check_depth_model",
    "check_mask_model",
    "open_depth_model",
    "open_learned",
    "open_mask_model",
    "remove_depth_maps",
    "write_depth_maps",
]
