"""Models and depth maps that the options ask for, opened."""

from dataclasses import replace
from pathlib import Path

from models.clip import Lens, Video
from models.depth.maps import DepthMaps, read_depth
from models.depth.options import DepthOptions, LearnedOptions
from models.learned import (
    MaskModel,
    SaliencyModel,
    choose_mask_model,
    open_depth_model,
    open_mask_model,
    remove_depth_maps,
    write_depth_maps,
)
from models.run import SILENT, Progress, make_subfolder

DEPTH_FOLDER = "depth"
"""Folder beside the track file in which the maps of a depth model are kept."""


def open_masks(options: LearnedOptions, device: str) -> MaskModel | SaliencyModel | None:
    """The mask model asked for; None if masks come from motion alone.

    Raises:
        InputError: see ``open_mask_model``.
    """
    name = choose_mask_model(options.masks)
    if name is None:
        return None
    return open_mask_model(name, options.masks_checkpoint, options.allow_download, device)


def make_depth_maps(
    options: DepthOptions, video: Video, folder: Path, device: str, progress: Progress = SILENT
) -> None:
    """Writes the maps of the depth model asked for to ``folder``/depth. They hold inverse depth.

    Raises:
        InputError: see ``open_depth_model``.
    """
    model = open_depth_model(
        options.depth, options.depth_checkpoint, options.allow_download, device
    )
    write_depth_maps(make_subfolder(folder, DEPTH_FOLDER), video.frames, model, progress)


def open_depth_maps(
    options: DepthOptions, video: Video, folder: Path, lens: Lens | None = None
) -> DepthMaps | None:
    """The depth maps given, or the maps in ``folder``/depth; None if there are none.

    Args:
        video: the frames as they are.
        lens: by which the maps are straightened.

    Raises:
        InputError: see ``read_depth``.
    """
    kept = folder / DEPTH_FOLDER
    path = options.depth_path
    if path is None and kept.is_dir() and any(kept.iterdir()):
        path = kept
    if path is None:
        return None
    inverse = True if path.resolve() == kept.resolve() else None
    maps = read_depth(path, video.clip_frames, inverse, options.alignment)
    return replace(maps, lens=lens)


def remove_old_depth(options: DepthOptions, folder: Path) -> None:
    """Removes the maps that the model of an earlier run left in ``folder``/depth, unless this run
    makes or uses them: they may belong to other frames."""
    kept = folder / DEPTH_FOLDER
    given = options.depth_path is not None and options.depth_path.resolve() == kept.resolve()
    if options.depth is None and not given:
        remove_depth_maps(kept)
