"""What the page's 3D canvas shows beside the surface: static points in colour, cameras, and the
movers' tracks."""

import base64
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from models.cameras import OPENGL_FROM_OPENCV, Cameras, find_middle_frame
from models.sfm import anchors
from models.tracks import Tracks

MAX_POINTS = 40_000
MAX_MOVER_TRACKS = 300


@dataclass(frozen=True)
class World:
    """Cameras and points of a clip, in world axes and units."""

    cameras: Cameras
    fps: float
    """Frames per second."""
    points: Float[ndarray, "N 3"]
    """Static points."""
    rgb: UInt8[ndarray, "N 3"]
    """Their colours."""
    mover_tracks: Float[ndarray, "F M 3"]
    """Points on movers; NaN where they were not seen."""
    mover_labels: Int[ndarray, "M"]
    """Number of the mover of each, from 1."""

    @property
    def mover_paths(self) -> list[Float[ndarray, "f 3"]]:
        """Median position of each mover in the frames that see it."""
        paths = []
        for label in np.unique(self.mover_labels):
            own = self.mover_tracks[:, self.mover_labels == label]
            seen = np.isfinite(own).all(-1).any(1)
            paths.append(np.nanmedian(own[seen], axis=1))
        return paths


def gather_world(tracks: Tracks, movers: Tracks | None, frames: UInt8[ndarray, "F H W 3"]) -> World:
    """Points of the track files, coloured by the frames they were seen in; evenly thinned where
    there are many."""
    visible = tracks.visible.numpy()
    seen = np.flatnonzero(visible.any(0))
    seen = seen[_evenly(len(seen), MAX_POINTS)]
    rgb = point_colors(frames, tracks.xy.numpy(), visible)[seen]
    mover_tracks = np.zeros((len(tracks), 0, 3), np.float32)
    labels = np.zeros(0, np.int64)
    if movers is not None and movers.num_tracks:
        chosen = _evenly(movers.num_tracks, MAX_MOVER_TRACKS)
        seen_there = movers.visible.numpy()[:, chosen, None]
        mover_tracks = np.where(seen_there, movers.xyz.numpy()[:, chosen], np.nan).astype(
            np.float32
        )
        labels = (
            np.ones(len(chosen), np.int64) if movers.label is None else movers.label.numpy()[chosen]
        )
    return World(tracks.cameras, tracks.fps, tracks.xyz[0].numpy()[seen], rgb, mover_tracks, labels)


def point_colors(
    frames: UInt8[ndarray, "F H W 3"], xy: Float[ndarray, "F N 2"], visible: Bool[ndarray, "F N"]
) -> UInt8[ndarray, "N 3"]:
    """Colour of each track in the middle one of the frames that see it; grey where none does."""
    height, width = frames.shape[1:3]
    frame = anchors(visible)
    place = xy[frame, np.arange(len(frame))]
    place = np.nan_to_num(place).astype(np.int64).clip(0, [width - 1, height - 1])
    rgb = frames[frame, place[:, 1], place[:, 0]]
    return np.where(visible.any(0)[:, None], rgb, np.uint8(128))


def _evenly(count: int, most: int) -> Int[ndarray, "K"]:
    return (
        np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
        if count
        else np.zeros(0, np.int64)
    )


def world_json(world: World, depth: float) -> dict:
    """The world for the page's script: numbers, and arrays as base64 of little-endian float32 or
    bytes.

    Args:
        depth: typical z-depth of the scene, world units; the canvas turns about a point so far
            before the middle camera.
    """
    cameras = world.cameras
    poses = (cameras.world_from_cam.double() @ OPENGL_FROM_OPENCV).numpy()
    return {
        "width": cameras.width,
        "height": cameras.height,
        "fps": world.fps,
        "depth": depth,
        "middle": find_middle_frame(cameras),
        "focal": cameras.K[:, 1, 1].tolist(),
        "poses": _packed(poses.transpose(0, 2, 1)),  # columns after each other, as WebGL wants them
        "points": _packed(world.points),
        "rgb": base64.b64encode(np.ascontiguousarray(world.rgb).tobytes()).decode(),
        "movers": _packed(world.mover_tracks),
        "labels": world.mover_labels.tolist(),
    }


def _packed(values: ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()
