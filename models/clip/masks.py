"""Masks of movers: read from images or a video, grown, written."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from numpy import ndarray

from models.clip.frames_of import ClipFrames
from models.clip.images import image_paths, read_image, write_images
from models.clip.video import check_exists, iterate_frames
from models.run import InputError

# A pixel moves where the value of any channel, 0 to 255, is above this.
_WHITE = 127


def read_masks(path: str | Path, frames: ClipFrames) -> Bool[ndarray, "F H W"]:
    """Reads a folder of mask images (white = moving, natural name order) or a mask video.

    The masks belong to the frames taken, or to all frames of the clip. Each mask has the size of the
    frames, or the clip's original size, from which the mask is reduced.

    Raises:
        InputError: the path cannot be read, or the number or a size of the masks does not fit.
    """
    path = Path(path)
    check_exists(path)
    if not path.is_dir():
        masks = [_read_mask(image, path, frames) for image in iterate_frames(path)]
        return np.stack([masks[i] for i in _choose_masks(path, len(masks), frames)])
    paths = image_paths(path)
    chosen = _choose_masks(path, len(paths), frames)
    width, height = frames.size
    masks = np.empty((len(chosen), height, width), bool)
    brightest = 0
    for i, k in enumerate(chosen):
        image = read_image(paths[k])
        brightest = max(brightest, int(image.max()))
        masks[i] = _read_mask(image, paths[k], frames)
    if 0 < brightest <= _WHITE:
        raise InputError(
            f"{path}: the brightest mask value is {brightest}, white is 255; save moving pixels as 255"
        )
    return masks


def _choose_masks(path: Path, count: int, frames: ClipFrames) -> Int[ndarray, "F"]:
    return frames.choose_rows(path, count, "masks", "make masks from this clip")


def _read_mask(
    image: UInt8[ndarray, "h w 3"], path: Path, frames: ClipFrames
) -> Bool[ndarray, "H W"]:
    """A mask at the size of the frames, from an image of that size or of the clip's original size."""
    found = image.shape[1], image.shape[0]
    sizes = {frames.size, frames.original_size or frames.size}
    if found not in sizes:
        expected = " or ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise InputError(
            f"{path}: the mask is {found[0]}x{found[1]}, expected {expected}; make masks from this clip"
        )
    white = np.where(image.max(2) > _WHITE, np.uint8(255), np.uint8(0))
    if found != frames.size:
        white = cv2.resize(white, frames.size, interpolation=cv2.INTER_AREA)
    return white > _WHITE


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
    out = np.empty_like(masks)
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
