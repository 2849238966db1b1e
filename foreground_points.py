"""Video + background_points.pt -> tracks of moving objects in 2D, 3D and canonical coordinates, in
foreground_points.pt."""

import os

from models import prepare_script

# Idle OpenMP threads must not spin beside numba's.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if __name__ == "__main__":
    prepare_script()

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from models.clip import (
    ClipFrames,
    Lens,
    Video,
    halve_max_size,
    name_clip,
    read_masks,
    read_video,
    straighten_masks,
    straighten_video,
    write_images,
    write_video,
)
from models.depth import (
    DEPTH_FOLDER,
    DepthOptions,
    MovingTracks,
    check_depth_options,
    list_inputs,
    make_depth_maps,
    open_depth_maps,
    read_imported,
    refine_mover_depth,
)
from models.motion import MotionOptions, label_movers
from models.movers import (
    MoverOptions,
    MoverShapes,
    lift_tracks,
    make_foreground_tracks,
    solve_mover_shapes,
)
from models.report import draw_tracks
from models.run import (
    InputError,
    Origin,
    Plain,
    Progress,
    ProgressBars,
    Stages,
    claim_output_dir,
    find_memory_limit,
    make_subfolder,
    parse_settings,
    run_script,
    stage_outputs,
    watch_memory,
    write_json,
)
from models.sfm import straighten_points
from models.tracking import (
    Tracker,
    TrackingOptions,
    find_tracker_file,
    grow_tracks,
    open_tracker,
)
from models.tracks import PointTracks, Tracks, check_content, load_tracks, save_tracks

# What --preview sets, unless it is given otherwise.
PREVIEW: dict[str, object] = {}


@dataclass(frozen=True)
class Settings:
    """Input, tracking and output of foreground_points.py."""

    video_path: Path
    """Video file, or folder of images in name order."""
    mask_path: Path | None = None
    """Folder of masks or mask video (white = moving); beside the background file if not given."""
    invert_masks: bool = False
    """Black = moving in the given masks."""
    background_path: Path | None = None
    """Track file of the background; results/<clip>/background_points.pt if not given."""
    output_dir: Path | None = None
    """Folder of the results; that of the background file if not given."""
    tracker: str = "lucas_kanade"
    """lucas_kanade, dis_flow, auto, or a name of submodules/README.md."""
    checkpoint_path: Path | None = None
    """Weights of a learned tracker."""
    import_path: Path | None = None
    """3D tracks of TAPIP3D or SpaTrackerV2 (.npz, .pt) for this clip."""
    max_frames: int | None = None
    """Largest number of frames (as for the background)."""
    stride: int = 1
    """Take every stride-th frame (as for the background)."""
    max_size: int = 960
    """Longer side in pixels to which larger frames are reduced (as for the background)."""
    preview: bool = False
    """A first look in a fraction of the time: frames of half the size (as for the background)."""
    seed: int = 0
    """Seed of structure from motion on the movers."""
    max_memory: float | None = None
    """GiB that the run may hold; most of the machine's if not given."""
    tracking: Annotated[TrackingOptions, Plain(names=("spacing",))] = TrackingOptions(spacing=5)
    """Tracks."""
    learned: Annotated[DepthOptions, Plain(("depth", "depth_path"))] = DepthOptions()
    """Depth from learned models or files; maps of background_points.py are used again."""
    motion: MotionOptions = MotionOptions()
    """Labels of movers."""
    movers: MoverOptions = MoverOptions()
    """Shapes of movers."""


