"""Video -> 2D tracks, cameras and 3D points of its static background, in
results/<clip>/background_points.pt."""

import os

from models import prepare_script

# Idle OpenMP threads must not spin beside numba's.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if __name__ == "__main__":
    prepare_script()

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from models.cameras import Cameras
from models.clip import (
    Lens,
    Video,
    describe_large_masks,
    dilate,
    halve_max_size,
    name_clip,
    name_large_masks,
    read_masks,
    read_video,
    save_transforms,
    straighten_masks,
    straighten_video,
    write_masks,
    write_video,
)
from models.depth import (
    DepthMaps,
    LearnedOptions,
    apply_depth,
    check_learned_options,
    fitting_cameras,
    list_inputs,
    make_depth_maps,
    open_depth_maps,
    open_masks,
    read_imported,
    remove_old_depth,
)
from models.learned import AUTO, MaskModel, SaliencyModel
from models.motion import (
    MotionOptions,
    estimate_memory,
    estimate_num_tracks,
    find_shadows,
    judge_static_scene,
    mask_movers,
    solve_masked_scene,
    solve_without_movers,
)
from models.report import draw_mask, draw_tracks
from models.run import (
    InputError,
    Origin,
    Plain,
    Progress,
    ProgressBars,
    Stages,
    check_owner,
    claim_output_dir,
    find_memory_limit,
    make_subfolder,
    name_input,
    parse_settings,
    run_script,
    stage_outputs,
    warn_of_need,
    watch_memory,
    write_json,
)
from models.sfm import (
    CameraOptions,
    StaticScene,
    cameras_of_clip,
    make_background_tracks,
    measure_depth_of_thirds,
    sharpen_scene,
    solve_scene,
    straighten_points,
    straighten_scene,
)
from models.tracking import (
    Tracker,
    TrackingOptions,
    find_tracker_file,
    grow_tracks,
    join_returns,
    mark_still_part,
    open_tracker,
)
from models.tracks import PointTracks, save_tracks

# What --preview sets, unless it is given otherwise.
PREVIEW = {
    "tracking.spacing": 10,
    "cameras.sharpening_rounds": 1,
    "cameras.most_mapped": 16,
    "motion.work_size": 240,
}

# Seconds of the stages in proportion to each other, measured on clips of 480 to 854 pixels.
SHARES = {
    **{"tracking": 14, "cameras": 13, "lens": 4, "motion": 31, "static scene": 9},
    **{"shadows": 6, "doubt": 0.5, "sharpening": 22},
}


@dataclass(frozen=True)
class Settings:
    """Input, tracking and output of background_points.py."""

    video_path: Path
    """Video file, or folder of images in name order."""
    mask_path: Path | None = None
    """Folder of masks or mask video (white = moving); made from motion if not given."""
    invert_masks: bool = False
    """Black = moving in the given masks."""
    output_dir: Path | None = None
    """Folder of the results; results/<clip> if not given."""
    tracker: str = "auto"
    """auto (dis_flow), lucas_kanade, or a name of submodules/README.md."""
    checkpoint_path: Path | None = None
    """Weights of a learned tracker."""
    max_frames: int | None = None
    """Largest number of frames."""
    stride: int = 1
    """Take every stride-th frame."""
    max_size: int = 960
    """Longer side in pixels to which larger frames are reduced."""
    cameras_path: Path | None = None
    """Known cameras: a transforms.json or a COLMAP folder."""
    import_path: Path | None = None
    """3D tracks of TAPIP3D or SpaTrackerV2 (.npz, .pt) for this clip."""
    preview: bool = False
    """A first look in a fraction of the time: frames of half the size, fewer tracks."""
    seed: int = 0
    """Seed of the mappers."""
    max_memory: float | None = None
    """GiB that the run may hold; most of the machine's if not given."""
    tracking: Annotated[TrackingOptions, Plain(names=("spacing",))] = TrackingOptions()
    """Tracks."""
    learned: Annotated[LearnedOptions, Plain(("depth", "depth_path", "masks"))] = LearnedOptions()
    """Depth and masks from learned models or files."""
    cameras: CameraOptions = CameraOptions()
    """Cameras from tracks."""
    motion: MotionOptions = MotionOptions()
    """Masks from motion."""


