"""Colours of some frames -> colours of a view's surfaces.

A colour field blurs fine texture, and every frame shows it: geometry says which pixel of a frame
shows the surface at a pixel of the view. At an outline the geometry is a few pixels off. There the
surface is chosen under which the frames look alike.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from models.cameras import Cameras
from models.detail.alignment import align_pair, average_channels
from models.detail.frame_details import BACKGROUND, FrameDetail
from models.detail.options import DetailOptions
from models.detail.source_maps import SourceMap, map_surface

# Grey levels by which another surface must fit better than the drawn surface.
_CLEARLY = 1.0
# Difference in grey levels of two frames that do not both see a surface.
_UNSEEN = 60.0
# Side in pixels of the window in which frames are compared.
_WINDOW = 3
# Difference in grey levels up to which two pictures are alike, and its growth with their contrast; a
# larger value takes more of what the meshes say is hidden.
_ALIKE, _ALIKE_BY_CONTRAST = 8.0, 0.5
# Standard deviation in pixels of the blur below which contrast is measured.
_CONTRAST_BLUR = 4.0
# Standard deviation in pixels of the window in which detail and noise are measured.
_POWER_BLUR = 2.0
# Squared grey levels of the rounding of colours.
_ROUNDING = 1.0
# Share of a window that two frames must see.
_LEAST_SEEN = 1e-3


@dataclass(frozen=True)
class Source:
    """A frame that gives colours to a view."""

    frame: FrameDetail
    camera: Cameras
    depth: Float[np.ndarray, "h w"]
    """z-depth of the frame's own mesh; inf without a surface."""
    share: float
    """Of the frame in the view, 0 to 1."""


@dataclass(frozen=True)
class Surfaces:
    """The static surfaces of a view."""

    rgb: Float[np.ndarray, "H W 3"]
    """Colours without exposure, 0 to 255."""
    depth: Float[np.ndarray, "H W"]
    """z-depth in world units; inf without a surface."""


def mix_colors(
    rendering: UInt8[np.ndarray, "H W 3"],
    carried: list[tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]],
) -> Float[np.ndarray, "H W 3"]:
    """Colours of frames by their weights; the rendering's as far as the weights sum to less than 1.

    Args:
        rendering: of the view by the colour field.
        carried: colours and weights of each frame.
    """
    rest = np.ones(rendering.shape[:2], np.float32)
    total = np.zeros(rendering.shape, np.float32)
    for rgb, weight in carried:
        weight = np.minimum(weight, rest)
        rest -= weight
        total += weight[..., None] * rgb
    return total + rest[..., None] * rendering


def carry_surfaces(
    view: Cameras,
    rendering: UInt8[np.ndarray, "H W 3"],
    depth: Float[np.ndarray, "H W"],
    sources: list[Source],
    options: DetailOptions = DetailOptions(),
) -> Surfaces:
    """The static surfaces of a view in the colours of frames that see them.

    Args:
        view: a single camera.
        rendering: of the view by the colour field, without exposure.
        depth: z-depth of the rendering; inf without a surface.
        sources: the frames; their shares sum to 1 at most.
    """
    looks = [_look(view, depth, source) for source in sources]
    weights = [
        _weigh_sight(look, source, options) for look, source in zip(looks, sources, strict=True)
    ]
    colors = [look.rgb for look in looks]
    surfaces = Surfaces(mix_colors(rendering, list(zip(colors, weights, strict=True))), depth)
    if len(sources) < 2:
        return surfaces
    nearness = min(1.0, sum(source.share for source in sources))
    # off the path two frames may look alike under a surface that neither sees, as a ghost
    certain = max(0.0, 2 * nearness - 1) ** 2
    if certain:
        surfaces = _snap_outlines(view, surfaces, (sources[:2], looks[:2]), certain, options)
    return _merge_pair(view, surfaces, rendering, sources[:2], certain, options)


@dataclass(frozen=True)
class _Look:
    """A frame's picture of a view's surfaces, hidden or not."""

    pixels: SourceMap
    rgb: Float[np.ndarray, "H W 3"]
    usable: np.ndarray
    """True at pixels inside the frame, and not on its movers."""


