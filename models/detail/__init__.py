"""Colours of the frames, kept with the scene -> colours of a view's surfaces.

Files in reading order:

- ``options`` - options of the detail layer
- ``frame_details`` - the colours of each frame; detail.pt
- ``source_maps`` - the pixels of a frame that show the surfaces of a view
- ``alignment`` - two frames' pictures, moved to one place
- ``carry`` - colours of some frames at a view's surfaces, and outlines snapped to them
- ``clip_detail`` - the frames that give a view its colours
"""

from models.detail.clip_detail import ChosenMovers, ClipDetail
from models.detail.frame_details import FrameDetail, load_details, save_details
from models.detail.options import DetailOptions

__all__ = [
    "ChosenMovers",
    "ClipDetail",
    "DetailOptions",
    "FrameDetail",
    "load_details",
    "save_details",
]
