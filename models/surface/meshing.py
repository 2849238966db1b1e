"""Points of a frame -> triangle mesh of the surfaces that the frame sees.

The mesh reaches past the image border at extrapolated depths. A low trust marks faces that may span
a depth jump.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import Delaunay, cKDTree

from models.surface.options import MeshOptions

JUMP_TRUST = 1e-3
"""Trust of a face that may span a depth jump: the face closes a gap, but is no surface. Also the
mark of such faces in a scene, so it is no option."""
BORDER_TRUST = 0.03
"""Trust of a face with a vertex past the points, at an extrapolated depth. Also the mark of such
faces in a scene."""
BORDER = -1
"""``point`` of a vertex that the mesh itself adds past the image border."""
FINE = -2
"""``point`` of a vertex from dense stereo, along outlines."""
# Points in a frame from which on each point has a neighbourhood that can tell a spike.
_LEAST_NEIGHBOURHOOD = 8


@dataclass(frozen=True)
class FramePoints:
    """N points of the scene, projected into a frame."""

    xy: Float[np.ndarray, "N 2"]
    """Pixels of the frame, inside the image or not."""
    depth: Float[np.ndarray, "N"]
    """z-depth in the frame's camera, in world units; not positive behind the camera."""
    point: Int[np.ndarray, "N"]
    """Track of each point, or FINE."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""

    def __len__(self) -> int:
        return len(self.xy)

    def __getitem__(self, index: Int[np.ndarray, "M"] | Bool[np.ndarray, "N"]) -> "FramePoints":
        """Some of the points."""
        return FramePoints(
            self.xy[index], self.depth[index], self.point[index], self.width, self.height
        )

    def joined(self, other: "FramePoints") -> "FramePoints":
        """These points, followed by others of the same frame."""
        return FramePoints(
            np.concatenate([self.xy, other.xy]),
            np.concatenate([self.depth, other.depth]),
            np.concatenate([self.point, other.point]),
            self.width,
            self.height,
        )


@dataclass(frozen=True)
class FrameMesh:
    """Mesh over a frame; its vertices keep their projections into this frame."""

    xy: Float[np.ndarray, "V 2"]
    """Projected vertices in pixels of the frame; border vertices lie outside the image."""
    depth: Float[np.ndarray, "V"]
    """z-depth in the frame's camera, in world units."""
    faces: Int[np.ndarray, "T 3"]
    """Vertex indices."""
    trust: Float[np.ndarray, "T"]
    """Weight of each face in blending and training: 1 for a surface, BORDER_TRUST past the points,
    JUMP_TRUST over a depth jump."""
    point: Int[np.ndarray, "V"]
    """Track of each vertex; BORDER or FINE for vertices of the mesh's own."""


def build_mesh(
    points: FramePoints, fine: FramePoints | None = None, options: MeshOptions = MeshOptions()
) -> FrameMesh | None:
    """Delaunay mesh of the points with positive depth, continued past the image border.

    Args:
        fine: further vertices from dense stereo, dense along outlines.

    Returns:
        The mesh, or None if fewer than three points are left.
    """
    points = points if fine is None else points.joined(fine)
    points = _drop_outliers(points, options)
    if len(points) < 3:
        return None
    points = points.joined(_build_border(points, options))
    faces = Delaunay(points.xy).simplices.astype(np.int32)
    trust = _rate_faces(points, faces, options)
    return FrameMesh(points.xy, points.depth, faces, trust, points.point)


