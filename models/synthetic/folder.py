"""The sample clip as a folder: frames, video, masks, depth, tracks, cameras and novel views."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from models.cameras import Cameras
from models.clip import write_images, write_video
from models.run import InputError, replace_file
from models.synthetic.sample import SyntheticScene, render_views

NOVEL_VIEWS = {"n1": "right", "n2": "up", "n3": "spiral"}
"""Kind of each set of novel views, by its name in the written folder."""
# frames from one novel view to the next, for the views beside the path
_NOVEL_STEP = 4
# distance of novel views from the clip's cameras, as a share of the mean depth
_NOVEL_SHIFT = 0.05
# radius of the spiral's first and last camera, as a share of the mean depth
_SPIRAL_RADIUS = (0.03, 0.08)
_SPIRAL_VIEWS = 12
_SPIRAL_TURNS = 1.5


def build_novel_cameras(scene: SyntheticScene, kind: str) -> tuple[Cameras, Int[np.ndarray, "V"]]:
    """Cameras beside the clip's own path, and the frame that each of them sees.

    Args:
        kind: "right" or "up": every fourth camera moved by 5 % of the mean depth along its own
            axis; "spiral": 12 cameras around the middle camera, 3 to 8 % of the mean depth away.

    Raises:
        InputError: kind is none of these.
    """
    sideways = {"right": [_NOVEL_SHIFT, 0.0, 0.0], "up": [0.0, -_NOVEL_SHIFT, 0.0]}
    if kind == "spiral":
        times = np.full(_SPIRAL_VIEWS, len(scene.cameras) // 2)
        offset = _place_spiral()
    elif kind in sideways:
        times = np.arange(0, len(scene.cameras), _NOVEL_STEP)
        offset = torch.tensor([sideways[kind]], dtype=torch.float64)
    else:
        raise InputError(f'novel view is "{kind}"; it must be "right", "up" or "spiral"')
    cameras = scene.cameras[torch.from_numpy(times)]
    pose = cameras.world_from_cam.clone()
    pose[:, :3, 3] += scene.mean_depth * (pose[:, :3, :3] @ offset[..., None])[..., 0]
    return Cameras(cameras.K, pose, cameras.width, cameras.height), times


def _place_spiral() -> Float[Tensor, "V 3"]:
    """Offsets of the spiral's cameras in the middle camera's axes, as a share of the mean depth."""
    steps = torch.arange(_SPIRAL_VIEWS, dtype=torch.float64)
    angle = steps * (2 * math.pi * _SPIRAL_TURNS / _SPIRAL_VIEWS)
    radius = torch.linspace(*_SPIRAL_RADIUS, _SPIRAL_VIEWS, dtype=torch.float64)
    return torch.stack([radius * angle.cos(), radius * angle.sin(), 0 * angle], 1)


def write_scene(scene: SyntheticScene, folder: str | Path) -> None:
    """Writes ``frames``, ``masks``, ``video.mp4``, ``depth.npz``, ``truth.npz`` and ``novel``.

    A clip without carts has no ``masks``.

    Raises:
        InputError: the folder cannot be made or written.
    """
    folder = Path(folder)
    _write_frames(
        folder, "frames", "masks", scene.frames, scene.masks if scene.num_movers else None
    )
    write_video(folder / "video.mp4", scene.frames, scene.fps)
    _write_npz(folder / "depth.npz", depth=scene.depth.astype(np.float16))
    truth = _collect_truth(scene)
    for name, kind in NOVEL_VIEWS.items():
        cameras, times = build_novel_cameras(scene, kind)
        clip = len(scene.frames), scene.seed, scene.num_movers
        rgb, _, masks = render_views(cameras, times, *clip)
        names = name, f"{name}_masks"
        _write_frames(folder / "novel", *names, rgb, masks if scene.num_movers else None)
        truth[f"novel_{name}_world_from_cam"] = cameras.world_from_cam.numpy()
        truth[f"novel_{name}_time"] = times
    _write_npz(folder / "truth.npz", **truth)


def _collect_truth(scene: SyntheticScene) -> dict[str, np.ndarray | np.float64]:
    """Arrays of ``truth.npz``, without those of the novel views."""
    return {
        "K": scene.cameras.K[0].numpy(),
        "image_size": np.array([scene.cameras.height, scene.cameras.width]),
        "world_from_cam": scene.cameras.world_from_cam.numpy(),
        **{name: getattr(scene, name) for name in vars(scene) if name.startswith("track_")},
        "mean_depth": np.float64(scene.mean_depth),
    }


def _write_frames(
    folder: Path,
    frames_name: str,
    masks_name: str,
    frames: UInt8[np.ndarray, "F H W 3"],
    masks: Bool[np.ndarray, "F H W"] | None,
) -> None:
    """Writes numbered images into a subfolder, and masks, if any, into another."""
    every = range(len(frames))
    write_images(folder / frames_name, frames, every)
    if masks is not None:
        write_images(folder / masks_name, masks.astype(np.uint8) * 255, every)


def _write_npz(path: Path, **arrays: np.ndarray | np.float64) -> None:
    with replace_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
