"""Track files + video -> trained scene, rebuilt video, novel views and figures, in results/pipeline_demo."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle OpenMP threads must not spin beside numba's

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

from models.cameras import Cameras, save_transforms
from models.checkpoints import Checkpoint
from models.encoding import ColorField, HashGrid
from models.errors import InputError, run_script
from models.exposure import estimate_exposure
from models.files import check_output_dir, write_json
from models.masks import dilate, read_masks
from models.moving import MovingMeshPipeline, canonical_normalization, sample_movers
from models.pipeline import TriangleMeshPipeline, WorldSpaceTrianglePipeline, normalization
from models.plots import loss_curve
from models.resources import Meter, memory_limit, warn_of_need, watched_memory
from models.results import reconstruct, render_video
from models.scene import Layer, MovingLayer, Scene, load_scene, save_scene
from models.stages import Stages, configuration, digest, fingerprint
from models.tools import MOST_SAMPLES, SAMPLE, sample_points
from models.tracks import Tracks, load_tracks
from models.training import History, Schedule, train
from models.trajectories import check_trajectory, from_file, make_trajectory
from models.video import read_video

LOG2_ENTRIES = 19
"""Entries of each level of the hash grid, as a power of 2."""
MOVER_EPOCHS = 30
"""Passes over the movers' pixels, which are few."""
MASK_MARGIN = 3
"""Pixels by which masks are grown before background colours are learned."""
BASE_MEMORY = 5 << 28
"""Bytes that the program takes whatever the clip."""
TRAINING = ("holdout_every", "num_epochs", "train_seconds", "seed")
"""Settings that the model depends on."""
RENDERING = ("holdout_every", "trajectory", "freeze_time", "save_frames")
"""Settings that the videos depend on, beside the model."""
RECONSTRUCTION = ("reconstruction.mp4", "mesh.mp4", "depth.mp4", "background_only.mp4", "foreground_only.mp4")
RECONSTRUCTION += ("frames/reconstruction", "frames/heldout")


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
    """Kind of the novel view video."""
    freeze_time: float | None = None
    """Hold the movers at this frame in the novel view video."""
    seed: int = 0
    """Seed of training."""
    max_memory: float | None = None
    """GiB to stay within; most of the machine's if not given."""


def main() -> None:
    settings = tyro.cli(Settings, default=Settings())
    check(settings)
    with watched_memory(memory_limit(settings.max_memory)):
        run(settings)


