"""The static scene and its tracks -> the content of the background's track file."""

import numpy as np
import torch

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
    xyz = torch.from_numpy(scene.points.xyz[good]).float()
    agrees = scene.points.agrees[:, good]
    confidence = np.zeros(agrees.shape, np.float32)
    # numpy's exp, not torch's: of two threads that call MKL's first, one may get it in low accuracy.
    confidence[agrees] = np.exp(-scene.points.residual)
    return Tracks(
        xy=torch.from_numpy(tracks.xy[:, good]).float(),
        visible=torch.from_numpy(agrees),
        confidence=torch.from_numpy(confidence).float(),
        xyz=xyz[None].expand(len(video), -1, -1),
        K=scene.cameras.K,
        world_from_cam=scene.cameras.world_from_cam,
        width=video.width,
        height=video.height,
        fps=video.fps,
        frame_indices=torch.as_tensor(video.frame_indices),
        layer="background",
        video_path=str(video.path),
    )
