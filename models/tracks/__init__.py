"""Tracks, and the track file: 2D tracks, their 3D points and the cameras of a clip, the only link
between the scripts.

Files in reading order:

- ``points`` - tracks in pixels
- ``thumbnails`` - small pictures that tell a clip from others
- ``content`` - the content of a track file
- ``checks`` - the rules of a track file
- ``parts`` - the parts of the track file of a long clip
- ``archive``, ``foreign`` - track files of other programs
- ``file`` - track files, written and read
- ``scale`` - tracks in metres by a known distance
- ``clip_of`` - the clip of a track file, found again
"""

from models.tracks.clip_of import check_content, find_clip
from models.tracks.content import Tracks
from models.tracks.file import load_tracks, save_tracks
from models.tracks.points import PointTracks, find_lifetimes
from models.tracks.scale import ScaleOptions, find_scale, scale_tracks
from models.tracks.thumbnails import is_thumbnails, look_alike

__all__ = [
    "PointTracks",
    "ScaleOptions",
    "Tracks",
    "check_content",
    "find_clip",
    "find_lifetimes",
    "find_scale",
    "is_thumbnails",
    "load_tracks",
    "look_alike",
    "save_tracks",
    "scale_tracks",
]
