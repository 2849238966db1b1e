"""Comparison of pixels with the background behind them, which other frames see."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.motion.evidence import Evidence, read_shifted
from models.motion.patches import fill_unknown, find_box
from models.run import SILENT, Progress, run_ahead

# Frames, relative to a frame, in which its background is looked for.
_OFFSETS = (-24, -16, -10, -6, -3, 3, 6, 10, 16, 24)
# Standard deviation in grey levels of the difference between two views of a point.
_COLOUR_NOISE = 7.0
# Share of it that is left in the dark.
_OWN_NOISE = 0.35
# Standard deviation in pixels of the place at which the background is read.
_SLIP = 0.7
# Distance in pixels up to which a view is aligned to the image, and the side of the window over
# which the shift is averaged: the depth behind a mover is a guess.
_MAX_SHIFT = 3.0
_SHIFT_WINDOW = 5
# Smallest side in pixels of images that are aligned.
_MIN_SIDE = 16
# Share of its light that a point keeps in a cast shadow, at least and at most.
_DARKEST = 0.15
_BRIGHTEST = 0.88
# Side in pixels of the window over which the gain of a shadow is estimated.
_WINDOW = 7
# Views of the background that are compared, at most: the nearest in time.
_MAX_VIEWS = 4
# Standard deviation in pixels of the blur before images are compared.
_BLUR = 0.8
# Largest misfit of a pixel, in squared standard deviations.
_MAX_MISFIT = 100
# Mean misfit of static pixels in a perfect comparison, and its estimate without static pixels: more
# of it lowers the trust in the comparison.
_USUAL_MISFIT = 0.3
# Pixels that are static in both frames below which exposures are taken as equal, and those that the
# gain is estimated from, about.
_MIN_EXPOSURE = 50
_EXPOSURE_PIXELS = 4000


def compare_with_background(
    evidence: Evidence,
    cameras: Cameras,
    suspect: Bool[np.ndarray, "F h w"],
    aligned: bool = True,
    progress: Progress = SILENT,
    stage: str = "motion",
) -> tuple[Float[np.ndarray, "F h w"], Float[np.ndarray, "F h w"]]:
    """Log-odds that a pixel is not its background (0 if no other frame shows the background), and
    likeness (0 to 1) of the pixel to its background in shadow.

    Args:
        cameras: for images of any size.
        suspect: pixels that may show a mover; the others show background, at their own depth.
        aligned: views are shifted by a few pixels to where they fit best, which takes as long as
            all else.
        progress: hears the frames.
        stage: name of the bar.
    """
    cameras = cameras.resized(*suspect.shape[:0:-1])
    images = [cv2.GaussianBlur(image, (0, 0), _BLUR) for image in evidence.images]
    odds, shadow = np.zeros((2, *suspect.shape), np.float32)

    def compare(t: int) -> None:
        box = find_box(suspect[t])
        if box is not None:
            inverse_depth = fill_unknown(evidence.inverse_depth[t], ~suspect[t])
            places = _project_to_others(cameras, t, inverse_depth, box)
            views = (_read_view(images[s], ~suspect[s], place) for s, place in places)
            given = images[t][box].astype(np.float32), ~suspect[t][box], views, aligned
            odds[t][box], shadow[t][box] = _compare(*given)

    for _ in run_ahead(compare, progress.over(range(len(suspect)), stage)):
        pass
    return odds, shadow


def _read_view(
    image: UInt8[np.ndarray, "H W 3"],
    static: Bool[np.ndarray, "H W"],
    place: Float[np.ndarray, "h w 2"],
) -> tuple[Float[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """An image read at places, and the places at which it shows background."""
    border = {"borderMode": cv2.BORDER_CONSTANT}
    share = cv2.remap(static.astype(np.float32), place, None, cv2.INTER_LINEAR, **border)
    # Of 8 bits it would be rounded.
    image = image.astype(np.float32)
    return cv2.remap(image, place, None, cv2.INTER_LINEAR), share > 0.99


def _project_to_others(
    cameras: Cameras, t: int, inverse_depth: Float[np.ndarray, "H W"], box: tuple[slice, slice]
) -> Iterator[tuple[int, Float[np.ndarray, "h w 2"]]]:
    """Frames around frame t, the nearest in time first, and places of the box's pixels in each."""
    others = [t + offset for offset in _OFFSETS if 0 <= t + offset < len(cameras)]
    for other in sorted(others, key=lambda s: abs(s - t)):
        yield other, _project(cameras, t, other, inverse_depth, box)


