"""Dense depth where points do not tell it: along depth jumps, from the frames themselves.

Tracked points are few and slip at outlines, so that a mesh of them alone joins a near surface to
what lies behind it. Where the points' mesh bends, each frame is matched to four others by
slanted-plane PatchMatch started from that mesh; what other frames' depth confirms is kept and
carried to the rest along colours.

Sources: Bleyer, Rhemann, Rother, "PatchMatch stereo", 2011; Galliani et al. and Ma et al., see
``kernels_stereo``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.run import run_tasks, split_range
from models.surface import stereo_kernels

LONGEST_SIDE = 480
"""Pixels of the longer side of the images matched."""
BASELINES = (0.03, 0.08)
"""Distances to the frames compared, before and after, as a share of the scene's depth."""
LEAST_PARALLAX = 10.0
"""Pixels that a point at the scene's depth must move by to a frame compared: with less, matches are
noise."""
LONGEST_SPAN = 60
"""Frames compared lie at most so far away in time."""
LEAST_SHARED = 0.3
"""Share of a frame's points that a frame compared must see."""
BEND = 0.04
BEND_STEP = 6
"""Share of inverse depth by which the mesh must bend within so many pixels for its depth to be
doubted."""
DOUBT = 4
"""Pixels by which doubt reaches farther."""
SWEEPS = ((9, 0.05), (5, 0.02), (3, 0.008))
"""Pixels to the far neighbours, and the random change of inverse depth as a share of it, of each
round."""
TOLERANCE = 0.02
"""Relative difference of depth up to which two frames agree on a surface."""
CONFIRMED = 2
"""Other frames that must agree."""
MEDIAN_RADIUS = 5
MEDIAN_SIGMA = 20.0
"""Window in pixels and colours in grey levels of the median that carries depth along colours."""
EDGE_RATIO = 1.04
"""Ratio of neighbouring depths that is an outline."""
EDGE_REACH = 3
EDGE_SPACING = 2
INNER_SPACING = 5
"""Pixels to either side of an outline that have vertices at every EDGE_SPACING; others in doubt at
INNER_SPACING."""
_PARTS = 16


