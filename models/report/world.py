"""The content of the page's 3D canvas beside the surface: static points in colour, cameras, and
the movers' tracks."""

import base64
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from models.cameras import OPENGL_FROM_OPENCV, Cameras, find_middle_frame
from models.clip import choose_evenly
from models.sfm import choose_anchors
from models.tracks import PointTracks, Tracks

# Static points that a page carries, 15 bytes each before base64.
_MAX_POINTS = 40_000
# Tracks of movers that a page carries, 12 bytes a frame each before base64.
_MAX_MOVER_TRACKS = 300
# Grey level of a point that no frame shows.
_UNSEEN = np.uint8(128)


@dataclass(frozen=True)
class World:
    """Cameras and points of a clip, in world axes and units."""

    cameras: Cameras
    fps: float
    """Frames per second."""
    points: Float[ndarray, "N 3"]
    """Static points."""
    rgb: UInt8[ndarray, "N 3"]
    """Colours of the static points."""
    mover_tracks: Float[ndarray, "F M 3"]
    """Points on movers; NaN in frames that do not show the point."""
    mover_labels: Int[ndarray, "M"]
    """Number of each point's mover, from 1."""

    @property
    def mover_paths(self) -> list[Float[ndarray, "f 3"]]:
        """Median position of each mover in the frames that show a point of the mover."""
        paths = []
        for label in np.unique(self.mover_labels):
            tracks = self.mover_tracks[:, self.mover_labels == label]
            shown = np.isfinite(tracks).all(-1).any(1)
            # the median ignores points that left the mover
            paths.append(np.nanmedian(tracks[shown], axis=1))
        return paths


def gather_world(tracks: Tracks, movers: Tracks | None, frames: UInt8[ndarray, "F H W 3"]) -> World:
    """Points of the track files, coloured by the frames that show them.

    Large sets of points and tracks are thinned evenly, since a page carries them.
    """
    visible = tracks.visible.numpy()
    index = np.flatnonzero(visible.any(0))
    index = index[choose_evenly(len(index), _MAX_POINTS)]
    points = PointTracks(tracks.xy.numpy(), visible, tracks.width, tracks.height)
    rgb = color_points(frames, points)[index]
    xyz = tracks.xyz[0].numpy()[index]
    return World(tracks.cameras, tracks.fps, xyz, rgb, *_gather_movers(movers, len(tracks)))


def _gather_movers(
    movers: Tracks | None, num_frames: int
) -> tuple[Float[ndarray, "F M 3"], Int[ndarray, "M"]]:
    """World positions and labels of some tracks of movers."""
    if movers is None or not movers.num_tracks:
        return np.zeros((num_frames, 0, 3), np.float32), np.zeros(0, np.int64)
    index = choose_evenly(movers.num_tracks, _MAX_MOVER_TRACKS)
    visible = movers.visible.numpy()[:, index, None]
    tracks = np.where(visible, movers.xyz.numpy()[:, index], np.nan).astype(np.float32)
    if movers.label is None:
        return tracks, np.ones(len(index), np.int64)
    return tracks, movers.label.numpy()[index]


def color_points(frames: UInt8[ndarray, "F H W 3"], tracks: PointTracks) -> UInt8[ndarray, "N 3"]:
    """Colour of each track in the middle frame of its observations; grey without observations."""
    height, width = frames.shape[1:3]
    # the middle of the observations, in time
    frame = choose_anchors(tracks.visible)
    xy = tracks.xy[frame, np.arange(len(frame))]
    pixel = np.nan_to_num(xy).astype(np.int64).clip(0, [width - 1, height - 1])
    rgb = frames[frame, pixel[:, 1], pixel[:, 0]]
    return np.where(tracks.visible.any(0)[:, None], rgb, _UNSEEN)


def pack_world(world: World, depth: float) -> dict:
    """The world for the page's script: numbers, and arrays as base64 of little-endian float32 or
    bytes.

    Args:
        depth: typical z-depth of the scene, world units; the canvas turns about the point at this
            depth before the middle camera.
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
        # WebGL stores matrices column by column
        "poses": _pack(poses.transpose(0, 2, 1)),
        "points": _pack(world.points),
        "rgb": base64.b64encode(np.ascontiguousarray(world.rgb).tobytes()).decode(),
        "movers": _pack(world.mover_tracks),
        "labels": world.mover_labels.tolist(),
    }


def _pack(values: ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()
