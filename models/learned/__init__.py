"""Models of other authors behind three function types: tracker, depth model, mask model.

Files in reading order:

- ``entry`` - the facts about a learned model that options, messages and documents share
- ``third_party`` - trackers with code of their own: import from a clone, checkpoints
- ``windows`` - trackers of a few frames or a single direction, made to follow through a whole clip
- ``cotracker3``, ``tapir``, ``spatracker2`` - the adapters of the trackers
- ``pretrained`` - models of the transformers package
- ``depth`` - the depth models, and the maps that they write
- ``sam2``, ``u2net`` - the mask models
- ``registry`` - all of them by name
"""

from models.learned.depth import remove_depth_maps, write_depth_maps
from models.learned.entry import SUBMODULES, LearnedModel
from models.learned.registry import (
    AUTO,
    DEPTH_MODELS,
    LEARNED,
    MASK_MODELS,
    Tracker,
    check_depth_model,
    check_mask_model,
    choose_mask_model,
    list_models,
    open_depth_model,
    open_learned,
    open_mask_model,
)
from models.learned.sam2 import MaskModel
from models.learned.u2net import SaliencyModel

__all__ = [
    "AUTO",
    "DEPTH_MODELS",
    "LEARNED",
    "MASK_MODELS",
    "SUBMODULES",
    "LearnedModel",
    "MaskModel",
    "SaliencyModel",
    "Tracker",
    "check_depth_model",
    "check_mask_model",
    "choose_mask_model",
    "list_models",
    "open_depth_model",
    "open_learned",
    "open_mask_model",
    "remove_depth_maps",
    "write_depth_maps",
]
