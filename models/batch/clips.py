"""The clips of a folder: video files and folders of images, with masks where they lie beside them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from models.clip import image_paths, sort_naturally
from models.run import InputError

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".mov",
        ".m4v",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".wmv",
        ".gif",
    }
)
"""Suffixes of video files, in lower case."""
SCENE = "_demo"
"""End of the name of a folder that holds the scene of a clip."""
# Names of the folder of frames inside the folder of a clip.
_FRAMES = ("frames", "images", "rgb")
# Folders of the results that belong to no clip.
_TAKEN = ("logs", "posters")
# Masks of clip NAME: NAME/masks, or NAME_masks beside a video file.
_MASKS = "masks"


@dataclass(frozen=True)
class FolderClip:
    """A clip of a folder."""

    name: str
    """Name of its file without suffix, or of its folder."""
    video_path: Path
    """Video file, or folder of images."""
    mask_path: Path | None = None
    """Masks beside it; None where they are to be made."""


def find_clips(
    folder: Path, names: Collection[str] = (), results_dir: Path | None = None
) -> list[FolderClip]:
    """The clips of a folder in natural order of their names.

    A clip is a video file, or a folder with images in it or in its ``frames``, ``images`` or ``rgb``.

    Args:
        names: of the clips wanted; all if empty.
        results_dir: no clip, where it lies in the folder.

    Raises:
        InputError: there is no such folder, it holds no clip, two clips have one name or would
            share a folder of results, or a wanted clip is missing.
    """
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(
            f"{folder}: the folder cannot be read ({error.strerror}); give a folder of videos"
        ) from error
    clips: dict[str, FolderClip] = {}
    for path in sort_naturally(entries, lambda path: path.name):
        clip = None if path == results_dir else _as_clip(path)
        if clip is None:
            continue
        if clip.name in clips:
            other = clips[clip.name].video_path
            raise InputError(f"{folder}: {other.name} and {path.name} have one name; rename one")
        clips[clip.name] = clip
    if not clips:
        raise InputError(
            f"{folder}: holds no clips; put video files there, or a folder of images for each clip"
        )
    for name in clips:
        if name in _TAKEN or name.removesuffix(SCENE) in clips.keys() - {name}:
            raise InputError(
                f"{clips[name].video_path}: results/{name} is the name of another folder; rename the "
                "clip"
            )
    if missing := [name for name in names if name not in clips]:
        raise InputError(f"{folder}: holds no clip named {missing[0]}; it has {', '.join(clips)}")
    return [clip for clip in clips.values() if not names or clip.name in names]


def _as_clip(path: Path) -> FolderClip | None:
    """The clip at a path; None for masks and for other files."""
    if path.stem.endswith(f"_{_MASKS}"):
        return None
    if path.is_dir():
        inside = next((path / name for name in _FRAMES if (path / name).is_dir()), path)
        within = path / _MASKS
        masks = within if within.is_dir() else _find_beside(path, path.name)
        return FolderClip(path.name, inside, masks) if _has_images(inside) else None
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return None
    return FolderClip(path.stem, path, _find_beside(path, path.stem))


def _find_beside(path: Path, name: str) -> Path | None:
    """Masks NAME_masks, a folder or a video, beside a clip."""
    wanted = f"{name}_{_MASKS}"
    found = (own for own in sorted(path.parent.iterdir()) if wanted in (own.stem, own.name))
    return next(found, None)


def _has_images(folder: Path) -> bool:
    try:
        return bool(image_paths(folder))
    except InputError:
        return False