def run(settings: Settings) -> None:
    """All stages, each used again where it was finished before."""
    output_dir = check_output_dir(settings.output_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = None if settings.camera_path is None else from_file(settings.camera_path)
    stages, metrics = Stages(output_dir, report=print), {}
    with Meter() as loading:
        tracks = load_tracks(settings.background_path)
        frames, masks = load_clip(settings, tracks)
        movers = load_movers(settings, tracks)
    warn_of_need(needed_memory(frames), memory_limit(settings.max_memory), print)
    clip = {"clip": clip_path(settings, tracks), "masks": settings.background_path.parent / "masks"}
    held_out = held_out_frames(len(frames), settings.holdout_every)
    if settings.checkpoint is None:
        files = {**clip, "background": settings.background_path, "foreground": foreground_path(settings)}
        made_from = fingerprint(__file__, {**chosen(settings, *TRAINING), "device": device}, files)
        work = partial(train_model, settings, tracks, movers, frames, masks, held_out, device, digest(made_from))
        metrics |= stages.run("train", made_from, ("model.pt", "loss_curve.png"), work)
    scene = load_model(settings, tracks, device)
    write_json(output_dir / "config.json", configuration(settings, str(device)))
    save_transforms(output_dir / "transforms.json", scene.cameras, list(range(len(scene.cameras))))

    files = {**clip, "model": settings.checkpoint or output_dir / "model.pt", "camera path": settings.camera_path}
    made_from = fingerprint(__file__, chosen(settings, *RENDERING), files)
    if settings.checkpoint is None or path is None:
        work = partial(reconstruct, output_dir, scene, frames, masks, held_out, settings.save_frames)
        metrics |= stages.run("reconstruction", made_from, RECONSTRUCTION, work)
        name = f"novel_view_{settings.trajectory}"
        work = partial(render_trajectory, settings, scene, name)
        metrics |= stages.run("novel_view", made_from, (f"{name}.mp4", f"frames/{name}"), work)
    if path is not None:
        work = partial(render_path, settings, scene, path)
        metrics |= stages.run("camera_path", made_from, ("novel_view.mp4", "frames/novel_view"), work)
    metrics["seconds"] = {"load": loading.seconds, **stages.seconds()}
    metrics["peak_memory_gib_of_stages"] = memory = {"load": loading.peak_gib, **stages.memory()}
    metrics["peak_memory_gib"] = max((peak for peak in memory.values() if peak is not None), default=None)
    write_json(output_dir / "metrics.json", metrics)
    summarise(output_dir, metrics)


def needed_memory(frames: np.ndarray) -> int:
    """About how many bytes a run holds: the program and the fields, frames and masks, and the training pixels."""
    pixels = frames[..., 0].size
    return BASE_MEMORY + 4 * pixels + SAMPLE.itemsize * min(pixels, MOST_SAMPLES)


def check(settings: Settings) -> None:
    """Refuses settings that cannot work, before anything is done."""
    if settings.holdout_every < 0 or settings.holdout_every == 1:
        raise InputError("--holdout_every must be 0 (none) or at least 2")
    lengths = settings.num_epochs, 1.0 if settings.train_seconds is None else settings.train_seconds
    if not all(0 < length < float("inf") for length in lengths):
        raise InputError("--num_epochs and --train_seconds must be positive numbers")
    if settings.freeze_time is not None and not abs(settings.freeze_time) < 1e9:
        raise InputError("--freeze_time must be the number of a frame")
    check_trajectory(settings.trajectory)


def chosen(settings: Settings, *names: str) -> dict[str, object]:
    """Some of the settings."""
    return {name: getattr(settings, name) for name in names}


def clip_path(settings: Settings, tracks: Tracks) -> Path:
    """The clip given, or the one that the track file names."""
    return settings.video_path or Path(tracks.video_path)


def foreground_path(settings: Settings) -> Path:
    """The movers' file given, or the one beside the background's."""
    return settings.foreground_path or settings.background_path.parent / "foreground_points.pt"


def load_clip(settings: Settings, tracks: Tracks) -> tuple[np.ndarray, np.ndarray | None]:
    """The frames that the tracks were made on, and the masks written beside the track file."""
    if tracks.layer != "background":
        raise InputError(f"{settings.background_path}: holds the {tracks.layer} layer; give a background track file")
    if settings.video_path is None and not tracks.video_path:
        raise InputError(f"{settings.background_path}: does not say which clip it was made from; give --video_path")
    path = clip_path(settings, tracks)
    indices = tracks.frame_indices.numpy()
    stride = max(1, int(np.gcd.reduce(indices)))
    video = read_video(
        path,
        int(indices[-1]) // stride + 1,
        stride,
        max(tracks.width, tracks.height),
        keep=indices,
        memory=memory_limit(settings.max_memory),
    )
    if len(video) != len(tracks) or (video.width, video.height) != (tracks.width, tracks.height):
        raise InputError(
            f"{path}: gives {len(video)} frames {video.width}x{video.height}, but {settings.background_path} was made "
            f"from {len(tracks)} frames {tracks.width}x{tracks.height}; give the same clip by --video_path"
        )
    folder = settings.background_path.parent / "masks"
    if not folder.is_dir():
        return video.frames, None
    return video.frames, read_masks(folder, len(tracks), tracks.width, tracks.height, np.arange(len(tracks)))


def load_model(settings: Settings, tracks: Tracks, device: torch.device) -> Scene:
    """The scene trained now or before, if it is one of this clip."""
    scene = load_scene(settings.checkpoint or settings.output_dir / "model.pt", device)
    cameras = scene.cameras
    if (len(cameras), cameras.width, cameras.height) != (len(tracks), tracks.width, tracks.height):
        raise InputError(
            f"{settings.checkpoint}: was trained on {len(cameras)} frames {cameras.width}x{cameras.height}, but "
            f"{settings.background_path} has {len(tracks)} frames {tracks.width}x{tracks.height}; give two of one clip"
        )
    return scene


def load_movers(settings: Settings, background: Tracks) -> Tracks | None:
    """The foreground's tracks; None where nothing moves or no file was made."""
    path = foreground_path(settings)
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


def train_model(
    settings: Settings,
    tracks: Tracks,
    movers: Tracks | None,
    frames: np.ndarray,
    masks: np.ndarray | None,
    held_out: list[int],
    device: torch.device,
    made_from: str,
) -> dict:
    """Trains, with checkpoints on the way, and writes model.pt and the loss curve."""
    out = settings.output_dir
    checkpoint = Checkpoint(out / "checkpoint.pt", made_from, report=print)
    scene, history = train_scene(settings, tracks, movers, frames, masks, held_out, device, checkpoint)
    save_scene(out / "model.pt", scene)
    loss_curve(out / "loss_curve.png", history.steps, history.psnr)
    checkpoint.remove()
    return {
        "training_psnr": history.psnr[-1] if history.psnr else None,
        "samples_per_second": history.samples / max(history.seconds, 1e-9),
    }


def render_trajectory(settings: Settings, scene: Scene, name: str) -> dict:
    """The novel view video."""
    views, times = make_trajectory(
        settings.trajectory, scene.cameras, scene.depth, len(scene.cameras), freeze_time=settings.freeze_time
    )
    coverage = render_video(settings.output_dir, scene, views, times, name, settings.save_frames)
    return {"novel_view_coverage": coverage}


def render_path(settings: Settings, scene: Scene, path: tuple[Cameras, list[float]]) -> dict:
    """The video of a camera path that was given."""
    return {"camera_path_coverage": render_video(settings.output_dir, scene, *path, "novel_view", True)}


def train_scene(
    settings: Settings,
    tracks: Tracks,
    movers: Tracks | None,
    frames: np.ndarray,
    masks: np.ndarray | None,
    held_out: list[int],
    device: torch.device,
    checkpoint: Checkpoint | None = None,
) -> tuple[Scene, History]:
    """Meshes of the training frames, their pixels, and a colour field fitted to those of each layer."""
    training = sorted(set(range(len(frames))) - set(held_out))
    meshes = TriangleMeshPipeline.from_tracks(tracks, training, masks)
    grown = None if masks is None else dilate(masks, MASK_MARGIN)
    random = np.random.default_rng(settings.seed)
    exposure = estimate_exposure(frames, tracks.xy.numpy(), tracks.visible.numpy(), training)
    pixels = sample_points(meshes, frames, grown, training, exposure, generator=random)
    to_box = normalization(tracks.cameras, meshes.vertices[meshes.used])
    renderer, history = fit(
        settings, pixels, meshes.vertices.numpy(), to_box, random, device, "background", checkpoint=checkpoint
    )
    scene = Scene(tracks.cameras, tracks.fps, exposure, Layer(meshes, renderer))
    if movers is None or masks is None:
        return scene, history
    moving = MovingMeshPipeline.from_tracks(movers, masks, training)
    if not moving.meshes:
        return scene, history
    pixels = sample_movers(moving, tracks.cameras, frames, masks, exposure)
    to_box, finest = canonical_normalization(moving)
    renderer, _ = fit(settings, pixels, None, to_box, random, device, "movers", finest, checkpoint)
    return replace(scene, moving=MovingLayer(moving, renderer)), history


def fit(
    settings: Settings,
    pixels,
    positions,
    to_box: torch.Tensor,
    random,
    device: torch.device,
    name: str,
    finest: int = 2048,
    checkpoint: Checkpoint | None = None,
):
    """A renderer trained on one layer's pixels, and how training went."""
    generator = torch.Generator().manual_seed(settings.seed)
    field = ColorField(
        HashGrid(log2_entries=LOG2_ENTRIES, finest_resolution=finest, generator=generator), generator=generator
    )
    renderer = WorldSpaceTrianglePipeline(field, to_box).to(device)
    share = 1.0 if name == "background" else 0.3
    seconds = None if settings.train_seconds is None else share * settings.train_seconds
    epochs = settings.num_epochs if name == "background" else max(settings.num_epochs, MOVER_EPOCHS)
    schedule = Schedule(epochs, seconds)
    bar_format = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=100, desc=f"training {name}", unit="%", bar_format=bar_format) as bar:

        def progress(share: float, text: str) -> None:
            bar.update(100 * share - bar.n)
            bar.set_postfix_str(text)

        history = train(renderer, pixels, positions, schedule, random, progress, checkpoint, name)
    return renderer, history


def summarise(output_dir: Path, metrics: dict) -> None:
    """One block: figures, and where to look."""
    for name in ("training_frames", "heldout_frames"):
        if name in metrics:
            print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in metrics[name].items()))
    print(f"seconds: {metrics['seconds']}, peak memory {metrics['peak_memory_gib']} GiB")
    print(f"results are in {output_dir}/: " + ", ".join(sorted(p.name for p in output_dir.iterdir())))


if __name__ == "__main__":
    run_script(main)