def _project(
    cameras: Cameras,
    t: int,
    other: int,
    inverse_depth: Float[np.ndarray, "H W"],
    box: tuple[slice, slice],
) -> Float[np.ndarray, "h w 2"]:
    """Place of each pixel of a box of frame t in another frame, in OpenCV's pixels."""
    K = cameras.K.double().numpy()
    relative = cameras.cam_from_world.double().numpy()[other]
    relative = relative @ cameras.world_from_cam.double().numpy()[t]
    infinity = K[other] @ relative[:3, :3] @ np.linalg.inv(K[t])
    epipole = K[other] @ relative[:3, 3]
    x = (np.arange(inverse_depth.shape[1]) + 0.5)[box[1]]
    y = (np.arange(inverse_depth.shape[0])[:, None] + 0.5)[box[0]]
    inverse_depth = inverse_depth[box]
    p = [
        infinity[k, 0] * x + infinity[k, 1] * y + infinity[k, 2] + epipole[k] * inverse_depth
        for k in range(3)
    ]
    z = np.where(p[2] > 1e-3, p[2], np.inf)
    # OpenCV puts (0, 0) at the centre of the top-left pixel.
    place = np.stack([p[0] / z, p[1] / z], -1) - 0.5
    place[~np.isfinite(z)] = -1e4
    return place.astype(np.float32)


