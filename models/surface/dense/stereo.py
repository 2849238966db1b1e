"""Dense depth along depth jumps, measured in the frames themselves.

Tracked points are sparse and slip at outlines, so a mesh of points alone joins a near surface to
the surface behind it. Wherever the points' mesh bends, or the depth of another surface near by fits
better, each frame is matched to up to four source views by slanted-plane PatchMatch, started from
that mesh and from the farthest and nearest surfaces round each pixel. Depths that other frames
confirm are kept and carried to the remaining pixels along colours.

Sources: Bleyer, Rhemann, Rother, "PatchMatch stereo", 2011; Galliani et al. and Ma et al., see
``stereo_kernels`` and ``confirm_kernels``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from models.cameras import Cameras
from models.run import run_tasks, split_range
from models.surface.dense import confirm_kernels, stereo_kernels
from models.surface.dense.frame_surface import Surface
from models.surface.dense.hidden_surface import find_hidden_surface
from models.surface.options import StereoOptions

# rounds of PatchMatch, coarse to fine: pixels to the far neighbours (odd, as neighbours must be of the
# other colour), and the largest random change of inverse depth relative to it; Galliani et al.
# refine in the same way. A third round changed nothing on rendered rooms.
_SWEEPS = ((9, 0.04), (5, 0.01))
# pixels to either side over which the bend of the mesh is measured: about the spacing of tracks
_BEND_STEP = 6
# largest slope of the starting planes, relative to the inverse depth a pixel
_STEEPEST = 0.05
# sides in pixels of the squares in which the farthest and nearest surfaces are looked for
_AROUND = (21, 61)
# the smallest region, in pixels, whose gain is no chance
_LEAST_REGION = np.ones((3, 3), np.uint8)
# frames, before and after a frame, in which the surface behind its movers is looked for
_UNCOVERING = (1, 2, 4, 6, 9, 13, 19, 27, 38, 50, 60)
# side in pixels of the median that takes mismatches out of the depth behind movers
_MEDIAN = 5
# image rows are handed to threads in this many parts; results do not depend on it
_PARTS = 16


@dataclass(frozen=True)
class StereoFrames:
    """A clip as stereo sees it."""

    frames: UInt8[np.ndarray, "F H W 3"]
    cameras: Cameras
    """Cameras of all frames, with translations in world units."""
    visible: Bool[np.ndarray, "F N"]
    """Tracks that each frame sees; frames with many common tracks share a view."""
    masks: Bool[np.ndarray, "F H W"] | None = None
    """Pixels of movers, which are not matched."""


class Surfaces:
    """Measures the surface of each chosen frame on demand; only these frames are read.

    A frame is matched at its first use, by itself or as a source view, and dropped once frames more
    than ``longest_span`` later are asked for. Asked for in order, each frame is matched once and
    memory does not grow with the clip. If the camera has moved too little for parallax, nothing is
    in doubt and the points' mesh stays.
    """

    def __init__(
        self,
        clip: StereoFrames,
        starts: Callable[[int], Float[np.ndarray, "h w"]],
        chosen: Sequence[int],
        options: StereoOptions = StereoOptions(),
    ):
        """See the class.

        Args:
            starts: inverse depth of a frame's points' mesh at ``choose_matched_size``; 0 off
                the mesh.
            chosen: frames that have a points' mesh.
        """
        size = choose_matched_size(clip.cameras, options)
        self._small = _SmallImages(clip.frames, clip.masks, size)
        self._cameras = clip.cameras.resized(*size)
        self._visible = clip.visible
        self._starts = starts
        self._chosen = chosen
        self._options = options
        self._found: dict[int, Surface] = {}
        self._sources: dict[int, list[int]] = {}

    def __call__(self, t: int) -> Surface:
        """Frame t's surface; depths that no source view confirms are replaced along colours."""
        for s in [s for s in self._found if s < t - self._options.longest_span]:
            del self._found[s], self._sources[s]
        own = self._match(t)
        # source views cannot confirm what was not measured
        if own.doubt.any():
            sources = self._sources[t]
            maps = np.stack([self._match(s).inverse_depth for s in sources])
            relative = _relate(self._cameras, t, sources)
            own = _clean(own, maps, relative, self._small.read_rgb(t))
        return self._uncover(t, own)

    def _uncover(self, t: int, own: Surface) -> Surface:
        """Frame t's surface with the depth behind movers that frames around it see."""
        hidden = self._small.read_mask(t)
        if not hidden.any():
            return own
        span = self._options.longest_span
        signed = (sign * step for step in _UNCOVERING if step <= span for sign in (-1, 1))
        near = [t + step for step in signed if t + step in self._chosen]
        others = (
            (
                self._match(s).inverse_depth,
                self._small.read_mask(s),
                *(part[0] for part in _relate(self._cameras, s, [t])),
            )
            for s in near
        )
        behind = find_hidden_surface(hidden, others)
        known = np.isfinite(behind)
        inverse = np.where(known, behind, own.inverse_depth)
        inverse[known] = cv2.medianBlur(inverse, _MEDIAN)[known]
        return Surface(inverse, own.doubt | known, self._options)

    def _match(self, t: int) -> Surface:
        """Frame t's surface from its own matches alone."""
        if t not in self._found:
            start = _fill_holes(self._starts(t).astype(np.float32))
            sources = self._choose_sources(t, 1 / np.median(start))
            unmasked = ~self._small.read_mask(t) & bool(sources)
            bends = _find_bends(start, self._options) & unmasked
            inverse, doubt = start, bends
            # a mesh without bends has no surface in front of another
            if bends.any():
                inverse, doubt = self._search(t, sources, start, bends, unmasked)
            self._found[t] = Surface(inverse, doubt, self._options)
            self._sources[t] = sources
        return self._found[t]

    def _choose_sources(self, t: int, depth: float) -> list[int]:
        """Source views of frame t: the closest per side in time and wanted baseline.

        Args:
            depth: of the scene in front of frame t, in world units.
        """
        options = self._options
        centers = self._cameras.centers.double().numpy()
        # baselines as shares of the scene's depth
        away = np.linalg.norm(centers - centers[t], axis=1) / depth
        own = np.flatnonzero(self._visible[t])
        # pixels by which a point at that depth moves sideways
        moves = away * float(self._cameras.K[t, 0, 0]) > options.least_parallax
        near = [s for s in self._chosen if abs(s - t) <= options.longest_span and moves[s]]
        least = options.least_shared * len(own)
        sharing = [s for s in near if self._visible[s, own].sum() > least]
        sources: list[int] = []
        for side in (-1, 1):
            for wanted in options.baselines:
                left = [s for s in sharing if (s - t) * side > 0 and s not in sources]
                if left:
                    sources.append(min(left, key=lambda s: abs(np.log(away[s] / wanted))))
        return sources if len(sources) >= stereo_kernels.BEST else []

    def _search(
        self,
        t: int,
        sources: list[int],
        start: Float[np.ndarray, "h w"],
        bends: Bool[np.ndarray, "h w"],
        unmasked: Bool[np.ndarray, "h w"],
    ) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Inverse depth of frame t by PatchMatch in the region in doubt, ``start`` elsewhere, and
        that region: the bends, and where the farthest or nearest surface round a pixel fits the
        sources better than ``start``."""
        A, T = _relate(self._cameras, t, sources)
        images = np.stack([self._small.enlarge(s) for s in sources])
        rho = start.copy()
        # planes start along the points' mesh, but not as steep as across a depth jump
        slope = np.stack(np.gradient(rho)[::-1], -1).astype(np.float32)
        slope = np.clip(slope, -_STEEPEST * rho[..., None], _STEEPEST * rho[..., None])
        cost = np.zeros_like(rho)
        parts = split_range(len(rho), _PARTS)
        state = self._small.read_grey(t), images, A, T, rho, slope, cost, start
        run_tasks(lambda i: stereo_kernels.start_costs(*state, unmasked, *parts[i]), len(parts))
        first, steep = cost.copy(), slope.copy()
        candidates = unmasked, _find_near_and_far(start)
        run_tasks(lambda i: stereo_kernels.try_depths(*state, *candidates, *parts[i]), len(parts))
        doubt = bends | (_find_gains(first - cost, self._options) & unmasked)
        rho[~doubt], slope[~doubt] = start[~doubt], steep[~doubt]
        for n, (reach, spread) in enumerate(_SWEEPS):
            for colour in (0, 1):
                # of frame, round and colour alone, whatever the order of the frames
                seed = (t * len(_SWEEPS) + n) * 2 + colour
                step = doubt, colour, reach, np.float32(spread), seed
                sweep = partial(_sweep_part, (*state, *step), parts)
                run_tasks(sweep, len(parts))
        return rho, doubt


def choose_matched_size(
    cameras: Cameras, options: StereoOptions = StereoOptions()
) -> tuple[int, int]:
    """Width and height in pixels of the images that stereo matches."""
    scale = min(1.0, options.longest_side / max(cameras.width, cameras.height))
    return max(1, round(scale * cameras.width)), max(1, round(scale * cameras.height))


class _SmallImages:
    """Frames and masks at the matched size, scaled on demand."""

    def __init__(
        self,
        frames: UInt8[np.ndarray, "F H W 3"],
        masks: Bool[np.ndarray, "F H W"] | None,
        size: tuple[int, int],
    ):
        self.frames = frames
        self.masks = masks
        self.size = size

    def read_rgb(self, t: int) -> Float[np.ndarray, "h w 3"]:
        small = cv2.resize(self.frames[t], self.size, interpolation=cv2.INTER_AREA)
        return small.astype(np.float32)

    def read_grey(self, t: int) -> Float[np.ndarray, "h w"]:
        return cv2.cvtColor(self.read_rgb(t), cv2.COLOR_RGB2GRAY)

    def enlarge(self, t: int) -> Float[np.ndarray, "pixels"]:
        """The grey image enlarged ZOOM-fold, row by row."""
        size = tuple(stereo_kernels.ZOOM * side for side in self.size)
        return cv2.resize(self.read_grey(t), size, interpolation=cv2.INTER_CUBIC).ravel()

    def read_mask(self, t: int) -> Bool[np.ndarray, "h w"]:
        """Pixels that a mover covers in part."""
        if self.masks is None:
            return np.zeros(self.size[::-1], bool)
        mask = self.masks[t].astype(np.float32)
        return cv2.resize(mask, self.size, interpolation=cv2.INTER_AREA) > 0


def _fill_holes(inverse: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Inverse depth with the median off the mesh, 1 if there is no mesh."""
    known = inverse > 0
    return np.where(known, inverse, np.median(inverse[known]) if known.any() else np.float32(1))


