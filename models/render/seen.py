"""Pixels of a view whose surface lies inside the image of some frame of the clip."""

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras
from models.pipeline import TriangleMeshPipeline
from models.render.view_choice import choose_nearest


def find_seen(
    meshes: TriangleMeshPipeline, view: Cameras, depth: Float[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """Pixels whose surface lies inside the image of a frame with a mesh.

    Meshes reach past their frame's image at extrapolated depths, where the colour field has learned
    nothing. A surface inside an image counts even if a nearer surface hides it there.

    Args:
        view: a camera, of length 1.
        depth: z-depth of the view in world units; inf without a surface.
    """
    nearest = choose_nearest(meshes, view, len(meshes.faces)).frames
    seen = np.zeros(depth.shape, bool)
    rows, columns = np.nonzero(np.isfinite(depth))
    xy = torch.from_numpy(np.stack([columns, rows], 1) + 0.5)
    z = torch.from_numpy(depth[rows, columns].astype(np.float64))
    points = view.unproject(xy[None], z[None])[0]
    # the nearest frame first: few points are left for the others
    for t in nearest:
        inside = meshes.cameras[[t]].shows(points)[0].numpy()
        seen[rows[inside], columns[inside]] = True
        rows, columns, points = rows[~inside], columns[~inside], points[~inside]
        if not len(rows):
            break
    return seen
