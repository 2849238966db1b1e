"""What the background's depth says on a mover: the ground at its feet, and the surface that it
hides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from models.clip import at_points
from models.movers.options import MoverOptions
from models.tracks import PointTracks

# Pixels of a mask below which its lowest row says nothing about contact.
_MIN_PIXELS = 20
# Rows below a foot at which the ground is read: nearer ones may show the mover's outline.
_BELOW, _FARTHER_BELOW = 2, 8
# Rows from a pixel's centre to its lower edge.
_TO_EDGE = 0.5
# Largest ratio of the ground's depths at the two rows.
_STEEPEST = 1.5


@dataclass(frozen=True)
class Contact:
    """Ground below a mover in a frame."""

    depth: float
    """Median z-depth of the background at the lower edge of the feet, in world units."""
    feet: Float[np.ndarray, "n 2"]
    """Lowest points of the mask in pixels."""
    is_cut: bool
    """Whether the lower image border cuts the mover: its feet may then be nearer."""


@dataclass(frozen=True)
class BackgroundCues:
    """What the background says on a mover in each frame."""

    contact: list[Contact | None]
    """None in frames without the mover or without ground below."""
    hidden: Float[np.ndarray, "F N"]
    """z-depth of the background behind each visible track; NaN elsewhere and at holes."""
    extent: float
    """Half the side of a square as large as the mask, in pixels, median over frames."""


def read_cues(
    masks: Bool[np.ndarray, "F H W"],
    tracks: PointTracks,
    background_depth: Sequence[Float[np.ndarray, "H W"]],
    options: MoverOptions = MoverOptions(),
) -> BackgroundCues:
    """Reads the background's depth at a mover in each frame.

    Args:
        masks: of the mover.
        tracks: of the mover.
        background_depth: the background's depth map in each frame, also behind the mover; inf at
            holes.
    """
    contact: list[Contact | None] = [None] * len(masks)
    hidden = np.full(tracks.visible.shape, np.nan)
    # Frames without the mover are left out: to draw a depth map takes long.
    for t in np.flatnonzero(masks.any((1, 2))):
        surface = background_depth[t]
        contact[t] = find_contact(masks[t], surface, options)
        seen = np.flatnonzero(tracks.visible[t])
        behind = at_points(surface[None], tracks.xy[[t]][:, seen])[0]
        hidden[t, seen] = np.where(np.isfinite(behind) & (behind > 0), behind, np.nan)
    areas = masks.sum((1, 2))
    extent = np.sqrt(np.median(areas[areas > 0])) / 2 if areas.any() else 0.0
    return BackgroundCues(contact, hidden, float(extent))


def find_contact(
    mask: Bool[np.ndarray, "H W"],
    background_depth: Float[np.ndarray, "H W"],
    options: MoverOptions = MoverOptions(),
) -> Contact | None:
    """The background at the lower edge of a mover's feet, its lowest pixels; None for a small mover,
    and for a background with holes below the feet."""
    rows, columns = np.nonzero(mask)
    height = len(mask)
    if len(rows) < _MIN_PIXELS:
        return None
    lowest = np.full(mask.shape[1], -1)
    np.maximum.at(lowest, columns, rows)
    limit = rows.max() - max(2.0, options.contact_share * (rows.max() - rows.min()))
    feet = np.flatnonzero(lowest >= limit)
    depth = _read_ground(background_depth, feet, lowest[feet])
    if depth is None:
        return None
    points = np.stack([feet, lowest[feet]], 1) + 0.5
    return Contact(depth, points, bool(rows.max() >= height - 2))


def _read_ground(
    depth: Float[np.ndarray, "H W"], columns: Int[np.ndarray, "n"], lowest: Int[np.ndarray, "n"]
) -> float | None:
    """Median depth of the ground at the lower edges of pixels; None at holes.

    The inverse depth of a plane is linear over the image: it is continued from two rows below.
    Each row costs a percent where the ground is seen from a low camera.
    """
    near, far = (_read_rows(depth, lowest + row, columns) for row in (_BELOW, _FARTHER_BELOW))
    is_known = np.isfinite(near)
    if not is_known.any():
        return None
    far = np.where(np.isfinite(far), far, near)
    ratio = np.clip(np.median((near / far)[is_known]), 1 / _STEEPEST, _STEEPEST)
    rows = (_BELOW - _TO_EDGE) / (_FARTHER_BELOW - _BELOW)
    return float(np.median(near[is_known]) / (1 - rows * (ratio - 1)))


def _read_rows(
    depth: Float[np.ndarray, "H W"], rows: Int[np.ndarray, "n"], columns: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """Depth at pixels, of the lowest row below the image; NaN at holes."""
    found = depth[np.minimum(rows, len(depth) - 1), columns]
    return np.where(np.isfinite(found) & (found > 0), found, np.nan)
