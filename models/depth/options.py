"""The scripts' options for learned depth and masks, and what each of them gives."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.clip import Video
from models.depth.imported import Imported, align_imported
from models.depth.maps import DepthMaps, align_depth, read_depth
from models.depth.movers import align_to_tracks, mover_depth
from models.depth.points import align_to_scene, fill_gaps, settle_points
from models.depth.turning import raise_relief
from models.learned import (
    SUBMODULES,
    MaskModel,
    check_depth_model,
    check_mask_model,
    open_depth_model,
    open_mask_model,
    remove_depth_maps,
    write_depth_maps,
)
from models.run import InputError, make_subfolder
from models.sfm import StaticScene
from models.tracks import Tracks

DEPTH_FOLDER = "depth"
"""Where the maps of a depth model are kept, beside the track file."""


@dataclass(frozen=True)
class DepthOptions:
    """Depth beside what parallax tells."""

    depth: str | None = None
    """Learned depth: depth_anything or depth_pro (pip install -r requirements-learned.txt)."""
    depth_checkpoint: str | None = None
    """Its weights: a folder or a hub name; submodules/<name>, or else the usual weights, if not
    given."""
    depth_path: Path | None = None
    """Depth of your own: a folder with a .npy or 16-bit PNG for each frame, depth or inverse depth
    in any unit."""
    allow_download: bool = False
    """Let learned depth and masks fetch their weights from the hub; nothing is downloaded without
    this."""


@dataclass(frozen=True)
class LearnedOptions(DepthOptions):
    """Learned depth and masks."""

    masks: str | None = None
    """Learned masks: sam2, prompted by the masks that motion gives."""
    masks_checkpoint: str | None = None
    """Its weights: a folder or a hub name; submodules/<name>, or else the usual weights, if not
    given."""


def check_depth_options(options: DepthOptions) -> None:
    """Refuses options that contradict each other, before any work is spent.

    Raises:
        InputError: the names are not known or do not go together.
    """
    if options.depth is not None and options.depth_path is not None:
        raise InputError(
            f"--depth {options.depth} and --depth_path {options.depth_path} exclude each other; give one"
        )
    if options.depth is not None:
        check_depth_model(options.depth)
    elif options.depth_checkpoint is not None:
        raise InputError(
            f"--depth_checkpoint {options.depth_checkpoint} is of no use without --depth; add its name"
        )


def check_learned_options(options: LearnedOptions, mask_path: Path | None) -> None:
    """The same for depth and masks.

    Raises:
        InputError: the names are not known or do not go together.
    """
    check_depth_options(options)
    if options.masks is not None:
        check_mask_model(options.masks)
        if mask_path is not None:
            raise InputError(
                f"--masks {options.masks} and --mask_path {mask_path} exclude each other; give one"
            )
    elif options.masks_checkpoint is not None:
        raise InputError(
            f"--masks_checkpoint {options.masks_checkpoint} is of no use without --masks; add its name"
        )


def open_masks(options: LearnedOptions, device: str) -> MaskModel | None:
    """The mask model asked for, or None where none is.

    Raises:
        InputError: see ``open_mask_model``.
    """
    if options.masks is None:
        return None
    return open_mask_model(options.masks, options.masks_checkpoint, options.allow_download, device)


def depth_maps(
    options: DepthOptions, video: Video, folder: Path, device: str, progress: Callable[[int], None]
) -> DepthMaps | None:
    """The depth maps given, or made by the model asked for and kept in ``folder``/depth, now or by
    an earlier run.

    None where there are none.

    Raises:
        InputError: see ``read_depth`` and ``open_depth_model``.
    """
    kept = folder / DEPTH_FOLDER
    path = options.depth_path
    if options.depth is not None:
        model = open_depth_model(
            options.depth, options.depth_checkpoint, options.allow_download, device
        )
        write_depth_maps(make_subfolder(folder, DEPTH_FOLDER), video.frames, model, progress)
        path = kept
    elif path is None and kept.is_dir() and any(kept.iterdir()):
        path = kept
    elif path is None:
        return None
    inverse = True if path.resolve() == kept.resolve() else None
    return read_depth(path, video.clip_frames, inverse)


def weights_and_maps(options: DepthOptions) -> dict[str, str | Path | None]:
    """The files and folders that these options stand for, by what is in them; None where an option
    is not given."""

    def weights(name: str | None, checkpoint: str | None) -> str | Path | None:
        return checkpoint or (None if name is None else SUBMODULES / name)

    files = {
        "depth": options.depth_path,
        "depth weights": weights(options.depth, options.depth_checkpoint),
    }
    if isinstance(options, LearnedOptions):
        files["mask weights"] = weights(options.masks, options.masks_checkpoint)
    return files


def forget_depth(options: DepthOptions, folder: Path) -> None:
    """Removes maps that a model of an earlier run left, where this run makes none: they may be of
    other frames."""
    kept = folder / DEPTH_FOLDER
    if options.depth is None and (
        options.depth_path is None or options.depth_path.resolve() != kept.resolve()
    ):
        remove_depth_maps(kept)


def tracks_depth(
    maps: DepthMaps | None,
    imported: Imported | None,
    background: Tracks,
    xy: np.ndarray,
    visible: np.ndarray,
    movers: np.ndarray,
    xyz: np.ndarray,
    report: Callable[[str], None],
) -> np.ndarray:
    """z-depth (F, N) of moving tracks by imported depth or else depth maps, see ``mover_depth``.

    Args:
        xyz: world positions (F, N, 3) that the tracks have so far.
    """
    found = background.cameras.to_camera(torch.from_numpy(np.asarray(xyz, np.float64)))[
        ..., 2
    ].numpy()
    depth = (
        align_imported(imported, background)
        if imported is not None
        else align_to_tracks(maps, background)
    )
    report(depth.describe())
    return mover_depth(depth, xy, visible, movers, found) if depth.trusted else found


def with_depth(
    maps: DepthMaps,
    xy: np.ndarray,
    scene: StaticScene,
    masks: np.ndarray,
    spacing: int,
    report: Callable[[str], None],
    progress: Callable[[int], None],
) -> tuple[np.ndarray, StaticScene]:
    """Tracks and scene with depth maps put to use; as they were where the maps cannot be aligned or
    tell too little.

    Args:
        xy: pixels (F, N, 2) of the scene's tracks.
        masks: where something moves, (F, H, W).
    """
    if scene.method in ("rotation", "still"):
        scene = raise_relief(xy, scene, maps)
        depth = align_depth(maps, scene.cameras, scene.points.xyz, scene.points.agrees, progress)
        report(
            "the camera keeps its place, so that depth is that of the maps alone, its median set to 1"
        )
        report(depth.describe())
    else:
        depth = align_to_scene(maps, scene, progress)
        report(depth.describe())
        if not depth.trusted:
            return xy, scene
        scene = settle_points(xy, scene, depth)
    before = xy.shape[1]
    xy, scene = fill_gaps(xy, scene, depth, ~masks, spacing)
    report(f"depth maps: {xy.shape[1] - before} points added where nothing could be tracked")
    return xy, scene
