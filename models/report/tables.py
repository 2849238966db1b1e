"""The tables and headline figures of a results page, as HTML; every text that comes from outside is
escaped."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

from models.run import find_output

_QUALITY = (
    ("psnr", "PSNR (dB)", 2),
    ("ssim", "SSIM", 3),
    ("psnr_outside_mask", "Outside movers (dB)", 2),
    ("psnr_inside_mask", "On movers (dB)", 2),
)
_GROUPS = {"training_frames": "training frames", "heldout_frames": "held-out frames"}
_STAGES = {
    "tracking": "2D tracks",
    "cameras": "cameras and points",
    "depth": "depth maps",
    "motion": "what moves",
    "load": "loading",
    "train": "training",
    "reconstruction": "rebuilding the video",
    "novel_view": "new viewpoints",
    "camera_path": "camera path",
    "tracks": "track overlay",
    "export": "export",
}


def tiles(metrics: Mapping, background: Mapping) -> str:
    """The figures that a reader wants first, as <div>s of a description list."""
    found = []
    held_out = metrics.get("heldout_frames")
    training = metrics.get("training_frames")
    if held_out:
        found.append(("Held-out PSNR", f"{held_out['psnr']:.2f}", "dB"))
        found.append(("Held-out SSIM", f"{held_out['ssim']:.3f}", ""))
    if training:
        found.append(("Training PSNR", f"{training['psnr']:.2f}", "dB"))
        if not held_out:
            found.append(("Training SSIM", f"{training['ssim']:.3f}", ""))
    if "frames_registered" in background:
        found.append(
            ("Cameras placed", str(background["frames_registered"]), f"of {background['frames']}")
        )
    if (error := background.get("reprojection_error_px")) is not None:
        found.append(("Reprojection error", f"{error:.2f}", "px"))
    if seconds := _all_seconds(metrics, background):
        found.append(("Time, all stages", f"{sum(seconds.values()):.0f}", "s"))
    if metrics.get("peak_memory_gib"):
        found.append(("Peak memory", f"{metrics['peak_memory_gib']:.2f}", "GiB"))
    return "\n".join(
        f"<div><dt>{name}</dt><dd>{escape(value)} <small>{escape(str(unit))}</small></dd></div>"
        for name, value, unit in found
    )


def metrics_table(metrics: Mapping) -> str:
    """Quality of training and held-out frames; empty where nothing was scored."""
    groups = [(name, metrics[key]) for key, name in _GROUPS.items() if key in metrics]
    if not groups:
        return ""
    head = "".join(f'<th class="n">{name}</th>' for name, _ in groups)
    rows = []
    for key, label, digits in _QUALITY:
        if any(key in scores for _, scores in groups):
            cells = (f"{scores[key]:.{digits}f}" if key in scores else "" for _, scores in groups)
            rows.append(
                f"<tr><th>{label}</th>"
                + "".join(f'<td class="n">{cell}</td>' for cell in cells)
                + "</tr>"
            )
    rows += [
        _row(label, f"{100 * metrics[key]:.1f} %", len(groups))
        for key, label in _COVERAGE
        if key in metrics
    ]
    for key, scores in metrics.get("exported_mesh", {}).items():
        told = f"{scores['psnr']:.2f} dB outside movers, SSIM {scores['ssim']:.3f}"
        rows.append(_row(f"Exported mesh, {_GROUPS.get(key, key)}", told, len(groups)))
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


_COVERAGE = (
    ("novel_view_coverage", "Least coverage, new views"),
    ("camera_path_coverage", "Least coverage, camera path"),
)


def _row(label: str, value: str, columns: int) -> str:
    return (
        f'<tr><th>{escape(label)}</th><td class="n" colspan="{columns}">{escape(value)}</td></tr>'
    )


def _all_seconds(metrics: Mapping, background: Mapping) -> dict[str, float]:
    """Seconds of each stage of both scripts, in order."""
    first = {key: value for key, value in background.get("seconds", {}).items() if key != "all"}
    return first | dict(metrics.get("seconds", {}))


def seconds_table(metrics: Mapping, background: Mapping) -> str:
    """Seconds of each stage, with bars, and the peak of memory."""
    seconds = _all_seconds(metrics, background)
    if not seconds:
        return ""
    longest = max(max(seconds.values()), 1e-9)
    rows = [
        f'<tr><th>{escape(_STAGES.get(name, name))}</th><td style="width:45%"><span class="share" '
        f'style="width:{100 * value / longest:.1f}%"></span></td><td class="n">{value:.1f}</td></tr>'
        for name, value in seconds.items()
    ]
    rows.append(f'<tr><th>all</th><td></td><td class="n">{sum(seconds.values()):.1f}</td></tr>')
    if "samples_per_second" in metrics:
        rate = metrics["samples_per_second"] / 1e6
        rows.append(
            f'<tr><th>training, million samples a second</th><td></td><td class="n">{rate:.2f}</td></tr>'
        )
    if metrics.get("peak_memory_gib"):
        rows.append(
            f'<tr><th>peak memory, GiB</th><td></td><td class="n">{metrics["peak_memory_gib"]:.2f}</td></tr>'
        )
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def settings_table(config: Mapping) -> str:
    """All settings, then device, versions and commit."""
    told = dict(config.get("settings", {}))
    told |= {"device": config.get("device", "")} | dict(config.get("versions", {}))
    told |= {"commit": config["commit"]} if config.get("commit") else {}
    rows = [
        f'<tr><th>{escape(str(name))}</th><td class="v">{escape("not set" if value is None else str(value))}</td></tr>'
        for name, value in told.items()
    ]
    return f"<table><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def files_table(out: Path) -> str:
    """What lies in the folder, with sizes and links."""
    paths = (
        path
        for path in sorted(out.glob("*"))
        if path.is_file() and path.suffix not in (".html", ".part")
    )
    rows = [
        f'<tr><td><a href="{quote(path.name)}">{escape(path.name)}</a></td>'
        f'<td class="v">{_about(path)}</td><td class="n">{_size(path.stat().st_size)}</td></tr>'
        for path in paths
    ]
    return f"<table><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _about(path: Path) -> str:
    output = find_output(path.name)
    return "" if output is None else escape(output.text)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{max(1, count // 1024)} KiB"
