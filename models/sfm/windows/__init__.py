"""A long way of the camera, mapped in windows of frames.

- ``window``: cameras from a mapper, and frames that were mapped together.
- ``joining``: windows that share frames, joined into one scene.
- ``closing``: the drift that shows where the camera comes back, spread over the way.
"""

from models.sfm.windows.joining import map_in_windows
from models.sfm.windows.window import Mapped

__all__ = ["Mapped", "map_in_windows"]
