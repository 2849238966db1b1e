"""Points of one frame -> a triangle mesh of what that frame sees, past its borders, depth jumps
marked."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import Delaunay, cKDTree

JUMP_RATIO = 1.12
"""Farthest over nearest depth of a face from which it may span two surfaces."""
FINE_JUMP_RATIO = 1.05
"""The same where vertices are dense, so that a surface cannot change so much from one to the
next."""
JUMP_TRUST = 1e-3
"""Weight of a face that may span a depth jump: it closes a gap, but is no surface."""
BORDER_TRUST = 0.03
"""Weight of a face that reaches past the points, at an extrapolated depth."""
BORDER_GAP = 12
"""A point past the border counts if it was or will be seen within so many frames."""
HIDDEN_CELL = 10
"""Pixels between points that the frame itself does not see."""
BORDER_SHARE = 0.2
"""How far the mesh reaches past the image border, as a share of the longer side."""
SPIKE_RATIO = 1.08
"""A point whose depth differs from every neighbour's median by more than this is a mistake of the
tracks."""


@dataclass(frozen=True)
class FrameMesh:
    """Mesh over one frame; its vertices are drawn at their projections, in this frame as in any
    other."""

    xy: Float[np.ndarray, "V 2"]
    """Projected vertices in pixels of the frame; those of the border lie outside the image."""
    depth: Float[np.ndarray, "V"]
    """z-depth in the frame's camera."""
    faces: Int[np.ndarray, "T 3"]
    """Vertex indices."""
    trust: Float[np.ndarray, "T"]
    """How far to believe a face: 1 for a surface, BORDER_TRUST past the points, JUMP_TRUST over a
    depth jump."""
    point: Int[np.ndarray, "V"]
    """Which track each vertex belongs to; BORDER or FINE for the mesh's own vertices."""


BORDER = -1
FINE = -2
"""Vertices that are no track's: past the image border, and along outlines."""


NEAR_PERCENTILE = 6
NEAR_RATIO = 0.4
"""Few points, much nearer than all others, are slipped tracks (shadows, glints): they would hide
the whole view."""
WIDE = 25
WIDE_RATIO = 1.3
"""A point needs a sixth of this many neighbours within this ratio of its depth."""


def build_mesh(
    xy: Float[np.ndarray, "N 2"],
    depth: Float[np.ndarray, "N"],
    point: Int[np.ndarray, "N"],
    width: int,
    height: int,
    fine: tuple[Float[np.ndarray, "E 2"], Float[np.ndarray, "E"]] | None = None,
) -> FrameMesh | None:
    """Delaunay mesh of projected points with positive depth, carried on past the image border.

    Args:
        fine: pixels and depths of further vertices, this frame's own, dense along outlines.

    Returns None where fewer than three points are left to tell a depth.
    """
    if fine is not None:
        xy = np.concatenate([xy, fine[0]])
        depth = np.concatenate([depth, fine[1]])
        point = np.concatenate([point, np.full(len(fine[0]), FINE, point.dtype)])
    margin = BORDER_SHARE * max(width, height)
    near = (np.abs(xy - [width / 2, height / 2]) < [width / 2 + margin, height / 2 + margin]).all(1)
    keep = near & (depth > 0) & np.isfinite(depth)
    if keep.any():
        keep &= depth > NEAR_RATIO * np.percentile(depth[keep], NEAR_PERCENTILE)
    xy, depth, point = _without_coincident(xy[keep], depth[keep], point[keep])
    for _ in range(2):
        if len(xy) < 8:
            break
        good = ~_spikes(xy, depth)
        xy = xy[good]
        depth = depth[good]
        point = point[good]
    if len(xy) < 3:
        return None
    ring = _ring(width, height, margin)
    ring_depth = extrapolate_depth(xy, depth, ring)
    xy = np.concatenate([xy, ring])
    depth = np.concatenate([depth, ring_depth])
    point = np.concatenate([point, np.full(len(ring), BORDER, point.dtype)])
    faces = Delaunay(xy).simplices.astype(np.int32)
    corner = depth[faces]
    trust = np.where((point[faces] == BORDER).any(1), BORDER_TRUST, 1.0)
    limit = np.where((point[faces] == FINE).any(1), FINE_JUMP_RATIO, JUMP_RATIO)
    trust[corner.max(1) > limit * corner.min(1)] = JUMP_TRUST
    return FrameMesh(xy, depth, faces, trust.astype(np.float32), point)


