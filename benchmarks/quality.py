"""How good the whole pipeline is on a set of scenes: pictures, cameras, depth, seconds, memory, in
one table.

    python benchmarks/quality.py SCENE ... [--output FILE] [--compare OLD.json] [--demo
    "--train_seconds 60"]

A scene is a folder with frames/ and, where there are such, masks/, truth.npz, novel/ and depth.npz;
what these hold stands at the top of benchmarks/quality_scenes.py. Scenes with true novel views are
scored on those; their cameras are carried into the estimated world by the similarity that fits the
clip's own cameras best. All others are scored on every 8th frame, which is kept out of meshes and
training. Where there are masks, pixels outside and inside them are scored apart too. The three
scripts run as a user runs them; a run that was stopped goes on. Held-out frames are also
interpolated between their neighbours by DIS flow, for comparison. PSNR is in dB, SSIM is
scikit-image's (7x7 window), FLIP that of benchmarks/flip.py.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # idle OpenMP threads must not spin beside numba's
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.interpolation import interpolate_held_out
from benchmarks.quality_figures import coverage_of, figures
from benchmarks.quality_others import System, export_split, paired, read_systems
from benchmarks.quality_runs import Flags, Run, run_scene, split_flags
from benchmarks.quality_scenes import HELD_OUT, Scene, read_scenes
from benchmarks.quality_scores import score_pictures
from benchmarks.quality_table import LEGEND, differences, table, unpaired
from models.run import (
    InputError,
    check_output_dir,
    describe_run,
    fingerprint,
    read_json,
    run_script,
    write_json,
)

OWN_NAME = "spacelayer"
FLOW_NAME = "DIS flow"
"""Held-out frames interpolated between their neighbours."""


@dataclass(frozen=True)
class Settings:
    scenes: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of scenes."""
    output: Path | None = None
    """Where to write the figures as JSON."""
    compare: Path | None = None
    """Figures of an earlier run, to print the differences from."""
    output_dir: Path = Path("results/quality")
    """Where the scripts write, a folder for each scene."""
    background: str = ""
    """Flags for background_points.py, as one text."""
    foreground: str = ""
    """Flags for foreground_points.py, as one text."""
    demo: str = ""
    """Flags for demo_pipeline.py, as one text."""
    holdout_every: int = 8
    """Frames t with t % N == N // 2 are kept out of training and scored, in scenes without true
    novel views."""
    give_masks: bool = True
    """Whether the scripts get a scene's masks; else they find what moves, and the masks only part
    the scores."""
    renderings: tuple[str, ...] = ()
    """NAME=FOLDER of another system's pictures of the same views, numbered as the frames; below
    FOLDER a folder for each scene (unless there is but one), and in that of a scene with novel
    views one for each of them."""
    export_split: Path | None = None
    """Where to write, for each scene, a COLMAP model and images of the training frames, and the
    cameras of the views that are scored, for such a system."""


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__, args=joined(sys.argv[1:]))
    scenes, flags, old = check(settings)
    systems = read_systems(settings.renderings, scenes, settings.holdout_every)
    made_from = fingerprint(__file__, {}, {})
    config, rows, stages = describe_run(settings, "see each run", made_from), [], {}
    config["settings"]["scenes"] = [str(scene.folder) for scene in scenes]
    for scene in scenes:
        try:
            run = run_scene(scene, settings.output_dir / scene.name, flags)
            whole = figures(run)
            stages[scene.name] = whole.pop("seconds_of_stages")
            rows += rows_of(run, whole, systems)
            if settings.export_split is not None:
                export_split(run, settings.export_split / scene.name)
        except InputError as error:  # the other scenes are scored all the same
            rows.append({"scene": scene.name, "system": OWN_NAME, "error": str(error)})
        if settings.output is not None:
            write_json(
                settings.output, {"config": config, "rows": rows, "seconds_of_stages": stages}
            )
    print(table(rows), LEGEND, sep="\n\n")
    if old is not None:
        print(compared(rows, old, settings.compare))
    if failed := [row["scene"] for row in rows if "error" in row]:
        raise InputError(
            f"{len(failed)} of {len(scenes)} scenes could not be scored: {', '.join(failed)}"
        )


def joined(words: list[str]) -> list[str]:
    """The command line with ``--demo "--flags"`` as ``--demo=--flags``, as tyro takes the former
    for two flags."""
    words = list(words)
    for option in ("--background", "--foreground", "--demo"):
        while option in words[:-1]:
            k = words.index(option)
            words[k : k + 2] = [f"{option}={words[k + 1]}"]
    return words


def check(settings: Settings) -> tuple[list[Scene], Flags, list[dict] | None]:
    """Reads what is given and refuses what cannot work, before anything is done.

    Raises:
        InputError: a folder, a flag or a file cannot be used.
    """
    scenes = read_scenes(settings.scenes)
    if settings.holdout_every < 2:
        raise InputError(
            f"--holdout_every is {settings.holdout_every}; give 2 or more, as held-out frames are scored"
        )
    if short := [
        s.folder for s in scenes if not s.novel and len(s.frames) <= settings.holdout_every // 2
    ]:
        raise InputError(
            f"{short[0]}: is too short to hold every {settings.holdout_every}th frame out"
        )
    for folder in (
        settings.output_dir,
        settings.export_split,
        settings.output and settings.output.parent,
    ):
        if folder is not None:
            check_output_dir(folder)
    texts = {
        name: split_flags(getattr(settings, name), name)
        for name in ("background", "foreground", "demo")
    }
    flags = Flags(**texts, holdout_every=settings.holdout_every, give_masks=settings.give_masks)
    return scenes, flags, None if settings.compare is None else read_rows(settings.compare)


def read_rows(path: Path) -> list[dict]:
    """The rows that an earlier run wrote.

    Raises:
        InputError: the file is none of this benchmark's.
    """
    content = read_json(path, "table of figures")
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and "scene" in row for row in rows
    ):
        raise InputError(
            f"{path}: holds no rows of figures; give what --output of this benchmark wrote"
        )
    return rows


def rows_of(run: Run, whole: dict, systems: list[System]) -> list[dict]:
    """A row for each set of views and region, ours first; the first has the figures of the whole
    run too."""
    rows = []
    flow = {HELD_OUT: interpolate_held_out(run)} if run.held_out else {}
    others = [(system.name, system.views(run.scene)) for system in systems]
    for system, sets in [(OWN_NAME, run.views()), (FLOW_NAME, flow), *others]:
        for views, made in sets.items():
            truth, masks = run.true_views(views)
            scores = score_pictures(
                paired(made, list(truth), next(iter(made.values())).parent), truth, masks
            )
            name = {"scene": run.scene.name, "system": system, "views": views}
            own = {"coverage": coverage_of(run, views)} if system == OWN_NAME else {}
            for region, values in scores.items():
                rows.append(
                    {**name, "region": region, **values, **(own if region == "whole" else {})}
                )
    rows[0] |= whole
    return rows


def compared(rows: list[dict], old: list[dict], path: Path) -> str:
    """The table of differences, and which rows have no partner."""
    lines = [
        f"\ndifferences from {path}, new less old:",
        table(differences(rows, old), signed=True),
    ]
    for what, lone in (
        ("only here", unpaired(rows, old)),
        (f"only in {path}", unpaired(old, rows)),
    ):
        lines += [f"{what}: {', '.join(lone)}"] if lone else []
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
