"""The static scene and its tracks -> the content of the background's track file."""

from dataclasses import replace

import numpy as np

from models.clip import Video
from models.run import InputError
from models.sfm.static_scene import StaticScene
from models.tracks import PointTracks, Tracks


def make_background_tracks(video: Video, scene: StaticScene, tracks: PointTracks) -> Tracks:
    """The background layer: all tracks that have a 3D point.

    Args:
        scene: cameras, and points of these tracks.

    Raises:
        InputError: no track has a 3D point.
    """
    good = np.isfinite(scene.points.xyz).all(1)
    if not good.any():
        raise InputError(
            f"{video.path}: no track could be placed in space; give a clip with more detail and "
            "motion"
        )
    agrees = scene.points.agrees[:, good]
    confidence = np.zeros(agrees.shape, np.float32)
    # numpy's exp, not torch's: of two threads that call MKL's first, one may get it in low accuracy.
    confidence[agrees] = np.exp(-scene.points.residual)
    points = replace(tracks.select(good), visible=agrees)
    xyz = scene.points.xyz[good]
    return Tracks.of("background", video, scene.cameras, points, xyz, confidence)
