"""The clip of a track file: found again, and told from other clips of its size and length."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from models.run import InputError
from models.tracks.content import Tracks
from models.tracks.thumbnails import look_alike, make_thumbnails


def check_content(
    tracks: Tracks, path: Path, frames: UInt8[np.ndarray, "F H W 3"], clip: Path
) -> None:
    """Refuses frames of another clip than that of the tracks.

    Args:
        path: the track file.
        frames: of ``clip``, as many and of the same size as those of the tracks.

    Raises:
        InputError: the pictures are others.
    """
    if not look_alike(tracks.thumbnails, make_thumbnails(frames)):
        raise InputError(
            f"{clip}: shows other pictures than the clip that {path} was made from; give the same clip by "
            "--video_path, or the track file of this clip by --background_path"
        )


def find_clip(tracks: Tracks, path: Path) -> Path:
    """The clip of a track file: as the user named it, at its place when the file was made, or beside
    the file.

    Args:
        path: the track file.

    Raises:
        InputError: it is at none of these places, or the file names none.
    """
    if not tracks.video_path:
        raise InputError(f"{path}: does not say which clip it was made from; give --video_path")
    named = Path(tracks.video_path)
    beside = path.parent / named, path.parent / named.name
    for place in (named, Path(tracks.clip_place or named), *beside):
        if os.path.exists(place):
            return place
    raise InputError(
        f"{path}: its clip {tracks.video_path} is neither here nor at its old place nor beside the file; "
        "give it by --video_path"
    )
