"""Track files + video -> trained scene, rebuilt video, novel views and figures, in results/pipeline_demo."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle OpenMP threads must not spin beside numba's

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

from models.cameras import save_transforms
from models.encoding import ColorField, HashGrid
from models.errors import InputError, run_script
from models.export import export_and_score, footage_of, parse_formats
from models.exposure import estimate_exposure
from models.figures import write_charts
from models.masks import dilate, read_masks
from models.moving import MovingMeshPipeline, canonical_normalization, sample_movers
from models.path_script import parse_path
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline, normalization
from models.report import Report, write_report
from models.report_world import gather_world
from models.results import (
    heldout_psnr,
    picture_function,
    read_json,
    reconstruct,
    render_video,
    track_overlay,
    write_json,
)
from models.run_record import configuration, peak_memory, stage_bars, summary, timed
from models.scene import Layer, MovingLayer, Scene, load_scene, save_scene
from models.tools import sample_points
from models.tracks import Tracks, load_tracks
from models.training import History, Schedule, train
from models.trajectories import Clip, from_file
from models.video import check_output_dir, read_video
from models.viewer import Viewer

LOG2_ENTRIES = 19
"""Entries of each level of the hash grid, as a power of 2."""
MOVER_EPOCHS = 40
"""Passes over the movers' pixels, which are few."""
MOVER_SHARE = 0.3
"""Seconds of training for the movers as a share of train_seconds."""
MASK_MARGIN = 3
"""Pixels by which masks are grown before background colours are learned."""


@dataclass(frozen=True)
class Settings:
    """What to load, how long to train, what to render."""

    background_path: Path = Path("results/sample/background_points.pt")
    """Track file of the static background."""
    foreground_path: Path | None = None
    """Track file of the movers; foreground_points.pt beside the background's, where there is one, if not given."""
    video_path: Path | None = None
    """The clip; the one that the track file names if not given."""
    output_dir: Path = Path("results/pipeline_demo")
    """Where to write."""
    holdout_every: int = 0
    """Keep frames t with t % N == N // 2 out of meshes and training, and score them; 0 keeps none."""
    num_epochs: float = 6.0
    """Passes over the training pixels."""
    train_seconds: float | None = None
    """Train so many seconds instead of num_epochs."""
    camera_path: Path | None = None
    """A transforms.json of views to render."""
    checkpoint: Path | None = None
    """A model.pt: render from it, without training."""
    save_frames: bool = False
    """Write PNGs beside each video."""
    trajectory: str = "spiral"
    """Path of the novel view video, such as "spiral radius=0.1 turns=3; freeze 24; orbit"; see README.md."""
    freeze_time: float | None = None
    """Hold the movers at this frame in the novel view video."""
    export: str = "glb"
    """Formats to take the scene along in, with commas between: glb, ply, obj, colmap, nerfstudio; "" for none."""
    seed: int = 0
    """Seed of training."""
    view: bool = False
    """Open the live viewer: while training and after it, or on a checkpoint alone."""
    view_host: str = "127.0.0.1"
    """Address of the viewer; 127.0.0.1 is reached from this machine only, 0.0.0.0 from any."""
    view_port: int = 8080
    """Port of the viewer; the next free one if taken."""


