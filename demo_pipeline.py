"""Track files + video -> trained scene, rebuilt video, novel views, metrics and a page, in
results/pipeline_demo."""

import os
import sys

from models import prepare_script

# Idle OpenMP threads must not spin beside numba's.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if __name__ == "__main__":
    prepare_script()

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch

from models.clip import ExposureOptions, save_transforms
from models.detail import DetailOptions
from models.export import (
    ExportOptions,
    ExportSource,
    export_and_score,
    gather_footage,
    parse_formats,
    write_camera_files,
)
from models.field import FieldOptions
from models.movers import MoverOptions
from models.paths import CameraPath, Clip, PathDefaults, PathScript, parse_path, read_path
from models.render import RenderOptions, Scene, load_scene, save_scene
from models.report import (
    LiveViewer,
    Report,
    gather_world,
    open_viewer,
    reconstruct,
    render_video,
    write_charts,
    write_report,
    write_track_overlay,
)
from models.run import (
    ALONE,
    InputError,
    LostRank,
    Meter,
    Origin,
    Plain,
    Progress,
    ProgressBars,
    Ranks,
    Stages,
    claim_output_dir,
    find_memory_limit,
    hash_fingerprint,
    join_ranks,
    leave_ranks,
    parse_settings,
    read_figures,
    release_folders,
    run_script,
    stage_outputs,
    summarise_run,
    warn_of_need,
    watch_memory,
    write_json,
)
from models.stereo_video import (
    StereoVideoOptions,
    name_stereo_video,
    parse_layouts,
    write_stereo_videos,
)
from models.surface import MeshOptions, StereoOptions
from models.tracks import ScaleOptions
from models.training import (
    Checkpoint,
    ClipInputs,
    History,
    SceneOptions,
    Schedule,
    TrainingOptions,
    TrainingRun,
    add_details,
    check_same_clip,
    help_training,
    load_inputs,
    needed_memory,
    record_details,
    train_scene,
)

# Frame numbers beyond this are a slip of the keyboard.
_MOST_FRAMES = 1e9
# Flags that the trained model depends on.
TRAINING = ("holdout_every", "num_epochs", "train_seconds", "refine", "seed")
TRAINING += ("scale_metres", "scale_between")
TRAINING += ("exposure", "mesh", "mvs", "movers", "field", "training")

# What --preview sets, unless it is given otherwise.
PREVIEW = {
    "num_epochs": 1.0,
    "trajectory": "spiral frames=16",
    "export": "",
    "mvs.longest_side": 240,
    "training.mover_epochs": 6,
    "render.blended_off_path": 8,
}
# Seconds of the stages in proportion to each other, measured on clips of 480 to 854 pixels.
SHARES = {
    "train": 53,
    "detail": 2,
    "reconstruction": 13,
    "novel_view": 18,
    "export": 13,
    "tracks": 1,
}
# Flags that all pictures and exports depend on.
DRAWING = ("render", "detail", "only", "without")