def hidden_points(
    xy: Float[np.ndarray, "N 2"],
    depth: Float[np.ndarray, "N"],
    gap: Int[np.ndarray, "N"],
    visible: Bool[np.ndarray, "N"],
    mask: Bool[np.ndarray, "H W"] | None,
    width: int,
    height: int,
) -> Int[np.ndarray, "M"]:
    """Points that tell what lies past the border and behind a mover: those seen nearest in time,
    one a cell.

    Args:
        gap: frames since each point was last seen, or until it will be; those inside a track's life
            count 0.
        mask: where something moves.
    """
    margin = BORDER_SHARE * max(width, height)
    offset = np.abs(xy - [width / 2, height / 2]) - [width / 2, height / 2]
    outside = (offset.max(1) > 0) & (offset.max(1) < margin) & (gap <= BORDER_GAP)
    wanted = outside
    if mask is not None and mask.any():
        pixel = np.nan_to_num(xy, nan=-1.0).clip(-1, 1e6).astype(np.int64)
        inside = (offset.max(1) < 0).nonzero()[0]
        behind = np.zeros(len(xy), bool)
        behind[inside] = mask[pixel[inside, 1], pixel[inside, 0]]
        wanted = outside | behind
    found = np.flatnonzero(wanted & ~visible & (depth > 0) & np.isfinite(xy).all(1))
    found = found[np.argsort(gap[found], kind="stable")]
    _, chosen = np.unique(
        np.floor(xy[found] / HIDDEN_CELL).astype(np.int64), axis=0, return_index=True
    )
    return found[chosen]


def extrapolate_depth(
    xy: Float[np.ndarray, "N 2"],
    depth: Float[np.ndarray, "N"],
    query: Float[np.ndarray, "Q 2"],
    neighbours: int = 96,
) -> Float[np.ndarray, "Q"]:
    """Depth at other pixels by a plane through the nearest points, not far beyond the range of
    their depths.

    Inverse depth is affine in the pixel on a plane in space, so the fit is linear. A weak pull
    holds the plane to face the camera where its points do not tell its slope.
    """
    k = min(neighbours, len(xy))
    distance, index = cKDTree(xy).query(query, list(range(1, k + 1)))
    weight = 1.0 / (distance + 1.0)
    offset = (xy[index] - query[:, None]) / (distance.mean(1)[:, None, None] + 1.0)
    design = np.concatenate([np.ones((len(query), k, 1)), offset], 2)
    inverse = 1.0 / depth[index]
    weighted = design * weight[..., None]
    pull = np.diag([0.0, 1e-3, 1e-3]) * weight.sum(1)[:, None, None]
    normal = np.einsum("qki,qkj->qij", weighted, design) + pull
    fit = np.linalg.solve(normal, np.einsum("qki,qk->qi", weighted, inverse)[..., None])[:, 0, 0]
    low, high = inverse.min(1), inverse.max(1)
    reach = 2 * (high - low)
    return 1.0 / np.clip(fit, np.maximum(low - reach, 0.25 * low), high + reach)


def _without_coincident(
    xy: np.ndarray, depth: np.ndarray, point: np.ndarray
) -> tuple[np.ndarray, ...]:
    """One point for each half pixel: nearer twins make slivers."""
    _, first = np.unique(np.floor(2 * xy).astype(np.int64), axis=0, return_index=True)
    first.sort()
    return xy[first], depth[first], point[first]


def _spikes(xy: np.ndarray, depth: np.ndarray) -> Bool[np.ndarray, "N"]:
    """Points whose depth none of their neighbours shares, or that few share in a wider
    neighbourhood."""
    wide = min(WIDE, len(xy))
    _, index = cKDTree(xy).query(xy, wide)
    ratio = np.abs(np.log(depth[index[:, 1:]] / depth[:, None]))
    alone = np.sort(ratio[:, :7], 1)[:, 1] > np.log(SPIKE_RATIO)
    outnumbered = (ratio < np.log(WIDE_RATIO)).sum(1) < wide // 6
    return alone | outnumbered


def _ring(width: int, height: int, margin: float) -> Float[np.ndarray, "Q 2"]:
    """Points round the image at the given distance, as far apart as that."""
    step = max(margin, 1.0)
    x = np.linspace(-margin, width + margin, max(2, round((width + 2 * margin) / step)) + 1)
    y = np.linspace(-margin, height + margin, max(2, round((height + 2 * margin) / step)) + 1)[1:-1]
    sides = [np.stack([x, np.full_like(x, v)], 1) for v in (-margin, height + margin)]
    sides += [np.stack([np.full_like(y, u), y], 1) for u in (-margin, width + margin)]
    return np.concatenate(sides)
