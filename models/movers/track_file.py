"""Tracks and shapes of movers -> the content of the foreground's track file."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from models.clip import Video
from models.movers.lifting import MoverShapes
from models.tracks import PointTracks, Tracks


def make_foreground_tracks(
    video: Video,
    background: Tracks,
    tracks: PointTracks,
    shapes: MoverShapes,
    xyz: Float[np.ndarray, "F N 3"],
) -> Tracks:
    """The moving layer of a clip.

    Args:
        background: the static layer, whose cameras are those of the moving layer.
        tracks: of the movers; there may be none.
        shapes: of the same tracks.
        xyz: their world positions.
    """
    return replace(
        Tracks.of("foreground", video, background.cameras, tracks, xyz),
        canonical=torch.from_numpy(shapes.canonical).float(),
        label=torch.as_tensor(shapes.label, dtype=torch.int64),
    )
