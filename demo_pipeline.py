"""Track files + video -> trained scene, rebuilt video, novel views, figures and a page, in
results/pipeline_demo."""

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # idle OpenMP threads must not spin beside numba's

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from models.clip import save_transforms
from models.export import ExportSource, export_and_score, gather_footage, parse_formats
from models.field import FieldOptions
from models.movers import MoverOptions
from models.paths import CameraPath, Clip, PathScript, parse_path, read_path
from models.render import Scene, load_scene, save_scene
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
    Checkpoint,
    InputError,
    Meter,
    Origin,
    Progress,
    ProgressBars,
    Stages,
    check_output_dir,
    describe_run,
    find_memory_limit,
    fingerprint,
    hash_fingerprint,
    parse_settings,
    read_figures,
    run_script,
    stage_outputs,
    summarise_run,
    warn_of_need,
    watch_memory,
    write_json,
)
from models.surface import MeshOptions, StereoOptions
from models.training import (
    ClipInputs,
    History,
    SceneOptions,
    Schedule,
    TrainingOptions,
    TrainingRun,
    check_same_clip,
    load_inputs,
    needed_memory,
    train_scene,
)

TRAINING = ("holdout_every", "num_epochs", "train_seconds", "refine", "seed")
TRAINING += ("mesh", "stereo", "movers", "field", "training")
"""Settings that the model depends on."""


@dataclass(frozen=True)
class Settings:
    """What to load, how long to train, what to render."""

    background_path: Path = Path("results/sample/background_points.pt")
    """Track file of the static background."""
    foreground_path: Path | None = None
    """Track file of the movers; foreground_points.pt beside the background's, where there is one,
    if not given."""
    video_path: Path | None = None
    """The clip; the one that the track file names if not given."""
    output_dir: Path = Path("results/pipeline_demo")
    """Where to write."""
    holdout_every: int = 0
    """Keep frames t with t % N == N // 2 out of meshes and training, and score them; 0 keeps
    none."""
    num_epochs: float = 6.0
    """Passes over the training pixels."""
    train_seconds: float | None = None
    """Train so many seconds instead of num_epochs."""
    refine: bool = True
    """Move the meshes' vertices to where the training pixels agree on colours."""
    camera_path: Path | None = None
    """A transforms.json of views to render."""
    checkpoint: Path | None = None
    """A model.pt: render from it, without training."""
    save_frames: bool = False
    """Write PNGs beside each video."""
    trajectory: str = "spiral"
    """Path of the novel view video, such as "spiral radius=0.1 turns=3; freeze 24; orbit"; see
    README.md."""
    freeze_time: float | None = None
    """Hold the movers at this frame in the novel view video."""
    export: str = "glb"
    """Formats to take the scene along in, with commas between: glb, ply, obj, colmap, nerfstudio;
    "" for none."""
    seed: int = 0
    """Seed of training."""
    view: bool = False
    """Open the live viewer: while training and after it, or on a checkpoint alone."""
    view_host: str = "127.0.0.1"
    """Address of the viewer; 127.0.0.1 is reached from this machine only, 0.0.0.0 from any."""
    view_port: int = 8080
    """Port of the viewer; the next free one if taken."""
    max_memory: float | None = None
    """GiB to stay within; most of the machine's if not given."""
    mesh: MeshOptions = MeshOptions()
    """How meshes are built."""
    stereo: StereoOptions = StereoOptions()
    """How dense depth is found."""
    movers: MoverOptions = MoverOptions()
    """How the meshes of movers are built."""
    field: FieldOptions = FieldOptions()
    """Sizes of the colour field."""
    training: TrainingOptions = TrainingOptions()
    """How the colour field and the meshes are trained."""


def scene_options(settings: Settings) -> SceneOptions:
    """The options of all parts of a scene."""
    own = settings
    return SceneOptions(own.mesh, own.stereo, own.movers, own.field, own.training)


def main() -> None:
    settings = parse_settings(Settings())
    check(settings)
    with watch_memory(find_memory_limit(settings.max_memory)):
        run(settings)


