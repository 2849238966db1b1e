"""SpatialTrackerV2: depth and cameras by its front end, then tracks, window by window.

Source: Xiao et al., "SpatialTrackerV2: 3D point tracking made easy", ICCV 2025.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import models
from models.learned.third_party import ThirdParty, import_from
from models.learned.windows import Follow, both_ways, in_groups, in_windows
from models.run import InputError

# Folders of the checkpoint, and the names under which they are published.
_PARTS = {"front": "SpatialTrackerV2_Front", "offline": "SpatialTrackerV2-Offline"}
# Longer side in pixels of the frames that the front end takes.
_LONG_SIDE = 518
# Both sides are multiples of the front end's patch size in pixels.
_PATCH = 14
# Frames of a window: the front end attends to all of them at once.
_WINDOW = 48
# Frames that two consecutive windows share.
_OVERLAP = 16
# Points followed at a time.
_GROUP = 1024
# Probability of visibility from which a point counts as visible.
_VISIBLE = 0.5
# Certainty from which the front end's depth of a pixel counts as certain.
_CERTAIN = 0.5


def open_spatracker2(checkpoint_path: Path | None, device: str) -> Follow:
    """The tracker with its weights on a GPU.

    Raises:
        InputError: the code or a checkpoint is missing or wrong, or the device is no GPU.
    """
    check_device(device)
    folder = checkpoint_path or SPATRACKER2.folder / SPATRACKER2.checkpoint
    paths = {part: _find_part(folder, part) for part in _PARTS}
    # Its package is called "models" as ours is: Python finds its parts beside ours.
    theirs = str(SPATRACKER2.folder / "models")
    if theirs not in models.__path__:
        models.__path__.append(theirs)
    front_code = import_from(SPATRACKER2, "models.SpaTrackV2.models.vggt4track.models.vggt_moe")
    offline_code = import_from(SPATRACKER2, "models.SpaTrackV2.models.predictor")
    front = _load_part(front_code.VGGT4Track, paths["front"])
    tracker = _load_part(offline_code.Predictor, paths["offline"])
    for model in (front, tracker):
        model.eval()
        model.to(device)

    @torch.no_grad()
    def follow(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        video, scale = _make_video(frames)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            geometry = front(video[None].to(device) / 255)
            own = queries.copy()
            # Its pixel origin is the centre of the top-left pixel, which is (0.5, 0.5) here.
            own[:, 1:] = own[:, 1:] * scale - 0.5
            out = tracker.forward(
                video, queries=own, **_read_geometry(geometry), fps=1, full_point=False, iters_track=4,
                fixed_cam=False, query_no_BA=True, stage=1, support_frame=len(video) - 1, replace_ratio=0.2,
            )  # fmt: skip
        xy = out[5]
        visible = out[6]
        seen_video = out[8]
        xy = xy[..., :2].float().cpu().numpy().reshape(len(video), -1, 2)[:, : len(queries)] + 0.5
        xy *= np.float32(
            [frames.shape[2] / seen_video.shape[-1], frames.shape[1] / seen_video.shape[-2]]
        )
        visible = visible.float().cpu().numpy().reshape(len(video), -1)[:, : len(queries)]
        return xy, visible > _VISIBLE

    windowed = in_windows(in_groups(follow, _GROUP), _WINDOW, _OVERLAP)
    return lambda frames, queries: both_ways(windowed, frames, queries)


def check_device(device: str) -> None:
    """Refuses every device but a GPU, which the tracker's code asks for throughout.

    Raises:
        InputError: the device is no GPU.
    """
    if not device.startswith("cuda"):
        raise InputError(
            "tracker 'spatracker2' needs a CUDA GPU; run it on one, or choose --tracker dis_flow"
        )


def _find_part(folder: Path, part: str) -> Path:
    """Folder of a part of the checkpoint.

    Raises:
        InputError: the part is missing.
    """
    path = folder / part
    if not (path / "config.json").is_file():
        place = f"{SPATRACKER2.place}/{SPATRACKER2.checkpoint}/{part}"
        raise InputError(
            f"{path}: tracker 'spatracker2' finds no checkpoint there; give --checkpoint_path or run: "
            f"git clone {SPATRACKER2.checkpoint_url}/{_PARTS[part]} {place}"
        )
    return path


def _load_part(model_class: Any, path: Path) -> Any:
    """A part of the tracker with its weights, on the CPU.

    Raises:
        InputError: the folder is another model's.
    """
    try:
        return model_class.from_pretrained(str(path))
    # A foreign folder can fail anywhere in the authors' code.
    except Exception as error:
        raise InputError(
            f"{path}: is no checkpoint of 'spatracker2' ({type(error).__name__}); clone "
            f"{SPATRACKER2.checkpoint_url}/{_PARTS[path.name]} there, with git-lfs"
        ) from error


def _make_video(frames: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Frames as (F, 3, h, w) in [0, 255] at the size of the front end, and the scale in x and y."""
    height, width = frames.shape[1:3]
    fit = _LONG_SIDE / max(height, width)
    size = [max(_PATCH, round(side * fit / _PATCH) * _PATCH) for side in (width, height)]
    small = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    video = torch.from_numpy(small).permute(0, 3, 1, 2).float()
    return video, np.float32([size[0] / width, size[1] / height])


def _read_geometry(out: dict) -> dict[str, np.ndarray]:
    """Depth, certainty, intrinsics and poses of the front end, as arguments of the tracker."""

    def to_array(tensor: torch.Tensor) -> np.ndarray:
        return tensor[0].float().cpu().numpy()

    depth = to_array(out["points_map"][..., 2])
    certainty = to_array(out["unc_metric"])
    return {
        "depth": depth,
        "unc_metric": (certainty > _CERTAIN).reshape(depth.shape),
        "intrs": to_array(out["intrs"]),
        "extrs": to_array(out["poses_pred"]),
    }


SPATRACKER2 = ThirdParty(
    option="--tracker",
    name="spatracker2",
    title="SpatialTrackerV2",
    licence="none stated in that commit: ask the authors before any use beyond research",
    open=open_spatracker2,
    package="models",
    repository="https://github.com/henry123-boy/SpaTrackerV2",
    commit="69cad6e0c832d02afda2f89245ae8915e1d5422c",
    checkpoint="checkpoints",
    checkpoint_url="https://huggingface.co/Yuxihenry",
    requirements="einops decord easydict huggingface_hub safetensors kornia timm xformers",
    hardware="a CUDA GPU",
)
