"""Clip and tracks -> trained scene.

Files, in reading order:

- ``options`` - schedule of training and options of all parts of a scene
- ``inputs`` - track files, frames and masks of a clip, read and checked
- ``new_field`` - the untrained colour field of a layer
- ``checkpoints`` - the state of training in a file, from which an interrupted run resumes
- ``averaging`` - the parameters of several processes, brought together every few steps
- ``loop`` - fits a layer's colour field and vertices to its training pixels
- ``refinement`` - steps of the meshes' vertices
- ``shared_training`` - a layer handed over to other processes, which train it too
- ``fit_scene`` - meshes, pixels and training of all layers of a scene
- ``shadow_light`` - light that the background keeps in the shadows of movers
- ``frame_details`` - detail of each frame beside the trained model
"""

from models.training.checkpoints import Checkpoint
from models.training.fit_scene import TrainingRun, Watcher, train_scene
from models.training.frame_details import add_details, record_details
from models.training.inputs import (
    ClipInputs,
    check_same_clip,
    held_out_frames,
    load_inputs,
    needed_memory,
)
from models.training.loop import History, LayerTraining, train
from models.training.options import RateOptions, SceneOptions, Schedule, TrainingOptions
from models.training.shared_training import help_training

__all__ = [
    "Checkpoint",
    "ClipInputs",
    "History",
    "LayerTraining",
    "RateOptions",
    "SceneOptions",
    "Schedule",
    "TrainingOptions",
    "TrainingRun",
    "Watcher",
    "add_details",
    "check_same_clip",
    "held_out_frames",
    "help_training",
    "load_inputs",
    "needed_memory",
    "record_details",
    "train",
    "train_scene",
]