def find_hidden_points(
    points: FramePoints,
    gap: Int[np.ndarray, "N"],
    visible: Bool[np.ndarray, "N"],
    mask: Bool[np.ndarray, "H W"] | None,
    options: MeshOptions = MeshOptions(),
) -> Int[np.ndarray, "M"]:
    """Indices of points that describe the scene past the image border and behind movers.

    The frame does not see these points. Of each grid cell only the point visible nearest in time is
    taken.

    Args:
        gap: frames since each point was last visible, or until it will be; 0 within a track's life.
        visible: points that the frame sees.
        mask: pixels of movers.
    """
    beyond = _measure_past_border(points)
    margin = options.border_share * max(points.width, points.height)
    wanted = (beyond > 0) & (beyond < margin) & (gap <= options.border_gap)
    if mask is not None and mask.any():
        wanted |= _read_mask(points, mask, beyond < 0)
    found = np.flatnonzero(wanted & ~visible & (points.depth > 0) & np.isfinite(points.xy).all(1))
    found = found[np.argsort(gap[found], kind="stable")]
    cell = np.floor(points.xy[found] / options.hidden_cell).astype(np.int64)
    _, chosen = np.unique(cell, axis=0, return_index=True)
    return found[chosen]


def extrapolate_depth(
    xy: Float[np.ndarray, "N 2"],
    depth: Float[np.ndarray, "N"],
    query: Float[np.ndarray, "Q 2"],
    neighbours: int = MeshOptions.extrapolation_neighbours,
) -> Float[np.ndarray, "Q"]:
    """Depth at other pixels, by a plane through the nearest points.

    The inverse depth of a plane in space is affine in the pixel, so the fit is linear. A weak prior
    turns the plane towards the camera where the points do not determine its slope. The result stays
    near the range of the points' depths.
    """
    k = min(neighbours, len(xy))
    distance, index = cKDTree(xy).query(query, list(range(1, k + 1)))
    # one pixel more, so that a point right at the query does not outweigh all others
    weight = 1.0 / (distance + 1.0)
    offset = (xy[index] - query[:, None]) / (distance.mean(1)[:, None, None] + 1.0)
    design = np.concatenate([np.ones((len(query), k, 1)), offset], 2)
    inverse = 1.0 / depth[index]
    fit = _fit_constant(design, weight, inverse)
    low = inverse.min(1)
    high = inverse.max(1)
    # no farther than four times the most distant of the points
    reach = 2 * (high - low)
    return 1.0 / np.clip(fit, np.maximum(low - reach, 0.25 * low), high + reach)


def _read_mask(
    points: FramePoints, mask: Bool[np.ndarray, "H W"], inside: Bool[np.ndarray, "N"]
) -> Bool[np.ndarray, "N"]:
    """The mask at points inside the image, False at all others."""
    # points behind the camera may have any coordinates, which must not overflow
    pixel = np.nan_to_num(points.xy, nan=-1.0).clip(-1, 1e6).astype(np.int64)[inside]
    value = np.zeros(len(points), bool)
    value[inside] = mask[pixel[:, 1], pixel[:, 0]]
    return value


def _fit_constant(
    design: Float[np.ndarray, "Q k 3"],
    weight: Float[np.ndarray, "Q k"],
    value: Float[np.ndarray, "Q k"],
) -> Float[np.ndarray, "Q"]:
    """First coefficient of each weighted least-squares fit, with a weak prior of zero slopes."""
    weighted = design * weight[..., None]
    # relative to the sum of weights: far below the pull of points that determine the slope
    prior = np.diag([0.0, 1e-3, 1e-3]) * weight.sum(1)[:, None, None]
    normal = np.einsum("qki,qkj->qij", weighted, design) + prior
    return np.linalg.solve(normal, np.einsum("qki,qk->qi", weighted, value)[..., None])[:, 0, 0]


def _measure_past_border(points: FramePoints) -> Float[np.ndarray, "N"]:
    """Pixels from the nearest image border along an axis, negative inside the image."""
    half = [points.width / 2, points.height / 2]
    return (np.abs(points.xy - half) - half).max(1)


def _drop_outliers(points: FramePoints, options: MeshOptions) -> FramePoints:
    """Points within the margin, without slipped tracks, coincident points and spikes."""
    margin = options.border_share * max(points.width, points.height)
    half = [points.width / 2, points.height / 2]
    limit = [points.width / 2 + margin, points.height / 2 + margin]
    keep = (np.abs(points.xy - half) < limit).all(1)
    keep &= (points.depth > 0) & np.isfinite(points.depth)
    if keep.any():
        nearest = np.percentile(points.depth[keep], options.near_percentile)
        keep &= points.depth > options.near_ratio * nearest
    return _drop_spikes(_drop_coincident(points[keep]), options)