def _find_near_and_far(inverse: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "C h w"]:
    """Inverse depths of the farthest and nearest surfaces round each pixel.

    Surfaces that show through a gap between others have no track of their own in the gap, and no
    neighbour that could hand on their depth.
    """
    found = []
    for side in _AROUND:
        square = np.ones((side, side), np.uint8)
        found += [cv2.erode(inverse, square), cv2.dilate(inverse, square)]
    return np.stack(found)


def _find_gains(gain: Float[np.ndarray, "h w"], options: StereoOptions) -> Bool[np.ndarray, "h w"]:
    """Pixels near a region whose unlikeness falls by ``gain`` at another depth."""
    gains = (gain > options.gain).astype(np.uint8)
    region = cv2.morphologyEx(gains, cv2.MORPH_OPEN, _LEAST_REGION)
    return _widen(region, options.doubt_reach)


def _find_bends(
    inverse: Float[np.ndarray, "h w"], options: StereoOptions
) -> Bool[np.ndarray, "h w"]:
    """Pixels near a bend or a jump: the inverse depth of a plane is affine in the pixel."""
    step = _BEND_STEP
    bent = np.zeros(inverse.shape, bool)
    for axis in (0, 1):
        before = np.roll(inverse, step, axis)
        after = np.roll(inverse, -step, axis)
        bends = np.abs(before + after - 2 * inverse) > options.bend * inverse
        # np.roll wraps round the image border
        inner = np.zeros(inverse.shape[axis], bool)
        inner[step:-step] = True
        bent |= bends & np.expand_dims(inner, 1 - axis)
    return _widen(bent.astype(np.uint8), step + options.doubt_reach)


