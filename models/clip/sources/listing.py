"""Image files of a folder: frames, masks beside them, kinds that are not read."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.clip.sources.naming import sort_naturally
from models.run import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Suffixes of the image files of a folder, in lower case."""
# Suffixes of images that are not read, in lower case.
_UNREAD = re.compile(
    r"\.(avif|heic|heif|jxl|jp2|j2k|jfif|gif|exr|hdr|pfm|dpx|tga|psd|pgm|ppm|pnm|dng|cr2|cr3|nef|arw"
    r"|raf|orf|rw2|raw)"
)
# The word mask in a name, as in dynamic_mask_0.png.
_MASK = re.compile(r"(?<![a-z])masks?(?![a-z])")


@dataclass(frozen=True)
class Listing:
    """The images of a folder, in natural order of their names."""

    frames: list[Path]
    masks: list[Path]
    """Beside the frames, a mask for each; empty if there are none."""
    notes: tuple[str, ...] = ()
    """Sentences for the user: files left out, and why."""


def image_paths(folder: Path) -> list[Path]:
    """Image files of a folder in natural name order, without hidden files and without masks that
    lie beside frames.

    Raises:
        InputError: see ``list_images``.
    """
    return list_images(folder).frames


def list_images(folder: Path) -> Listing:
    """The images of a folder, without hidden files.

    Raises:
        InputError: the folder cannot be listed, holds no image, or holds an image in two kinds of
            files.
    """
    try:
        files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(
            f"{folder}: the folder cannot be read ({error.strerror}); check its permissions"
        ) from error
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    unread = _count_unread(files)
    if not images:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        others = f" that are read, but {unread}" if unread else ""
        raise InputError(
            f"{folder}: the folder holds no images{others}; put the frames there as {suffixes}"
        )
    _refuse_twins(folder, images)
    notes = [f"{unread} are not read; convert them to PNG if they are frames"] if unread else []
    frames, masks, left_out = _split_masks(sort_naturally(images, lambda path: path.name))
    return Listing(frames, masks, (*notes, *left_out))


def _count_unread(files: Iterable[Path]) -> str:
    """Number and kind of the images that are not read, as the subject of a sentence."""
    kinds = Counter(path.suffix.lower() for path in files)
    unread = [f"{kinds[kind]} {kind}" for kind in sorted(kinds) if _UNREAD.fullmatch(kind)]
    return f"{' and '.join(unread)} images" if unread else ""


def _refuse_twins(folder: Path, images: Iterable[Path]) -> None:
    """Refuses an image that is there in two kinds of files: a clip would show each frame twice."""
    by_stem: dict[str, Path] = {}
    for path in sorted(images):
        other = by_stem.setdefault(path.stem.lower(), path)
        if other is not path:
            raise InputError(
                f"{folder}: holds both {other.name} and {path.name}; keep one file for each frame"
            )


def _split_masks(images: list[Path]) -> tuple[list[Path], list[Path], list[str]]:
    """Frames, the masks beside them, and notes on both; a folder of masks alone holds frames."""
    named = [path for path in images if _MASK.search(path.stem.lower())]
    frames = [path for path in images if path not in set(named)]
    if not named or not frames:
        return images, [], []
    groups: dict[str, list[Path]] = {}
    for path in named:
        groups.setdefault(re.sub(r"\d+", "", path.stem.lower()), []).append(path)
    # Masks grown by a margin have the longer name.
    fitting = [k for k in sorted(groups, key=len) if len(groups[k]) == len(frames)]
    masks = groups[fitting[0]] if fitting else []
    verb = "are no frames but masks" if masks else "are named as masks and not taken as frames"
    first = (masks or named)[0].name
    return frames, masks, [f"{len(named)} images such as {first} {verb}"]