def main() -> None:
    settings = parse_settings(
        Settings(
            video_path=Path("data/sample/frames"),
            mask_path=None,
            background_path=None,
            output_dir=None,
            tracker="lucas_kanade",
            tracking=TrackingOptions(spacing=5),
            max_frames=None,
            stride=1,
            max_size=960,
            seed=0,
            learned=DepthOptions(depth=None),
        ),
        preset=PREVIEW,
    )
    if settings.preview:
        half = halve_max_size(settings.video_path, settings.max_size)
        settings = replace(settings, max_size=half)
    check_depth_options(settings.learned)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tracker = open_tracker(settings.tracker, settings.checkpoint_path, device)
    background_path = find_background(settings.background_path, settings.video_path)
    output_dir = claim_output_dir(settings.output_dir or background_path.parent, __file__)
    inputs = gather_inputs(settings, background_path)
    stages = Stages(
        output_dir, Origin(__file__, settings, inputs, {"device": device}), ProgressBars()
    )
    watched = watch_memory(find_memory_limit(settings.max_memory))(solve)
    work = partial(watched, settings, stages, tracker, background_path)
    stages.make("foreground_points", stage_outputs("foreground_points"), work)
    stages.drop_values()


def find_background(path: Path | None, video_path: Path) -> Path:
    """The given track file of the background, or the file that background_points.py writes."""
    return path or Path("results") / name_clip(video_path) / "background_points.pt"


def gather_inputs(settings: Settings, background_path: Path) -> dict[str, Path | None]:
    """Input files by name."""
    kept = background_path.parent / DEPTH_FOLDER if settings.learned.depth is None else None
    learned = list_inputs(settings.learned)
    return {
        "clip": settings.video_path,
        "masks": settings.mask_path or background_path.parent / "masks",
        "background": background_path,
        "weights": settings.checkpoint_path,
        "tracker": find_tracker_file(settings.tracker),
        "imported tracks": settings.import_path,
        **learned,
        "depth": learned["depth"] or kept,
    }


def solve(settings: Settings, stages: Stages, tracker: Tracker, background_path: Path) -> None:
    """The method, step by step; a run that was stopped resumes at the first unfinished step."""
    start = time.perf_counter()
    progress = stages.progress
    background = load_tracks(background_path)
    memory = find_memory_limit(settings.max_memory)
    video = read_video(
        settings.video_path, settings.max_frames, settings.stride, settings.max_size, memory=memory
    )
    for sentence in video.describe():
        progress.say(sentence)
    bent = video
    video = match_clip(bent, background, background_path, memory)
    masks = read_mover_masks(settings, video, background_path, progress)
    write_json(stages.folder / "foreground_config.json", stages.describe(solve))
    if not masks.any():
        return write_empty(stages, video, background, "nothing moves in this clip")

    folder = background_path.parent
    device = str(stages.origin.more["device"])
    if settings.learned.depth is not None:
        make_depth_maps(settings.learned, bent, folder, device, progress)
    source = open_depth_maps(settings.learned, bent, folder, video.lens)
    begun = None
    if settings.import_path is not None:
        imported = read_imported(settings.import_path, video, settings.learned.imports)
        begun = imported.tracks
        if video.lens is not None:
            begun = straighten_points(begun, video.lens)
        source = imported
    tracks = stages.step(
        "mover tracks", track, video.frames, tracker, masks, begun, options=settings.tracking
    )
    if not tracks.num_tracks:
        reason = "nothing in the masks can be tracked from one frame to another"
        return write_empty(stages, video, background, reason)
    labels = label_pixels(masks, settings.motion)
    shapes = stages.step(
        "mover shapes",
        solve_mover_shapes,
        background,
        tracks,
        labels,
        settings.seed,
        options=settings.movers,
    )
    if source is not None:
        xyz = lift_tracks(background.cameras, tracks, shapes.depth)
        moving = MovingTracks(tracks, shapes.label, xyz)
        refine = settings.learned.mover_depth
        depth = refine_mover_depth(source, background, moving, progress, refine)
        shapes = replace(shapes, depth=depth)
        del xyz, moving  # twice as large as the track file
    write_tracks(stages.folder / "foreground_points.pt", video, background, tracks, shapes)
    write_figures(stages.folder, shapes, source is not None)
    write_pictures(stages, video, tracks, shapes.label, labels)
    seconds = time.perf_counter() - start
    progress.say(f"{labels.max()} mover(s), {tracks.num_tracks} tracks, {seconds:.0f} s")
    progress.say(f"wrote {stages.folder}/foreground_points.pt, foreground_tracks.mp4, labels/")
    return None


