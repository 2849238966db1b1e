"""A long way of the camera, mapped in windows of frames.

- ``joining``: windows that share frames, joined into one scene.
- ``closing``: the drift that shows where the camera comes back, spread over the way.
"""

from models.sfm.windows.joining import map_in_windows

__all__ = ["map_in_windows"]
