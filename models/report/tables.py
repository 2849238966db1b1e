"""The values that the tables and headlines of a results page show, as text and numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.run import find_output

_QUALITY = (
    ("psnr", "PSNR (dB)", 2),
    ("ssim", "SSIM", 3),
    ("psnr_outside_mask", "Outside movers (dB)", 2),
    ("psnr_inside_mask", "On movers (dB)", 2),
    ("psnr_field", "PSNR without detail (dB)", 2),
    ("ssim_field", "SSIM without detail", 3),
)
"""Scores of metrics.json, their labels and their digits after the point."""
_GROUPS = {"training_frames": "training frames", "heldout_frames": "held-out frames"}
"""Groups of frames in metrics.json and their labels."""
_COVERAGE = (
    ("novel_view_coverage", "Least coverage, new views"),
    ("camera_path_coverage", "Least coverage, camera path"),
)
"""Coverages of metrics.json and their labels."""
_STAGES = {
    "tracking": "2D tracks",
    "cameras": "cameras and points",
    "depth": "depth maps",
    "motion": "what moves",
    "load": "loading",
    "train": "training",
    "detail": "detail of the frames",
    "reconstruction": "rebuilding the video",
    "novel_view": "new viewpoints",
    "camera_path": "camera path",
    "tracks": "track overlay",
    "export": "export",
}
"""Stages of both scripts and their labels."""


@dataclass(frozen=True)
class Tile:
    """A headline figure."""

    name: str
    value: str
    unit: str = ""


@dataclass(frozen=True)
class Quality:
    """The table of scores."""

    groups: list[str]
    """Labels of the columns, a group of frames each."""
    scores: list[tuple[str, list[str]]]
    """Rows of a label and a score for each group; empty where a group lacks the score."""
    totals: list[tuple[str, str]]
    """Rows of a label and a value that spans all columns."""


@dataclass(frozen=True)
class StageSeconds:
    """A row of the table of times."""

    name: str
    seconds: str
    percent: str
    """Length of the bar, relative to the longest stage."""


@dataclass(frozen=True)
class MoverRow:
    """A row of the table of movers."""

    number: str
    tracks: str
    life: str
    """Median life of the tracks in frames."""
    depth: str
    """Shape, and the cue of its depth."""
    uncertainty: str
    """Standard deviation of the depth in percent."""


@dataclass(frozen=True)
class ListedFile:
    """A row of the file list."""

    name: str
    text: str
    size: str


def make_tiles(metrics: Mapping, background: Mapping) -> list[Tile]:
    """The figures at the head of the page; held-out scores come first.

    Args:
        metrics: content of metrics.json.
        background: content of background_metrics.json; may be empty.
    """
    tiles = _make_score_tiles(metrics)
    if "frames_registered" in background:
        count = str(background["frames_registered"])
        tiles.append(Tile("Cameras placed", count, f"of {background['frames']}"))
    if (error := background.get("reprojection_error_px")) is not None:
        tiles.append(Tile("Reprojection error", f"{error:.2f}", "px"))
    tiles += _make_depth_tiles(background)
    if (share := background.get("observations_agree")) is not None:
        tiles.append(Tile("Observations that agree", f"{100 * share:.0f}", "%"))
    if cause := background.get("likely_cause"):
        tiles.append(Tile("Residuals look like", cause))
    if seconds := _join_seconds(metrics, background):
        tiles.append(Tile("Time, all stages", f"{sum(seconds.values()):.0f}", "s"))
    if metrics.get("peak_memory_gib"):
        tiles.append(Tile("Peak memory", f"{metrics['peak_memory_gib']:.2f}", "GiB"))
    return tiles


def _make_depth_tiles(background: Mapping) -> list[Tile]:
    """Depth of the parts of the middle frame, and doubt about the order of near and far."""
    tiles = []
    if thirds := background.get("depth_upper_middle_lower"):
        parts = " / ".join("-" if part is None else f"{part:.2f}" for part in thirds)
        tiles.append(Tile("Depth above, middle, below", parts))
    if background.get("near_and_far_in_doubt"):
        tiles.append(Tile("Near and far", "in doubt"))
    return tiles


def _make_score_tiles(metrics: Mapping) -> list[Tile]:
    held_out = metrics.get("heldout_frames")
    training = metrics.get("training_frames")
    tiles = []
    if held_out:
        tiles.append(Tile("Held-out PSNR", f"{held_out['psnr']:.2f}", "dB"))
        tiles.append(Tile("Held-out SSIM", f"{held_out['ssim']:.3f}"))
    if training:
        # Other frames' detail says little of a frame that taught the field.
        psnr, ssim = (training.get(f"{key}_field", training[key]) for key in ("psnr", "ssim"))
        tiles.append(Tile("Training PSNR", f"{psnr:.2f}", "dB"))
        if not held_out:
            tiles.append(Tile("Training SSIM", f"{ssim:.3f}"))
    return tiles


def tabulate_quality(metrics: Mapping) -> Quality | None:
    """Scores of training and held-out frames; None if metrics.json holds no scores."""
    # columns only for groups that were scored
    groups = [(name, metrics[key]) for key, name in _GROUPS.items() if key in metrics]
    if not groups:
        return None
    scores = [
        (label, [f"{group[key]:.{digits}f}" if key in group else "" for _, group in groups])
        for key, label, digits in _QUALITY
        if any(key in group for _, group in groups)
    ]
    totals = [(label, f"{100 * metrics[key]:.1f} %") for key, label in _COVERAGE if key in metrics]
    for key, mesh in metrics.get("exported_mesh", {}).items():
        text = f"{mesh['psnr']:.2f} dB outside movers, SSIM {mesh['ssim']:.3f}"
        totals.append((f"Exported mesh, {_GROUPS.get(key, key)}", text))
    return Quality([name for name, _ in groups], scores, totals)


def _join_seconds(metrics: Mapping, background: Mapping) -> dict[str, float]:
    """Seconds of each stage of the background script and of demo_pipeline.py, in order."""
    # the background script adds "all" to its stages
    first = {key: value for key, value in background.get("seconds", {}).items() if key != "all"}
    return first | dict(metrics.get("seconds", {}))


def tabulate_seconds(metrics: Mapping, background: Mapping) -> list[StageSeconds]:
    """Seconds of each stage in the order of the run."""
    seconds = _join_seconds(metrics, background)
    # a run whose stages all took no time has bars of length 0
    longest = max(max(seconds.values(), default=0), 1e-9)
    return [
        StageSeconds(_STAGES.get(name, name), f"{value:.1f}", f"{100 * value / longest:.1f}")
        for name, value in seconds.items()
    ]


def tabulate_totals(metrics: Mapping, background: Mapping) -> list[tuple[str, str]]:
    """Label and value of the whole run's time, training rate and peak memory."""
    rows = [("all", f"{sum(_join_seconds(metrics, background).values()):.1f}")]
    if "samples_per_second" in metrics:
        rate = metrics["samples_per_second"] / 1e6
        rows.append(("training, million samples a second", f"{rate:.2f}"))
    if metrics.get("peak_memory_gib"):
        rows.append(("peak memory, GiB", f"{metrics['peak_memory_gib']:.2f}"))
    return rows