@dataclass(frozen=True)
class Settings:
    """Input, training and output of demo_pipeline.py."""

    background_path: Path = Path("results/sample/background_points.pt")
    """Track file of the static background."""
    foreground_path: Path | None = None
    """Track file of the movers; the file beside the background's if not given."""
    video_path: Path | None = None
    """The clip; as the track file names it if not given."""
    output_dir: Path = Path("results/pipeline_demo")
    """Folder of the results."""
    holdout_every: int = 0
    """Keep frames t with t % N == N // 2 out of training, and score them; 0 keeps none."""
    num_epochs: float = 2.5
    """Passes over the training pixels."""
    train_seconds: float | None = None
    """Seconds of training, in place of num_epochs."""
    refine: bool = True
    """Move the meshes' vertices in training."""
    camera_path: Path | None = None
    """Views to render: transforms.json, nerfstudio's camera_path.json, or glTF (Blender)."""
    checkpoint: Path | None = None
    """A model.pt: render from it, without training."""
    preview: bool = False
    """A first look in a fraction of the time, without export."""
    save_frames: bool = False
    """Write PNGs beside each video."""
    trajectory: str = "spiral"
    """Path of the novel view video, such as "spiral radius=0.1; freeze 24"."""
    freeze_time: float | None = None
    """Frame at which the movers stand still in that video."""
    only: tuple[int, ...] = ()
    """Numbers of the movers to draw, as in labels/; all if not given."""
    without: tuple[int, ...] = ()
    """Numbers of the movers to leave out, with shadows."""
    stereo: str = ""
    """Stereoscopic videos, with commas between: sbs, half_sbs, top_bottom, anaglyph, vr180."""
    export: str = "glb"
    """Formats with commas between: glb, usdz, ply, obj, colmap, nerfstudio, depth; "" for none."""
    seed: int = 0
    """Seed of training."""
    view: bool = False
    """Open the live viewer: during training and after it, or on a checkpoint alone."""
    view_host: str = "127.0.0.1"
    """Address of the viewer; 0.0.0.0 lets other machines reach it."""
    view_port: int = 8080
    """Port of the viewer; the next free one if taken."""
    max_memory: float | None = None
    """GiB that the run may hold; most of the machine's if not given."""
    scale: Annotated[ScaleOptions, Plain(("scale_metres",))] = ScaleOptions()
    """The scene's size."""
    exposure: ExposureOptions = ExposureOptions()
    """Gain and shading of each frame."""
    mesh: MeshOptions = MeshOptions()
    """Meshes of the background."""
    mvs: StereoOptions = StereoOptions()
    """Dense depth by multi-view stereo."""
    movers: MoverOptions = MoverOptions()
    """Meshes of movers."""
    field: FieldOptions = FieldOptions()
    """Sizes of the colour field."""
    training: TrainingOptions = TrainingOptions()
    """Training of the colour field and of the meshes."""
    render: RenderOptions = RenderOptions()
    """Views of the trained scene."""
    detail: DetailOptions = DetailOptions()
    """Detail of the frames in views."""
    scene_mesh: ExportOptions = ExportOptions()
    """The exported mesh."""
    eyes: StereoVideoOptions = StereoVideoOptions()
    """Eyes of stereoscopic videos."""


def main() -> None:
    settings = parse_settings(
        Settings(
            background_path=Path("results/sample/background_points.pt"),
            foreground_path=None,
            video_path=None,
            output_dir=Path("results/pipeline_demo"),
            holdout_every=0,
            num_epochs=2.5,
            train_seconds=None,
            camera_path=None,
            checkpoint=None,
            save_frames=False,
            trajectory="spiral",
            stereo="",
            export="glb",
            seed=0,
        ),
        preset=PREVIEW,
    )
    check_settings(settings)
    ranks = join_ranks()
    with watch_memory(find_memory_limit(settings.max_memory)):
        if ranks.leads:
            run(settings, ranks)
        else:
            help_leader(settings, ranks)
    leave_ranks()


def check_settings(settings: Settings) -> None:
    """Refuses settings that cannot work, before any work is spent."""
    if settings.holdout_every < 0 or settings.holdout_every == 1:
        raise InputError("--holdout_every must be 0 (none) or at least 2")
    lengths = settings.num_epochs, 1.0 if settings.train_seconds is None else settings.train_seconds
    if not all(0 < length < float("inf") for length in lengths):
        raise InputError("--num_epochs and --train_seconds must be positive numbers")
    if settings.freeze_time is not None and not abs(settings.freeze_time) < _MOST_FRAMES:
        raise InputError("--freeze_time must be the number of a frame")
    if settings.only and settings.without:
        raise InputError("--only and --without exclude each other; give one of them")
    parse_path(settings.trajectory)
    parse_layouts(settings.stereo)
    settings.eyes.check()
    parse_formats(settings.export)


