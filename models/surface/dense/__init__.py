"""Frames and the meshes of tracks -> dense depth of each frame.

Files in reading order:

- ``frame_surface`` - dense depth of one frame -> vertices along its outlines
- ``stereo`` - matching of each frame to others where the mesh is in doubt
- ``stereo_kernels`` - PatchMatch
- ``confirm_kernels`` - agreement of views, weighted median
- ``hidden_surface`` - depth behind movers, from frames that see it
"""

from models.surface.dense.frame_surface import Surface
from models.surface.dense.stereo import StereoFrames, Surfaces, choose_matched_size

__all__ = ["StereoFrames", "Surface", "Surfaces", "choose_matched_size"]
