"""Frames whose meshes a view is drawn from, their weights, and the time that the view shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.cameras import Cameras
from models.pipeline import TriangleMeshPipeline
from models.render.options import RenderOptions

# Size at which a view is sampled for the parts that its nearest frames do not show. Larger finds
# narrower parts.
_SAMPLED_SIZE = (64, 36)


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
    """The nearest frames; more of them where these do not show all of the view or the view is off
    the path; and off the path an earlier and a later frame, which see behind near surfaces."""
    away = dict(zip(meshes.faces, meshes.view_distances(view).tolist(), strict=True))
    nearest = choose_nearest(meshes, view, options.blended)
    first = nearest.frames[0]
    more = choose_nearest(meshes, view, options.blended_off_path)
    if away[first] < options.off_path:
        missing = _measure_missing(meshes, view, more.frames, len(nearest.frames))
        return more if missing > options.missing_most else nearest
    least, most = options.aside_least, options.aside_most
    # near enough to have a fine mesh here, far enough to see behind near surfaces
    seeing = [t for t in away if t not in more.frames and least < away[t] < most]
    sides = [t for t in seeing if t < first], [t for t in seeing if t > first]

    def misfit(t: int) -> float:
        # twice and half the best distance are equally bad
        return abs(math.log(away[t] / options.aside_best))

    aside = [min(side, key=misfit) for side in sides if side]
    weights = more.weights + [options.aside_weight] * len(aside)
    return DrawnFrames(more.frames + aside, weights)


def _measure_missing(
    meshes: TriangleMeshPipeline, view: Cameras, frames: list[int], count: int
) -> float:
    """Share of a view that only frames past the first ``count`` show."""
    if count >= len(frames):
        return 0.0
    small = view.resized(*_SAMPLED_SIZE)
    depth = meshes.fragments(frames[0], small).depth.double()
    rows, columns = torch.nonzero(depth.isfinite(), as_tuple=True)
    xy = torch.stack([columns, rows], 1).double() + 0.5
    points = small.unproject(xy[None], depth[rows, columns][None])[0]
    shown = meshes.cameras[frames].shows(points)
    return float((shown.any(0) & ~shown[:count].any(0)).double().mean()) if len(points) else 0.0


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
