"""Video + background_points.pt -> tracks of what moves, in 2D, 3D and canonical coordinates:
foreground_points.pt."""

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # idle OpenMP threads must not spin beside numba's

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from tqdm import tqdm

from background_points import clip_name, describe, load_masks, taken_tracker
from models.clip import ClipFrames, Video, read_masks, read_video, write_image, write_video
from models.depth import (
    DEPTH_FOLDER,
    DepthOptions,
    Imported,
    MovingTracks,
    check_depth_options,
    list_inputs,
    open_depth_maps,
    read_imported,
    refine_mover_depth,
)
from models.motion import label_movers
from models.movers import MoverShapes, lift_tracks, make_foreground_tracks, solve_mover_shapes
from models.report import draw_tracks
from models.run import (
    InputError,
    Origin,
    Plain,
    ProgressBars,
    Stages,
    check_output_dir,
    describe_run,
    find_memory_limit,
    make_subfolder,
    parse_settings,
    run_script,
    stage_outputs,
    watch_memory,
    write_json,
)
from models.tracking import (
    Tracker,
    TrackingOptions,
    find_tracker_file,
    grow_tracks,
    open_tracker,
)
from models.tracks import PointTracks, Tracks, load_tracks, save_tracks


@dataclass(frozen=True)
class Settings:
    """What to read, how to track, where to write."""

    video_path: Path
    """Video file, or folder of images in name order."""
    mask_path: Path | None = None
    """Folder of masks or mask video (white = moving); those beside the background file if not
    given."""
    background_path: Path | None = None
    """Track file of the background; results/<clip>/background_points.pt if not given."""
    output_dir: Path | None = None
    """Where to write; the folder of the background file if not given."""
    tracker: str = "lucas_kanade"
    """lucas_kanade, dis_flow, auto (see background_points.py), or a learned one of
    submodules/README.md."""
    checkpoint_path: Path | None = None
    """Weights of a learned tracker; where submodules/README.md puts them if not given."""
    import_path: Path | None = None
    """Another program's 3D tracks of this clip: .npz of TAPIP3D or SpaTrackerV2, or .pt of scripts
    around it."""
    learned: Annotated[DepthOptions, Plain()] = DepthOptions()
    """Depth from learned models or files; what background_points.py made is used again."""
    spacing: int = 5
    """Pixels between points."""
    max_frames: int | None = None
    """Take at most so many frames (as for the background)."""
    stride: int = 1
    """Take every stride-th frame (as for the background)."""
    max_size: int = 960
    """Reduce frames whose longer side is larger (as for the background), in pixels."""
    seed: int = 0
    """Seed of structure from motion on the movers."""
    max_memory: float | None = None
    """GiB to stay within; most of the machine's if not given."""


def main() -> None:
    settings = parse_settings(Settings(video_path=Path("data/sample/frames")))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    check_depth_options(settings.learned)
    tracker = open_tracker(settings.tracker, settings.checkpoint_path, device)
    background_path = background_path_of(settings)
    output_dir = check_output_dir(settings.output_dir or background_path.parent)
    origin = Origin(__file__, settings, inputs(settings), {"device": device})
    stages = Stages(output_dir, origin, ProgressBars())
    made_from = origin.fingerprint([solve])
    work = partial(solve, settings, tracker, background_path, output_dir, device, made_from)
    with watch_memory(find_memory_limit(settings.max_memory)):
        stages.make("foreground_points", stage_outputs("foreground_points"), work)


def inputs(settings: Settings) -> dict[str, Path | None]:
    """The files that the result depends on."""
    background_path = background_path_of(settings)
    files = {
        "clip": settings.video_path,
        "masks": settings.mask_path or background_path.parent / "masks",
    }
    files |= {"background": background_path, "weights": settings.checkpoint_path}
    files |= {"tracker": find_tracker_file(settings.tracker)}
    kept = background_path.parent / DEPTH_FOLDER if settings.learned.depth is None else None
    learned = list_inputs(settings.learned)
    return (
        files
        | learned
        | {"imported tracks": settings.import_path, "depth": learned["depth"] or kept}
    )


def background_path_of(settings: Settings) -> Path:
    """The background's track file given, or the one that background_points.py writes."""
    return (
        settings.background_path
        or Path("results") / clip_name(settings.video_path) / "background_points.pt"
    )