def _look(view: Cameras, depth: Float[np.ndarray, "H W"], source: Source) -> _Look:
    pixels = map_surface(source.camera, view, depth)
    frame = source.frame
    rgb = pixels.read(frame.rgb, cv2.INTER_CUBIC).astype(np.float32)
    still = pixels.read(frame.layers, cv2.INTER_NEAREST) == BACKGROUND
    return _Look(pixels, rgb, still & pixels.is_inside(*frame.layers.shape[::-1]))


def _weigh_sight(look: _Look, source: Source, options: DetailOptions) -> Float[np.ndarray, "H W"]:
    """The source's share where it sees the surfaces, falling to 0 where its own depth differs."""
    seen = sees(look.pixels, source.depth, options)
    return np.float32(source.share) * np.where(look.usable, seen, np.float32(0))


def sees(
    pixels: SourceMap, depth: Float[np.ndarray, "h w"], options: DetailOptions = DetailOptions()
) -> Float[np.ndarray, "H W"]:
    """1 at surfaces that a frame sees, falling to 0 where its own depth differs.

    Args:
        depth: z-depth of the frame's own mesh; inf without a surface.
    """
    seen = pixels.read(depth, cv2.INTER_NEAREST)
    with np.errstate(invalid="ignore", divide="ignore"):
        # inf beside the frame's mesh: the weight is 0
        apart = np.abs(pixels.z / seen - 1) / np.float32(options.depth_tolerance)
    return np.where(np.isfinite(seen), np.clip(2 - 2 * apart, 0, 1), 0).astype(np.float32)


def _snap_outlines(
    view: Cameras,
    surfaces: Surfaces,
    seen: tuple[list[Source], list[_Look]],
    weight: float,
    options: DetailOptions,
) -> Surfaces:
    """The surfaces with each pixel's own or a neighbouring surface: the one under which two frames
    look most alike.

    Args:
        seen: two frames, and their pictures of the surfaces.
        weight: of the result, 0 to 1.
    """
    sources, looks = seen
    depth = surfaces.depth
    best = _Candidate.of(depth, sources, looks, -_CLEARLY)
    for other in _find_neighbours(depth, options):
        looks = [_look(view, other, source) for source in sources]
        best = best.better(_Candidate.of(other, sources, looks, 0.0))
    alike = np.clip(2 - np.maximum(best.unlike, 0) / options.unlike, 0, 1)
    alike *= np.float32(weight)
    rgb = surfaces.rgb + alike[..., None] * (best.rgb - surfaces.rgb)
    return Surfaces(rgb, np.where(alike > 0.5, best.depth, depth))


def _merge_pair(
    view: Cameras,
    surfaces: Surfaces,
    rendering: UInt8[np.ndarray, "H W 3"],
    sources: list[Source],
    certain: float,
    options: DetailOptions,
) -> Surfaces:
    """The surfaces with two frames' pictures aligned, and with colours drawn to the rendering where
    they differ from it by noise alone.

    Where the aligned pictures are alike, both frames see the surface, whatever their depths say: the
    depth of water, glass or leaves is another one in each frame.

    Args:
        sources: two frames.
        certain: weight of their likeness, 0 to 1.
    """
    looks = a, b = [_look(view, surfaces.depth, source) for source in sources]
    both = a.usable & b.usable
    share = _measure_first_share(sources)
    first, second = align_pair(a.rgb, b.rgb, both, share)
    drawn = [_weigh_sight(*pair, options) for pair in zip(looks, sources, strict=True)]
    moved = share * (first - a.rgb) + (1 - share) * (second - b.rgb)
    rgb = surfaces.rgb + np.minimum(sum(drawn), 1)[..., None] * moved
    apart = first - second
    mean = share * first + (1 - share) * second
    grey = average_channels(mean)
    contrast, unlike, power = _average_seen(
        [
            np.abs(grey - cv2.GaussianBlur(grey, (0, 0), _CONTRAST_BLUR)),
            average_channels(np.abs(apart)),
            average_channels(np.square(apart)),
        ],
        both.astype(np.float32),
    )
    # flow makes any two textures a little alike, so the difference counts by their contrast
    alike = both * np.clip(2 - unlike / (_ALIKE + _ALIKE_BY_CONTRAST * contrast), 0, 1)
    rgb += (certain * alike)[..., None] * (mean - rgb)
    # variance of a weighted mean, from the variance of the difference, which is twice a frame's
    noise = np.float32((share**2 + (1 - share) ** 2) / 2) * power
    return Surfaces(_suppress_noise(rgb, rendering, noise), surfaces.depth)


