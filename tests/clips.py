"""The synthetic room's truth as the track files that the scripts exchange, and a listener."""

import numpy as np
import torch

from models.clip.exposure import Exposure
from models.movers.canonical import canonical_coordinates
from models.run import Progress
from models.synthetic.sample import SyntheticScene
from models.tracks import PointTracks, Tracks


class Said(Progress):
    """Keeps the sentences of a run in a list."""

    def __init__(self, sentences: list[str] | None = None):
        self.sentences = [] if sentences is None else sentences

    def say(self, text: str) -> None:
        self.sentences.append(text)


def true_tracks(room: SyntheticScene, moving: bool, video_path: str = "") -> Tracks:
    """The true tracks of the room's static points, or of those on its one cart that some frame
    sees."""
    own = room.track_is_foreground == moving
    own &= room.track_visible.any(0) | (not moving)  # what no frame sees has no canonical place
    xy, visible, xyz = (np.asarray(a[:, own], t) for a, t in _fields(room))
    extra = {}
    if moving:
        canonical = np.zeros((own.sum(), 3), np.float32)
        size = room.cameras.width, room.cameras.height
        canonical[:, :2] = canonical_coordinates(PointTracks(xy, visible, *size), room.masks)
        extra = {
            "canonical": torch.from_numpy(canonical),
            "label": torch.ones(len(canonical), dtype=torch.int64),
        }
    xyz = torch.from_numpy(xyz)
    return Tracks(
        xy=torch.from_numpy(xy),
        visible=torch.from_numpy(visible),
        confidence=torch.from_numpy(visible).float(),
        xyz=xyz if moving else xyz[:1].expand(len(xyz), -1, -1),
        K=room.cameras.K,
        world_from_cam=room.cameras.world_from_cam,
        width=room.cameras.width,
        height=room.cameras.height,
        fps=room.fps,
        frame_indices=torch.arange(len(xyz)),
        layer="foreground" if moving else "background",
        video_path=video_path,
        **extra,
    )


def _fields(room: SyntheticScene) -> list[tuple[np.ndarray, type]]:
    return [(room.track_xy, np.float32), (room.track_visible, bool), (room.track_xyz, np.float32)]


def neutral_exposure(num_frames: int, width: int, height: int) -> Exposure:
    """Frames in the scene's own colours."""
    gain = np.zeros((num_frames, 3), np.float32)
    return Exposure(gain, np.zeros((num_frames, 2, 2, 3), np.float32), width, height)
