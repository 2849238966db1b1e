"""The drift of a long way, found where the camera comes back and spread over the way: a pose graph
of similarities.

Source: Strasdat, Montiel and Davison, "Scale drift-aware large scale monocular SLAM", RSS 2010.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import least_squares
from scipy.sparse import lil_array
from scipy.spatial.transform import Rotation

from models.cameras import Cameras
from models.sfm.colmap import MIN_SHARED, resect
from models.sfm.windows.window import Window

# Reprojection error in pixels up to which a point of the earlier visit supports a pose.
_MOST_ERROR = 4.0
# Windows between two visits, at least: neighbours share frames.
_APART = 2
# Standard deviations of a step from frame to frame: radians, shares of the step, log of the scale.
_TURN, _SHIFT, _GROWTH = 0.002, 0.02, 0.01
# Standard deviation of a loop's shift, as a share of the scene's depth.
_LOOP_SHIFT = 0.005


@dataclass(frozen=True)
class Loop:
    """A frame of a later visit as the map of an earlier visit places it."""

    first: int
    """Frame of the earlier visit."""
    second: int
    pose: Float[np.ndarray, "4 4"]
    """From the axes of the second camera to those of the first, in world units at the first."""
    scale: float
    """World units at the first frame to a unit at the second."""
    depth: float
    """Median depth of the points in the second frame, in world units at the first."""


def find_loops(windows: Sequence[Window]) -> list[Loop]:
    """Frames whose pose the points of a window far before tell."""
    loops = []
    for number, later in enumerate(windows):
        for earlier in windows[: max(0, number - _APART + 1)]:
            known = np.isfinite(earlier.points.xyz).all(1)
            counts = (later.tracks.visible & known).sum(1)
            for t in np.flatnonzero(counts >= MIN_SHARED):
                seen = np.flatnonzero(known & later.tracks.visible[t])
                loop = _place(earlier, later, int(t), seen)
                loops += [] if loop is None else [loop]
    return loops


def _place(earlier: Window, later: Window, t: int, seen: Int[np.ndarray, "n"]) -> Loop | None:
    """The loop of a frame of the later window; None where too few points agree.

    Args:
        t: number among the later window's frames.
        seen: tracks visible in it that have a point in the earlier window.
    """
    own = later.measure_depth(t)
    xyz = earlier.points.xyz[seen]
    camera = later.cameras[t]
    pose = resect(camera, xyz, later.tracks.xy[t, seen], _MOST_ERROR)
    if pose is None:
        return None
    depth = (xyz - pose[:3, 3]) @ pose[:3, 2]
    ratio = np.nanmedian(depth / own[seen])
    if not np.isfinite(ratio):
        return None
    shared = earlier.tracks.visible[:, seen].sum(1)
    first = int(shared.argmax())
    relative = np.linalg.inv(earlier.cameras.world_from_cam[first].numpy()) @ pose
    relative[:3, 3] *= earlier.scale
    return Loop(
        int(earlier.frames[first]),
        int(later.frames[t]),
        relative,
        float(ratio * earlier.scale / later.scale),
        float(np.median(depth) * earlier.scale),
    )


def close_loops(cameras: Cameras, loops: list[Loop]) -> Cameras:
    """The cameras with the drift between both ends of the loops spread over the frames between them;
    unchanged without loops.

    Unknown is a similarity for each frame: its pose, and the scale of the map around it. Steps from
    frame to frame and loops are residuals, loops with a robust loss.
    """
    if not loops:
        return cameras
    poses = cameras.world_from_cam.double().numpy()
    graph = _Graph.of(poses, loops)
    start = np.zeros((len(poses), 7))
    start[:, :3] = Rotation.from_matrix(poses[:, :3, :3]).as_rotvec()
    start[:, 3:6] = poses[:, :3, 3]
    found = least_squares(
        graph.measure,
        start.ravel(),
        jac_sparsity=graph.list_entries(len(poses)),
        loss="soft_l1",
        x_scale="jac",
        max_nfev=100,
    )
    values = found.x.reshape(-1, 7)
    moved = poses.copy()
    moved[:, :3, :3] = Rotation.from_rotvec(values[:, :3]).as_matrix()
    moved[:, :3, 3] = values[:, 3:6]
    # The first camera stays where it is.
    moved = poses[0] @ np.linalg.inv(moved[0]) @ moved
    return replace(cameras, world_from_cam=torch.from_numpy(moved))


@dataclass(frozen=True)
class _Graph:
    """E relative similarities between frames."""

    a: Int[np.ndarray, "E"]
    b: Int[np.ndarray, "E"]
    turn: Float[np.ndarray, "E 3 3"]
    """Rotation from the axes of b to those of a."""
    shift: Float[np.ndarray, "E 3"]
    """Centre of b in the axes of a, in units at a."""
    growth: Float[np.ndarray, "E"]
    """Log of the units at a to a unit at b."""
    weight: Float[np.ndarray, "E 3"]
    """Inverse standard deviations of turn, shift and growth."""

    @staticmethod
    def of(poses: Float[np.ndarray, "F 4 4"], loops: list[Loop]) -> "_Graph":
        """The steps between successive frames, and the loops."""
        steps = np.linalg.inv(poses[:-1]) @ poses[1:]
        length = np.linalg.norm(steps[:, :3, 3], axis=1)
        length = np.maximum(length, 0.1 * np.median(length))
        relative = np.concatenate([steps, [loop.pose for loop in loops]])
        count = len(steps)
        weight = np.empty((len(relative), 3))
        weight[:] = 1 / _TURN, 1, 1 / _GROWTH
        weight[:count, 1] = 1 / (_SHIFT * length)
        weight[count:, 1] = [1 / (_LOOP_SHIFT * loop.depth) for loop in loops]
        return _Graph(
            np.concatenate([np.arange(count), [loop.first for loop in loops]]).astype(int),
            np.concatenate([np.arange(count) + 1, [loop.second for loop in loops]]).astype(int),
            relative[:, :3, :3],
            relative[:, :3, 3],
            np.concatenate([np.zeros(count), np.log([loop.scale for loop in loops])]),
            weight,
        )

    def measure(self, values: Float[np.ndarray, "P"]) -> Float[np.ndarray, "R"]:
        """Weighted residuals of rotation vectors, centres and log scales of all frames, and the
        first frame held in its place."""
        values = values.reshape(-1, 7)
        rotation = Rotation.from_rotvec(values[:, :3]).as_matrix()
        back = rotation[self.a].transpose(0, 2, 1)
        turned = self.turn.transpose(0, 2, 1) @ back @ rotation[self.b]
        turn = Rotation.from_matrix(turned).as_rotvec()
        away = (back @ (values[self.b, 3:6] - values[self.a, 3:6])[..., None])[..., 0]
        shift = away * np.exp(-values[self.a, 6:]) - self.shift
        growth = values[self.b, 6] - values[self.a, 6] - self.growth
        parts = turn * self.weight[:, :1], shift * self.weight[:, 1:2], growth * self.weight[:, 2]
        held = values[0, 6:] / _GROWTH
        return np.concatenate([*(part.ravel() for part in parts), held])

    def list_entries(self, num_frames: int) -> lil_array:
        """The entries of the Jacobian of ``measure`` that are not 0."""
        count = len(self.a)
        entries = lil_array((7 * count + 1, 7 * num_frames), dtype=bool)
        columns = np.concatenate(
            [7 * ends[:, None] + np.arange(7) for ends in (self.a, self.b)], axis=1
        )
        for e in range(count):
            turn, shift = 3 * e, 3 * (count + e)
            rows = *range(turn, turn + 3), *range(shift, shift + 3), 6 * count + e
            for row in rows:
                entries[row, columns[e]] = True
        entries[7 * count, 6] = True
        return entries