def help_leader(settings: Settings, ranks: Ranks) -> None:
    """The part of a process that torchrun started beside the one that leads."""
    try:
        help_training(ranks, settings.seed, choose_device(), gather_options(settings))
    except LostRank:
        sys.exit(1)  # the process that leads says it


def choose_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run(settings: Settings, ranks: Ranks = ALONE) -> None:
    """The method, stage by stage; finished stages of an earlier run are reused.

    Args:
        ranks: the processes of this run; those beside this one help with training.
    """
    out = claim_output_dir(settings.output_dir, __file__)
    device = choose_device()
    progress = ProgressBars()
    memory = find_memory_limit(settings.max_memory)
    script = parse_path(settings.trajectory)
    with Meter() as loading:
        paths = settings.background_path, settings.foreground_path, settings.video_path
        inputs = load_inputs(*paths, settings.holdout_every, memory, settings.scale)
        scene = None
        if settings.checkpoint is not None:
            scene = load_model(settings, inputs, device)
            scene = add_details(scene, settings.checkpoint, settings.detail, progress)
    script.check(len(inputs.frames))
    clip = PathDefaults(inputs.tracks.width, inputs.tracks.height, inputs.tracks.fps)
    views = None if settings.camera_path is None else read_path(settings.camera_path, clip)
    if scene is not None:
        scene = keep_chosen(settings, scene)
    else:
        check_movers(settings, find_numbers(inputs))
    warn_of_need(needed_memory(inputs.size), memory, progress)
    stages = Stages(out, Origin(__file__, settings, inputs.files, {"device": device}), progress)
    stages.expect(choose_shares(settings))
    viewer = start_viewer(settings, inputs) if settings.view else None
    if viewer is not None and scene is not None and views is None:
        ranks.agree(None)  # the other processes end
        viewer.show(scene)
        release_folders()
        return viewer.run()

    metrics = {"metres_per_unit_of_the_tracks": inputs.scale} if settings.scale.scale_metres else {}
    history = None
    if scene is None:
        circumstances = TrainingRun(settings.seed, device, None, viewer, ranks, out)
        scene, history = make_scene(settings, inputs, stages, circumstances)
        metrics |= describe_training(history)
    ranks.agree(None)  # the other processes end
    if viewer is not None:
        viewer.show(scene)
    metrics |= make_outputs(settings, inputs, scene, stages, views)

    files = {"camera path": settings.camera_path, "model": settings.checkpoint}
    config = stages.describe(run, files)
    write_json(out / "config.json", config)
    save_transforms(out / "transforms.json", scene.cameras, list(range(len(scene.cameras))))
    metrics |= describe_cost(stages, loading)
    write_json(out / "metrics.json", metrics)
    page = write_page(settings, inputs, scene, metrics, config, history)
    print(summarise_run(out, metrics, page))
    if viewer is not None:
        release_folders()  # another run may use the results while the viewer goes on
        print(f"the viewer goes on at {viewer.url} until Ctrl-C")
        viewer.run()
    return None


def choose_shares(settings: Settings) -> dict[str, float]:
    """The stages that a run has, with their shares of its time; none where training has a time of
    its own."""
    if settings.train_seconds is not None:
        return {}
    shares = dict(SHARES, train=SHARES["train"] * settings.num_epochs / Settings.num_epochs)
    # two eyes each
    shares["stereo"] = 2 * (SHARES["reconstruction"] + SHARES["novel_view"])
    left_out = set() if settings.checkpoint is None else {"train"}
    if settings.checkpoint is not None or not settings.detail.frames:
        left_out.add("detail")
    if not settings.stereo:
        left_out.add("stereo")
    if not choose_formats(settings):
        left_out.add("export")
    if settings.checkpoint is not None and settings.camera_path is not None:
        left_out |= {"reconstruction", "novel_view"}
    return {name: share for name, share in shares.items() if name not in left_out}


def find_numbers(inputs: ClipInputs) -> set[int]:
    """Numbers of the movers in the track file."""
    if inputs.movers is None:
        return set()
    labels = inputs.movers.label
    return {1} if labels is None else set(labels.unique().tolist())