def solve(
    settings: Settings,
    tracker: Tracker,
    background_path: Path,
    output_dir: Path,
    device: str,
    made_from: dict[str, str],
) -> None:
    """All of the work."""
    start = time.perf_counter()
    background = load_tracks(background_path)
    memory = find_memory_limit(settings.max_memory)
    video = read_video(
        settings.video_path, settings.max_frames, settings.stride, settings.max_size, memory=memory
    )
    describe(video)
    check_same_clip(video, background, background_path)
    masks = moving_masks(settings, video, background_path)
    out = output_dir / "foreground_points.pt"
    write_json(output_dir / "foreground_config.json", describe_run(settings, device, made_from))
    if not masks.any():
        write_empty(video, background, out)
        print(f"nothing moves in this clip: wrote an empty {out}")
        return

    folder = background_path.parent
    maps = open_depth_maps(settings.learned, video, folder, device, ProgressBars("step"))
    imported = None
    if settings.import_path is not None:
        imported = read_imported(settings.import_path, video, settings.learned.imports)
    labels = label_movers(masks)
    labels[masks & (labels == 0)] = 1
    points = track(video, settings, masks, tracker, imported)
    if not points.num_tracks:
        write_empty(video, background, out)
        print(
            f"nothing in the masks can be tracked from one frame to another: wrote an empty {out}"
        )
        return
    shapes = solve_mover_shapes(background, points, labels, settings.seed, ProgressBars())
    xyz = lift_tracks(background.cameras, points, shapes.depth)
    source = maps if imported is None else imported
    if source is not None:
        movers = MovingTracks(points, shapes.label, xyz)
        options = settings.learned.mover_depth
        found = refine_mover_depth(source, background, movers, ProgressBars("step"), options)
        shapes = replace(shapes, depth=found)
        xyz = lift_tracks(background.cameras, points, shapes.depth)
    tracks = make_foreground_tracks(video, background, points, shapes, xyz)
    movers = shapes.label
    del xyz, shapes  # twice as large as what the file holds
    save_tracks(out, tracks)
    drawn = draw_tracks(video.frames, points, groups=movers)
    overlay = tqdm(drawn, total=len(video), desc="track overlay", unit="frame")
    write_video(output_dir / "foreground_tracks.mp4", overlay, video.fps)
    write_labels(output_dir, labels)
    print(
        f"{labels.max()} mover(s), {points.num_tracks} tracks, {time.perf_counter() - start:.0f} s"
    )
    print(f"wrote {out}, foreground_tracks.mp4, labels/")


def check_same_clip(video: Video, background: Tracks, path: Path) -> None:
    """Refuses a background file that was made from other frames."""
    if len(video) != len(background) or (video.width, video.height) != (
        background.width,
        background.height,
    ):
        raise InputError(
            f"{path}: was made from {len(background)} frames {background.width}x{background.height}, but {video.path} "
            f"gives {len(video)} frames {video.width}x{video.height}; use the same clip and settings for both"
        )


def moving_masks(settings: Settings, video: Video, background_path: Path) -> np.ndarray:
    """The masks given, or those that background_points.py wrote."""
    if settings.mask_path is not None:
        return load_masks(settings, video)
    folder = background_path.parent / "masks"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: there are no masks beside {background_path}; run background_points.py again"
        )
    return read_masks(folder, ClipFrames.in_order(len(video), (video.width, video.height)))


def track(
    video: Video, settings: Settings, masks: np.ndarray, tracker: Tracker, imported: Imported | None
) -> PointTracks:
    """Tracks inside the masks: those imported, and our own where they leave room; none if nothing
    can be followed."""
    begun = None
    if imported is not None:
        begun = PointTracks(imported.xy, imported.visible, video.width, video.height)
    tracker = taken_tracker(tracker, len(video))
    options = TrackingOptions(spacing=settings.spacing)
    try:
        return grow_tracks(video.frames, tracker, masks, begun, ProgressBars(), options)
    except InputError:
        return no_tracks(video)


def no_tracks(video: Video) -> PointTracks:
    """No track at all."""
    xy = np.zeros((len(video), 0, 2), np.float32)
    return PointTracks(xy, np.zeros((len(video), 0), bool), video.width, video.height)


def write_empty(video: Video, background: Tracks, path: Path) -> None:
    """Writes the track file of a clip without movers."""
    xyz = np.zeros((len(video), 0, 3))
    shapes = MoverShapes.none(len(video))
    save_tracks(path, make_foreground_tracks(video, background, no_tracks(video), shapes, xyz))


def write_labels(output_dir: Path, labels: np.ndarray) -> None:
    """The number of the mover of each pixel, as PNGs."""
    folder = make_subfolder(output_dir, "labels")
    for t, image in enumerate(labels):
        write_image(folder / f"{t:05d}.png", image)


if __name__ == "__main__":
    run_script(main)