def main() -> None:
    settings = tyro.cli(Settings, default=Settings())
    check(settings)
    output_dir = check_output_dir(settings.output_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = None if settings.camera_path is None else from_file(settings.camera_path)
    seconds: dict[str, float] = {}
    metrics: dict = {"seconds": seconds}
    with timed(seconds, "load"):
        tracks = load_tracks(settings.background_path)
        frames, masks = load_clip(settings, tracks)
        movers = load_movers(settings, tracks)
        scene = None if settings.checkpoint is None else load_checkpoint(settings, tracks, device)
        history = None
    script = parse_path(settings.trajectory)
    script.check(len(frames))
    held_out = held_out_frames(len(frames), settings.holdout_every)
    viewer = open_viewer(settings, tracks, movers) if settings.view else None
    if viewer is not None and scene is not None and path is None:
        viewer.render = picture_function(scene)
        return viewer.run()
    if scene is None:
        with timed(seconds, "train"):
            scene, history = train_scene(settings, tracks, movers, frames, masks, held_out, device, viewer)
        save_scene(output_dir / "model.pt", scene)
        metrics["training_psnr"] = history.psnr[-1] if history.psnr else None
        metrics["samples_per_second"] = history.samples / max(history.seconds, 1e-9)
    config = configuration(settings, device)
    write_json(output_dir / "config.json", config)
    save_transforms(output_dir / "transforms.json", scene.cameras, list(range(len(scene.cameras))))

    if settings.checkpoint is None or path is None:
        with timed(seconds, "reconstruction"):
            metrics |= reconstruct(output_dir, scene, frames, masks, held_out, settings.save_frames)
        with timed(seconds, "novel_view"):
            clip = Clip(scene.cameras, scene.depth, scene.background.meshes.clearance)
            views = script.build(clip, settings.freeze_time)
            name = f"novel_view_{script.name}"
            coverage = render_video(output_dir, scene, *views, name, settings.save_frames, script.fps)
            metrics["novel_view_coverage"] = coverage
    if path is not None:
        with timed(seconds, "camera_path"):
            metrics["camera_path_coverage"] = render_video(output_dir, scene, *path, "novel_view", True)
    if settings.checkpoint is None or path is None:
        with timed(seconds, "export"):
            footage = footage_of(scene, frames, None if masks is None else dilate(masks, MASK_MARGIN))
            metrics |= export_and_score(scene, output_dir, parse_formats(settings.export), footage, tracks, held_out)
    with timed(seconds, "tracks"):
        track_overlay(output_dir, frames, tracks, movers)
    metrics["peak_memory_gib"] = peak_memory()
    write_json(output_dir / "metrics.json", metrics)
    world = gather_world(tracks, movers, frames)
    charts = write_charts(output_dir, tracks, world, metrics.get("frames", []), held_out, history)
    told = read_json(settings.background_path.with_name("background_metrics.json"))
    title = settings.background_path.resolve().parent.name
    page = write_report(output_dir, Report(title, world, scene.depth, metrics, config, told, held_out, charts))
    print(summary(output_dir, metrics, page))
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
    parse_path(settings.trajectory)
    parse_formats(settings.export)


def load_clip(settings: Settings, tracks: Tracks) -> tuple[np.ndarray, np.ndarray | None]:
    """The frames that the tracks were made on, and the masks written beside the track file."""
    if tracks.layer != "background":
        raise InputError(f"{settings.background_path}: holds the {tracks.layer} layer; give a background track file")
    if settings.video_path is None and not tracks.video_path:
        raise InputError(f"{settings.background_path}: does not say which clip it was made from; give --video_path")
    path = settings.video_path or Path(tracks.video_path)
    indices = tracks.frame_indices
    stride = int(indices[1] - indices[0]) if len(indices) > 1 else 1
    video = read_video(path, int(indices[-1]) // stride + 1, stride, max(tracks.width, tracks.height))
    if len(video) != len(tracks) or (video.width, video.height) != (tracks.width, tracks.height):
        raise InputError(
            f"{path}: gives {len(video)} frames {video.width}x{video.height}, but {settings.background_path} was made "
            f"from {len(tracks)} frames {tracks.width}x{tracks.height}; give the same clip by --video_path"
        )
    folder = settings.background_path.parent / "masks"
    if not folder.is_dir():
        return video.frames, None
    return video.frames, read_masks(folder, len(tracks), tracks.width, tracks.height, np.arange(len(tracks)))


def load_checkpoint(settings: Settings, tracks: Tracks, device: torch.device) -> Scene:
    """The scene trained before, if it is one of this clip."""
    scene = load_scene(settings.checkpoint, device)
    cameras = scene.cameras
    if (len(cameras), cameras.width, cameras.height) != (len(tracks), tracks.width, tracks.height):
        raise InputError(
            f"{settings.checkpoint}: was trained on {len(cameras)} frames {cameras.width}x{cameras.height}, but "
            f"{settings.background_path} has {len(tracks)} frames {tracks.width}x{tracks.height}; give two of one clip"
        )
    return scene


def load_movers(settings: Settings, background: Tracks) -> Tracks | None:
    """The foreground's tracks; None where nothing moves or no file was made."""
    path = settings.foreground_path or settings.background_path.parent / "foreground_points.pt"
    if settings.foreground_path is None and not path.is_file():
        return None
    tracks = load_tracks(path)
    if len(tracks) != len(background) or (tracks.width, tracks.height) != (background.width, background.height):
        raise InputError(f"{path}: was made from another clip than {settings.background_path}; make both again")
    if tracks.num_tracks and (tracks.canonical is None or tracks.label is None):
        raise InputError(f"{path}: has no canonical coordinates and labels; make it with foreground_points.py")
    return tracks if tracks.num_tracks else None


def held_out_frames(num_frames: int, every: int) -> list[int]:
    """Frames kept out of training: the middle one of every ``every``."""
    return [t for t in range(num_frames) if every and t % every == every // 2]


def open_viewer(settings: Settings, tracks: Tracks, movers: Tracks | None) -> Viewer:
    """The live viewer, which shows nothing until it is given a scene; says where it is."""
    address = {"host": settings.view_host, "port": settings.view_port, "has_movers": movers is not None}
    viewer = Viewer(tracks.cameras, tracks.xyz[0], tracks.fps, settings.output_dir, **address)
    reach = "this machine only" if settings.view_host in ("127.0.0.1", "localhost") else "other machines too"
    print(f"viewer: open {viewer.url} in a browser (it is reached from {reach})", flush=True)
    return viewer


def train_scene(
    settings: Settings,
    tracks: Tracks,
    movers: Tracks | None,
    frames: np.ndarray,
    masks: np.ndarray | None,
    held_out: list[int],
    device: torch.device,
    viewer: Viewer | None = None,
) -> tuple[Scene, History]:
    """Meshes of the training frames, their pixels, and a colour field fitted to those of each layer."""
    training = sorted(set(range(len(frames))) - set(held_out))
    meshes = TriangleMeshPipeline.from_tracks(tracks, tqdm(training, desc="meshes", unit="frame"), masks)
    grown = None if masks is None else dilate(masks, MASK_MARGIN)
    random = np.random.default_rng(settings.seed)
    exposure = estimate_exposure(frames, tracks.xy.numpy(), tracks.visible.numpy(), training)
    pixels = sample_points(
        meshes, frames, grown, training, exposure, generator=random, progress=partial(stage_bars(), "pixels")
    )
    renderer = new_renderer(settings, normalization(tracks.cameras, meshes.vertices[meshes.used]), device=device)
    scene = Scene(tracks.cameras, tracks.fps, exposure, Layer(meshes, renderer))
    scored = partial(heldout_psnr, scene, frames, masks, held_out) if held_out else None
    schedule = Schedule(settings.num_epochs, settings.train_seconds)
    history = fit(renderer, pixels, meshes.vertices.numpy(), schedule, random, "background", scored, viewer, scene)
    if movers is None or masks is None:
        return scene, history
    moving = MovingMeshPipeline.from_tracks(movers, masks, training)
    if not moving.meshes:
        return scene, history
    pixels = sample_movers(moving, tracks.cameras, frames, masks, exposure)
    renderer = new_renderer(settings, *canonical_normalization(moving), device=device)
    seconds = None if settings.train_seconds is None else MOVER_SHARE * settings.train_seconds
    scene = replace(scene, moving=MovingLayer(moving, renderer))
    schedule = Schedule(max(settings.num_epochs, MOVER_EPOCHS), seconds)
    fit(renderer, pixels, None, schedule, random, "movers", None, viewer, scene)
    return scene, history


def new_renderer(
    settings: Settings, to_box: torch.Tensor, finest: int = 2048, *, device: torch.device
) -> WorldSpaceTrianglePipeline:
    """An untrained colour field over the box that ``to_box`` maps to."""
    generator = torch.Generator().manual_seed(settings.seed)
    grid = HashGrid(log2_entries=LOG2_ENTRIES, finest_resolution=finest, generator=generator)
    return WorldSpaceTrianglePipeline(ColorField(grid, generator=generator), to_box).to(device)


def fit(
    renderer: WorldSpaceTrianglePipeline,
    pixels,
    positions,
    schedule: Schedule,
    random,
    name: str,
    scored: Callable[[], float] | None,
    viewer: Viewer | None,
    scene: Scene,
) -> History:
    """Trains one layer's renderer on its pixels under a progress bar, and before the viewer's eyes."""
    bar_format = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    if viewer is not None:
        viewer.render = picture_function(scene)
    with tqdm(total=100, desc=f"training {name}", unit="%", bar_format=bar_format) as bar:

        def progress(share: float, text: str) -> None:
            bar.update(100 * share - bar.n)
            bar.set_postfix_str(text)
            if viewer is not None:
                viewer.panel.tell(f"training {name}: {100 * share:.0f} %, {text}")
                viewer.step(refresh=True)

        return train(renderer, pixels, positions, schedule, random, progress, scored)


if __name__ == "__main__":
    run_script(main)
