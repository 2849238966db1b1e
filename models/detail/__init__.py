"""What each frame shows beyond its own rendering, kept with the scene and carried into views.

Files in reading order:

- ``options`` - options of the detail layer
- ``frame_details`` - detail of each frame; detail.pt
- ``source_maps`` - the pixels of a frame that show the surfaces of a view
- ``carry`` - detail of some frames, aligned and averaged
- ``clip_detail`` - the frames that give a view its detail
"""

from models.detail.clip_detail import ClipDetail
from models.detail.frame_details import FrameDetail, load_details, save_details
from models.detail.options import DetailOptions

__all__ = ["ClipDetail", "DetailOptions", "FrameDetail", "load_details", "save_details"]