def _drop_coincident(points: FramePoints) -> FramePoints:
    """At most a point for each half pixel: nearer pairs make slivers."""
    _, first = np.unique(np.floor(2 * points.xy).astype(np.int64), axis=0, return_index=True)
    # keep the order of the points
    first.sort()
    return points[first]


def _drop_spikes(points: FramePoints, options: MeshOptions) -> FramePoints:
    """The points without spikes, and without spikes that stood beside these spikes."""
    asked = np.arange(len(points))
    for _ in range(2):
        # too few points for a neighbourhood
        if len(points) < _LEAST_NEIGHBOURHOOD or not len(asked):
            break
        near = _find_crowds(points, asked, options)
        spiky = np.zeros(len(points), bool)
        spiky[asked] = _are_spikes(points.depth[asked], points.depth[near], options)
        # all other points keep their neighbours
        beside = asked[spiky[near].any(1)]
        asked = (np.cumsum(~spiky) - 1)[beside[~spiky[beside]]]
        points = points[~spiky]
    return points


def _find_crowds(
    points: FramePoints, asked: Int[np.ndarray, "M"], options: MeshOptions
) -> Int[np.ndarray, "M k"]:
    """Indices of the nearest points of some points, nearest first, without the points themselves."""
    crowd = min(options.crowd, len(points))
    _, near = cKDTree(points.xy).query(points.xy[asked], crowd)
    return near[:, 1:]


def _are_spikes(
    depth: Float[np.ndarray, "M"], near: Float[np.ndarray, "M k"], options: MeshOptions
) -> Bool[np.ndarray, "M"]:
    """Whether no near neighbour shares a depth, or few points of a wider neighbourhood.

    Args:
        near: depths of the neighbours, nearest first.
    """
    ratio = np.abs(np.log(near / depth[:, None]))
    alone = np.sort(ratio[:, :7], 1)[:, 1] > np.log(options.spike_ratio)
    sharing = (ratio < np.log(options.crowd_ratio)).sum(1)
    return alone | (sharing < (near.shape[1] + 1) // 6)


def _build_border(points: FramePoints, options: MeshOptions) -> FramePoints:
    """Vertices round the image, at depths extrapolated from the points."""
    margin = options.border_share * max(points.width, points.height)
    ring = _place_ring(points.width, points.height, margin)
    depth = extrapolate_depth(points.xy, points.depth, ring, options.extrapolation_neighbours)
    marks = np.full(len(ring), BORDER, points.point.dtype)
    return FramePoints(ring, depth, marks, points.width, points.height)


def _place_ring(width: int, height: int, margin: float) -> Float[np.ndarray, "Q 2"]:
    """Pixels round the image at the distance ``margin`` from its border, about ``margin`` apart."""
    # border_share may be 0
    step = max(margin, 1.0)
    x = np.linspace(-margin, width + margin, max(2, round((width + 2 * margin) / step)) + 1)
    y = np.linspace(-margin, height + margin, max(2, round((height + 2 * margin) / step)) + 1)[1:-1]
    sides = [np.stack([x, np.full_like(x, v)], 1) for v in (-margin, height + margin)]
    sides += [np.stack([np.full_like(y, u), y], 1) for u in (-margin, width + margin)]
    return np.concatenate(sides)


def _rate_faces(
    points: FramePoints, faces: Int[np.ndarray, "T 3"], options: MeshOptions
) -> Float[np.ndarray, "T"]:
    """Trust of each face, float32; see ``FrameMesh``."""
    corner = points.depth[faces]
    mark = points.point[faces]
    trust = np.where((mark == BORDER).any(1), BORDER_TRUST, 1.0)
    limit = np.where((mark == FINE).any(1), options.fine_jump_ratio, options.jump_ratio)
    trust[corner.max(1) > limit * corner.min(1)] = JUMP_TRUST
    return trust.astype(np.float32)