@dataclass(frozen=True)
class Surface:
    """What one frame sees where its points' mesh was in doubt, on a grid of pixels that spans the
    frame."""

    inverse_depth: Float[np.ndarray, "h w"]
    """1 / z-depth in the frame's camera, in world units; that of the points' mesh where it was not
    in doubt."""
    doubt: Bool[np.ndarray, "h w"]
    """Where the frame itself was asked."""

    def vertices(
        self, width: int, height: int
    ) -> tuple[Float[np.ndarray, "E 2"], Float[np.ndarray, "E"]]:
        """Pixels of the frame and z-depths that describe the surface, dense along outlines."""
        rows, columns = np.mgrid[: self.doubt.shape[0], : self.doubt.shape[1]]
        outline = self._near_outlines
        fine = outline & (rows % EDGE_SPACING == 0) & (columns % EDGE_SPACING == 0)
        middle = INNER_SPACING // 2
        coarse = (
            (rows % INNER_SPACING == middle)
            & (columns % INNER_SPACING == middle)
            & self.doubt
            & ~outline
        )
        rows, columns = np.nonzero(fine | coarse)
        scale = np.array([width, height]) / self.doubt.shape[::-1]
        return (np.stack([columns, rows], 1) + 0.5) * scale, 1.0 / self.inverse_depth[rows, columns]

    def confirms(
        self, xy: Float[np.ndarray, "N 2"], depth: Float[np.ndarray, "N"], width: int, height: int
    ) -> Bool[np.ndarray, "N"]:
        """Which points in pixels of the frame may stay: those out of doubt, or on the surface and
        off its outlines."""
        size = np.array(self.doubt.shape[::-1])
        column, row = np.clip((xy / [width, height] * size).astype(np.int64), 0, size - 1).T
        same = np.abs(depth * self.inverse_depth[row, column] - 1) < TOLERANCE
        return ~self.doubt[row, column] | (same & ~self._near_outlines[row, column])

    @cached_property
    def _near_outlines(self) -> Bool[np.ndarray, "h w"]:
        beside = np.ones((3, 3), np.uint8)
        inverse = self.inverse_depth
        jump = (cv2.dilate(inverse, beside) > EDGE_RATIO * cv2.erode(inverse, beside)) & self.doubt
        side = 2 * EDGE_REACH + 1
        return cv2.dilate(jump.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


class Surfaces:
    """Gives the surface that each of the chosen frames sees; only these frames are looked at.

    A frame is matched when it is first asked for, by itself or by one that is compared with it, and
    forgotten once frames too late for that are asked for: frames asked for in order are matched
    once, whatever the clip's length. Where the camera has moved too little for parallax to be
    measured, nothing is in doubt: the points' mesh stays.
    """

    def __init__(
        self,
        frames: UInt8[np.ndarray, "F H W 3"],
        cameras: Cameras,
        visible: Bool[np.ndarray, "F N"],
        starts: Callable[[int], Float[np.ndarray, "h w"]],
        chosen: Sequence[int],
        masks: Bool[np.ndarray, "F H W"] | None = None,
    ):
        """See the class.

        Args:
            visible: which tracks each frame sees, to tell which frames share a view.
            starts: the inverse depth that a frame's points tell, of each pixel of ``matched_size``;
                0 where none.
            masks: where something moves; nothing is matched there.
        """
        size = matched_size(cameras)
        self._small = _Images(frames, masks, size)
        self._cameras = cameras.resized(*size)
        self._visible = visible
        self._starts = starts
        self._chosen = chosen
        self._found: dict[int, Surface] = {}
        self._others: dict[int, list[int]] = {}

    def __call__(self, t: int) -> Surface:
        """Frame t's surface, with what other frames do not confirm replaced along colours."""
        for s in [s for s in self._found if s < t - LONGEST_SPAN]:
            del self._found[s], self._others[s]
        own = self._surface(t)
        if not own.doubt.any():
            return own
        maps = np.stack([self._surface(s).inverse_depth for s in self._others[t]])
        return _cleaned(own, maps, _relative(self._cameras, t, self._others[t]), self._small.rgb(t))

    def _surface(self, t: int) -> Surface:
        """What frame t alone makes of its matches."""
        if t not in self._found:
            start = _filled(self._starts(t).astype(np.float32))
            others = _compared(self._cameras, self._visible, 1 / np.median(start), t, self._chosen)
            doubt = _doubt(start) & ~self._small.mask(t) & bool(others)
            matched = (
                _matched(self._small, self._cameras, t, others, start, doubt)
                if doubt.any()
                else start
            )
            self._found[t] = Surface(matched, doubt)
            self._others[t] = others
        return self._found[t]


def matched_size(cameras: Cameras) -> tuple[int, int]:
    """Width and height of the images matched."""
    scale = min(1.0, LONGEST_SIDE / max(cameras.width, cameras.height))
    return max(1, round(scale * cameras.width)), max(1, round(scale * cameras.height))


class _Images:
    """Frames at the size that is matched, made when asked for."""

    def __init__(self, frames: np.ndarray, masks: np.ndarray | None, size: tuple[int, int]):
        self.frames = frames
        self.masks = masks
        self.size = size

    def rgb(self, t: int) -> Float[np.ndarray, "h w 3"]:
        return cv2.resize(self.frames[t], self.size, interpolation=cv2.INTER_AREA).astype(
            np.float32
        )

    def grey(self, t: int) -> Float[np.ndarray, "h w"]:
        return cv2.cvtColor(self.rgb(t), cv2.COLOR_RGB2GRAY)

    def enlarged(self, t: int) -> Float[np.ndarray, "pixels"]:
        size = tuple(stereo_kernels.ZOOM * side for side in self.size)
        return cv2.resize(self.grey(t), size, interpolation=cv2.INTER_CUBIC).ravel()

    def mask(self, t: int) -> Bool[np.ndarray, "h w"]:
        if self.masks is None:
            return np.zeros(self.size[::-1], bool)
        return (
            cv2.resize(self.masks[t].astype(np.float32), self.size, interpolation=cv2.INTER_AREA)
            > 0
        )


def _filled(inverse: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    known = inverse > 0
    return np.where(known, inverse, np.median(inverse[known]) if known.any() else np.float32(1))


def _doubt(inverse: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where inverse depth is not that of a plane: it bends, or jumps."""
    bent = np.zeros(inverse.shape, bool)
    for axis in (0, 1):
        before, after = (np.roll(inverse, shift, axis) for shift in (BEND_STEP, -BEND_STEP))
        apart = np.abs(before + after - 2 * inverse) > BEND * inverse
        inner = np.zeros(inverse.shape[axis], bool)
        inner[BEND_STEP:-BEND_STEP] = True
        bent |= apart & np.expand_dims(inner, 1 - axis)
    side = 2 * (BEND_STEP + DOUBT) + 1
    return (
        cv2.dilate(
            bent.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        )
        > 0
    )


def _compared(
    cameras: Cameras, visible: Bool[np.ndarray, "F N"], depth: float, t: int, chosen: Sequence[int]
) -> list[int]:
    """Frames to match frame t to: on each side in time those nearest to the wanted distances, of
    those that share."""
    centers = cameras.centers.double().numpy()
    away = np.linalg.norm(centers - centers[t], axis=1) / depth
    own = np.flatnonzero(visible[t])
    moves = away * float(cameras.K[t, 0, 0]) > LEAST_PARALLAX
    near = [s for s in chosen if abs(s - t) <= LONGEST_SPAN and moves[s]]
    sharing = [s for s in near if visible[s, own].sum() > LEAST_SHARED * len(own)]
    others = []
    for side in (-1, 1):
        for wanted in BASELINES:
            left = [s for s in sharing if (s - t) * side > 0 and s not in others]
            if left:
                others.append(min(left, key=lambda s: abs(np.log(away[s] / wanted))))
    return others if len(others) >= stereo_kernels.BEST else []


def _relative(cameras: Cameras, t: int, others: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """A (S, 3, 3) and T (S, 3): a pixel p of frame t at inverse depth r lies at A p + T r,
    homogeneous, in another."""
    K = cameras.K.double().numpy()
    pose = cameras.cam_from_world.double().numpy()
    rotation = pose[others, :3, :3] @ pose[t, :3, :3].T
    shift = pose[others, :3, 3] - rotation @ pose[t, :3, 3]
    A = K[others] @ rotation @ np.linalg.inv(K[t])
    return A.astype(np.float32), (K[others] @ shift[..., None])[..., 0].astype(np.float32)


def _matched(
    small: _Images,
    cameras: Cameras,
    t: int,
    others: list[int],
    start: np.ndarray,
    doubt: np.ndarray,
) -> Float[np.ndarray, "h w"]:
    """Inverse depth of frame t by PatchMatch, where it is in doubt."""
    A, T = _relative(cameras, t, others)
    sources = np.stack([small.enlarged(s) for s in others])
    rho = start.copy()
    slope = np.stack(np.gradient(rho)[::-1], -1).astype(np.float32)
    slope = np.clip(slope, -0.05 * rho[..., None], 0.05 * rho[..., None])
    cost = np.zeros_like(rho)
    parts = split_range(len(rho), _PARTS)
    state = small.grey(t), sources, A, T, rho, slope, cost, start, doubt
    run_tasks(lambda i: stereo_kernels.begin(*state, *parts[i]), len(parts))
    for n, (reach, spread) in enumerate(SWEEPS):
        for colour in (0, 1):
            step = colour, reach, np.float32(spread), (t * len(SWEEPS) + n) * 2 + colour
            run_tasks(
                lambda i, step=step: stereo_kernels.sweep(*state, *step, *parts[i]), len(parts)
            )
    return rho


def _cleaned(
    own: Surface,
    others: Float[np.ndarray, "S h w"],
    relative: tuple[np.ndarray, np.ndarray],
    rgb: Float[np.ndarray, "h w 3"],
) -> Surface:
    """A surface with what the other frames' maps do not confirm, and all that is in doubt, smoothed
    along colours."""
    count = np.empty(own.doubt.shape, np.int32)
    median = np.empty(own.doubt.shape, np.float32)
    parts = split_range(len(count), _PARTS)
    given = own.inverse_depth, others, *relative, own.doubt, TOLERANCE
    run_tasks(lambda i: stereo_kernels.agreement(*given, *parts[i], count), len(parts))
    sure = ~own.doubt | (count >= CONFIRMED)
    fixed = own.inverse_depth, sure, rgb, own.doubt, MEDIAN_RADIUS, np.float32(MEDIAN_SIGMA)
    run_tasks(partial(_median_of_part, fixed, parts, median), len(parts))
    return Surface(median, own.doubt)


def _median_of_part(fixed: tuple, parts: list[tuple[int, int]], out: np.ndarray, i: int) -> None:
    stereo_kernels.weighted_median(*fixed, *parts[i], out)
