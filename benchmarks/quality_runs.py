"""The scripts on one scene, each a process of its own, and the pictures that they leave."""

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

import background_points
import demo_pipeline
import foreground_points
from benchmarks.quality_scenes import HELD_OUT, Scene
from benchmarks.quality_scores import Similarity, similarity
from models.cameras import Cameras
from models.clip import image_paths, read_image
from models.clip.transforms import load_transforms, save_transforms
from models.run import InputError, check_output_dir, parse_settings
from models.tracks import Tracks, load_tracks
from models.training import held_out_frames

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {
    "background": background_points.Settings(Path()),
    "foreground": foreground_points.Settings(Path()),
    "demo": demo_pipeline.Settings(),
}
"""The option that hands flags on to each script, and the script's settings."""
OWN_FLAGS = (
    "--video_path",
    "--mask_path",
    "--background_path",
    "--foreground_path",
    "--output_dir",
    "--camera_path",
)
OWN_FLAGS += ("--checkpoint", "--holdout_every", "--view")
"""Flags of the scripts that the benchmark sets itself."""


@dataclass(frozen=True)
class Flags:
    """What is handed on to the scripts."""

    background: list[str] = field(default_factory=list)
    foreground: list[str] = field(default_factory=list)
    demo: list[str] = field(default_factory=list)
    holdout_every: int = 8
    """For scenes without true novel views."""
    give_masks: bool = True
    """Whether the scripts get a scene's masks; else they find what moves themselves."""


def split_flags(text: str, option: str) -> list[str]:
    """Flags given as one text.

    Raises:
        InputError: quotes that do not end, or a flag that the script does not have or the benchmark
            sets itself.
    """
    try:
        flags = shlex.split(text)
    except ValueError as error:
        raise InputError(
            f"--{option}: cannot be split into flags ({error}); close the quotes in it"
        ) from error
    for flag in flags:
        if (name := flag.split("=")[0].replace("-", "_").replace("__", "--", 1)) in OWN_FLAGS:
            raise InputError(f"--{option}: {name} is set by the benchmark itself; leave it out")
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            parse_settings(SCRIPTS[option], flags)
    except SystemExit as ended:
        raise InputError(
            f'--{option}: "{text}" is not understood by that script; see its --help'
        ) from ended
    return flags


@dataclass(frozen=True)
class Run:
    """A scene that the scripts went through, in ``folder``."""

    scene: Scene
    folder: Path
    held_out: int = 0
    """Every so many-th frame was kept out of training; 0 for none."""

    @property
    def background_path(self) -> Path:
        """The background's track file."""
        return self.folder / "tracks" / "background_points.pt"

    @property
    def demo(self) -> Path:
        """What demo_pipeline.py wrote."""
        return self.folder / "demo"

    @cached_property
    def tracks(self) -> Tracks:
        """Those of the background."""
        return load_tracks(self.background_path)

    @cached_property
    def cameras(self) -> Cameras:
        """As the run's transforms.json has them, a camera a frame worked on."""
        return load_transforms(self.demo / "transforms.json")[0]

    @property
    def numbers(self) -> list[int]:
        """Number in the clip of each frame worked on: the scripts leave bad ones out."""
        return self.tracks.frame_indices.tolist()

    @property
    def held_out_frames(self) -> list[int]:
        """Those kept out of training, counted among the frames worked on."""
        return held_out_frames(len(self.numbers), self.held_out)

    @property
    def similarity(self) -> Similarity:
        """From the estimated world to the true one."""
        return similarity(
            self.cameras.world_from_cam.numpy(), self.scene.truth["world_from_cam"][self.numbers]
        )

    def views(self) -> dict[str, dict[int, Path]]:
        """Our own pictures by number, of each set of views that is scored."""
        if self.held_out:
            return {HELD_OUT: numbered(self.demo / "frames" / "heldout")}
        return {
            name: numbered(self.folder / f"novel_{name}" / "frames" / "novel_view")
            for name in self.scene.novel
        }

    def true_views(self, name: str) -> tuple[dict[int, Path], dict[int, Path]]:
        """True pictures, and masks or none, of a set of views by number."""
        if name != HELD_OUT:
            return dict(enumerate(self.scene.novel_images(name))), dict(
                enumerate(self.scene.novel_masks(name))
            )
        places = enumerate(self.numbers)
        pairs = [(t, number) for t, number in places if t in self.held_out_frames]
        masks = {t: self.scene.masks[number] for t, number in pairs} if self.scene.masks else {}
        return {t: self.scene.frames[number] for t, number in pairs}, masks