def _measure_slope(image: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Squared gradient of colour summed over channels, spread to the neighbours."""
    # Scharr's kernel sums to 32 for a slope of one grey level per pixel.
    dx = cv2.Scharr(image, cv2.CV_32F, 1, 0) / 32
    dy = cv2.Scharr(image, cv2.CV_32F, 0, 1) / 32
    return cv2.dilate(_dot(dx, dx) + _dot(dy, dy), np.ones((3, 3)))


def _compare(
    image: Float[np.ndarray, "h w 3"],
    static: Bool[np.ndarray, "h w"],
    views: Iterable,
    aligned: bool,
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Log-odds of foreground, and likeness to the background in shadow.

    Args:
        static: pixels that show background.
        views: images (h, w, 3) of the background from other frames, and masks (h, w) of the pixels
            that each of them sees; the nearest in time first.
    """
    slope = _measure_slope(image)
    used = np.zeros(slope.shape, np.float32)
    plain, dark = np.full((2, _MAX_VIEWS, *slope.shape), np.inf, np.float32)
    for view, known in views:
        fresh = known & (used < _MAX_VIEWS)
        if not fresh.any():
            continue
        view = view * _estimate_exposure(image, view, known & static)
        if aligned:
            view = _align(image, view, known)
        place = used[fresh].astype(int), *np.nonzero(fresh)
        for misfits, own in zip((plain, dark), _measure_misfits(image, view, slope), strict=True):
            misfits[place] = own[fresh]
        used += fresh
    distance = _average_best_half(plain, used)
    miss = _average_best_half(dark, used)
    return _score(distance, miss, used > 0, static)


def _align(
    image: Float[np.ndarray, "h w 3"],
    view: Float[np.ndarray, "h w 3"],
    known: Bool[np.ndarray, "h w"],
) -> Float[np.ndarray, "h w 3"]:
    """A view of the background shifted by a few pixels to where it fits the image best."""
    if min(known.shape) < _MIN_SIDE:
        return view
    whole = np.where(known[..., None], view, image)
    here, there = (
        cv2.cvtColor(np.clip(rgb, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        for rgb in (image, whole)
    )
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    shift = cv2.blur(search.calc(here, there, None), (_SHIFT_WINDOW, _SHIFT_WINDOW))
    return read_shifted(whole, np.clip(shift, -_MAX_SHIFT, _MAX_SHIFT))


def _score(
    distance: Float[np.ndarray, "h w"],
    miss: Float[np.ndarray, "h w"],
    seen: Bool[np.ndarray, "h w"],
    static: Bool[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Log-odds of foreground and likeness to shadow from misfits, which static pixels calibrate.

    Args:
        distance: misfit of the plain background.
        miss: misfit of the background in shadow.
        seen: pixels whose background another frame shows.
        static: pixels that show background.
    """
    usual = np.median(distance[seen & static]) if (seen & static).any() else _USUAL_MISFIT
    spread = max(1.0, usual / _USUAL_MISFIT)
    trust = 1 / np.sqrt(spread)
    odds = np.where(seen, trust * np.clip(1.2 * (np.sqrt(distance / spread) - 1.4), -1.5, 2.0), 0)
    shadow = np.where(seen, np.exp(-0.5 * np.maximum(miss / spread - 0.5, 0)), 0)
    shadow *= trust
    return odds.astype(np.float32), shadow.astype(np.float32)


def _measure_misfits(
    image: Float[np.ndarray, "h w 3"],
    view: Float[np.ndarray, "h w 3"],
    slope: Float[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Squared distance of an image from a view of its background, plain and in shadow, in variances
    of their noise.

    Args:
        slope: of the image.
    """
    noise = 3 * _COLOUR_NOISE**2 + _SLIP**2 * np.minimum(slope, _measure_slope(view))
    gain = _blur_box(_dot(image, view)) / np.maximum(_blur_box(_dot(view, view)), 1)
    dimmed = image - gain[..., None] * view
    plain = image - view
    # Differences between views are dimmed as well; the noise of the image is not.
    dim = _OWN_NOISE + (1 - _OWN_NOISE) * np.minimum(gain, 1)
    miss = _blur_box(_dot(dimmed, dimmed)) / (dim**2 * _blur_box(noise))
    no_shadow = (gain > _BRIGHTEST) | (gain < _DARKEST) | _has_other_texture(image, view, gain)
    miss[no_shadow] = _MAX_MISFIT
    return _dot(plain, plain) / noise, miss


def _average_best_half(
    values: Float[np.ndarray, "v h w"], used: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Mean over the better half of the used views; in the worse half something else may stand in
    front of the background."""
    kept = np.ceil(used / 2)
    ordered = np.sort(values, 0)
    chosen = np.arange(len(values))[:, None, None] < kept
    total = np.where(chosen, np.minimum(ordered, _MAX_MISFIT), 0).sum(0)
    return np.minimum(total / np.maximum(kept, 1), _MAX_MISFIT)


def _estimate_exposure(
    image: Float[np.ndarray, "h w 3"],
    view: Float[np.ndarray, "h w 3"],
    static: Bool[np.ndarray, "h w"],
) -> Float[np.ndarray, "3"]:
    """Gain of each channel between two frames, from pixels that are static in both."""
    if static.sum() < _MIN_EXPOSURE:
        return np.ones(3, np.float32)
    few = np.flatnonzero(static)[:: 1 + static.sum() // _EXPOSURE_PIXELS]
    # 4 grey levels more keep the ratio of dark pixels finite.
    ratio = (image.reshape(-1, 3)[few] + 4) / (view.reshape(-1, 3)[few] + 4)
    return np.median(ratio, 0).astype(np.float32)


def _has_other_texture(
    image: Float[np.ndarray, "h w 3"],
    view: Float[np.ndarray, "h w 3"],
    gain: Float[np.ndarray, "h w"],
) -> Bool[np.ndarray, "h w"]:
    """Pixels around which the background has texture that the image does not repeat: a shadow would
    keep the texture."""
    here, there = (cv2.transform(rgb, np.full((1, 3), 1 / 3)) for rgb in (image, view))
    mean_here = _blur_box(here)
    mean_there = _blur_box(there)
    variance = np.maximum(_blur_box(there * there) - mean_there**2, 0)
    own = np.maximum(_blur_box(here * here) - mean_here**2, 0)
    shared = _blur_box(here * there) - mean_here * mean_there
    is_textured = gain**2 * variance > (_COLOUR_NOISE / 2) ** 2
    return is_textured & (shared < 0.5 * np.sqrt(own * variance))


def _dot(a: Float[np.ndarray, "h w 3"], b: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Scalar product of two images' colours."""
    # several times as fast as einsum
    return cv2.transform(a * b, np.ones((1, 3), np.float32))


def _blur_box(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Mean over the window around each pixel."""
    return cv2.blur(values, (_WINDOW, _WINDOW))
