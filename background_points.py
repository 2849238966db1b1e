"""Video -> 2D tracks, cameras and 3D points of its static background, in
results/<clip>/background_points.pt."""

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # idle OpenMP threads must not spin beside numba's

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from tqdm import tqdm

from models.cameras import Cameras
from models.clip import (
    Video,
    dilate,
    read_masks,
    read_video,
    save_transforms,
    write_masks,
    write_video,
)
from models.depth import (
    DepthMaps,
    Imported,
    LearnedOptions,
    apply_depth,
    check_learned_options,
    fitting_cameras,
    list_inputs,
    open_depth_maps,
    open_masks,
    read_imported,
    remove_old_depth,
)
from models.learned import MaskModel
from models.motion import (
    MotionOptions,
    estimate_memory,
    estimate_num_tracks,
    mask_movers,
    solve_masked_scene,
    solve_without_movers,
)
from models.report import draw_mask, draw_tracks
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
    warn_of_need,
    watch_memory,
    write_json,
)
from models.sfm import (
    StaticScene,
    cameras_of_clip,
    make_background_tracks,
    sharpen_scene,
    solve_scene,
)
from models.tracking import (
    Tracker,
    TrackingOptions,
    choose_for_length,
    find_tracker_file,
    grow_tracks,
    open_tracker,
)
from models.tracks import PointTracks, Tracks, save_tracks


@dataclass(frozen=True)
class Settings:
    """What to read, how to track, where to write."""

    video_path: Path
    """Video file, or folder of images in name order."""
    mask_path: Path | None = None
    """Folder of masks or mask video (white = moving); without it masks are made from motion."""
    output_dir: Path | None = None
    """Where to write; results/<clip> if not given."""
    tracker: str = "auto"
    """auto (dis_flow to 1,000 frames, else lucas_kanade), either of them, or a learned one of
    submodules/README.md."""
    checkpoint_path: Path | None = None
    """Weights of a learned tracker; where submodules/README.md puts them if not given."""
    spacing: int = 8
    """Pixels between points."""
    max_frames: int | None = None
    """Take at most so many frames."""
    stride: int = 1
    """Take every stride-th frame."""
    max_size: int = 960
    """Reduce frames whose longer side is larger, in pixels."""
    cameras_path: Path | None = None
    """Known cameras: a transforms.json or a COLMAP model folder."""
    import_path: Path | None = None
    """Another program's 3D tracks of this clip: .npz of TAPIP3D or SpaTrackerV2, or .pt of scripts
    around it."""
    learned: Annotated[LearnedOptions, Plain()] = LearnedOptions()
    """Depth and masks from learned models or files."""
    seed: int = 0
    """Seed of the mappers."""
    max_memory: float | None = None
    """GiB to stay within; most of the machine's if not given."""


@dataclass(frozen=True)
class Learned:
    """What is opened once, before any work: so what is missing is told at once."""

    tracker: Tracker
    masks: MaskModel | None
    device: str