def numbered(folder: Path) -> dict[int, Path]:
    """Images of a folder by the digits of their names.

    Raises:
        InputError: it holds none, or a name has no digits.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of pictures")
    paths = {"".join(filter(str.isdecimal, path.stem)): path for path in image_paths(folder)}
    if "" in paths:
        raise InputError(
            f"{paths['']}: has no number in its name; name pictures as the frames are, such as 00004.png"
        )
    return {int(digits): path for digits, path in paths.items()}


def run_scene(scene: Scene, folder: Path, flags: Flags) -> Run:
    """All scripts on a scene; what an earlier run finished in the folder is used again.

    Raises:
        InputError: a script ended with an error.
    """
    run = Run(scene, check_output_dir(folder), 0 if scene.novel else flags.holdout_every)
    clip, background = (
        ["--video_path", scene.folder / "frames"],
        ["--background_path", run.background_path],
    )
    masks = ["--mask_path", scene.folder / "masks"] if scene.masks and flags.give_masks else []
    run_script(
        "background_points.py",
        [*clip, *masks, "--output_dir", folder / "tracks", *flags.background],
        folder,
    )
    if moves(folder / "tracks" / "masks"):
        run_script("foreground_points.py", [*clip, *background, *flags.foreground], folder)
    else:
        (folder / "tracks" / "foreground_points.pt").unlink(missing_ok=True)  # an earlier run's
    held_out = ["--holdout_every", str(run.held_out), "--output_dir", run.demo]
    run_script("demo_pipeline.py", [*background, *held_out, *flags.demo], folder)
    for name in scene.novel:
        path, out = folder / f"novel_{name}.json", folder / f"novel_{name}"
        write_novel_path(run, name, path)
        model = ["--checkpoint", run.demo / "model.pt", "--camera_path", path, "--output_dir", out]
        run_script("demo_pipeline.py", [*background, *model], folder, f"novel_{name}")
    return run


def run_script(
    script: str, flags: Sequence[str | Path], folder: Path, name: str | None = None
) -> None:
    """One script; what it prints is kept in <name>.log.

    Raises:
        InputError: it ended with an error.
    """
    log = folder / f"{name or Path(script).stem}.log"
    print(
        f"{folder.name}: {script}{'' if name is None else f' ({name})'}",
        file=sys.stderr,
        flush=True,
    )
    with log.open("wb") as stream:
        command = [sys.executable, ROOT / script, *flags]
        code = subprocess.run(
            command, stdout=stream, stderr=stream, env=os.environ, check=False
        ).returncode
    if code:
        said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
        raise InputError(
            f"{script} ended with code {code}: {said[-1][:300]} (all that it said: {log})"
        )


def moves(masks: Path) -> bool:
    """Whether any mask of a folder is white anywhere."""
    return any(read_image(path).max() > 127 for path in image_paths(masks))


def write_novel_path(run: Run, name: str, path: Path) -> None:
    """The true cameras of a novel view, in the estimated world, as a camera path of the frames
    worked on."""
    truth = run.scene.truth
    pose = run.similarity.to_estimate(truth[f"novel_{name}_world_from_cam"])
    height, width = (int(side) for side in truth["image_size"])
    K = torch.from_numpy(truth["K"]).double().expand(len(pose), 3, 3)
    times = np.interp(truth[f"novel_{name}_time"], run.numbers, np.arange(len(run.numbers)))
    save_transforms(path, Cameras(K, torch.from_numpy(pose), width, height), times.tolist())
