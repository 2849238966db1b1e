"""Charts to judge a run by, each as a PNG and as an SVG that takes on the colours of the page
around it."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy import ndarray

from models.cameras import Cameras, find_middle_frame
from models.report.world import World
from models.run import find_output, replace_file
from models.tracks import Tracks
from models.training import History

INK, GRID, ACCENT, SECOND = "#1f2430", "#d8dce4", "#2563eb", "#e8590c"
_CSS = {INK: "currentColor", GRID: "var(--grid)", ACCENT: "var(--accent)", SECOND: "var(--second)"}
"""What each colour becomes in an SVG, so that dark mode is the page's business."""
_STYLE = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "spacelayer",
}
_SHAPE = 1.75
"""Width of the axes over their height."""
_MOST_ERROR = 3.0
"""Pixels at which the histogram of reprojection errors ends; what lies beyond is counted in its
last bar."""


def write_charts(
    out: Path,
    tracks: Tracks,
    world: World,
    scores: Sequence[dict[str, float]],
    held_out: Sequence[int],
    history: History | None,
) -> dict[str, Figure]:
    """Writes the charts of a run as PNGs into ``out``; returns them under their titles.

    ``scores`` of the frames may be empty and ``history`` None: their charts are then left out.
    """
    charts = {}
    if history is not None and history.steps:
        curve = loss_curve(history.steps, history.psnr, history.heldout_steps, history.heldout_psnr)
        charts["loss_curve.png"] = curve
    if scores:
        charts["psnr_per_frame.png"] = psnr_per_frame([s["psnr"] for s in scores], held_out)
    charts["reprojection_error.png"] = reprojection_histogram(reprojection_errors(tracks))
    charts["camera_path.png"] = camera_path(world)
    for name, figure in charts.items():
        save_png(out / name, figure)
    return {find_output(name).title: figure for name, figure in charts.items()}


def loss_curve(
    steps: Sequence[int],
    psnr: Sequence[float],
    heldout_steps: Sequence[int] = (),
    heldout_psnr: Sequence[float] = (),
) -> Figure:
    """Training PSNR (dB) over steps, and that of held-out frames where they were rendered."""
    figure, axes = _axes("step", "PSNR (dB)")
    marker = "." if len(steps) < 50 else None
    axes.plot(steps, psnr, color=ACCENT, linewidth=1.5, marker=marker, label="training pixels")
    if len(heldout_steps):
        axes.plot(
            heldout_steps,
            heldout_psnr,
            "o--",
            color=SECOND,
            linewidth=1,
            markersize=5,
            label="held-out frames",
        )
        axes.legend(frameon=False, labelcolor=INK, loc="lower right")
    return figure


def psnr_per_frame(psnr: Sequence[float], held_out: Sequence[int] = ()) -> Figure:
    """PSNR (dB) of every rebuilt frame as a bar; held-out frames stand out."""
    figure, axes = _axes("frame", "PSNR (dB)")
    values = np.asarray(psnr, np.float64)
    values = np.where(np.isfinite(values), values, 60.0)
    colors = [SECOND if t in set(held_out) else ACCENT for t in range(len(values))]
    axes.bar(np.arange(len(values)), values, width=0.8, color=colors)
    low, high = (float(v) for v in (values.min(), values.max()))
    axes.set_ylim(max(0.0, low - 0.25 * (high - low) - 1), high + 0.05 * (high - low) + 0.2)
    axes.grid(axis="x", visible=False)
    if len(held_out):
        handles = [
            matplotlib.patches.Patch(color=c, label=n)
            for c, n in ((ACCENT, "training"), (SECOND, "held out"))
        ]
        top = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.16), "ncols": 2}
        axes.legend(handles=handles, frameon=False, labelcolor=INK, **top)
    return figure


def reprojection_histogram(errors: Float[ndarray, "M"]) -> Figure:
    """How many sightings lie how far (pixels) from the projection of their 3D point; median and 95
    % are marked."""
    figure, axes = _axes("reprojection error (px)", "share of sightings (%)")
    if not len(errors):
        return figure
    end = min(_MOST_ERROR, max(0.1, 1.5 * float(np.percentile(errors, 99))))
    weights = np.full(len(errors), 100 / len(errors))
    axes.hist(
        np.minimum(errors, end), bins=40, range=(0, end), weights=weights, color=ACCENT, alpha=0.85
    )
    for share, style in ((50, "-"), (95, "--")):
        value = float(np.percentile(errors, share))
        axes.axvline(
            min(value, end),
            color=SECOND,
            linestyle=style,
            linewidth=1.3,
            label=f"{share} %: {value:.2f} px",
        )
    axes.set_xlim(0, end)
    axes.legend(frameon=False, labelcolor=INK, loc="upper right")
    return figure