def tabulate_movers(foreground: Mapping) -> list[MoverRow]:
    """A row for each mover.

    Args:
        foreground: content of foreground_metrics.json; may be empty.
    """
    rows = []
    for mover in foreground.get("movers", []):
        uncertainty = mover["depth_standard_deviation"]
        rows.append(
            MoverRow(
                str(mover["mover"]),
                str(mover["tracks"]),
                f"{mover['median_life_frames']:.0f}",
                f"{mover['shape']}, from {mover['depth_from']}",
                "" if uncertainty is None else f"{100 * uncertainty:.0f} %",
            )
        )
    return rows


def tabulate_settings(config: Mapping) -> dict[str, object]:
    """All settings of config.json, then device, versions and commit."""
    settings = dict(config.get("settings", {}))
    settings |= {"device": config.get("device", "")} | dict(config.get("versions", {}))
    return settings | ({"commit": config["commit"]} if config.get("commit") else {})


def list_files(folder: Path) -> list[ListedFile]:
    """The files of a results folder without pages and unfinished files, by name."""
    paths: Sequence[Path] = sorted(path for path in folder.glob("*") if path.is_file())
    return [
        ListedFile(path.name, _describe(path.name), _format_size(path.stat().st_size))
        for path in paths
        if path.suffix not in (".html", ".part")
    ]


def _describe(name: str) -> str:
    output = find_output(name)
    return "" if output is None else output.text


def _format_size(size: int) -> str:
    """A count of bytes as text."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{max(1, size // 1024)} KiB"
