"""The cameras of the left and the right eye, and how far apart they are.

Both look in the same direction; the plane of the screen is chosen by shifting the principal points
(off-axis projection), so that no point has a vertical disparity. A point at z-depth z lies
f b (1 / z - 1 / c) pixels further left in the right eye, with the separation b and the convergence c.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras
from models.run import InputError
from models.stereo_video.options import StereoVideoOptions

# Percentiles of the depth of the pictures between which disparity is bounded: specks beyond count
# for nothing.
_NEAR, _FAR = 1.0, 99.0
# The middle of a picture: shares of its width and height.
_MIDDLE = 1 / 3, 2 / 3


@dataclass(frozen=True)
class Eyes:
    """Two eyes beside a camera, the same for a whole video."""

    separation: float
    """Distance between the eyes, world units."""
    convergence: float = np.inf
    """z-depth that lies in the plane of the screen, world units; inf for parallel eyes."""

    def split(self, view: Cameras) -> tuple[Cameras, Cameras]:
        """The left and the right eye of each camera, half the separation to either side of it."""
        left, right = (self._move(view, side * self.separation / 2) for side in (-1, 1))
        return left, right

    def _move(self, view: Cameras, shift: float) -> Cameras:
        """Cameras moved along their own x axis; points at the convergence keep their pixels."""
        pose = view.world_from_cam.clone()
        pose[:, :3, 3] += shift * pose[:, :3, 0]
        K = view.K.clone()
        K[:, 0, 2] += K[:, 0, 0] * shift / self.convergence
        return Cameras(K, pose, view.width, view.height)


@dataclass(frozen=True)
class SeenDepth:
    """The depth of a view."""

    depth: Float[np.ndarray, "H W"]
    """z-depth in world units; inf without a surface."""
    moving: Bool[np.ndarray, "H W"]
    """Pixels that show a mover."""


def choose_eyes(
    seen: Iterable[SeenDepth],
    focal: float,
    options: StereoVideoOptions = StereoVideoOptions(),
    on_screen: bool = True,
) -> Eyes:
    """Separation and convergence for a video.

    Args:
        seen: views of the video, all of one size.
        focal: focal length of the views as a share of their width.
        on_screen: bound the disparity to the convergence; without it the eyes are parallel, as for
            a headset, and only their separation is chosen.

    Raises:
        InputError: no view shows a surface.
    """
    seen = list(seen)
    inverse = np.concatenate([_inverse(view.depth, np.isfinite(view.depth)) for view in seen])
    aim = [_inverse(view.depth, _aim(view, options)) for view in seen]
    if not len(inverse):
        raise InputError("--stereo: the views show no surface, whose depth would place the eyes")
    aim = [values for values in aim if len(values)] or [inverse]
    # parallax is proportional to inverse depth: the median of the views' medians
    middle = float(np.median([np.median(values) for values in aim]))
    separation = options.separation / middle
    if not on_screen:
        return Eyes(separation)
    far, near = np.percentile(inverse, [_NEAR, _FAR])
    most = focal * separation * max(near - middle, middle - far)
    return Eyes(separation * min(1.0, options.max_disparity / max(most, 1e-9)), 1 / middle)


def _aim(view: SeenDepth, options: StereoVideoOptions) -> Bool[np.ndarray, "H W"]:
    """Pixels that lie in the plane of the screen on average."""
    if options.convergence == "movers" and view.moving.any():
        return view.moving & np.isfinite(view.depth)
    height, width = view.depth.shape
    part = np.zeros((height, width), bool)
    rows, columns = ([round(share * side) for share in _MIDDLE] for side in (height, width))
    part[slice(*rows), slice(*columns)] = True
    return part & np.isfinite(view.depth)


def _inverse(
    depth: Float[np.ndarray, "H W"], chosen: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "N"]:
    return 1 / depth[chosen]


def choose_evenly_spaced(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of ``count`` numbers from 0, evenly spaced with both ends."""
    return sorted(set(torch.linspace(0, count - 1, min(count, wanted)).round().int().tolist()))
