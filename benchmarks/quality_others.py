"""Pictures of the same views that other systems made, and what such a system needs to make them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.quality_runs import Run, numbered
from benchmarks.quality_scenes import HELD_OUT, Scene
from models.clip import write_masks
from models.clip.transforms import save_transforms
from models.export import gather_footage, write_colmap
from models.render import load_scene
from models.run import InputError, check_output_dir, make_subfolder, write_bytes
from models.training import held_out_frames, load_inputs


@dataclass(frozen=True)
class System:
    """Another system's pictures: of held-out frames in the scene's folder, of novel views NAME in
    NAME/ below it."""

    name: str
    folders: dict[str, Path]
    """Of the scenes that it has pictures of, by the scene's name."""

    def views(self, scene: Scene) -> dict[str, dict[int, Path]]:
        """Pictures by number of each set of views that it has of a scene."""
        if scene.name not in self.folders:
            return {}
        folder = self.folders[scene.name]
        if not scene.novel:
            return {HELD_OUT: numbered(folder)}
        return {name: numbered(folder / name) for name in scene.novel if (folder / name).is_dir()}


def read_systems(texts: Sequence[str], scenes: Sequence[Scene], holdout_every: int) -> list[System]:
    """Systems given as NAME=FOLDER; FOLDER has a folder for each scene, or is that of the only
    scene.

    Raises:
        InputError: no such text or folder, or pictures are lacking.
    """
    systems = []
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise InputError(f"--renderings {text}: is not of the form NAME=FOLDER")
        if not Path(path).is_dir():
            raise InputError(f"{path}: there is no such folder of renderings")
        folders = {
            scene.name: Path(path) / scene.name
            for scene in scenes
            if (Path(path) / scene.name).is_dir()
        }
        if not folders and len(scenes) == 1:
            folders = {scenes[0].name: Path(path)}
        systems.append(System(name, folders))
        if not any([_check(systems[-1], scene, holdout_every) for scene in scenes]):
            raise InputError(
                f"{path}: holds no renderings of {', '.join(scene.name for scene in scenes)}"
            )
    return systems


def _check(system: System, scene: Scene, holdout_every: int) -> bool:
    """Whether it has pictures of the scene; refuses a set of them that is not whole."""
    views = system.views(scene)
    for name, made in views.items():
        wanted = held_out_frames(len(scene.frames), holdout_every)
        wanted = wanted if name == HELD_OUT else range(len(scene.novel_images(name)))
        paired(made, wanted, system.folders[scene.name])
    return bool(views)


def paired(made: dict[int, Path], wanted: Sequence[int], folder: Path) -> dict[int, Path]:
    """The pictures of the numbers wanted.

    Raises:
        InputError: one is lacking.
    """
    if lacking := [number for number in wanted if number not in made]:
        raise InputError(
            f"{folder}: lacks pictures {', '.join(map(str, lacking[:10]))}; number them as the frames are"
        )
    return {number: made[number] for number in wanted}


def export_split(run: Run, folder: Path) -> None:
    """Writes what another system needs to be compared on a run's views.

    ``images`` and ``sparse/0``: training frames as a COLMAP model with background tracks as points;
    ``masks`` (white = moving) of those frames; ``heldout.json``: cameras of the frames held out, in
    the layout of transforms.json, each under the name that its picture should have;
    ``novel_NAME.json``: the same of true novel views.
    """
    check_output_dir(folder)
    inputs = load_inputs(
        run.background_path, video_path=run.scene.folder / "frames", holdout_every=run.held_out
    )
    footage = gather_footage(
        load_scene(run.demo / "model.pt", torch.device("cpu")), inputs.frames, None
    )
    write_colmap(folder, footage, inputs.tracks)
    if inputs.masks is not None and inputs.masks.any():
        write_masks(make_subfolder(folder, "masks"), inputs.masks[footage.times], footage.times)
    if inputs.held_out:
        names = [f"{t:05d}.png" for t in inputs.held_out]
        save_transforms(
            folder / "heldout.json", footage.cameras[inputs.held_out], inputs.held_out, names
        )
    for name in run.scene.novel:
        write_bytes(folder / f"novel_{name}.json", (run.folder / f"novel_{name}.json").read_bytes())