def check_movers(settings: Settings, known: Collection[int]) -> None:
    """Refuses numbers of movers that the scene does not have.

    Raises:
        InputError: there is no mover of a number that is given.
    """
    for number in (*settings.only, *settings.without):
        if number not in known:
            have = ", ".join(map(str, sorted(known))) or "none"
            raise InputError(f"there is no mover {number}; the numbers of the movers: {have}")


def keep_chosen(settings: Settings, scene: Scene) -> Scene:
    """The scene with the movers that the settings ask for."""
    if not settings.only and not settings.without:
        return scene
    known = set() if scene.moving is None else set(scene.moving.meshes.numbers)
    check_movers(settings, known)
    return scene.keep_movers(settings.only or known - set(settings.without))


def load_model(settings: Settings, inputs: ClipInputs, device: torch.device) -> Scene:
    """The scene of the checkpoint or of this run, without detail.

    Raises:
        InputError: it is the scene of another clip.
    """
    path = settings.checkpoint or settings.output_dir / "model.pt"
    scene = load_scene(path, device, settings.render)
    check_same_clip(scene, path, inputs.tracks, settings.background_path)
    return scene


def make_scene(
    settings: Settings, inputs: ClipInputs, stages: Stages, circumstances: TrainingRun
) -> tuple[Scene, History]:
    """The trained scene of this run or of an earlier one, and the course of its training.

    Args:
        circumstances: without a checkpoint.
    """
    work = partial(train_model, settings, inputs, stages, circumstances)
    told = stages.make("train", stage_outputs("train"), work, TRAINING)
    scene = load_model(settings, inputs, circumstances.device)
    if settings.detail.frames:
        keep_details(settings, inputs, scene, stages)
    scene = add_details(scene, stages.folder / "model.pt", settings.detail, stages.progress)
    return keep_chosen(settings, scene), History(**told)


def keep_details(settings: Settings, inputs: ClipInputs, scene: Scene, stages: Stages) -> None:
    """Writes detail.pt beside the trained model."""
    path = settings.output_dir / "model.pt"
    work = partial(record_details, path, scene, inputs, settings.detail, stages.progress)
    uses = ("holdout_every", "detail.quality")
    stages.make("detail", stage_outputs("detail"), work, uses, {"model": path})


def start_viewer(settings: Settings, inputs: ClipInputs) -> LiveViewer:
    """The live viewer, which shows nothing until it gets a scene; prints its address."""
    viewer = open_viewer(
        inputs.tracks,
        settings.output_dir,
        host=settings.view_host,
        port=settings.view_port,
        has_movers=inputs.movers is not None,
    )
    is_local = settings.view_host in ("127.0.0.1", "localhost")
    reach = "this machine only" if is_local else "other machines too"
    print(f"viewer: open {viewer.url} in a browser (it is reached from {reach})", flush=True)
    return viewer


def train_model(
    settings: Settings,
    inputs: ClipInputs,
    stages: Stages,
    circumstances: TrainingRun,
) -> dict:
    """Trains the scene, with checkpoints, and writes model.pt; returns the course of training.

    Args:
        circumstances: without a checkpoint.
    """
    made_from = stages.origin.fingerprint([train_model], TRAINING)
    path = stages.folder / "checkpoint.pt"
    checkpoint = Checkpoint(path, hash_fingerprint(made_from), stages.progress)
    schedule = Schedule(settings.num_epochs, settings.train_seconds, refine=settings.refine)
    circumstances = replace(circumstances, checkpoint=checkpoint)
    options = gather_options(settings)
    scene, history = train_scene(inputs, schedule, circumstances, stages.progress, options)
    # Detail belongs to the model that it was made beside.
    (stages.folder / "detail.pt").unlink(missing_ok=True)
    save_scene(stages.folder / "model.pt", scene)
    checkpoint.remove()
    for left in stages.folder.glob("*_for_ranks.pt"):
        left.unlink()  # of a run that was killed
    return asdict(history)


