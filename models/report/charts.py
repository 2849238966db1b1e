"""Charts of a run, each as a PNG and as an SVG that takes on the colours of the page around it.

matplotlib is imported inside the functions: the import takes 0.3 s, which scripts without charts
save.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from models.cameras import Cameras, find_middle_frame
from models.clip import choose_evenly
from models.report.world import World
from models.run import find_output, replace_file
from models.tracks import Tracks

# Types alone: scripts without charts do not load the rooms behind them.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from models.training import History

# Colours of text, of lines behind the data, and of the two kinds of data.
_INK = "#1f2430"
_GRID = "#d8dce4"
_ACCENT = "#2563eb"
_SECOND = "#e8590c"
_CSS = {
    _INK: "currentColor",
    _GRID: "var(--grid)",
    _ACCENT: "var(--accent)",
    _SECOND: "var(--second)",
}
"""Replacement of each colour in an SVG, so that the page's style decides on dark mode."""
_STYLE = {
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    # matplotlib derives the identifiers of an SVG from this text instead of a random number
    "svg.hashsalt": "spacelayer",
}
# Width of the axes over their height.
_SHAPE = 1.75
# Pixels; the histogram of reprojection errors ends here, and its last bar counts larger errors.
_MAX_ERROR = 3.0
# dB; height of the bar of a frame whose PSNR is infinite.
_INFINITE_PSNR = 60.0
# Curves with fewer points mark each point.
_MARKED_POINTS = 50
# Cameras whose view is outlined on the chart of the path.
_MAX_OUTLINES = 9


def write_charts(
    out: Path,
    tracks: Tracks,
    world: World,
    scores: Sequence[dict[str, float]],
    held_out: Sequence[int],
    history: "History | None",
) -> dict[str, str]:
    """Writes the charts of a run as PNGs into ``out``; returns SVG elements under their titles.

    Args:
        tracks: static points with their observations.
        scores: of each rebuilt frame; without scores their chart is left out.
        held_out: frames kept out of training.
        history: of the training; None leaves its chart out.

    Raises:
        InputError: a file cannot be written.
    """
    charts = {}
    if history is not None and history.steps:
        charts["loss_curve.png"] = draw_loss_curve(history)
    if scores:
        charts["psnr_per_frame.png"] = draw_psnr([s["psnr"] for s in scores], held_out)
    errors = measure_reprojection(tracks)
    charts["reprojection_error.png"] = draw_reprojection_histogram(errors)
    charts["camera_path.png"] = draw_camera_path(world)
    for name, figure in charts.items():
        save_png(out / name, figure)
    return {find_output(name).title: svg_from_figure(figure) for name, figure in charts.items()}


def draw_loss_curve(history: "History") -> "Figure":
    """Training PSNR (dB) over steps, and the PSNR of held-out frames if some were rendered."""
    figure, axes = _add_axes("step", "PSNR (dB)")
    steps = history.steps
    marker = "." if len(steps) < _MARKED_POINTS else None
    label = "training pixels"
    axes.plot(steps, history.psnr, color=_ACCENT, linewidth=1.5, marker=marker, label=label)
    if len(history.heldout_steps):
        line = {"color": _SECOND, "linewidth": 1, "markersize": 5}
        label = "held-out frames"
        axes.plot(history.heldout_steps, history.heldout_psnr, "o--", label=label, **line)
        axes.legend(frameon=False, labelcolor=_INK, loc="lower right")
    return figure


def draw_psnr(psnr: Sequence[float], held_out: Sequence[int] = ()) -> "Figure":
    """PSNR (dB) of every rebuilt frame as a bar; held-out frames have another colour."""
    from matplotlib.patches import Patch

    figure, axes = _add_axes("frame", "PSNR (dB)")
    values = np.asarray(psnr, np.float64)
    values = np.where(np.isfinite(values), values, _INFINITE_PSNR)
    colors = [_SECOND if t in set(held_out) else _ACCENT for t in range(len(values))]
    axes.bar(np.arange(len(values)), values, width=0.8, color=colors)
    low, high = (float(v) for v in (values.min(), values.max()))
    # bars start below the lowest value: differences between frames stay visible
    axes.set_ylim(max(0.0, low - 0.25 * (high - low) - 1), high + 0.05 * (high - low) + 0.2)
    axes.grid(axis="x", visible=False)
    if len(held_out):
        kinds = ((_ACCENT, "training"), (_SECOND, "held out"))
        handles = [Patch(color=color, label=label) for color, label in kinds]
        above = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.16), "ncols": 2}
        axes.legend(handles=handles, frameon=False, labelcolor=_INK, **above)
    return figure


def draw_reprojection_histogram(errors: Float[ndarray, "M"]) -> "Figure":
    """Histogram of reprojection errors (pixels) with lines at their median and 95 % quantile."""
    figure, axes = _add_axes("reprojection error (px)", "share of sightings (%)")
    if not len(errors):
        return figure
    # outliers must not squeeze the histogram
    end = min(_MAX_ERROR, max(0.1, 1.5 * float(np.percentile(errors, 99))))
    bins = {"bins": 40, "range": (0, end), "weights": np.full(len(errors), 100 / len(errors))}
    axes.hist(np.minimum(errors, end), color=_ACCENT, alpha=0.85, **bins)
    for share, style in ((50, "-"), (95, "--")):
        value = float(np.percentile(errors, share))
        line = {"color": _SECOND, "linestyle": style, "linewidth": 1.3}
        axes.axvline(min(value, end), label=f"{share} %: {value:.2f} px", **line)
    axes.set_xlim(0, end)
    axes.legend(frameon=False, labelcolor=_INK, loc="upper right")
    return figure


