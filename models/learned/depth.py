"""Monocular depth: Depth Anything and Depth Pro.

Sources: Yang et al., "Depth Anything V2", 2024; Bochkovskii et al., "Depth Pro: sharp monocular
metric depth in less than a second", 2024.

Both give inverse depth up to a scale and a shift of each frame, which ``models.depth`` aligns to
the scene. The images are prepared here, since the processors of transformers need torchvision.
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
from models.run import SILENT, Progress, check_output_dir, replace_file

DepthModel = Callable[[UInt8[np.ndarray, "H W 3"]], Float[np.ndarray, "H W"]]
"""One RGB frame -> inverse depth of each pixel."""
_Infer = Callable[[Any, Float[Tensor, "1 3 H W"]], Float[Tensor, "1 h w"]]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean colour of ImageNet in [0, 1], by which encoders expect images to be normalised."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the colours of ImageNet in [0, 1]."""
# Shorter side in pixels of the images that Depth Anything was trained on.
_DEPTH_ANYTHING_SIDE = 518
# Smallest inverse depth per metre that is kept of a metric model.
_NEAREST = 1e-4


def open_depth_anything(checkpoint: str | None, allow_download: bool, device: str) -> DepthModel:
    """Depth Anything on a device; see ``open_pretrained`` for arguments and errors."""
    model = open_pretrained(DEPTH_ANYTHING, checkpoint, allow_download).to(device)
    return _make_depth_model(model, _infer_depth_anything, device)


def open_depth_pro(checkpoint: str | None, allow_download: bool, device: str) -> DepthModel:
    """Depth Pro on a device; see ``open_pretrained`` for arguments and errors."""
    model = open_pretrained(DEPTH_PRO, checkpoint, allow_download).to(device)
    return _make_depth_model(model, _infer_depth_pro, device)


def _make_depth_model(model: Any, infer: _Infer, device: str) -> DepthModel:
    """A model of transformers as a function from a frame to inverse depth at the frame's size."""

    @torch.inference_mode()
    def estimate_inverse_depth(frame: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
        image = torch.from_numpy(frame.copy()).to(device).permute(2, 0, 1)[None].float() / 255
        found = infer(model, image).float()
        resized = functional.interpolate(found[:, None], frame.shape[:2], mode="bilinear")
        return resized[0, 0].cpu().numpy()

    return estimate_inverse_depth


def _infer_depth_anything(model: Any, image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 h w"]:
    """Inverse depth at the model's own size: the shorter side as in training, both sides multiples
    of its patch size."""
    patch = int(model.config.patch_size)
    height, width = image.shape[2:]
    side = min(_DEPTH_ANYTHING_SIDE, int(model.config.backbone_config.image_size))
    scale = side / min(height, width)
    size = [max(1, round(length * scale / patch)) * patch for length in (height, width)]
    image = functional.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (
        torch.tensor(values, device=image.device)[:, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    found = model(pixel_values=(image - mean) / std).predicted_depth
    metric = model.config.depth_estimation_type == "metric"
    return 1 / found.clamp_min(_NEAREST) if metric else found


def _infer_depth_pro(model: Any, image: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 h w"]:
    """Canonical inverse depth; the model's field of view is not used, since cameras are known and
    the scale is aligned."""
    config = model.config
    # The smallest of the model's scaled images is one patch.
    side = round(config.patch_size / min(config.scaled_images_ratios))
    image = functional.interpolate(2 * image - 1, (side, side), mode="bilinear")
    return model(pixel_values=image).predicted_depth


DEPTH_ANYTHING = Pretrained(
    option="--depth",
    name="depth_anything",
    title="Depth Anything V2",
    licence="Apache-2.0 (Base and Large: CC BY-NC 4.0)",
    open=open_depth_anything,
    model_class="DepthAnythingForDepthEstimation",
    hub_name="depth-anything/Depth-Anything-V2-Small-hf",
)
DEPTH_PRO = Pretrained(
    option="--depth",
    name="depth_pro",
    title="Depth Pro",
    licence="Apple's model licence: research only",
    open=open_depth_pro,
    model_class="DepthProForDepthEstimation",
    hub_name="apple/DepthPro-hf",
)


def write_depth_maps(
    folder: Path,
    frames: UInt8[np.ndarray, "F H W 3"],
    model: DepthModel,
    progress: Progress = SILENT,
) -> None:
    """Writes each frame's inverse depth as ``folder/%05d.npy`` in half precision; memory holds a
    single frame at a time.

    Maps of an earlier run in the folder are removed.

    Raises:
        InputError: the folder cannot be made or written.
    """
    remove_depth_maps(check_output_dir(folder))
    for t, frame in enumerate(progress.over(frames, "depth")):
        values = np.minimum(model(frame), np.finfo(np.float16).max).astype(np.float16)
        with replace_file(folder / f"{t:05d}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, values)


def remove_depth_maps(folder: Path) -> None:
    """Removes the maps that ``write_depth_maps`` wrote to a folder, if the folder exists."""
    for path in folder.glob("[0-9][0-9][0-9][0-9][0-9].npy"):
        path.unlink()
