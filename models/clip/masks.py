"""Masks of movers: read from images or a video, grown, written."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8, UInt16
from numpy import ndarray

from models.clip.frame_store import FrameStore
from models.clip.frames_of import ClipFrames
from models.clip.images import decode_image, read_alpha, write_images
from models.clip.sources.listing import list_images
from models.clip.sources.mask_values import HALF, WHITE, MaskValues, is_alpha_mask, widen
from models.clip.video import check_exists, iterate_frames
from models.run import SILENT, InputError, Progress, allocate

# Kinds of image files that change values a little; videos do as well.
_LOSSY = frozenset({".jpg", ".jpeg", ".webp"})
# Value, 0 to 255, above which half of a reduced pixel moves.
_HALF_COVERED = 127
# Share of the picture above which masks are taken for possibly inverted.
_LARGE_SHARE = 0.7


def read_masks(
    path: str | Path, frames: ClipFrames, invert: bool = False, progress: Progress = SILENT
) -> Bool[ndarray, "F H W"]:
    """Reads a folder of mask images (white = moving, natural name order) or a mask video.

    The masks belong to the frames taken, or to all frames of the clip. Each mask has the size of the
    frames, or the clip's original size, from which the mask is reduced. In masks without white every
    value other than 0 moves; in images whose colours are no masks, alpha is the mask.

    Args:
        invert: black = moving.
        progress: hears which values move if it is not white, and of masks that cover nothing or
            most of the picture.

    Raises:
        InputError: the path cannot be read, or the number or a size of the masks does not fit.
    """
    path = Path(path)
    check_exists(path)
    source = partial(_iterate_video, path)
    rows = None
    if path.is_dir():
        listing = list_images(path)
        files = listing.masks or listing.frames
        rows = _choose_masks(path, len(files), frames)
        source = partial(_iterate_images, [files[i] for i in rows])
    masks = _read_source(path, source, frames, progress)
    if not path.is_dir():
        rows = _choose_masks(path, len(masks), frames)
        masks = masks if np.array_equal(rows, np.arange(len(masks))) else masks[rows]
    if invert:
        np.logical_not(masks, out=masks)
    if not masks.any():
        progress.say(f"{path}: the masks mark nothing as moving")
    if said := describe_large_masks(masks, invert):
        progress.say(f"{path}: {said}")
    return masks


def describe_large_masks(masks: Bool[ndarray, "F H W"] | None, invert: bool) -> str:
    """A clause on given masks that cover most of the picture; empty for all other masks."""
    share = 0.0 if masks is None else masks.mean()
    if share <= _LARGE_SHARE:
        return ""
    cure = "leave out --invert_masks" if invert else "give --invert_masks"
    return (
        f"the masks cover {100 * share:.0f} % of the picture as moving; "
        f"if they mark the still part, {cure}"
    )


@contextmanager
def name_large_masks(masks: Bool[ndarray, "F H W"] | None, invert: bool) -> Iterator[None]:
    """Adds to every InputError of the block that the given masks cover most of the picture, if they
    do."""
    try:
        yield
    except InputError as error:
        said = describe_large_masks(masks, invert)
        if not said:
            raise
        raise InputError(f"{error} ({said})") from error


def _choose_masks(path: Path, count: int, frames: ClipFrames) -> Int[ndarray, "F"]:
    return frames.choose_rows(path, count, "masks", "make masks from this clip")


@dataclass(frozen=True)
class _MaskImage:
    """The values of a mask, widened to 16 bits."""

    path: Path
    color: UInt16[ndarray, "h w"]
    """The largest channel."""
    alpha: UInt16[ndarray, "h w"] | None
    """None where there is no alpha channel."""
    is_lossy: bool
    """Whether the kind of file changes values a little."""


def _iterate_images(paths: list[Path]) -> Iterator[_MaskImage]:
    for path in paths:
        alpha = read_alpha(path)
        color = widen(decode_image(path))
        fits = alpha is not None and alpha.shape == color.shape
        lossy = path.suffix.lower() in _LOSSY
        yield _MaskImage(path, color, widen(alpha) if fits else None, lossy)


def _iterate_video(path: Path) -> Iterator[_MaskImage]:
    colors = iterate_frames(path, "16 bits")
    for image, alpha in zip_longest(colors, iterate_frames(path, "alpha")):
        yield _MaskImage(path, widen(image), None if alpha is None else widen(alpha), True)


def _read_source(
    path: Path, source: Callable[[], Iterator[_MaskImage]], frames: ClipFrames, progress: Progress
) -> Bool[ndarray, "F H W"]:
    """All masks of a source, which is read again if its masks are not white on black."""
    color = MaskValues()
    alpha = MaskValues()
    counted = (_count_values(image, color, alpha) for image in source())
    masks = _hold(_make_mask(image, image.color, HALF, frames) for image in counted)
    by_alpha = is_alpha_mask(color, alpha)
    least = (alpha if by_alpha else color).find_threshold()
    if not by_alpha and least == HALF:
        return masks
    progress.say(f"{path}: {_describe_rule(by_alpha, least)}")
    del masks
    again = (
        _make_mask(image, _take_alpha(image) if by_alpha else image.color, least, frames)
        for image in source()
    )
    return _hold(again)


def _hold(masks: Iterable[Bool[ndarray, "H W"]]) -> Bool[ndarray, "F H W"]:
    """Masks of one size as a single array."""
    store = FrameStore()
    for mask in masks:
        store.add(mask.view(np.uint8))
    return store.array().view(bool)


def _count_values(image: _MaskImage, color: MaskValues, alpha: MaskValues) -> _MaskImage:
    """Adds the values of a mask, which is returned."""
    color.add(image.color, image.is_lossy)
    if image.alpha is not None:
        alpha.add(image.alpha, image.is_lossy)
    return image


def _take_alpha(image: _MaskImage) -> UInt16[ndarray, "h w"]:
    """The alpha channel, full where an image has none."""
    return np.full_like(image.color, WHITE) if image.alpha is None else image.alpha


def _describe_rule(by_alpha: bool, least: int) -> str:
    """A clause that says which values move."""
    channel = "the alpha channel of the masks" if by_alpha else "the masks"
    if least == HALF:
        return f"moving pixels are taken from {channel}"
    value = "other than 0" if least == 0 else f"above {least // 257} of 255"
    return f"every value {value} in {channel} is taken as moving"


def _make_mask(
    image: _MaskImage, values: UInt16[ndarray, "h w"], least: int, frames: ClipFrames
) -> Bool[ndarray, "H W"]:
    """A mask at the size of the frames, from an image of that size or of the clip's original size.

    Args:
        least: value above which a pixel moves.
    """
    found = values.shape[1], values.shape[0]
    sizes = {frames.size, frames.original_size or frames.size}
    if found not in sizes:
        expected = " or ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise InputError(
            f"{image.path}: the mask is {found[0]}x{found[1]}, expected {expected}; make masks from this clip"
        )
    moving = values > least
    if found == frames.size:
        return moving
    white = np.where(moving, np.uint8(255), np.uint8(0))
    return cv2.resize(white, frames.size, interpolation=cv2.INTER_AREA) > _HALF_COVERED


def at_points(
    images: Shaped[ndarray, "F H W *C"], xy: Float[ndarray, "F N 2"]
) -> Shaped[ndarray, "F N *C"]:
    """Value of each frame's image at its points: that of the pixel on which the point lies.

    Args:
        images: masks, labels or colours.
        xy: pixels; a point beyond the border takes the value of the nearest border pixel.
    """
    height, width = images.shape[1:3]
    out = np.empty((*xy.shape[:2], *images.shape[3:]), images.dtype)
    for t, (image, points) in enumerate(zip(images, xy, strict=True)):
        x, y = points.astype(np.int64).clip(0, [width - 1, height - 1]).T
        out[t] = image[y, x]
    return out


def dilate(masks: Bool[ndarray, "F H W"], pixels: int) -> Bool[ndarray, "F H W"]:
    """Grows each mask by a disc.

    Args:
        pixels: radius of the disc, 0 or more.
    """
    if pixels < 0:
        raise ValueError(f"cannot grow masks by {pixels} pixels")
    offset = np.arange(-pixels, pixels + 1)
    disc = (offset[:, None] ** 2 + offset**2 <= pixels**2).astype(np.uint8)
    out = allocate(masks.shape, bool)
    for grown, mask in zip(out, masks, strict=True):
        grown[:] = cv2.dilate(mask.astype(np.uint8), disc) > 0
    return out


def write_masks(
    folder: str | Path, masks: Bool[ndarray, "F H W"], indices: Iterable[int] | None = None
) -> None:
    """Writes masks as ``folder/%05d.png``, white = moving, numbered from 0 or by ``indices``.

    Raises:
        InputError: the folder cannot be made or written.
    """
    write_images(folder, _make_images(masks), range(len(masks)) if indices is None else indices)


def _make_images(masks: Bool[ndarray, "F H W"]) -> Iterator[UInt8[ndarray, "H W"]]:
    return (mask.astype(np.uint8) * 255 for mask in masks)
