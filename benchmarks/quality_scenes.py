"""The folders that benchmarks/quality.py takes: what they hold, checked before any work starts.

A scene has ``frames/``, and may have ``masks/`` (white = moving, one a frame) and a ``truth.npz``
with ``world_from_cam`` (F, 4, 4) in OpenCV axes. True novel views NAME lie in ``novel/NAME`` (and
``novel/NAME_masks``); their cameras in truth.npz as ``novel_NAME_world_from_cam`` (M, 4, 4),
``novel_NAME_time`` (M) in frames, ``K`` (3, 3) and ``image_size`` (height, width). ``depth.npz``
holds ``depth`` (F, H, W), z-depth at pixel centres in the truth's unit, 0 or not finite where
unknown. Scenes without novel views are scored on frames held out.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from models.clip import image_paths
from models.run import InputError, is_file

HELD_OUT = "held out"
"""Name of the views that are frames of the clip itself."""


@dataclass(frozen=True)
class Scene:
    """A checked folder."""

    name: str
    folder: Path
    frames: list[Path]
    masks: list[Path] = field(default_factory=list)
    """One for each frame, or none."""
    truth: dict[str, np.ndarray] = field(default_factory=dict)
    """Cameras of truth.npz; empty where there is none."""
    novel: tuple[str, ...] = ()
    """Names of the true novel views."""

    @property
    def has_depth(self) -> bool:
        """Whether true depth can be read."""
        return bool(self.truth) and is_file(self.folder / "depth.npz")

    def depth(self) -> Float[np.ndarray, "F H W"]:
        """True z-depth of each frame."""
        return _arrays(self.folder / "depth.npz", "depth")["depth"]

    def novel_images(self, name: str) -> list[Path]:
        """True pictures of a novel view, in the order of its cameras."""
        return image_paths(self.folder / "novel" / name)

    def novel_masks(self, name: str) -> list[Path]:
        """Masks of what moves in them; none where nothing does."""
        folder = self.folder / "novel" / f"{name}_masks"
        return image_paths(folder) if folder.is_dir() else []


def read_scenes(folders: Sequence[Path]) -> list[Scene]:
    """All scenes, each under its folder's name.

    Raises:
        InputError: there is none, two have one name, or one cannot be used.
    """
    if not folders:
        raise InputError("no scene is given; give folders that hold frames/, see --help")
    scenes = [read_scene(folder) for folder in folders]
    names = [scene.name for scene in scenes]
    if twice := [scene.folder for scene in scenes if names.count(scene.name) > 1]:
        raise InputError(
            f"{twice[0]} and {twice[1]}: two scenes have one name; rename one of the folders"
        )
    return scenes


def read_scene(folder: Path) -> Scene:
    """One scene.

    Raises:
        InputError: something is missing or does not fit.
    """
    if not (folder / "frames").is_dir():
        raise InputError(f"{folder}: has no folder frames/; a scene's images belong there")
    frames = image_paths(folder / "frames")
    masks = image_paths(folder / "masks") if (folder / "masks").is_dir() else []
    if masks and len(masks) != len(frames):
        raise InputError(
            f"{folder / 'masks'}: holds {len(masks)} masks for {len(frames)} frames; give one for each"
        )
    truth = _truth(folder / "truth.npz", len(frames)) if (folder / "truth.npz").exists() else {}
    novel = tuple(
        key[6:-15] for key in truth if key.startswith("novel_") and key.endswith("_world_from_cam")
    )
    scene = Scene(folder.resolve().name, folder, frames, masks, truth, novel)
    for name in novel:
        _check_novel(scene, name)
    return scene


def _truth(path: Path, num_frames: int) -> dict[str, np.ndarray]:
    truth = _arrays(path, "world_from_cam", "novel_", "K", "image_size")
    if truth["world_from_cam"].shape != (num_frames, 4, 4):
        shape = truth["world_from_cam"].shape
        raise InputError(
            f"{path}: world_from_cam is {shape}, expected {(num_frames, 4, 4)}, one for each frame"
        )
    if not all(np.isfinite(values).all() for values in truth.values()):
        raise InputError(
            f"{path}: holds cameras that are not finite; leave those frames out of the scene"
        )
    return truth


def _check_novel(scene: Scene, name: str) -> None:
    path, shape = scene.folder / "truth.npz", scene.truth[f"novel_{name}_world_from_cam"].shape
    if lacking := [
        key for key in (f"novel_{name}_time", "K", "image_size") if key not in scene.truth
    ]:
        raise InputError(f"{path}: lacks {lacking[0]}, which the novel views {name} need")
    for what, images in (
        (name, scene.novel_images(name)),
        (f"{name}_masks", scene.novel_masks(name)),
    ):
        if images and shape != (len(images), 4, 4):
            raise InputError(
                f"{scene.folder / 'novel' / what}: holds {len(images)} images for cameras of shape {shape}"
            )
    if len(scene.truth[f"novel_{name}_time"]) != shape[0]:
        raise InputError(f"{path}: novel_{name}_time has not one time for each camera")


def _arrays(path: Path, needed: str, *others: str) -> dict[str, np.ndarray]:
    """The array of that name and those whose names begin with one of the others."""
    try:
        with np.load(path, allow_pickle=False) as content:
            wanted = [
                key for key in content.files if key == needed or key.startswith(others or needed)
            ]
            found = {key: content[key] for key in wanted}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({str(error)[:100]}); make it again") from error
    if needed not in found:
        raise InputError(f"{path}: holds no {needed}; see --help for what belongs in it")
    return found