def reprojection_errors(tracks: Tracks) -> Float[ndarray, "M"]:
    """Distance in pixels between every sighting of a static point and the projection of that
    point."""
    errors = []
    for t in range(len(tracks)):
        seen = tracks.visible[t]
        projected, _ = tracks.cameras[[t]].project(tracks.xyz[t, seen].double())
        errors.append((projected[0] - tracks.xy[t, seen]).norm(dim=1).numpy())
    errors = np.concatenate(errors)
    return errors[np.isfinite(errors)]


def camera_path(world: World) -> Figure:
    """The path from above (x right, z forward of its middle camera; world units) over the static
    points."""
    figure, axes = _axes("right (world units)", "forward (world units)")
    cameras = world.cameras
    pose = cameras.world_from_cam[find_middle_frame(cameras)].double().numpy()

    def seen_from_above(points: ndarray) -> ndarray:
        return (np.asarray(points, np.float64) - pose[:3, 3]) @ pose[:3, [0, 2]]

    centers = seen_from_above(cameras.centers.double().numpy())
    points = seen_from_above(world.points)
    axes.scatter(*points.T, s=2.5, c=world.rgb / 255, linewidths=0, rasterized=True)
    reach = 0.08 * float(np.median(np.abs(points[:, 1]))) if len(points) else 0.1
    for t in np.unique(np.linspace(0, len(cameras) - 1, min(9, len(cameras))).astype(int)):
        axes.plot(*_wedge(cameras, t, pose, reach), color=ACCENT, linewidth=0.8, alpha=0.8)
    axes.plot(*centers.T, color=ACCENT, linewidth=1.8, label="camera")
    axes.plot(*centers[0], "o", color=ACCENT, markersize=5)
    for number, path in enumerate(world.mover_paths):
        label = "mover" if number == 0 else None
        axes.plot(*seen_from_above(path).T, color=SECOND, linewidth=1.8, label=label)
    _frame(axes, np.concatenate([points, centers]), centers)
    axes.legend(frameon=False, labelcolor=INK, loc="upper right")
    return figure


def _wedge(cameras: Cameras, t: int, pose: ndarray, reach: float) -> ndarray:
    """Outline of what camera t sees, from above, as long as ``reach``."""
    K = cameras.K[t].double().numpy()
    sides = (np.array([0.0, cameras.width]) - K[0, 2]) / K[0, 0]
    local = reach * np.array([[sides[0], 0, 1], [0, 0, 0], [sides[1], 0, 1]])
    world = (
        local @ cameras.world_from_cam[t, :3, :3].double().numpy().T
        + cameras.centers[t].double().numpy()
    )
    return ((world - pose[:3, 3]) @ pose[:3, [0, 2]]).T


def _frame(axes: Axes, points: ndarray, centers: ndarray) -> None:
    """Equal scales, and limits that a few points far away do not stretch."""
    low, high = np.percentile(points, [3, 92], axis=0)
    low, high = np.minimum(low, centers.min(0)), np.maximum(high, centers.max(0))
    middle = (low + high) / 2
    half_height = 0.56 * max(high[1] - low[1], (high[0] - low[0]) / _SHAPE, 1e-6)
    axes.set_xlim(middle[0] - _SHAPE * half_height, middle[0] + _SHAPE * half_height)
    axes.set_ylim(middle[1] - half_height, middle[1] + half_height)
    axes.set_aspect("equal", adjustable="box")


def _axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(
            figsize=(5.4, 3.2), layout="constrained"
        )  # no pyplot: it keeps figures in global state
        FigureCanvasAgg(figure)
        return figure, figure.add_subplot(xlabel=xlabel, ylabel=ylabel)


def save_png(path: str | Path, figure: Figure) -> None:
    """Writes under a temporary name, then renames.

    Raises:
        InputError: the file cannot be written.
    """
    with replace_file(path) as temporary, matplotlib.rc_context(_STYLE):
        figure.savefig(temporary, format="png", dpi=180)


def svg(figure: Figure) -> str:
    """The figure as an <svg> element for a page that defines --grid, --accent and --second; text
    takes its colour."""
    stream = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()[stream.getvalue().index("<svg") :]
    for color, variable in _CSS.items():
        text = text.replace(color, variable)
    text = re.sub(
        r"<(metadata|style).*?</\1>", "", text, flags=re.DOTALL
    )  # the style would hold for the whole page
    text = re.sub(r" font-family: [^;]*;", "", text)
    text = re.sub(r' id="\w+_\d+"', "", text)
    opening, rest = text.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", opening) + ">" + rest
