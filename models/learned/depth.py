"""Monocular depth by learned models: Depth Anything (Yang et al., 2024) and Depth Pro (Bochkovskii
et al., 2024).

What they give is inverse depth, each frame's in a unit and from an origin of its own;
``models.depth.maps`` aligns it. The images are prepared here: transformers' own processors need
torchvision.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Float, UInt8
from torch import Tensor

from models.learned.pretrained import Pretrained, open_pretrained
from models.run import InputError, check_output_dir, replace_file

DepthModel = Callable[[UInt8[np.ndarray, "H W 3"]], Float[np.ndarray, "H W"]]
"""One RGB frame -> its inverse depth."""
DEPTH_ANYTHING = Pretrained(
    "--depth",
    "depth_anything",
    "DepthAnythingForDepthEstimation",
    "depth-anything/Depth-Anything-V2-Small-hf",
)
DEPTH_PRO = Pretrained("--depth", "depth_pro", "DepthProForDepthEstimation", "apple/DepthPro-hf")
DEPTH_MODELS = {source.name: source for source in (DEPTH_ANYTHING, DEPTH_PRO)}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEPTH_ANYTHING_SIDE = 518
"""Shorter side in pixels that Depth Anything was trained at."""
NEAREST = 1e-4
"""Smallest inverse depth kept of a metric model, per metre."""


def check_depth_model(name: str) -> None:
    """Raises InputError where there is no depth model of that name."""
    if name not in DEPTH_MODELS:
        raise InputError(
            f"depth model '{name}' is not known; choose one of {', '.join(sorted(DEPTH_MODELS))}"
        )


def open_depth_model(
    name: str, checkpoint: str | None = None, allow_download: bool = False, device: str = "cpu"
) -> DepthModel:
    """The depth model of that name with its weights on a device.

    Args:
        checkpoint: a folder or a hub name; see ``open_pretrained``.

    Raises:
        InputError: no such model; its package or weights are missing or wrong.
    """
    check_depth_model(name)
    model = open_pretrained(DEPTH_MODELS[name], checkpoint, allow_download).to(device)
    follow = _depth_anything if name == "depth_anything" else _depth_pro

    @torch.inference_mode()
    def inverse_depth(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
        image = torch.from_numpy(frame.copy()).to(device).permute(2, 0, 1)[None].float() / 255
        found = follow(model, image).float()
        return (
            functional.interpolate(found[:, None], frame.shape[:2], mode="bilinear")[0, 0]
            .cpu()
            .numpy()
        )

    return inverse_depth


def write_depth_maps(
    folder: Path,
    frames: UInt8[np.ndarray, "F H W 3"],
    model: DepthModel,
    progress: Callable[[int], None],
) -> None:
    """Writes each frame's inverse depth as ``folder/%05d.npy`` in half precision, one frame in
    memory at a time.

    Maps that an earlier run left there are removed.

    Raises:
        InputError: the folder cannot be made or written.
    """
    remove_depth_maps(check_output_dir(folder))
    for t, frame in enumerate(frames):
        values = np.minimum(model(frame), np.finfo(np.float16).max).astype(np.float16)
        with replace_file(folder / f"{t:05d}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, values)
        progress(t + 1)


def remove_depth_maps(folder: Path) -> None:
    """Removes the maps that ``write_depth_maps`` left in a folder, if there is one."""
    for path in folder.glob("[0-9][0-9][0-9][0-9][0-9].npy"):
        path.unlink()


def _depth_anything(model: Any, image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 h w"]:
    """Inverse depth at the model's own size: the shorter side as in training, both a multiple of
    its patches."""
    patch = int(model.config.patch_size)
    height, width = image.shape[2:]
    side = min(DEPTH_ANYTHING_SIDE, int(model.config.backbone_config.image_size))
    scale = side / min(height, width)
    size = [max(1, round(length * scale / patch)) * patch for length in (height, width)]
    image = functional.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (
        torch.tensor(values, device=image.device)[:, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    found = model(pixel_values=(image - mean) / std).predicted_depth
    metric = model.config.depth_estimation_type == "metric"
    return 1 / found.clamp_min(NEAREST) if metric else found


def _depth_pro(model: Any, image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 h w"]:
    """Canonical inverse depth; its field of view is left out, since cameras are known and scale is
    aligned."""
    config = model.config
    side = round(
        config.patch_size / min(config.scaled_images_ratios)
    )  # the smallest scaled image is one patch
    image = functional.interpolate(2 * image - 1, (side, side), mode="bilinear")
    return model(pixel_values=image).predicted_depth
