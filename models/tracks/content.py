"""The content of a track file: 2D tracks, their 3D points and the cameras of a clip."""

from dataclasses import Field, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from models.cameras import Cameras
from models.clip import Video
from models.tracks.points import PointTracks
from models.tracks.thumbnails import THUMBNAILS, make_thumbnails


def _tensor(
    shape: str, dtype: torch.dtype = torch.float32, expands: bool = False
) -> dict[str, Any]:
    """Metadata of a field of ``Tracks`` that holds a tensor, from which the checks of track files
    follow. A field with a default is optional.

    Args:
        shape: its sides, each F, N or a number.
        expands: the first side may have stride 0, so that a single frame is stored for all.
    """
    return {"shape": shape.split(), "dtype": dtype, "expands": expands}


@dataclass(frozen=True)
class Tracks:
    """N points followed through the F frames taken from a clip, with the camera of each frame."""

    xy: Float[Tensor, "F N 2"] = field(metadata=_tensor("F N 2"))
    """Pixels of the frames worked on; any value if not visible."""
    visible: Bool[Tensor, "F N"] = field(metadata=_tensor("F N", torch.bool))
    """Whether a point was observed."""
    confidence: Float[Tensor, "F N"] = field(metadata=_tensor("F N"))
    """Trust in each observation, 0 to 1."""
    xyz: Float[Tensor, "F N 3"] = field(metadata=_tensor("F N 3", expands=True))
    """World points; a single frame, expanded (stride 0 over F), if the points stand still."""
    K: Float[Tensor, "F 3 3"] = field(metadata=_tensor("F 3 3", torch.float64))
    """Intrinsics in pixels of the frames worked on."""
    world_from_cam: Float[Tensor, "F 4 4"] = field(metadata=_tensor("F 4 4", torch.float64))
    """Rigid poses, OpenCV camera axes to world."""
    width: int
    """Width in pixels of the frames worked on."""
    height: int
    """Height in pixels of the frames worked on."""
    fps: float
    """Frames per second of the frames taken."""
    frame_indices: Int[Tensor, "F"] = field(metadata=_tensor("F", torch.int64))
    """Number of each frame in the original clip, from 0, rising."""
    layer: str
    """background or foreground."""
    video_path: str
    """The clip, as the user gave it; empty if unknown."""
    canonical: Float[Tensor, "N 3"] | None = field(default=None, metadata=_tensor("N 3"))
    """Foreground: position of each track in canonical space, in which colours are constant in time."""
    label: Int[Tensor, "N"] | None = field(default=None, metadata=_tensor("N", torch.int64))
    """Foreground: number of the mover of each track."""
    clip_place: str | None = None
    """Absolute path of the clip when the file was made."""
    lens: str | None = None
    """The lens that bends the clip's frames, as a line of COLMAP's cameras.txt without its number
    (model, width, height, parameters); the frames worked on are straightened. None for frames as
    they are."""
    thumbnails: UInt8[Tensor, "..."] | None = field(
        default=None, metadata=_tensor(THUMBNAILS, torch.uint8)
    )
    """Small grey pictures of frames evenly over the clip, which tell it from other clips."""

    @staticmethod
    def of(
        layer: str,
        video: Video,
        cameras: Cameras,
        points: PointTracks,
        xyz: Float[np.ndarray, "N 3"] | Float[np.ndarray, "F N 3"],
        confidence: Float[np.ndarray, "F N"] | None = None,
    ) -> "Tracks":
        """Tracks of the frames of a video.

        Args:
            xyz: world points; (N, 3) if they stand still.
            confidence: 1 for all observations if not given.
        """
        confidence = points.visible if confidence is None else confidence
        positions = torch.from_numpy(xyz).float()
        return Tracks(
            xy=torch.from_numpy(points.xy).float(),
            visible=torch.from_numpy(points.visible),
            confidence=torch.from_numpy(confidence).float(),
            xyz=positions[None].expand(len(video), -1, -1) if xyz.ndim == 2 else positions,
            K=cameras.K,
            world_from_cam=cameras.world_from_cam,
            width=video.width,
            height=video.height,
            fps=video.fps,
            frame_indices=torch.as_tensor(video.frame_indices),
            layer=layer,
            video_path=str(video.path),
            clip_place=str(video.path.resolve()),
            lens=None if video.lens is None else video.lens.to_line(),
            thumbnails=make_thumbnails(video.frames),
        )

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def num_tracks(self) -> int:
        """N."""
        return self.xy.shape[1]

    @property
    def cameras(self) -> Cameras:
        """The cameras of the frames taken."""
        return Cameras(self.K, self.world_from_cam, self.width, self.height)


TENSORS = tuple(own for own in fields(Tracks) if own.metadata)
"""The fields of ``Tracks`` that hold tensors."""


def is_expanded(own: Field, tensor: Tensor) -> bool:
    """Whether a tensor of a field of ``Tracks`` stores a single frame for all."""
    return own.metadata["expands"] and tensor.stride(0) == 0
