"""A folder of clips -> a scene of each, one after the other or on a cluster, and an overview page.

Files in reading order:

- ``clips`` - the clips of a folder, with masks where they lie beside them
- ``flags`` - which flags of the command line belong to which script
- ``steps`` - the scripts of a clip as commands, with the cores and the memory that each needs
- ``work`` - runs one script in a process of its own
- ``in_order`` - one clip after the other on this machine
- ``on_ray`` - many clips at once by Ray
- ``table`` - the state of each clip in the terminal
- ``overview`` - index.html of a folder of results
"""

from models.batch.clips import FolderClip, find_clips
from models.batch.flags import sort_flags
from models.batch.in_order import run_in_order
from models.batch.on_ray import MachineOptions, count_threads, has_ray, run_on_ray
from models.batch.overview import write_overview
from models.batch.steps import FIXED, SCRIPTS, ClipPlan, plan_clip
from models.batch.table import StateTable

__all__ = [
    "FIXED",
    "SCRIPTS",
    "ClipPlan",
    "FolderClip",
    "MachineOptions",
    "StateTable",
    "count_threads",
    "find_clips",
    "has_ray",
    "plan_clip",
    "run_in_order",
    "run_on_ray",
    "sort_flags",
    "write_overview",
]