def _widen(region: UInt8[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Pixels within ``reach`` of a region, along the ellipse of OpenCV."""
    side = 2 * reach + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.dilate(region, disc) > 0


def _relate(
    cameras: Cameras, t: int, sources: Sequence[int]
) -> tuple[Float[np.ndarray, "S 3 3"], Float[np.ndarray, "S 3"]]:
    """A and T of each source view: a pixel p of frame t at inverse depth r projects to A p + T r,
    homogeneous."""
    K = cameras.K.double().numpy()
    pose = cameras.cam_from_world.double().numpy()
    rotation = pose[sources, :3, :3] @ pose[t, :3, :3].T
    shift = pose[sources, :3, 3] - rotation @ pose[t, :3, 3]
    A = K[sources] @ rotation @ np.linalg.inv(K[t])
    return A.astype(np.float32), (K[sources] @ shift[..., None])[..., 0].astype(np.float32)


def _clean(
    own: Surface,
    maps: Float[np.ndarray, "S h w"],
    relative: tuple[Float[np.ndarray, "S 3 3"], Float[np.ndarray, "S 3"]],
    rgb: Float[np.ndarray, "h w 3"],
) -> Surface:
    """The surface with a weighted median of confirmed depths at every pixel in doubt.

    Args:
        maps: inverse depth of each source view.
        relative: A and T of each source view, see ``_relate``.
    """
    options = own.options
    count: Int[np.ndarray, "h w"] = np.empty(own.doubt.shape, np.int32)
    median = np.empty(own.doubt.shape, np.float32)
    parts = split_range(len(count), _PARTS)
    given = own.inverse_depth, maps, *relative, own.doubt, options.tolerance
    run_tasks(lambda i: confirm_kernels.count_agreement(*given, *parts[i], count), len(parts))
    sure = ~own.doubt | (count >= options.confirmed)
    window = (
        *confirm_kernels.list_neighbours(options.median_radius),
        np.float32(options.median_sigma),
    )
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    fixed = own.inverse_depth, sure.astype(np.float32), planes, own.doubt, *window
    run_tasks(lambda i: confirm_kernels.filter_median(*fixed, *parts[i], median), len(parts))
    return Surface(median, own.doubt, options)


def _sweep_part(fixed: tuple, parts: list[tuple[int, int]], i: int) -> None:
    stereo_kernels.sweep(*fixed, *parts[i])