def measure_reprojection(tracks: Tracks) -> Float[ndarray, "M"]:
    """Reprojection error in pixels of every finite observation of a static point."""
    errors = []
    for t in range(len(tracks)):
        visible = tracks.visible[t]
        projected, _ = tracks.cameras[t].project(tracks.xyz[t, visible].double())
        errors.append((projected[0] - tracks.xy[t, visible]).norm(dim=1).numpy())
    errors = np.concatenate(errors)
    return errors[np.isfinite(errors)]


def draw_camera_path(world: World) -> "Figure":
    """Cameras, static points and paths of movers from above.

    The axes are x (right) and z (forward) of the path's middle camera, in world units.
    """
    figure, axes = _add_axes("right (world units)", "forward (world units)")
    cameras = world.cameras
    pose = cameras.world_from_cam[find_middle_frame(cameras)].double().numpy()
    centers = _project_to_ground(cameras.centers.double().numpy(), pose)
    points = _project_to_ground(world.points, pose)
    axes.scatter(*points.T, s=2.5, c=world.rgb / 255, linewidths=0, rasterized=True)
    # outlines as long as a share of the scene's depth
    reach = 0.08 * float(np.median(np.abs(points[:, 1]))) if len(points) else 0.1
    for t in choose_evenly(len(cameras), _MAX_OUTLINES).tolist():
        outline = _project_to_ground(_outline_view(cameras[t], reach), pose)
        axes.plot(*outline.T, color=_ACCENT, linewidth=0.8, alpha=0.8)
    axes.plot(*centers.T, color=_ACCENT, linewidth=1.8, label="camera")
    axes.plot(*centers[0], "o", color=_ACCENT, markersize=5)
    for number, path in enumerate(world.mover_paths):
        label = "mover" if number == 0 else None
        axes.plot(*_project_to_ground(path, pose).T, color=_SECOND, linewidth=1.8, label=label)
    _set_limits(axes, np.concatenate([points, centers]), centers)
    axes.legend(frameon=False, labelcolor=_INK, loc="upper right")
    return figure


def _project_to_ground(points: Float[ndarray, "N 3"], pose: ndarray) -> Float[ndarray, "N 2"]:
    """World points along the x and z axes of a camera with this pose."""
    return (np.asarray(points, np.float64) - pose[:3, 3]) @ pose[:3, [0, 2]]


def _outline_view(camera: Cameras, reach: float) -> Float[ndarray, "3 3"]:
    """The ends of the left and right border of a camera's view, ``reach`` away, and its centre
    between them; world positions."""
    K = camera.K[0].double().numpy()
    sides = (np.array([0.0, camera.width]) - K[0, 2]) / K[0, 0]
    local = reach * np.array([[sides[0], 0, 1], [0, 0, 0], [sides[1], 0, 1]])
    rotation = camera.world_from_cam[0, :3, :3].double().numpy()
    return local @ rotation.T + camera.centers[0].double().numpy()


def _set_limits(axes: "Axes", points: ndarray, centers: ndarray) -> None:
    """Equal scales of both axes, and limits that ignore the most distant points."""
    # percentiles: a few points lie far away
    low, high = np.percentile(points, [3, 92], axis=0)
    low = np.minimum(low, centers.min(0))
    high = np.maximum(high, centers.max(0))
    middle = (low + high) / 2
    half_height = 0.56 * max(high[1] - low[1], (high[0] - low[0]) / _SHAPE, 1e-6)
    axes.set_xlim(middle[0] - _SHAPE * half_height, middle[0] + _SHAPE * half_height)
    axes.set_ylim(middle[1] - half_height, middle[1] + half_height)
    axes.set_aspect("equal", adjustable="box")


def _add_axes(xlabel: str, ylabel: str) -> "tuple[Figure, Axes]":
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        # pyplot would keep every figure in global state
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.add_subplot(xlabel=xlabel, ylabel=ylabel)


def save_png(path: str | Path, figure: "Figure") -> None:
    """Writes under a temporary name, then renames.

    Raises:
        InputError: the file cannot be written.
    """
    import matplotlib

    with replace_file(path) as temporary, matplotlib.rc_context(_STYLE):
        figure.savefig(temporary, format="png", dpi=180)


def svg_from_figure(figure: "Figure") -> str:
    """The figure as an <svg> element for a page that defines --grid, --accent and --second.

    Text takes the colour of the page's text.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()[stream.getvalue().index("<svg") :]
    for color, variable in _CSS.items():
        text = text.replace(color, variable)
    # a style element inside the SVG would hold for the whole page
    text = re.sub(r"<(metadata|style).*?</\1>", "", text, flags=re.DOTALL)
    # text takes the font of the page
    text = re.sub(r" font-family: [^;]*;", "", text)
    # identifiers of several charts on a page would collide
    text = re.sub(r' id="\w+_\d+"', "", text)
    # without a size the chart fills its card
    opening, rest = text.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", opening) + ">" + rest