def gather_options(settings: Settings) -> SceneOptions:
    """Options of the parts of the scene."""
    return SceneOptions(
        settings.exposure,
        settings.mesh,
        settings.mvs,
        settings.movers,
        settings.field,
        settings.training,
    )


def describe_training(history: History) -> dict:
    """Figures of training."""
    return {
        "training_psnr": history.psnr[-1] if history.psnr else None,
        "samples_per_second": history.samples / max(history.seconds, 1e-9),
    }


def describe_cost(stages: Stages, loading: Meter) -> dict:
    """Seconds and peak memory in GiB of each stage."""
    held = {"load": loading.peak_gib, **stages.memory()}
    known = [peak for peak in held.values() if peak is not None]
    return {
        "seconds": {"load": loading.seconds, **stages.seconds()},
        "peak_memory_gib_of_stages": held,
        "peak_memory_gib": max(known, default=None),
    }


def make_outputs(
    settings: Settings,
    inputs: ClipInputs,
    scene: Scene,
    stages: Stages,
    views: CameraPath | None,
) -> dict:
    """Writes videos and exports of a scene, each in a stage; returns their figures.

    Args:
        views: cameras to render. From a checkpoint nothing else is rendered.
    """
    out = stages.folder
    progress = stages.progress
    path = settings.checkpoint or out / "model.pt"
    model = {"model": path, "detail": path.with_name("detail.pt")}
    metrics = {}
    if settings.checkpoint is None or views is None:
        work = partial(reconstruct, out, scene, inputs, settings.save_frames, progress)
        uses = ("holdout_every", "save_frames", *DRAWING)
        outputs = stage_outputs("reconstruction")
        metrics |= stages.make("reconstruction", outputs, work, uses, model)

        script = parse_path(settings.trajectory)
        work = partial(render_script, settings, scene, script, progress)
        uses = ("trajectory", "freeze_time", "save_frames", *DRAWING)
        outputs = stage_outputs("novel_view", f"_{script.name}")
        metrics |= stages.make("novel_view", outputs, work, uses, model)
    if views is not None:
        files = {**model, "camera path": settings.camera_path}
        work = partial(render_given, out, scene, views, progress)
        outputs = stage_outputs("camera_path")
        metrics |= stages.make("camera_path", outputs, work, DRAWING, files)
    if settings.stereo:
        paths = gather_paths(settings, scene, views)
        work = partial(render_stereo, settings, scene, paths, progress)
        uses = ("stereo", "trajectory", "freeze_time", "eyes", *DRAWING)
        files = {**model, "camera path": settings.camera_path}
        layouts = parse_layouts(settings.stereo)
        outputs = [name_stereo_video(name, layout) for name in paths for layout in layouts]
        metrics |= stages.make("stereo", outputs, work, uses, files)
    if formats := choose_formats(settings):
        work = partial(export_model, settings, scene, inputs, stages, views)
        uses = ("holdout_every", "export", "scene_mesh", "training.mask_margin", *DRAWING)
        uses += ("scale_metres", "scale_between")
        files = dict(model)
        if "depth" in formats:
            uses += ("trajectory", "freeze_time")
            files["camera path"] = settings.camera_path
        metrics |= stages.make("export", stage_outputs("export"), work, uses, files)
    work = partial(write_track_overlay, out, inputs.frames, inputs.tracks, inputs.movers, progress)
    stages.make("tracks", stage_outputs("tracks"), work, ())
    return metrics


def build_path(settings: Settings, scene: Scene, script: PathScript) -> CameraPath:
    """Cameras of the novel view video."""
    clip = Clip(scene.cameras, scene.depth, scene.background.meshes.clearance)
    return script.build(clip, settings.freeze_time)


