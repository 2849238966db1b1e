"""What a results folder holds of a trained scene: rebuilt video, novel views, mesh and depth videos, and scores."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.cameras import Cameras
from models.files import subfolder
from models.metrics import psnr, ssim
from models.plots import colorize_depth, depth_range, draw_mesh
from models.scene import Scene
from models.video import VideoWriter, write_image


def reconstruct(
    out: Path,
    scene: Scene,
    frames: np.ndarray,
    masks: np.ndarray | None = None,
    held_out: Sequence[int] = (),
    save_frames: bool = False,
) -> dict:
    """Rebuilds the video with its mesh and depth in ``out``, and scores it; held-out frames are novel views."""
    scores, near_far = [], None
    clear_frames(out, "reconstruction", "heldout")
    with (
        VideoWriter(out / "reconstruction.mp4", scene.fps) as color,
        VideoWriter(out / "mesh.mp4", scene.fps) as mesh,
        VideoWriter(out / "depth.mp4", scene.fps) as depth,
        ExitStack() as stack,
    ):
        apart = layer_writers(stack, out, scene)
        for t in tqdm(range(len(frames)), desc="reconstruction", unit="frame"):
            layers = scene.rebuild(t)
            view = layers.merged
            for writer, rgb in zip(apart, (layers.background.rgb, layers.foreground), strict=False):
                writer.add(rgb)
            near_far = near_far or depth_range([view.depth])
            color.add(view.rgb)
            mesh.add(draw_mesh(frames[t], *mesh_lines(scene, t)))
            depth.add(colorize_depth(view.depth, *near_far))
            scores.append(score(view.rgb, frames[t], None if masks is None else masks[t]))
            if save_frames:
                save_frame(out, "reconstruction", t, view.rgb)
            if t in held_out:
                save_frame(out, "heldout", t, view.rgb)
    return {"frames": scores} | averages(scores, held_out)


def layer_writers(stack: ExitStack, out: Path, scene: Scene) -> list[VideoWriter]:
    """Writers of the layers' own videos, where there is more than one layer."""
    if scene.moving is None:
        return []
    names = ("background_only", "foreground_only")
    return [stack.enter_context(VideoWriter(out / f"{name}.mp4", scene.fps)) for name in names]


def score(rgb: np.ndarray, frame: np.ndarray, mask: np.ndarray | None) -> dict[str, float]:
    """PSNR and SSIM of the whole frame, and outside the mask where something moves."""
    values = {"psnr": psnr(rgb, frame), "ssim": ssim(rgb, frame)}
    if mask is not None and mask.any() and not mask.all():
        values["psnr_outside_mask"] = psnr(rgb, frame, ~mask)
        values["psnr_inside_mask"] = psnr(rgb, frame, mask)
    return values


def averages(scores: list[dict[str, float]], held_out: Sequence[int]) -> dict:
    """Means over training frames and over held-out frames."""
    groups = {"training_frames": [s for t, s in enumerate(scores) if t not in held_out]}
    if held_out:
        groups["heldout_frames"] = [scores[t] for t in held_out]
    keys = ("psnr", "ssim", "psnr_outside_mask", "psnr_inside_mask")
    return {
        name: {key: float(np.mean([s[key] for s in group if key in s])) for key in keys if any(key in s for s in group)}
        for name, group in groups.items()
    }


def mesh_lines(scene: Scene, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Projected vertices and faces of the mesh that frame t is drawn from."""
    meshes = scene.background.meshes
    source = meshes.nearest_frames(scene.cameras, t, 1)[0][0]
    faces = meshes.faces[source]
    used, index = torch.unique(faces, return_inverse=True)
    xy, _ = scene.cameras[[t]].project(meshes.vertices[used].double())
    return xy[0].numpy(), index.numpy()


def render_video(
    out: Path, scene: Scene, views: Cameras, times: Sequence[float], name: str, save_frames: bool = False
) -> float:
    """Renders a camera path to <name>.mp4; returns the least share of a frame that some mesh covers."""
    coverage = 1.0
    clear_frames(out, name)
    with VideoWriter(out / f"{name}.mp4", scene.fps) as video:
        for i in tqdm(range(len(views)), desc=name, unit="frame"):
            view = scene.render(views, i, times[i])
            coverage = min(coverage, float(view.covered.mean()))
            video.add(view.rgb)
            if save_frames:
                save_frame(out, name, i, view.rgb)
    return coverage


def clear_frames(output_dir: Path, *names: str) -> None:
    """Removes the PNGs that an earlier run left of these videos."""
    for name in names:
        for path in (output_dir / "frames" / name).glob("[0-9]*.png"):
            path.unlink()


def save_frame(output_dir: Path, name: str, number: int, rgb: np.ndarray) -> None:
    """One PNG of a video."""
    folder = subfolder(output_dir, "frames", name)
    write_image(folder / f"{number:05d}.png", rgb)
