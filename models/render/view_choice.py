"""Frames whose meshes a view is drawn from, their weights, and the time that the view shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.cameras import Cameras
from models.pipeline import TriangleMeshPipeline
from models.render.options import RenderOptions


@dataclass(frozen=True)
class DrawnFrames:
    """Frames whose meshes a view is drawn from."""

    frames: list[int]
    """The nearest first."""
    weights: list[float]
    """Weight of each frame; the weights of the nearest frames sum to 1."""


def choose_nearest(meshes: TriangleMeshPipeline, view: Cameras, count: int) -> DrawnFrames:
    """Frames with a mesh whose cameras are nearest to a camera in position and direction."""
    frames = list(meshes.faces)
    cost = meshes.view_costs(view)
    order = torch.argsort(cost, stable=True)[:count]
    weight = 1.0 / (cost[order] + 0.3 * cost[order].mean() + 1e-6)
    if cost[order[0]] < 1e-6:
        # The view of a frame with a mesh is that mesh; the others only fill its holes.
        weight[1:] *= 1e-3
    return DrawnFrames([frames[i] for i in order], (weight / weight.sum()).tolist())


def choose_drawn(
    meshes: TriangleMeshPipeline, view: Cameras, options: RenderOptions = RenderOptions()
) -> DrawnFrames:
    """The nearest frames; off the path more of them, and an earlier and a later frame, which see
    behind near surfaces."""
    away = dict(zip(meshes.faces, meshes.view_distances(view).tolist(), strict=True))
    nearest = choose_nearest(meshes, view, options.blended)
    first = nearest.frames[0]
    if away[first] < options.off_path:
        return nearest
    nearest = choose_nearest(meshes, view, options.blended_off_path)
    least, most = options.aside_least, options.aside_most
    # near enough to have a fine mesh here, far enough to see behind near surfaces
    seeing = [t for t in away if t not in nearest.frames and least < away[t] < most]
    sides = [t for t in seeing if t < first], [t for t in seeing if t > first]

    def misfit(t: int) -> float:
        # twice and half the best distance are equally bad
        return abs(math.log(away[t] / options.aside_best))

    aside = [min(side, key=misfit) for side in sides if side]
    weights = nearest.weights + [options.aside_weight] * len(aside)
    return DrawnFrames(nearest.frames + aside, weights)


def weigh_changes(
    meshes: TriangleMeshPipeline, view: Cameras, options: RenderOptions = RenderOptions()
) -> float:
    """Weight of the grid of changes in a view: 1 near the path, ``changes_least`` far from it."""
    whole, far = options.changes_whole, options.changes_far
    distance = meshes.path_distance(view) / options.off_path
    nearness = (far - distance) / (far - whole)
    return options.changes_least + (1 - options.changes_least) * min(1.0, max(0.0, nearness))


def average_times(
    frames: Sequence[int], weights: Sequence[float], options: RenderOptions = RenderOptions()
) -> float:
    """Time, in frames, of a view drawn from these frames: their weighted mean near the heaviest.

    The requested time of the view would not do: for surfaces outside the image of the frame at that
    time, the field has no colours.
    """
    frames = np.array(frames)
    weights = np.array(weights)
    near = np.abs(frames - frames[weights.argmax()]) <= options.moment_span
    weights = weights * near
    return float(frames @ weights / weights.sum())
