"""What a run tells of itself: progress, settings, versions, a summary."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from models.run.errors import InputError
from models.run.fingerprint import PROGRAM, read_versions
from models.run.outputs import group_by_kind
from models.run.reading import read_json
from models.run.settings import flatten_settings


def describe_run(settings: object, device: object, made_from: Mapping[str, str]) -> dict:
    """All settings (a dataclass), what the inputs and the program were, versions and the commit: a
    run to repeat.

    Args:
        made_from: the run's fingerprint; see ``stages.fingerprint``.
    """
    try:
        here = Path(__file__).parent
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        commit = ""
    plain = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in flatten_settings(settings).items()
    }
    versions = {"python": platform.python_version(), **read_versions()}
    inputs = {
        name: content
        for name, content in made_from.items()
        if not name.startswith("--") and name != PROGRAM
    }
    told = {
        "settings": plain,
        "device": str(device),
        "inputs_sha256": inputs,
        "program_sha256": made_from[PROGRAM],
    }
    return {**told, "versions": versions, "commit": commit}


def check_owner(config: Path, clip: Path, content: str) -> None:
    """Refuses a default output folder that holds the results of another clip of the same name.

    A clip that has changed at its place keeps its folder, and so does a clip that was moved.

    Args:
        config: the configuration that an earlier run wrote into the folder, where there is one.
        content: of ``clip``, see ``hash_content``; "none" for a clip that cannot be read.

    Raises:
        InputError: the results are of a clip of other content at another place.
    """
    told = read_figures(config)
    settings, inputs = told.get("settings"), told.get("inputs_sha256")
    if content == "none" or not isinstance(settings, dict) or not isinstance(inputs, dict):
        return
    owner = str(told.get("clip_place") or settings.get("video_path", ""))
    try:
        same_place = os.path.realpath(owner) == os.path.realpath(clip)
    except ValueError:  # a damaged name
        same_place = True
    if inputs.get("clip") != content and not same_place:
        raise InputError(
            f"{config.parent}: holds the results of another clip of this name, {owner}; give another folder "
            f"by --output_dir for {clip}"
        )


def read_figures(path: Path) -> dict:
    """The figures that another script wrote; empty where there is no such file or it is damaged."""
    try:
        content = read_json(path, "table of figures")
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}


def summarise_run(output_dir: Path, metrics: dict, page: Path) -> str:
    """One block to end a run with: figures, and where to look."""
    told = {}
    for name, key in (
        ("training frames", "training_frames"),
        ("held-out frames", "heldout_frames"),
    ):
        if key in metrics:
            told[name] = ", ".join(f"{key} {value:.3f}" for key, value in metrics[key].items())
    for key, scores in metrics.get("exported_mesh", {}).items():
        frames = key.removesuffix("_frames")
        told["exported mesh"] = f"{frames} frames, " + ", ".join(
            f"{name} {v:.3f}" for name, v in scores.items()
        )
    told["seconds"] = ", ".join(f"{name} {value:.1f}" for name, value in metrics["seconds"].items())
    told["peak memory"] = f"{metrics['peak_memory_gib']} GiB"
    names = [path.name for path in output_dir.iterdir() if path.is_file()]
    told |= {kind: ", ".join(chosen) for kind, chosen in group_by_kind(names).items()}
    told["look at"] = page
    return "\n".join(
        [
            f"\nresults are in {output_dir}/",
            *(f"  {name + ':':<17}{text}" for name, text in told.items()),
        ]
    )
