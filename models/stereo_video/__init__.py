"""Scene and camera path -> stereoscopic video for headsets, 3D screens and coloured glasses.

Files in reading order:

- ``options`` - layouts, eye separation, convergence
- ``eyes`` - a camera -> the cameras of the left and the right eye
- ``layouts`` - two pictures -> one picture
- ``half_sphere`` - pinhole pictures -> the half sphere of VR180
- ``mp4_tags`` - how a file says that it is stereoscopic or spherical
- ``video`` - all of it, frame by frame
"""

from models.stereo_video.eyes import Eyes, choose_eyes
from models.stereo_video.layouts import LAYOUTS, parse_layouts
from models.stereo_video.options import StereoVideoOptions
from models.stereo_video.video import name_stereo_video, write_stereo_videos

__all__ = [
    "LAYOUTS",
    "Eyes",
    "StereoVideoOptions",
    "choose_eyes",
    "name_stereo_video",
    "parse_layouts",
    "write_stereo_videos",
]
