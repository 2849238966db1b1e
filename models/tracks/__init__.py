"""Tracks, and the track file: 2D tracks, their 3D points and the cameras of a clip, the only link
between the scripts.

Files in reading order:

- ``points`` - tracks in pixels
- ``content`` - the content of a track file
- ``checks`` - the rules of a track file
- ``archive``, ``foreign`` - track files of other programs
- ``file`` - track files, written and read
"""

from models.tracks.content import Tracks
from models.tracks.file import load_tracks, save_tracks
from models.tracks.points import PointTracks

__all__ = ["PointTracks", "Tracks", "load_tracks", "save_tracks"]