def main() -> None:
    settings = parse_settings(Settings(video_path=Path("data/sample/frames")))
    output_dir = check_output_dir(
        settings.output_dir or Path("results") / clip_name(settings.video_path)
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    check_spacing(settings.spacing)
    check_learned_options(settings.learned, settings.mask_path)
    tracker = open_tracker(settings.tracker, settings.checkpoint_path, device)
    learned = Learned(tracker, open_masks(settings.learned, device), device)
    origin = Origin(__file__, settings, inputs(settings), {"device": device})
    stages = Stages(output_dir, origin, ProgressBars())
    work = partial(solve, settings, output_dir, learned, stages)
    outputs = stage_outputs("background_points")
    if settings.learned.depth is not None:
        outputs += stage_outputs("depth")
    with watch_memory(find_memory_limit(settings.max_memory)):
        summarise(output_dir, stages.make("background_points", outputs, work))
    stages.drop_values()


def inputs(settings: Settings) -> dict[str, Path | None]:
    """The files that the result depends on."""
    files = {
        "clip": settings.video_path,
        "masks": settings.mask_path,
        "weights": settings.checkpoint_path,
        "tracker": find_tracker_file(settings.tracker),
    }
    files |= {"cameras": settings.cameras_path, "imported tracks": settings.import_path}
    return files | list_inputs(settings.learned)


def solve(
    settings: Settings,
    output_dir: Path,
    learned: Learned,
    stages: Stages,
) -> dict:
    """All of the work; what takes long is kept on the way, so that a run that was stopped goes on
    from there."""
    memory = find_memory_limit(settings.max_memory)
    video = read_video(
        settings.video_path, settings.max_frames, settings.stride, settings.max_size, memory=memory
    )
    describe(video)
    need = partial(estimate_memory, video, with_motion=settings.mask_path is None)
    warn_of_need(need(estimate_num_tracks(video, settings.spacing)), memory, stages.progress)
    masks = load_masks(settings, video)
    imported = None
    if settings.import_path is not None:
        imported = read_imported(settings.import_path, video, settings.learned.imports)
    known = known_cameras(settings, video, imported)
    maps = open_depth(settings.learned, video, output_dir, learned.device, stages)

    def tracked() -> dict:
        grown = track(video, settings, masks, learned.tracker, imported)
        return {"xy": grown.xy, "visible": grown.visible}

    def solve_tracks(points: PointTracks, cameras: Cameras | None = None) -> StaticScene:
        return solve_scene(points, cameras, settings.seed, stages.progress)

    def placed() -> dict:
        points = PointTracks(*tracks.values(), video.width, video.height)
        if masks is not None and known is None:
            return solve_masked_scene(points, solve_tracks).to_values()
        return solve_tracks(points, known).to_values()

    def parted() -> dict:
        points = PointTracks(*tracks.values(), video.width, video.height)
        masks, against = mask_movers(video.frames, points, scene, learned.masks, ProgressBars())
        still = solve_without_movers(points, masks, against, solve_tracks)
        return {"masks": masks, **still.to_values()}

    def sharpened() -> dict:
        # Positions are overwritten; nothing else needs them.
        points = PointTracks(tracks.pop("xy"), tracks["visible"], video.width, video.height)
        sharp, again = sharpen_scene(video.frames, points, scene, stages.progress)
        return {"xy": sharp.xy, **again.to_values()}

    with naming(settings.video_path):
        tracks = stages.step("tracking", tracked)
        warn_of_need(need(tracks["xy"].shape[1]), memory, stages.progress)
        scene = StaticScene.from_values(stages.step("cameras", placed))
        if masks is None:
            values = stages.step("motion", parted)
            masks = values["masks"]
            scene = StaticScene.from_values(values)
        values = stages.step("sharpening", sharpened)
        tracks.clear()
        xy = values.pop("xy")
        scene = StaticScene.from_values(values)
        if maps is not None:
            points = PointTracks(xy, scene.points.agrees, video.width, video.height)
            bars = ProgressBars("step")
            points, scene = apply_depth(maps, points, scene, masks, settings.spacing, bars)
            xy = points.xy

    agreeing = PointTracks(xy, scene.points.agrees, video.width, video.height)
    frames = (draw_mask(f, m) for f, m in zip(video.frames, masks, strict=True))
    drawn = draw_tracks(frames, agreeing)
    tracks = make_background_tracks(video, scene, agreeing)
    write_json(
        output_dir / "background_config.json",
        describe_run(settings, learned.device, stages.origin.fingerprint([solve])),
    )
    save_tracks(output_dir / "background_points.pt", tracks)
    save_transforms(output_dir / "transforms.json", scene.cameras, list(range(len(video))))
    write_masks(make_subfolder(output_dir, "masks"), masks)
    overlay = tqdm(drawn, total=len(video), desc="track overlay", unit="frame")
    write_video(output_dir / "background_tracks.mp4", overlay, video.fps)
    return figures(output_dir, video, scene, tracks, stages)


def known_cameras(settings: Settings, video: Video, imported: Imported | None) -> Cameras | None:
    """The cameras given, or else those of imported tracks that they fit; None where they must be
    solved."""
    if settings.cameras_path is not None:
        return cameras_of_clip(settings.cameras_path, video, ProgressBars())
    return None if imported is None else fitting_cameras(imported, ProgressBars())


def open_depth(
    options: LearnedOptions,
    video: Video,
    output_dir: Path,
    device: str,
    stages: Stages,
) -> DepthMaps | None:
    """The depth maps given, or those that a model makes now; None where there are neither."""

    def make() -> None:
        open_depth_maps(options, video, output_dir, device, ProgressBars("step"))

    remove_old_depth(options, output_dir)
    if options.depth is not None:
        stages.make("depth", stage_outputs("depth"), make)
        options = replace(options, depth=None)  # they are there now
    return open_depth_maps(options, video, output_dir, device)


def check_spacing(spacing: int) -> None:
    """Refuses a spacing that leaves no room between points."""
    if spacing < 2:
        raise InputError(f"--spacing is {spacing}; give the pixels between points, 2 or more")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the clip's name before what the stages, which see only its frames, say of it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def clip_name(path: Path) -> str:
    """Name of the clip: the file's stem; for a folder called frames or images, that of its
    parent."""
    path = path.resolve()
    if path.is_dir() and path.name.lower() in ("frames", "images", "rgb"):
        return path.parent.name
    return path.name if path.is_dir() else path.stem


def describe(video: Video) -> None:
    """Says what was read, and whether it was reduced."""
    width, height = video.original_size
    reduced = (
        ""
        if (width, height) == (video.width, video.height)
        else f" (reduced from {width}x{height})"
    )
    print(
        f"{video.path}: {len(video)} frames {video.width}x{video.height}{reduced}, {video.fps:.2f} per second"
    )
    for note in video.notes:
        print(f"{video.path}: {note}")


def load_masks(settings: Settings, video: Video) -> np.ndarray | None:
    """The masks given, at the frames' size."""
    if settings.mask_path is None:
        return None
    return read_masks(settings.mask_path, video.clip_frames)


def track(
    video: Video,
    settings: Settings,
    masks: np.ndarray | None,
    tracker: Tracker,
    imported: Imported | None,
) -> PointTracks:
    """Tracks over the whole clip that stay off the masks: those imported, and our own where they
    leave room."""
    begun = None
    if imported is not None:
        begun = PointTracks(imported.xy, imported.visible, video.width, video.height)
    allowed = None if masks is None else ~dilate(masks, MotionOptions().mask_margin)
    tracker = taken_tracker(tracker, len(video))
    options = TrackingOptions(spacing=settings.spacing)
    return grow_tracks(video.frames, tracker, allowed, begun, ProgressBars(), options)


def taken_tracker(tracker: Tracker, num_frames: int) -> Tracker:
    """The tracker for a clip of so many frames; says which where that was left open."""
    taken = choose_for_length(tracker, num_frames)
    if taken is not tracker:
        print(f"tracker: {taken.__name__}, for {num_frames} frames")
    return taken


def figures(
    output_dir: Path, video: Video, scene: StaticScene, tracks: Tracks, stages: Stages
) -> dict:
    """How it went, written too."""
    told = {
        "method": scene.method,
        "frames": len(tracks),
        "image_size": [video.width, video.height],
        "original_image_size": list(video.original_size),
        "frames_registered": int(scene.registered.sum()),
        "reprojection_error_px": scene.reprojection_error,
        "points": tracks.num_tracks,
        "focal_length_px": float(tracks.K[0, 0, 0]),
        "seconds": stages.seconds(),
        "peak_memory_gib_of_stages": stages.memory(),
    }
    write_json(output_dir / "background_metrics.json", told)
    return told


def summarise(output_dir: Path, told: dict) -> None:
    """Prints how it went."""
    print(
        f"cameras ({told['method']}): {told['frames_registered']} of {told['frames']} frames, reprojection "
        f"{told['reprojection_error_px']:.2f} px, {told['points']} points, {sum(told['seconds'].values()):.0f} s"
    )
    print(
        f"wrote {output_dir}/background_points.pt, transforms.json, background_tracks.mp4, masks/"
    )


if __name__ == "__main__":
    run_script(main)