def match_clip(video: Video, background: Tracks, path: Path, memory: int | None) -> Video:
    """The frames that the background was made from, straightened if a lens bends them; refuses
    other frames."""
    made_from = f"{len(background)} frames {background.width}x{background.height}"
    given = f"{len(video)} frames {video.width}x{video.height}"
    if made_from != given:
        raise InputError(
            f"{path}: was made from {made_from}, but {video.path} gives {given}; use the same clip "
            "and settings for both"
        )
    if background.lens is not None:
        video = straighten_video(video, Lens.from_line(background.lens), memory)
    check_content(background, path, video.frames, video.path)
    return video


def read_mover_masks(
    settings: Settings, video: Video, background_path: Path, progress: Progress
) -> np.ndarray:
    """The given masks, or the masks that background_points.py wrote."""
    if settings.mask_path is not None:
        given = settings.mask_path
        masks = read_masks(given, video.clip_frames, settings.invert_masks, progress)
        return masks if video.lens is None else straighten_masks(masks, video.lens)
    folder = background_path.parent / "masks"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there are no masks beside {background_path}; run background_points.py again"
        )
    return read_masks(folder, ClipFrames.in_order(len(video), (video.width, video.height)))


def label_pixels(masks: np.ndarray, options: MotionOptions) -> np.ndarray:
    """Number of the mover of each pixel, 0 on the background; blobs too small for a mover of their
    own belong to the first."""
    labels = label_movers(masks, options)
    labels[masks & (labels == 0)] = 1
    return labels


def track(
    frames: np.ndarray,
    tracker: Tracker,
    masks: np.ndarray,
    begun: PointTracks | None,
    progress: Progress,
    options: TrackingOptions,
) -> PointTracks:
    """Tracks inside the masks: the imported ones, and new ones in the gaps between them; no track
    where nothing can be followed."""
    try:
        return grow_tracks(frames, tracker, masks, begun, progress, options)
    except InputError:
        return PointTracks.none(len(frames), frames.shape[2], frames.shape[1])


def write_empty(stages: Stages, video: Video, background: Tracks, reason: str) -> None:
    """Writes the track file of a clip without movers, and says why."""
    path = stages.folder / "foreground_points.pt"
    tracks = PointTracks.none(len(video), video.width, video.height)
    write_tracks(path, video, background, tracks, MoverShapes.none(len(video)))
    write_figures(stages.folder, MoverShapes.none(len(video)), False)
    stages.progress.say(f"{reason}: wrote an empty {path}")


def write_tracks(
    path: Path, video: Video, background: Tracks, tracks: PointTracks, shapes: MoverShapes
) -> None:
    """Writes the track file. World positions take twice the memory of the file, and end here."""
    xyz = lift_tracks(background.cameras, tracks, shapes.depth)
    save_tracks(path, make_foreground_tracks(video, background, tracks, shapes, xyz))


def write_figures(folder: Path, shapes: MoverShapes, is_refined: bool) -> None:
    """Writes the figures of the movers.

    Args:
        is_refined: whether depth maps or imported tracks refined the movers' depth.
    """
    figures = {"movers": shapes.figures, "refined_by_depth_maps": is_refined}
    write_json(folder / "foreground_metrics.json", figures)


def write_pictures(
    stages: Stages, video: Video, tracks: PointTracks, movers: np.ndarray, labels: np.ndarray
) -> None:
    """Writes the overlay of tracks, and the number of the mover of each pixel as PNGs."""
    drawn = draw_tracks(video.frames, tracks, groups=movers)
    overlay = stages.progress.over(drawn, "track overlay", len(video))
    write_video(stages.folder / "foreground_tracks.mp4", overlay, video.fps)
    write_images(make_subfolder(stages.folder, "labels"), labels, range(len(labels)))


if __name__ == "__main__":
    run_script(main)