def _average_seen(
    images: list[Float[np.ndarray, "H W"]], seen: Float[np.ndarray, "H W"]
) -> list[Float[np.ndarray, "H W"]]:
    """Means of images round each pixel over the pixels that are seen.

    Args:
        seen: 1 at these pixels, else 0.
    """
    around = np.maximum(_smooth(seen), _LEAST_SEEN)
    return [_smooth(image * seen) / around for image in images]


def _suppress_noise(
    rgb: Float[np.ndarray, "H W 3"],
    rendering: UInt8[np.ndarray, "H W 3"],
    noise: Float[np.ndarray, "H W"],
) -> Float[np.ndarray, "H W 3"]:
    """Colours drawn to the rendering, which averages the noise of all frames.

    With a power P of the difference from the rendering, and a power N of the noise in the colours, the
    difference is multiplied by P / (P + N).

    Args:
        noise: N, in squared grey levels.
    """
    detail = rgb - rendering
    power = _smooth(average_channels(np.square(detail)))
    gain = power / (power + noise + _ROUNDING)
    return rendering + gain[..., None] * detail


def _measure_first_share(sources: list[Source]) -> float:
    """Share of the first of two frames in both."""
    return sources[0].share / max(sum(source.share for source in sources), 1e-9)


def _smooth(image: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    return cv2.GaussianBlur(image, (0, 0), _POWER_BLUR)


@dataclass(frozen=True)
class _Candidate:
    """A surface for each pixel of a view, and how unlike the frames look under it."""

    depth: Float[np.ndarray, "H W"]
    rgb: Float[np.ndarray, "H W 3"]
    unlike: Float[np.ndarray, "H W"]
    """Mean difference of two frames in grey levels."""

    @staticmethod
    def of(
        depth: Float[np.ndarray, "H W"], sources: list[Source], looks: list[_Look], bonus: float
    ) -> "_Candidate":
        """Two frames compared under a surface, their difference changed by ``bonus``."""
        a, b = looks
        unlike = average_channels(np.abs(a.rgb - b.rgb))
        unlike[~(a.usable & b.usable)] = _UNSEEN
        unlike = cv2.blur(unlike, (_WINDOW, _WINDOW)) + np.float32(bonus)
        first = np.float32(_measure_first_share(sources))
        return _Candidate(depth, first * a.rgb + (1 - first) * b.rgb, unlike)

    def better(self, other: "_Candidate") -> "_Candidate":
        """Of each pixel the surface under which the frames look more alike."""
        wins = other.unlike < self.unlike
        return _Candidate(
            np.where(wins, other.depth, self.depth),
            np.where(wins[..., None], other.rgb, self.rgb),
            np.where(wins, other.unlike, self.unlike),
        )


def _find_neighbours(
    depth: Float[np.ndarray, "H W"], options: DetailOptions
) -> list[Float[np.ndarray, "H W"]]:
    """The nearest and the farthest surface around each pixel near an outline; elsewhere the pixel's
    own."""
    side = 2 * options.outline_reach + 1
    window = np.ones((side, side), np.uint8)
    nearest = cv2.erode(depth, window)
    farthest = cv2.dilate(np.where(np.isfinite(depth), depth, 0), window)
    is_outline = farthest > (1 + options.depth_tolerance) * nearest
    return [np.where(is_outline, other, depth) for other in (nearest, farthest)]
