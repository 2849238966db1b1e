"""The static scene and its tracks -> the content of the background's track file."""

from dataclasses import replace

import numpy as np

from models.clip import Video
from models.run import InputError, allocate
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
    points = replace(tracks, visible=scene.points.agrees).select(good)
    confidence = allocate(points.visible.shape, np.float32)
    # numpy's exp, not torch's: of two threads that call MKL's first, one may get it in low accuracy.
    confidence[points.visible] = np.exp(-scene.points.residual)
    xyz = scene.points.xyz[good]
    return Tracks.of("background", video, scene.cameras, points, xyz, confidence)


def measure_depth_of_thirds(background: Tracks) -> list[float | None]:
    """Median z-depth, in world units, of the points in the upper, middle and lower third of the
    middle frame; None for a third without points. Ground that is filmed from above is nearest
    below."""
    t = len(background) // 2
    seen = background.visible[t]
    depth = background.cameras[t].to_camera(background.xyz[t, seen])[0, :, 2]
    third = (3 * background.xy[t, seen, 1] / background.height).long().clamp(0, 2)
    parts = [depth[third == k] for k in range(3)]
    return [float(part.median()) if len(part) else None for part in parts]