def main() -> None:
    settings = parse_settings(
        Settings(
            video_path=Path("data/sample/frames"),
            mask_path=None,
            output_dir=None,
            tracker="auto",
            tracking=TrackingOptions(spacing=8),
            max_frames=None,
            stride=1,
            max_size=960,
            cameras_path=None,
            seed=0,
            learned=LearnedOptions(depth=None, masks=None),
        ),
        preset=PREVIEW,
    )
    if settings.preview:
        half = halve_max_size(settings.video_path, settings.max_size)
        settings = replace(settings, max_size=half)
    spacing = settings.tracking.spacing
    if spacing < 2:
        raise InputError(f"--spacing is {spacing}; give the pixels between points, 2 or more")
    check_learned_options(settings.learned, settings.mask_path)
    output_dir = settings.output_dir or Path("results") / name_clip(settings.video_path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    origin = Origin(__file__, settings, gather_inputs(settings), {"device": device})
    if settings.output_dir is None:
        config = output_dir / "background_config.json"
        check_owner(config, settings.video_path, origin.contents["clip"])
    stages = Stages(claim_output_dir(output_dir, __file__), origin, ProgressBars())
    # Models are opened before any work, so that a missing file is reported at once.
    tracker = open_tracker(settings.tracker, settings.checkpoint_path, device)
    mask_model = open_masks(settings.learned, device)
    outputs = stage_outputs("background_points")
    if settings.learned.depth is not None:
        outputs += stage_outputs("depth")
    watched = watch_memory(find_memory_limit(settings.max_memory))(solve)
    work = partial(watched, settings, stages, tracker, mask_model)
    figures = stages.make("background_points", outputs, work)
    stages.drop_values()
    print_figures(figures, output_dir)


def gather_inputs(settings: Settings) -> dict[str, Path | None]:
    """Input files by name."""
    return {
        "clip": settings.video_path,
        "masks": settings.mask_path,
        "weights": settings.checkpoint_path,
        "tracker": find_tracker_file(settings.tracker),
        "cameras": settings.cameras_path,
        "imported tracks": settings.import_path,
        **list_inputs(settings.learned),
    }


def solve(
    settings: Settings,
    stages: Stages,
    tracker: Tracker,
    mask_model: MaskModel | SaliencyModel | None,
) -> dict:
    """The method, step by step; a run that was stopped resumes at the first unfinished step."""
    progress = stages.progress
    memory = find_memory_limit(settings.max_memory)
    video = open_clip(settings, memory, progress)
    options = settings.motion
    mask_path = find_masks(settings, video)
    made = () if mask_path is None else ("motion", "static scene")
    stages.expect({name: share for name, share in SHARES.items() if name not in made})
    need = partial(estimate_memory, video.size, with_motion=mask_path is None, options=options)
    warn_of_need(need(estimate_num_tracks(video.size, settings.tracking.spacing)), memory, progress)
    given = read_given(settings, video, mask_path, progress)
    maps = make_depth(settings.learned, video, stages)
    if given.lens is not None:
        video, maps = straighten(given.lens, video, maps, memory, progress)
    how = {"seed": settings.seed, "progress": progress, "options": settings.cameras}
    solver = partial(solve_scene, cameras=given.cameras, known=given.known, **how)

    explained = name_large_masks(given.masks, settings.invert_masks)
    with name_input(settings.video_path), explained:
        tracks = follow_points(settings, stages, video, given, tracker)
        warn_of_need(need(tracks.num_tracks), memory, progress)
        scene = solve_cameras(settings, stages, given, solver, tracks)
        masks = given.masks
        scene, lens = stages.step("lens", straighten_scene, tracks, scene, options=settings.cameras)
        if lens is not None:
            video, maps = straighten(lens, video, maps, memory, progress)
            tracks = straighten_points(tracks, lens)
            masks = None if masks is None else straighten_masks(masks, lens)
        if masks is None:
            masks, scene = part_movers(settings, stages, video, tracks, scene, solver, mask_model)
        shadows = stages.step(
            "shadows", find_shadows, video.frames, masks, tracks, scene, options=options
        )
        judged = stages.step(
            "doubt", judge_static_scene, tracks, masks, scene, settings.cameras, options=options
        )
        tracks, scene = stages.step(
            "sharpening", sharpen_scene, video.frames, tracks, scene, options=settings.cameras
        )
        tracks = replace(tracks, visible=scene.points.agrees)
        if maps is not None:
            spacing = settings.tracking.spacing
            tracks, scene = apply_depth(maps, tracks, scene, masks, spacing, progress)

    return write_results(stages, video, tracks, scene, masks, shadows, judged)


def open_clip(settings: Settings, memory: int | None, progress: Progress) -> Video:
    """The frames taken of the clip, described in sentences."""
    video = read_video(
        settings.video_path, settings.max_frames, settings.stride, settings.max_size, memory=memory
    )
    for sentence in video.describe():
        progress.say(sentence)
    return video


def follow_points(
    settings: Settings, stages: Stages, video: Video, given: "Given", tracker: Tracker
) -> PointTracks:
    """Tracks outside the given masks; in a long clip also of places that come back into view."""
    options = settings.tracking
    allowed = find_allowed(given.masks, settings.motion.mask_margin)
    outside = video.frames, tracker, allowed, given.tracks
    tracks = stages.step("tracking", grow_tracks, *outside, options=options)
    if not options.absence or len(video) <= options.absence:
        return tracks
    return stages.step("returns", join_returns, video.frames, tracks, allowed, options=options)


def solve_cameras(
    settings: Settings, stages: Stages, given: "Given", solver: partial, tracks: PointTracks
) -> StaticScene:
    """Cameras and points, from the tracks outside the given masks where there are masks."""
    if given.masks is None or given.cameras is not None:
        return stages.step("cameras", solver, tracks)
    scene = stages.step("cameras", solve_masked_scene, tracks, solver, settings.motion)
    said = describe_large_masks(given.masks, settings.invert_masks)
    if said and scene.method == "rotation":
        stages.progress.say(f"no mapper could place the cameras: {said}")
    return scene


def part_movers(
    settings: Settings,
    stages: Stages,
    video: Video,
    tracks: PointTracks,
    scene: StaticScene,
    solver: partial,
    mask_model: MaskModel | SaliencyModel | None,
) -> tuple[np.ndarray, StaticScene]:
    """Masks made from motion, and the scene without the movers in them."""
    options = settings.motion
    masks, scene = stages.step(
        "motion", mask_movers, video.frames, tracks, scene, mask_model, options=options
    )
    scene = stages.step("static scene", solve_without_movers, tracks, masks, scene, solver, options)
    return masks, scene


@dataclass(frozen=True)
class Given:
    """What the user gives beside the clip; None where it is to be solved."""

    masks: np.ndarray | None
    """Where something moves, (F, H, W) bool."""
    cameras: Cameras | None
    """One for each frame."""
    known: np.ndarray | None
    """False where a frame has no given camera, (F,) bool; None if each has one."""
    tracks: PointTracks | None
    """Of another program."""
    lens: Lens | None
    """Lens of the given cameras; masks and tracks are those of the straightened frames."""


def find_masks(settings: Settings, video: Video) -> Path | None:
    """The given masks, or those that lie beside the frames; None where masks are to be made."""
    beside = video.path if video.masks_beside and settings.learned.masks in (None, AUTO) else None
    return settings.mask_path or beside


def read_given(
    settings: Settings, video: Video, mask_path: Path | None, progress: Progress
) -> Given:
    """Reads masks, cameras and imported tracks; imported cameras count if they fit their tracks."""
    masks = None
    cameras = None
    known = None
    lens = None
    imported = None
    if mask_path is not None:
        masks = read_masks(mask_path, video.clip_frames, settings.invert_masks, progress)
        if mark_still_part(video.frames, masks):
            progress.say(f"{mask_path}: {describe_inverted(settings.invert_masks)}")
    if settings.import_path is not None:
        imported = read_imported(settings.import_path, video, settings.learned.imports)
    if settings.cameras_path is not None:
        read = cameras_of_clip(settings.cameras_path, video, progress)
        cameras, known = read.cameras, read.known
        lens = find_single_lens(settings.cameras_path, read.lenses)
    elif imported is not None:
        cameras = fitting_cameras(imported, progress)
    tracks = None if imported is None else imported.tracks
    if lens is not None:
        masks = None if masks is None else straighten_masks(masks, lens)
        tracks = None if tracks is None else straighten_points(tracks, lens)
    return Given(masks, cameras, known, tracks, lens)


def find_single_lens(path: Path, lenses: tuple[Lens, ...] | None) -> Lens | None:
    """The lens of all frames; None where no lens distorts."""
    if lenses is not None and len(set(lenses)) > 1:
        raise InputError(
            f"{path}: its frames have {len(set(lenses))} lenses that distort; undistort the images "
            "first (colmap image_undistorter)"
        )
    return lenses[0] if lenses else None


def straighten(
    lens: Lens,
    video: Video,
    maps: DepthMaps | None,
    memory: int | None,
    progress: Progress,
) -> tuple[Video, DepthMaps | None]:
    """The video and the depth maps of the straight images of a lens."""
    progress.say(f"frames straightened: the lens moves pixels by up to {lens.shift:.1f}")
    straight = straighten_video(video, lens, memory)
    return straight, None if maps is None else replace(maps, lens=lens)


def describe_inverted(invert: bool) -> str:
    """A clause on masks in which points move as one still scene."""
    cure = "leave out --invert_masks" if invert else "give --invert_masks"
    return f"points in the masks move as one still scene, the masks look inverted; {cure} if so"


def make_depth(options: LearnedOptions, video: Video, stages: Stages) -> DepthMaps | None:
    """The given depth maps, or maps that a model makes now; None without either."""
    device = str(stages.origin.more["device"])
    remove_old_depth(options, stages.folder)
    if options.depth is not None:
        work = partial(make_depth_maps, options, video, stages.folder, device, stages.progress)
        stages.make("depth", stage_outputs("depth"), work)
    return open_depth_maps(options, video, stages.folder)


def find_allowed(masks: np.ndarray | None, margin: int) -> np.ndarray | None:
    """Pixels in which background points may lie; None for all."""
    return None if masks is None else ~dilate(masks, margin)


def print_figures(figures: dict, output_dir: Path) -> None:
    """Prints the figures of ``write_results`` and the names of the files."""
    doubt = ", near and far in doubt" if figures["near_and_far_in_doubt"] else ""
    print(
        f"cameras ({figures['method']}): {figures['frames_registered']} of {figures['frames']} "
        f"frames, reprojection {figures['reprojection_error_px']:.2f} px{doubt}, "
        f"{figures['points']} points, {sum(figures['seconds'].values()):.0f} s"
    )
    print(describe_agreement(figures))
    files = "background_points.pt, transforms.json, background_tracks.mp4, masks/, shadows/"
    print(f"wrote {output_dir}/{files}")


def describe_agreement(figures: dict) -> str:
    """The figures of ``judge_scene`` in a line."""
    share = (
        f"{100 * figures['observations_agree']:.0f} % of the observations agree with the cameras"
    )
    median = figures["median_residual_px"]
    if median is not None:
        share += f", with a median residual of {median:.2f} px before sharpening"
    cause = figures["likely_cause"]
    return share if cause is None else f"{share}; they suggest {cause}"


def write_results(
    stages: Stages,
    video: Video,
    tracks: PointTracks,
    scene: StaticScene,
    masks: np.ndarray,
    shadows: np.ndarray,
    judged: dict,
) -> dict:
    """Writes the track file and the files beside it; returns figures."""
    output_dir = stages.folder
    background = make_background_tracks(video, scene, tracks)
    config = {**stages.describe(solve), "clip_place": str(video.path.resolve())}
    write_json(output_dir / "background_config.json", config)
    save_tracks(output_dir / "background_points.pt", background)
    save_transforms(output_dir / "transforms.json", scene.cameras, list(range(len(video))))
    write_masks(make_subfolder(output_dir, "masks"), masks)
    write_masks(make_subfolder(output_dir, "shadows"), shadows)
    masked = (draw_mask(frame, mask) for frame, mask in zip(video.frames, masks, strict=True))
    overlay = stages.progress.over(draw_tracks(masked, tracks), "track overlay", len(video))
    write_video(output_dir / "background_tracks.mp4", overlay, video.fps)
    figures = {
        "method": scene.method,
        "frames": len(video),
        "image_size": [video.width, video.height],
        "original_image_size": list(video.original_size),
        "frames_registered": int(scene.registered.sum()),
        "reprojection_error_px": scene.reprojection_error,
        **judged,
        "points": background.num_tracks,
        "focal_length_px": float(background.K[0, 0, 0]),
        "last_focal_length_px": float(background.K[-1, 0, 0]),
        "lens": background.lens,
        "depth_upper_middle_lower": measure_depth_of_thirds(background),
        "near_and_far_in_doubt": scene.doubtful,
        "seconds": stages.seconds(),
        "peak_memory_gib_of_stages": stages.memory(),
    }
    write_json(output_dir / "background_metrics.json", figures)
    return figures


if __name__ == "__main__":
    run_script(main)
