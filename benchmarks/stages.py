"""What each stage of the three scripts costs: CPU seconds, seconds and memory, on any clips, beside
another commit.

    python benchmarks/stages.py CLIP ... [--against COMMIT] [--repeats 1] [--output FILE]

A clip is a video, a folder of images, or a scene folder with frames/ and perhaps masks/. The other
commit runs from a worktree of its own with this program's packages; the two take turns, clip by
clip. Before the clock starts both run on a few frames, which compiles their kernels. A stage is
divided by the bars that it prints. CPU seconds and seconds of several runs are those of the run
with the least CPU seconds; compare ratios of one run of this benchmark only, as machines differ.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.stage_costs import Cost, Costs, measure_script
from models.clip import read_video
from models.run import InputError, run_script, write_json

ROOT = Path(__file__).resolve().parents[1]
_SCRIPTS = "background_points", "foreground_points", "demo_pipeline"
# Frames of the run that compiles the kernels.
_WARM_FRAMES = 8
# Stages and bars below this share of the CPU seconds are added up in one row.
_SMALLEST_SHARE = 0.005
_TOTAL = "all"


@dataclass(frozen=True)
class Settings:
    clips: tyro.conf.Positional[tuple[Path, ...]]
    """Videos, folders of images, or scene folders with frames/ and masks/."""
    against: str | None = None
    """A commit to compare with."""
    repeats: int = 1
    """Runs of each clip and commit."""
    give_masks: bool = False
    """Give the masks of scene folders to the scripts."""
    background: str = ""
    """Flags for background_points.py, as one text."""
    foreground: str = ""
    """Flags for foreground_points.py, as one text."""
    demo: str = ""
    """Flags for demo_pipeline.py, as one text."""
    output: Path | None = None
    """Where to write all figures as JSON."""


ScriptCosts = dict[str, Costs]
"""By script."""


@dataclass(frozen=True)
class Clip:
    """A clip of the benchmark."""

    name: str
    frames: Path
    masks: Path | None
    megapixels: float
    """Of all its frames."""

    @staticmethod
    def of(path: Path, give_masks: bool) -> "Clip":
        """Reads the size of a clip.

        Raises:
            InputError: the clip cannot be read.
        """
        inside = path / "frames"
        frames = inside if inside.is_dir() else path
        masks = path / "masks" if give_masks and (path / "masks").is_dir() else None
        video = read_video(frames)
        size = len(video) * video.width * video.height / 1e6
        return Clip(path.resolve().name, frames.resolve(), masks, size)


def run_scripts(tree: Path, clip: Clip, folder: Path, settings: Settings) -> ScriptCosts:
    """Costs of the three scripts of a tree on a clip.

    Raises:
        InputError: a script failed.
    """
    tracks, demo = folder / "tracks", folder / "demo"
    background = tracks / "background_points.pt"
    given = ["--video_path", str(clip.frames), "--output_dir", str(tracks)]
    if clip.masks is not None:
        given += ["--mask_path", str(clip.masks.resolve())]
    named = ["--background_path", str(background)]
    shown = [*named, "--output_dir", str(demo), *shlex.split(settings.demo)]
    flags = {
        "background_points": (tracks, given + shlex.split(settings.background)),
        "foreground_points": (
            tracks,
            ["--video_path", str(clip.frames), *named, *shlex.split(settings.foreground)],
        ),
        "demo_pipeline": (demo, shown),
    }
    costs = {}
    for script in _SCRIPTS:
        out, own = flags[script]
        costs[script] = measure_script([sys.executable, f"{script}.py", *own], out, tree)
    return costs


def sum_costs(costs: ScriptCosts) -> Cost:
    """Of all stages."""
    total = Cost()
    for of_script in costs.values():
        for cost in of_script.values():
            total.add(cost)
    return total


@contextmanager
def check_out(commit: str | None) -> Iterator[Path | None]:
    """A worktree of a commit for the time of the block; None without a commit.

    Raises:
        InputError: git does not know the commit.
    """
    if commit is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        made = subprocess.run(
            [*git, "add", "--detach", str(tree), commit], capture_output=True, text=True
        )
        if made.returncode:
            raise InputError(f"--against {commit}: {made.stderr.strip()}")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], capture_output=True)


def list_rows(costs: ScriptCosts) -> dict[tuple[str, str, str], Cost]:
    """Costs by script, stage and bar, in their order; small ones of a script in one row."""
    least = _SMALLEST_SHARE * sum_costs(costs).cpu
    rows: dict[tuple[str, str, str], Cost] = {}
    for script, of_script in costs.items():
        for (stage, bar), cost in of_script.items():
            key = (script, stage, bar) if cost.cpu >= least else (script, "(small ones)", "")
            rows.setdefault(key, Cost()).add(cost)
    return rows


def describe(clip: Clip, own: ScriptCosts, other: ScriptCosts | None = None) -> str:
    """The table of a clip."""
    head = f"{'stage':<58}{'CPU s':>8}{'s':>8}{'CPU s/Mpx':>11}{'GiB':>7}"
    lines = [f"{clip.name}: {clip.megapixels:.1f} million pixels", head]
    for (script, stage, bar), cost in list_rows(own).items():
        name = " / ".join(part for part in (script, stage, bar) if part)
        lines.append(_describe_cost(name, cost, clip))
    lines.append(_describe_cost(_TOTAL, sum_costs(own), clip))
    if other is not None:
        lines.append("against:")
        lines += [_describe_cost(name, cost, clip) for name, cost in _sum_scripts(other).items()]
        lines.append("ratio:")
        before = _sum_scripts(other)
        for name, cost in _sum_scripts(own).items():
            old = before[name]
            cpu, seconds, peak = (
                getattr(cost, part) / max(getattr(old, part), 1e-9)
                for part in ("cpu", "seconds", "peak")
            )
            lines.append(f"{name:<58}{cpu:8.2f}{seconds:8.2f}{'':>11}{peak:7.2f}")
    return "\n".join(lines)


def _sum_scripts(costs: ScriptCosts) -> dict[str, Cost]:
    """Costs of each script and of all."""
    return {
        **{name: sum_costs({name: costs[name]}) for name in costs},
        _TOTAL: sum_costs(costs),
    }


def _describe_cost(name: str, cost: Cost, clip: Clip) -> str:
    share = cost.cpu / clip.megapixels
    return f"{name[:57]:<58}{cost.cpu:8.1f}{cost.seconds:8.1f}{share:11.2f}{cost.peak:7.2f}"


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    if not settings.clips:
        raise InputError("no clip is given; name videos, folders of images or scene folders")
    clips = [Clip.of(path, settings.give_masks) for path in settings.clips]
    figures = {}
    with check_out(settings.against) as other, tempfile.TemporaryDirectory() as results:
        trees = [ROOT] if other is None else [ROOT, other]
        for number, tree in enumerate(trees):
            warm_up(tree, clips[0], Path(results) / f"warm{number}")
        for clip in clips:
            best = run_in_turns(trees, clip, Path(results), settings)
            print(describe(clip, *best), flush=True)
            figures[clip.name] = [_tell(costs) for costs in best]
    if settings.output is not None:
        write_json(settings.output, figures)


def run_in_turns(
    trees: list[Path], clip: Clip, results: Path, settings: Settings
) -> list[ScriptCosts]:
    """Of each tree the run with the least CPU seconds; the trees take turns."""
    runs: list[list[ScriptCosts]] = [[] for _ in trees]
    for repeat in range(settings.repeats):
        for number, tree in enumerate(trees):
            folder = results / f"{clip.name}_{number}_{repeat}"
            runs[number].append(run_scripts(tree, clip, folder, settings))
    return [min(of_tree, key=lambda costs: sum_costs(costs).cpu) for of_tree in runs]


def warm_up(tree: Path, clip: Clip, folder: Path) -> None:
    """Runs the scripts of a tree on a few frames, which compiles their kernels."""
    frames = f"--max_frames {_WARM_FRAMES}"
    few = Settings((), background=frames, foreground=frames, demo="--num_epochs 0.2")
    run_scripts(tree, Clip(clip.name, clip.frames, None, 1.0), folder, few)


def _tell(costs: ScriptCosts) -> dict:
    """Costs for JSON."""
    return {
        script: {f"{stage} / {bar}": asdict(cost) for (stage, bar), cost in of_script.items()}
        for script, of_script in costs.items()
    }


if __name__ == "__main__":
    run_script(main)
