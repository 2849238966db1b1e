"""The camera of the synthetic clip."""

import math

import numpy as np
import torch

from models.cameras import Cameras, look_at
from models.run import InputError

_MOTIONS = ("sideways", "turn", "still")


def build_camera_path(num_frames: int, width: int, height: int, motion: str) -> Cameras:
    """The camera of each frame: carried sideways, turned about a fixed centre, or standing still.

    Args:
        width: of the images, in pixels.
        height: of the images, in pixels.

    Raises:
        InputError: motion is none of "sideways", "turn" and "still".
    """
    if motion not in _MOTIONS:
        raise InputError(f'motion is "{motion}"; it must be "sideways", "turn" or "still"')
    moments = np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else [0.0]
    poses = torch.stack([_build_pose(s, motion) for s in moments])
    # a horizontal field of view of 62 degrees
    focal = width * 5 / 6
    K = torch.tensor(
        [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64
    )
    return Cameras(K.repeat(num_frames, 1, 1), poses, width, height)


def _build_pose(s: float, motion: str) -> torch.Tensor:
    """world_from_cam at the moment s, from -0.5 to 0.5."""
    # slow sines that share no period stand for the sway of a hand
    sway = [math.sin(7 * s), math.sin(11 * s + 1), math.sin(5 * s + 2)]
    eye = [0.0, -3.3, 1.35]
    target = [0.0, 1.2, 0.78]
    if motion == "sideways":
        eye = [-1.25 * s, -3.25 + 0.12 * sway[0], 1.35 + 0.05 * sway[1]]
        target = [-0.1 * s + 0.05 * sway[2], 1.2, 0.80 + 0.03 * sway[0]]
    elif motion == "turn":
        target = [0.9 * math.sin(2.4 * s), 1.2, 0.80 + 0.1 * sway[0]]
    up = [0.02 * sway[1] if motion != "still" else 0.0, 0.0, 1.0]
    return look_at(*(torch.tensor(v, dtype=torch.float64) for v in (eye, target, up)))
