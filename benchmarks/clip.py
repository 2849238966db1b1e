"""A made-up clip for measurements: points on a relief, seen by a camera that moves sideways."""

from dataclasses import dataclass

import numpy as np
import torch

from models.cameras import Cameras
from models.field import ColorField, normalization
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.tracks import Tracks


@dataclass(frozen=True)
class Clip:
    """What the training and rendering stages start from."""

    meshes: TriangleMeshPipeline
    frames: np.ndarray
    """(F, H, W, 3) uint8."""
    views: Cameras
    """New cameras between and beside those of the frames."""

    def renderer(
        self, device: str = "cpu", backend: str = "auto", seed: int = 0
    ) -> WorldSpaceTrianglePipeline:
        """An untrained colour field for the clip."""
        field = ColorField(backend=backend, generator=torch.Generator().manual_seed(seed))
        return WorldSpaceTrianglePipeline(
            field, normalization(self.meshes.cameras, self.meshes.vertices)
        ).to(device)


def make_clip(
    num_frames: int, width: int = 640, height: int = 360, faces: int = 14_000, seed: int = 0
) -> Clip:
    """A clip whose every frame sees about three quarters of the points in view: meshes share most
    of their vertices."""
    random = np.random.default_rng(seed)
    cameras = _sideways(np.linspace(-0.3, 0.3, num_frames), width, height)
    points = _relief(round(faces / 2 / 0.75 * 1.5), random)
    xy, _ = cameras.project(points)
    inside = ((xy > -0.1 * width) & (xy < torch.tensor([1.1 * width, 1.1 * height]))).all(-1)
    visible = inside & torch.from_numpy(random.random(inside.shape) < 0.75)
    tracks = Tracks(
        xy=xy.float(),
        visible=visible,
        confidence=visible.float(),
        xyz=points.float()[None].expand(num_frames, -1, -1),
        K=cameras.K,
        world_from_cam=cameras.world_from_cam,
        width=width,
        height=height,
        fps=24.0,
        frame_indices=torch.arange(num_frames),
        layer="background",
        video_path="",
    )
    meshes = TriangleMeshPipeline.from_tracks(tracks, range(num_frames))
    views = _sideways(np.linspace(-0.28, 0.29, 16), width, height, back=0.05)
    return Clip(meshes, random.integers(0, 256, (num_frames, height, width, 3), np.uint8), views)


def _sideways(x: np.ndarray, width: int, height: int, back: float = 0.0) -> Cameras:
    K = torch.tensor(
        [[0.94 * width, 0, width / 2], [0, 0.94 * width, height / 2], [0, 0, 1]],
        dtype=torch.float64,
    )
    pose = torch.eye(4, dtype=torch.float64).repeat(len(x), 1, 1)
    pose[:, 0, 3], pose[:, 2, 3] = torch.from_numpy(x), -back
    return Cameras(K.repeat(len(x), 1, 1), pose, width, height)


def _relief(count: int, random: np.random.Generator) -> torch.Tensor:
    """World points of a wavy wall about 3 ahead, wider than any frame."""
    u, v = random.uniform([-0.75, -0.4], [0.75, 0.4], (count, 2)).T
    depth = 3 + 0.3 * np.sin(6 * u) * np.cos(7 * v)
    return torch.from_numpy(np.stack([u * depth, v * depth, depth], 1))