def render_script(settings: Settings, scene: Scene, script: PathScript, progress: Progress) -> dict:
    """Writes the novel view video."""
    views = build_path(settings, scene, script)
    path = settings.output_dir / f"novel_view_{script.name}.mp4"
    coverage = render_video(path, scene, views, script.fps, settings.save_frames, progress)
    write_camera_files(path.with_name(f"{path.stem}_path"), views, script.fps or scene.fps)
    return {"novel_view_coverage": coverage}


def render_given(out: Path, scene: Scene, views: CameraPath, progress: Progress) -> dict:
    """Writes the video of a given camera path."""
    path = out / "novel_view.mp4"
    coverage = render_video(path, scene, views, save_frames=True, progress=progress)
    write_camera_files(out / "novel_view_path", views, scene.fps)
    return {"camera_path_coverage": coverage}


def choose_formats(settings: Settings) -> list[str]:
    """The formats to export; views of a checkpoint have depth alone."""
    formats = parse_formats(settings.export)
    if settings.checkpoint is None or settings.camera_path is None:
        return formats
    return [name for name in formats if name == "depth"]


def gather_paths(
    settings: Settings, scene: Scene, views: CameraPath | None
) -> dict[str, CameraPath]:
    """Camera paths of the videos by their names, without suffix."""
    given = {} if views is None else {"novel_view": views}
    if settings.checkpoint is not None and given:
        return given
    script = parse_path(settings.trajectory)
    own = scene.cameras, [float(t) for t in range(len(scene.cameras))]
    return {
        "reconstruction": own,
        f"novel_view_{script.name}": build_path(settings, scene, script),
        **given,
    }


def render_stereo(
    settings: Settings, scene: Scene, paths: Mapping[str, CameraPath], progress: Progress
) -> dict:
    """Writes the stereoscopic twins of the videos."""
    layouts = parse_layouts(settings.stereo)
    script = parse_path(settings.trajectory)
    figures = {}
    for name, path in paths.items():
        fps = script.fps if name.endswith(f"_{script.name}") else None
        figures[name] = write_stereo_videos(
            settings.output_dir, name, scene, path, layouts, fps, settings.eyes, progress
        )
    return {"stereo": figures}


def export_model(
    settings: Settings,
    scene: Scene,
    inputs: ClipInputs,
    stages: Stages,
    views: CameraPath | None,
) -> dict:
    """Writes the scene for other programs, and scores the exported mesh."""
    margin = settings.training.mask_margin
    footage = gather_footage(scene, inputs.frames, inputs.not_static, margin)
    paths = gather_paths(settings, scene, views)
    script = parse_path(settings.trajectory)
    rates = {f"novel_view_{script.name}": script.fps or scene.fps}
    unit = "the scene's own" if settings.scale.scale_metres is None else "metres"
    source = ExportSource(scene, footage, inputs.tracks, settings.scene_mesh, paths, rates, unit)
    formats = choose_formats(settings)
    return export_and_score(source, stages.folder, formats, inputs.held_out, stages.progress)


def place_mover_figures(settings: Settings) -> Path:
    """The figures that foreground_points.py writes beside its track file."""
    path = settings.foreground_path or settings.background_path
    return path.with_name("foreground_metrics.json")


def write_page(
    settings: Settings,
    inputs: ClipInputs,
    scene: Scene,
    metrics: dict,
    config: dict,
    history: History | None,
) -> Path:
    """Writes the charts and index.html; returns the path of the page."""
    out = settings.output_dir
    world = gather_world(inputs.tracks, inputs.movers, inputs.frames)
    scores = metrics.get("frames", [])
    charts = write_charts(out, inputs.tracks, world, scores, inputs.held_out, history)
    tracking = read_figures(settings.background_path.with_name("background_metrics.json"))
    moving = {} if inputs.movers is None else read_figures(place_mover_figures(settings))
    title = settings.background_path.resolve().parent.name
    report = Report(
        title, world, scene.depth, metrics, config, tracking, inputs.held_out, charts, moving
    )
    return write_report(out, report)


if __name__ == "__main__":
    run_script(main)