def run(settings: Settings) -> None:
    """All stages, each used again where it was finished before."""
    output_dir = check_output_dir(settings.output_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = None if settings.camera_path is None else read_path(settings.camera_path)
    progress = ProgressBars()
    script = parse_path(settings.trajectory)
    memory = settings.max_memory
    with Meter() as loading:
        paths = settings.background_path, settings.foreground_path, settings.video_path
        inputs = load_inputs(*paths, settings.holdout_every, find_memory_limit(memory))
        scene = None if settings.checkpoint is None else load_model(settings, inputs, device)
    stages = Stages(output_dir, Origin(__file__, settings, inputs.files), progress)
    script.check(len(inputs.frames))
    warn_of_need(needed_memory(inputs.frames), find_memory_limit(memory), progress)
    viewer = start_viewer(settings, inputs) if settings.view else None
    if viewer is not None and scene is not None and path is None:
        viewer.show(scene)
        return viewer.run()
    metrics = {}
    history = None
    if scene is None:
        metrics, history = trained(settings, inputs, device, stages, viewer)
        scene = load_model(settings, inputs, device)
    if viewer is not None:
        viewer.show(scene)
    own = {"camera path": settings.camera_path, "model": settings.checkpoint}
    made_from = fingerprint(__file__, {}, {**inputs.files, **own}, [run])
    config = describe_run(settings, device, made_from)
    write_json(output_dir / "config.json", config)
    save_transforms(output_dir / "transforms.json", scene.cameras, list(range(len(scene.cameras))))
    metrics |= shown(settings, inputs, scene, script, path, stages)
    metrics["seconds"] = {"load": loading.seconds, **stages.seconds()}
    metrics["peak_memory_gib_of_stages"] = held = {"load": loading.peak_gib, **stages.memory()}
    metrics["peak_memory_gib"] = max(
        (peak for peak in held.values() if peak is not None), default=None
    )
    write_json(output_dir / "metrics.json", metrics)
    print(
        summarise_run(output_dir, metrics, page(settings, inputs, scene, metrics, config, history))
    )
    if viewer is not None:
        print(f"the viewer goes on at {viewer.url} until Ctrl-C")
        viewer.run()


def check(settings: Settings) -> None:
    """Refuses settings that cannot work, before anything is done."""
    if settings.holdout_every < 0 or settings.holdout_every == 1:
        raise InputError("--holdout_every must be 0 (none) or at least 2")
    lengths = settings.num_epochs, 1.0 if settings.train_seconds is None else settings.train_seconds
    if not all(0 < length < float("inf") for length in lengths):
        raise InputError("--num_epochs and --train_seconds must be positive numbers")
    if settings.freeze_time is not None and not abs(settings.freeze_time) < 1e9:
        raise InputError("--freeze_time must be the number of a frame")
    parse_path(settings.trajectory)
    parse_formats(settings.export)


def load_model(settings: Settings, inputs: ClipInputs, device: torch.device) -> Scene:
    """The scene trained now or before, if it is one of this clip."""
    path = settings.checkpoint or settings.output_dir / "model.pt"
    scene = load_scene(path, device)
    check_same_clip(scene, path, inputs.tracks, settings.background_path)
    return scene


def start_viewer(settings: Settings, inputs: ClipInputs) -> LiveViewer:
    """The live viewer, which shows nothing until it is given a scene; says where it is."""
    viewer = open_viewer(
        inputs.tracks,
        settings.output_dir,
        host=settings.view_host,
        port=settings.view_port,
        has_movers=inputs.movers is not None,
    )
    reach = (
        "this machine only"
        if settings.view_host in ("127.0.0.1", "localhost")
        else "other machines too"
    )
    print(f"viewer: open {viewer.url} in a browser (it is reached from {reach})", flush=True)
    return viewer


def trained(
    settings: Settings,
    inputs: ClipInputs,
    device: torch.device,
    stages: Stages,
    viewer: LiveViewer | None,
) -> tuple[dict, History]:
    """Writes model.pt, with checkpoints on the way; returns figures and how training went, now or
    in an earlier run."""
    out = settings.output_dir
    origin = Origin(__file__, settings, inputs.files, {"device": device})
    made_from = origin.fingerprint([train_scene, save_scene], TRAINING)

    def work() -> dict:
        checkpoint = Checkpoint(out / "checkpoint.pt", hash_fingerprint(made_from), stages.progress)
        schedule = Schedule(settings.num_epochs, settings.train_seconds, refine=settings.refine)
        run = TrainingRun(settings.seed, device, checkpoint, viewer)
        scene, history = train_scene(
            inputs, schedule, run, stages.progress, scene_options(settings)
        )
        save_scene(out / "model.pt", scene)
        checkpoint.remove()
        return asdict(history)

    history = History(**stages.run("train", made_from, stage_outputs("train"), work))
    rate = history.samples / max(history.seconds, 1e-9)
    return {
        "training_psnr": history.psnr[-1] if history.psnr else None,
        "samples_per_second": rate,
    }, history


def shown(
    settings: Settings,
    inputs: ClipInputs,
    scene: Scene,
    script: PathScript,
    path: CameraPath | None,
    stages: Stages,
) -> dict:
    """Writes videos and exports of a scene, each a stage; returns the figures."""
    out = settings.output_dir
    model = settings.checkpoint or settings.output_dir / "model.pt"
    metrics = {}
    progress = stages.progress

    def stage(
        name: str, work: Callable[[], dict | None], *uses: str, kind: str = "", **files: Path
    ) -> None:
        outputs = stage_outputs(name, kind)
        metrics.update(stages.make(name, outputs, work, uses, {"model": model, **files}))

    def exported() -> dict:
        footage = gather_footage(scene, inputs.frames, inputs.masks, settings.training.mask_margin)
        source = ExportSource(scene, footage, inputs.tracks)
        formats = parse_formats(settings.export)
        return export_and_score(source, out, formats, inputs.held_out, progress)

    if settings.checkpoint is None or path is None:
        work = partial(reconstruct, out, scene, inputs, settings.save_frames, progress)
        stage("reconstruction", work, "holdout_every", "save_frames")
        work = partial(render_script, settings, scene, script, progress)
        own = ("trajectory", "freeze_time", "save_frames")
        stage("novel_view", work, *own, kind=f"_{script.name}")
    if path is not None:
        work = partial(render_path, settings, scene, path, progress)
        stage("camera_path", work, **{"camera path": settings.camera_path})
    if settings.checkpoint is None or path is None:
        stage("export", exported, "holdout_every", "export")
    work = partial(write_track_overlay, out, inputs.frames, inputs.tracks, inputs.movers, progress)
    stage("tracks", work)
    return metrics


def render_script(settings: Settings, scene: Scene, script: PathScript, progress: Progress) -> dict:
    """The novel view video."""
    clip = Clip(scene.cameras, scene.depth, scene.background.meshes.clearance)
    views = script.build(clip, settings.freeze_time)
    path = settings.output_dir / f"novel_view_{script.name}.mp4"
    save_frames = settings.save_frames
    coverage = render_video(path, scene, views, script.fps, save_frames, progress)
    return {"novel_view_coverage": coverage}


def render_path(settings: Settings, scene: Scene, views: CameraPath, progress: Progress) -> dict:
    """The video of a camera path that was given."""
    path = settings.output_dir / "novel_view.mp4"
    coverage = render_video(path, scene, views, save_frames=True, progress=progress)
    return {"camera_path_coverage": coverage}


def page(
    settings: Settings,
    inputs: ClipInputs,
    scene: Scene,
    metrics: dict,
    config: dict,
    history: History | None,
) -> Path:
    """Writes charts and index.html; returns its path."""
    out = settings.output_dir
    tracks = inputs.tracks
    held_out = inputs.held_out
    world = gather_world(tracks, inputs.movers, inputs.frames)
    charts = write_charts(out, tracks, world, metrics.get("frames", []), held_out, history)
    told = read_figures(settings.background_path.with_name("background_metrics.json"))
    title = settings.background_path.resolve().parent.name
    return write_report(
        out, Report(title, world, scene.depth, metrics, config, told, held_out, charts)
    )


if __name__ == "__main__":
    run_script(main)
