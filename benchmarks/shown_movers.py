"""How much of the movers' pictures is left in views beside the camera path: background at a wrong
depth, or a mover at one, hides a part."""

from dataclasses import replace

import torch

from models.cameras import Cameras
from models.export import spread
from models.render import Scene

OFFSET = 0.05
"""Distance of a view from its frame's camera, as a share of the scene's depth."""
FRAMES = 6
"""Frames that are looked at; more are more exact and take longer."""


def measure_shown_movers(scene: Scene) -> dict[str, float]:
    """Mean and least share of the movers' pixels that the background does not hide, in views to the
    right of and above frames; empty without movers.

    What stands before a mover hides it rightly: 1 is reached only where nothing does.
    """
    if scene.moving is None:
        return {}
    tolerance = scene.options.mover_tolerance
    open_options = replace(scene.options, mover_tolerance=float("inf"))
    open_scene = replace(scene, options=open_options, detail=None)
    shares = []
    for t in spread(range(len(scene.cameras)), FRAMES):
        for axis in (0, 1):
            view = shift_camera(scene.cameras[t], axis, (1, -1)[axis] * OFFSET * scene.depth)
            views = open_scene.views(view, t)
            mover, background = views.merged.depth, views.background.depth
            whole = mover != background
            if whole.any():
                shares.append(float((mover < (1 + tolerance) * background)[whole].mean()))
    if not shares:
        return {}
    return {"mover_shown": sum(shares) / len(shares), "mover_shown_least": min(shares)}


def shift_camera(camera: Cameras, axis: int, distance: float) -> Cameras:
    """A camera moved along one of its axes (x right, y down), in world units."""
    pose = camera.world_from_cam.clone()
    pose[0, :3, 3] += distance * torch.as_tensor(pose[0, :3, axis])
    return replace(camera, world_from_cam=pose)
