"""Masks of what moves: read from images or a video, grown, written."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from models.clip.images import image_paths, read_image, write_images
from models.clip.video import check_exists, iterate_frames
from models.run import InputError

_WHITE = 127
"""A pixel is moving where any channel is above this."""


def read_masks(
    path: str | Path,
    num_frames: int,
    width: int,
    height: int,
    frame_indices: Int[ndarray, "F"],
    original_size: tuple[int, int] | None = None,
    original_frames: int | None = None,
) -> Bool[ndarray, "F H W"]:
    """Reads a folder of mask images (white = moving, natural name order) or a mask video.

    There is one mask for every frame taken or one for every frame of the clip, of which
    ``frame_indices`` are taken; each has the size worked on (``width``, ``height``) or the clip's
    ``original_size``.

    Raises:
        InputError: the path cannot be read, or the number or a size of the masks fits neither.
    """
    path = Path(path)
    check_exists(path)
    sizes = {(width, height), original_size or (width, height)}
    if not path.is_dir():
        masks = [_mask(image, path, sizes, width, height) for image in iterate_frames(path)]
        return np.stack(
            [
                masks[i]
                for i in _chosen(path, len(masks), num_frames, frame_indices, original_frames)
            ]
        )
    paths = image_paths(path)
    chosen = _chosen(path, len(paths), num_frames, frame_indices, original_frames)
    masks = np.empty((len(chosen), height, width), bool)
    brightest = 0
    for i, k in enumerate(chosen):
        image = read_image(paths[k])
        brightest = max(brightest, int(image.max()))
        masks[i] = _mask(image, paths[k], sizes, width, height)
    if 0 < brightest <= _WHITE:
        raise InputError(
            f"{path}: the brightest mask value is {brightest}, white is 255; save moving pixels as 255"
        )
    return masks


def _chosen(
    path: Path, count: int, num_frames: int, frame_indices: ndarray, original_frames: int | None
) -> ndarray:
    """Which of ``count`` masks belong to the frames taken."""
    if count == num_frames:
        return np.arange(num_frames)
    if count == original_frames or (original_frames is None and count > frame_indices[-1]):
        return np.asarray(frame_indices)
    clip = f"the {original_frames} of the clip" if original_frames else "every frame of the clip"
    raise InputError(
        f"{path}: holds {count} masks, expected {num_frames} (one for each frame taken) or {clip}"
    )


def _mask(
    image: ndarray, path: Path, sizes: set[tuple[int, int]], width: int, height: int
) -> Bool[ndarray, "H W"]:
    found = image.shape[1], image.shape[0]
    if found not in sizes:
        expected = " or ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise InputError(
            f"{path}: the mask is {found[0]}x{found[1]}, expected {expected}; make masks from this clip"
        )
    white = np.where(image.max(2) > _WHITE, np.uint8(255), np.uint8(0))
    if found != (width, height):
        white = cv2.resize(white, (width, height), interpolation=cv2.INTER_AREA)
    return white > _WHITE


def at_points(
    images: Shaped[ndarray, "F H W"], xy: Float[ndarray, "F N 2"]
) -> Shaped[ndarray, "F N"]:
    """Values of each frame's mask or label image at its points, in pixels; beyond the border those
    of the border."""
    height, width = images.shape[1:]
    out = np.empty(xy.shape[:2], images.dtype)
    for t, (image, points) in enumerate(zip(images, xy, strict=True)):
        x, y = points.astype(np.int64).clip(0, [width - 1, height - 1]).T
        out[t] = image[y, x]
    return out


def dilate(masks: Bool[ndarray, "F H W"], pixels: int) -> Bool[ndarray, "F H W"]:
    """Grows each mask by a disc of ``pixels`` radius (0 or more)."""
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
    write_images(folder, _images(masks), range(len(masks)) if indices is None else indices)


def _images(masks: Bool[ndarray, "F H W"]) -> Iterator[ndarray]:
    return (mask.astype(np.uint8) * 255 for mask in masks)
