"""SpatialTrackerV2 (Xiao et al., ICCV 2025): depth and cameras by its front end, then tracks,
window by window."""

from pathlib import Path

import cv2
import numpy as np
import torch

import models
from models.learned.third_party import Source, import_from
from models.learned.windows import both_ways, in_groups, in_windows
from models.run import InputError

SOURCE = Source(
    tracker="spatracker2",
    package="models",  # their package has our name; its parts are found beside ours
    repository="https://github.com/henry123-boy/SpaTrackerV2",
    commit="69cad6e0c832d02afda2f89245ae8915e1d5422c",
    checkpoint="checkpoints",
    checkpoint_url="https://huggingface.co/Yuxihenry",
    requirements="einops decord easydict huggingface_hub safetensors kornia timm xformers",
)
PARTS = {"front": "SpatialTrackerV2_Front", "offline": "SpatialTrackerV2-Offline"}
"""Folders of the checkpoint, and the names they are published under."""
LONG_SIDE = 518
MULTIPLE = 14
WINDOW = 48
OVERLAP = 16
"""Frames seen at a time; the front end attends to all of a window's frames at once."""
GROUP = 1024
"""Points followed at a time."""
SEEN = 0.5


def open_spatracker2(checkpoint_path: Path | None, device: str):
    """The tracker with its weights on a GPU.

    Raises:
        InputError: the code or a checkpoint is missing or wrong, or the device is no GPU.
    """
    check_device(device)
    folder = checkpoint_path or SOURCE.folder / SOURCE.checkpoint
    paths = {part: _part(folder, part) for part in PARTS}
    theirs = str(SOURCE.folder / "models")
    if theirs not in models.__path__:
        models.__path__.append(theirs)
    code = {
        "front": import_from(
            SOURCE, "models.SpaTrackV2.models.vggt4track.models.vggt_moe"
        ).VGGT4Track,
        "offline": import_from(SOURCE, "models.SpaTrackV2.models.predictor").Predictor,
    }
    front, tracker = (_loaded(code[part], paths[part]) for part in PARTS)
    for model in (front, tracker):
        model.eval()
        model.to(device)

    @torch.no_grad()
    def follow(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        video, scale = _video(frames)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            geometry = front(video[None].to(device) / 255)
            asked = queries.copy()
            asked[:, 1:] = asked[:, 1:] * scale - 0.5  # it has (0, 0) where we have 0.5
            out = tracker.forward(
                video, queries=asked, **_geometry(geometry), fps=1, full_point=False, iters_track=4, fixed_cam=False,
                query_no_BA=True, stage=1, support_frame=len(video) - 1, replace_ratio=0.2,
            )  # fmt: skip
        xy = out[5]
        visible = out[6]
        seen_video = out[8]
        xy = xy[..., :2].float().cpu().numpy().reshape(len(video), -1, 2)[:, : len(queries)] + 0.5
        xy *= np.float32(
            [frames.shape[2] / seen_video.shape[-1], frames.shape[1] / seen_video.shape[-2]]
        )
        return xy, visible.float().cpu().numpy().reshape(len(video), -1)[:, : len(queries)] > SEEN

    windowed = in_windows(in_groups(follow, GROUP), WINDOW, OVERLAP)
    return lambda frames, queries: both_ways(windowed, frames, queries)


def check_device(device: str) -> None:
    """Raises InputError where the device is no GPU: its code asks for one throughout."""
    if not device.startswith("cuda"):
        raise InputError(
            "tracker 'spatracker2' needs a CUDA GPU; run it on one, or choose --tracker dis_flow"
        )


def _part(folder: Path, part: str) -> Path:
    path = folder / part
    if not (path / "config.json").is_file():
        place = f"submodules/spatracker2/checkpoints/{part}"
        raise InputError(
            f"{path}: tracker 'spatracker2' finds no checkpoint there; give --checkpoint_path or run: "
            f"git clone {SOURCE.checkpoint_url}/{PARTS[part]} {place}"
        )
    return path


def _loaded(kind, path: Path):
    try:
        return kind.from_pretrained(str(path))
    except Exception as error:  # whatever a foreign folder breaks
        raise InputError(
            f"{path}: is no checkpoint of 'spatracker2' ({type(error).__name__}); clone "
            f"{SOURCE.checkpoint_url}/{PARTS[path.name]} there, with git-lfs"
        ) from error


def _video(frames: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """(F, 3, h, w) in [0, 255] at the size the front end takes, and its scale in x and y."""
    height, width = frames.shape[1:3]
    fit = LONG_SIDE / max(height, width)
    size = [max(MULTIPLE, round(side * fit / MULTIPLE) * MULTIPLE) for side in (width, height)]
    small = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    video = torch.from_numpy(small).permute(0, 3, 1, 2).float()
    return video, np.float32([size[0] / width, size[1] / height])


def _geometry(out: dict) -> dict[str, np.ndarray]:
    """What the tracker takes of the front end's answer."""

    def plain(tensor: torch.Tensor) -> np.ndarray:
        return tensor[0].float().cpu().numpy()

    depth = plain(out["points_map"][..., 2])
    sure = plain(out["unc_metric"])
    return {
        "depth": depth,
        "unc_metric": (sure > 0.5).reshape(depth.shape),
        "intrs": plain(out["intrs"]),
        "extrs": plain(out["poses_pred"]),
    }
