"""One layer's training on several processes: rank 0 hands its layer over in a file, the other ranks
take it, and each keeps the pixels of its own frames.

All ranks must see the output folder, such as on a shared file system.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from models.cameras import Cameras
from models.field import ChangeOptions
from models.movers import MovingPixels
from models.run import Ranks, load_tensors, pack_value, unpack_value, write_tensors
from models.tools import PixelSource, TrainingPixels
from models.training.checkpoints import Checkpoint
from models.training.loop import LayerTraining, train
from models.training.new_field import FieldSize, build_renderer
from models.training.options import SceneOptions, Schedule

# Kinds of training pixels by name.
_KINDS: dict[str, type] = {"background": TrainingPixels, "movers": MovingPixels}


def share_training(
    path: Path,
    layer: LayerTraining,
    size: FieldSize,
    cameras: Cameras,
    schedule: Schedule,
    checkpoint: Checkpoint | None,
) -> LayerTraining:
    """The part of rank 0 in a layer's training, after it has handed the layer to the other ranks.

    Args:
        path: the file to hand the layer over in.
        size: that the layer's field was built for.
        cameras: of the clip.
        checkpoint: from which all ranks go on.
    """
    content = {
        "pixels": {name: _pack(value) for name, value in vars(layer.pixels).items()},
        "vertices": layer.vertices,
        "name": layer.name,
        "size": asdict(size),
        "cameras": vars(cameras),
        "schedule": asdict(schedule),
    }
    write_tensors(path, pack_value(content))
    task = {"file": str(path), "checkpoint": None}
    if checkpoint is not None:
        task |= {"checkpoint": str(checkpoint.path), "made_from": checkpoint.made_from}
    layer.ranks.agree(task)
    return _keep_own(layer)


def _pack(value: object) -> object:
    """A value with arrays as files hold them: fields of a structured array are copied."""
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value


def help_training(
    ranks: Ranks, seed: int, device: torch.device, options: SceneOptions = SceneOptions()
) -> None:
    """The part of a rank other than 0: trains the layers that rank 0 hands over, until it has no
    more.

    Args:
        seed: of the run, as rank 0 has it.
    """
    while (task := ranks.agree()) is not None:
        content = unpack_value(load_tensors(Path(task["file"]), mapped=True), {})
        checkpoint = None
        if task["checkpoint"] is not None:
            path = Path(task["checkpoint"])
            checkpoint = Checkpoint(path, task["made_from"], ranks=ranks)
        layer = replace(_read_layer(content, seed, device, options), ranks=ranks)
        random = np.random.default_rng([seed, ranks.number])
        schedule = Schedule(**content["schedule"])
        train(_keep_own(layer), schedule, random, checkpoint, options=options.training)


def _read_layer(
    content: dict, seed: int, device: torch.device, options: SceneOptions
) -> LayerTraining:
    """A layer as rank 0 has it, without its scores."""
    stored = content["size"]
    size = FieldSize(**{**stored, "changes": ChangeOptions(**stored["changes"])})
    cameras = Cameras(**content["cameras"])
    generator = torch.Generator().manual_seed(seed)
    renderer = build_renderer(size, cameras, generator, options.field, options.training)
    pixels = _KINDS[content["name"]](**content["pixels"])
    vertices = content["vertices"]
    # training moves them: in memory, not in mapped pages
    own = None if vertices is None else vertices.copy()
    return LayerTraining(renderer.to(device), pixels, own, content["name"])


def _keep_own(layer: LayerTraining) -> LayerTraining:
    """The layer with the pixels of the rank's own frames."""
    own = _select_frames(layer.pixels, layer.ranks)
    return replace(layer, pixels=own, total_pixels=len(layer.pixels))


def _select_frames(pixels: PixelSource, ranks: Ranks) -> PixelSource:
    """The pixels of every n-th frame; all pixels if there are fewer frames than ranks."""
    frames = np.unique(pixels.frame)
    own = frames[ranks.number :: ranks.count] if len(frames) >= ranks.count else frames
    return pixels.select(np.isin(pixels.frame, own))
