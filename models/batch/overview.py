"""index.html of a folder of results: each clip with its first frame, its new views, its figures, or
the sentence that it failed with."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from models.batch.steps import ClipPlan
from models.clip import write_image
from models.report import make_environment, read_style
from models.run import make_subfolder, read_figures, write_bytes

_TEMPLATES = Path(__file__).parent / "templates"
# Width of a poster in pixels.
_POSTER = 640


@dataclass(frozen=True)
class ShownClip:
    """A clip on the page; paths are relative to the page, and empty where there is no file."""

    name: str
    figures: list[str]
    failure: str
    video: str
    poster: str
    page: str
    log: str


def write_overview(results_dir: Path, plans: Sequence[ClipPlan], failed: Mapping[str, str]) -> Path:
    """Writes index.html and ``posters``; returns the path of the page.

    Args:
        failed: the sentence of each clip that failed.
    """
    clips = [_describe(results_dir, plan, failed.get(plan.clip.name, "")) for plan in plans]
    done = len(clips) - sum(bool(clip.failure) for clip in clips)
    subtitle = f"{done} of {len(clips)} clips done."
    page = make_environment(_TEMPLATES).get_template("overview.html")
    text = page.render(
        title=results_dir.resolve().name, subtitle=subtitle, clips=clips, css=read_style()
    )
    path = results_dir / "index.html"
    write_bytes(path, text.encode(errors="replace"))
    return path


def _describe(results_dir: Path, plan: ClipPlan, failure: str) -> ShownClip:
    videos = (
        *sorted(plan.scene_dir.glob("novel_view_*.mp4")),
        plan.tracks_dir / "background_tracks.mp4",
    )
    # results of an earlier run of a clip that is refused now are not its results
    shown = () if failure else (path for path in videos if path.is_file())
    video = next(iter(shown), None)
    log = plan.steps[-1].log
    for step in plan.steps:
        log = step.log if step.log.is_file() else log

    def link(path: Path | None) -> str:
        is_there = path is not None and path.is_file()
        return Path(os.path.relpath(path, results_dir)).as_posix() if is_there else ""

    poster = None if video is None else _write_poster(results_dir, plan.clip.name, video)
    page = None if failure else plan.scene_dir / "index.html"
    figures = [] if failure else _list_figures(plan)
    return ShownClip(
        plan.clip.name, figures, failure, link(video), link(poster), link(page), link(log)
    )


def _list_figures(plan: ClipPlan) -> list[str]:
    """Figures of the tracks and of the scene in words."""
    tracks = read_figures(plan.tracks_dir / "background_metrics.json")
    scene = read_figures(plan.scene_dir / "metrics.json")
    moving = read_figures(plan.tracks_dir / "foreground_metrics.json")
    told = []
    if tracks:
        told.append(f"cameras of {tracks['frames_registered']} of {tracks['frames']} frames")
        told.append(f"reprojection {tracks['reprojection_error_px']:.2f} px")
    for key, words in (("heldout_frames", "held-out"), ("training_frames", "training")):
        if key in scene:
            told.append(f"{words} frames {scene[key]['psnr']:.2f} dB")
            break
    if moving.get("movers"):
        told.append(f"{len(moving['movers'])} movers")
    seconds = [sum(figures.get("seconds", {}).values()) for figures in (tracks, scene)]
    if any(seconds):
        told.append(f"{sum(seconds):.0f} s")
    return told


def _write_poster(results_dir: Path, name: str, video: Path) -> Path | None:
    """Writes the first frame of a video as posters/NAME.png; None if it cannot be read."""
    try:
        str(video).encode()
    except UnicodeEncodeError:  # OpenCV ends the process on such names
        return None
    reader = cv2.VideoCapture(str(video))
    try:
        is_read, image = reader.read()
    finally:
        reader.release()
    if not is_read:
        return None
    height = round(image.shape[0] * _POSTER / image.shape[1])
    image = cv2.resize(image, (_POSTER, height), interpolation=cv2.INTER_AREA)
    path = make_subfolder(results_dir, "posters") / f"{name}.png"
    write_image(path, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return path
