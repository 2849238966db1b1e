"""What a results folder holds of a trained scene: rebuilt video, novel views, mesh and depth
videos, and scores."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.cameras import Cameras
from models.clip import VideoWriter, write_image
from models.render import Scene, average_scores, score_frame
from models.report.drawing import colorize_depth, depth_range, draw_mesh, draw_tracks
from models.run import clear_numbered, clear_outputs, make_subfolder
from models.tracks import Tracks

MAX_DRAWN = 2000
"""Tracks of a layer that an overlay shows."""
BACKGROUND_GROUP = 22
"""Number that gives the background's tracks a colour of their own, unlike the first movers'."""


def reconstruct(
    out: Path,
    scene: Scene,
    frames: np.ndarray,
    masks: np.ndarray | None = None,
    held_out: Sequence[int] = (),
    save_frames: bool = False,
) -> dict:
    """Rebuilds the video with its mesh and depth in ``out``, and scores it; held-out frames are
    novel views.

    ``input.mp4`` holds the frames worked on, to be compared with.
    """
    scores = []
    near_far = None
    clear_outputs(out, "reconstruction", has_movers=scene.moving is not None)
    with (
        VideoWriter(out / "input.mp4", scene.fps) as original,
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
            original.add(frames[t])
            color.add(view.rgb)
            mesh.add(draw_mesh(frames[t], *mesh_lines(scene, scene.cameras[t])))
            depth.add(colorize_depth(view.depth, *near_far))
            scores.append(score_frame(view.rgb, frames[t], None if masks is None else masks[t]))
            if save_frames:
                save_frame(out, "reconstruction", t, view.rgb)
            if t in held_out:
                save_frame(out, "heldout", t, view.rgb)
    return {"frames": scores} | average_scores(scores, held_out)


def layer_writers(stack: ExitStack, out: Path, scene: Scene) -> list[VideoWriter]:
    """Writers of the layers' own videos, where there is more than one layer."""
    if scene.moving is None:
        return []
    paths = [out / "background_only.mp4", out / "foreground_only.mp4"]
    return [stack.enter_context(VideoWriter(path, scene.fps)) for path in paths]


def track_overlay(
    out: Path, frames: np.ndarray, tracks: Tracks, movers: Tracks | None = None
) -> None:
    """Writes tracks.mp4: tracks over the frames with tails, one colour for the background and one
    for each mover."""
    layers = [tracks] if movers is None else [tracks, movers]
    chosen = [
        np.linspace(0, t.num_tracks - 1, min(MAX_DRAWN, t.num_tracks)).astype(int) for t in layers
    ]
    xy = np.concatenate(
        [t.xy.numpy()[:, index] for t, index in zip(layers, chosen, strict=True)], 1
    )
    visible = np.concatenate(
        [t.visible.numpy()[:, index] for t, index in zip(layers, chosen, strict=True)], 1
    )
    groups = [np.full(len(chosen[0]), BACKGROUND_GROUP)]
    if movers is not None:
        groups.append(
            np.ones(len(chosen[1]), int)
            if movers.label is None
            else movers.label.numpy()[chosen[1]]
        )
    drawn = draw_tracks(
        frames, xy, visible, groups=np.concatenate(groups), max_tracks=2 * MAX_DRAWN
    )
    with VideoWriter(out / "tracks.mp4", tracks.fps) as video:
        for frame in tqdm(drawn, total=len(frames), desc="track overlay", unit="frame"):
            video.add(frame)


def mesh_lines(scene: Scene, view: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Projected vertices (NaN where behind) and faces of the mesh whose camera is nearest to one
    camera."""
    meshes = scene.background.meshes
    source = meshes.nearest_frame(view)
    used, faces = torch.unique(meshes.faces[source], return_inverse=True)
    xy, depth = view.project(meshes.vertices[used.long()].double())
    return torch.where(depth[..., None] > 0, xy, torch.nan)[0].numpy(), faces.numpy()


def picture_function(scene: Scene):
    """The function that the live viewer draws with; see viewer.RenderFunction."""
    small = scene.cameras[[len(scene.cameras) // 2]].resized(
        96, max(1, 96 * scene.cameras.height // scene.cameras.width)
    )
    near_far = depth_range([scene.render(small, 0.0).depth])

    def picture(
        view: Cameras, time: float, mode: str, background: bool, movers: bool
    ) -> np.ndarray:
        layers = scene.views(view, time)
        seen = layers.merged if movers else layers.background
        if not background:
            return layers.foreground if movers else np.zeros_like(layers.foreground)
        if mode == "depth":
            return colorize_depth(seen.depth, *near_far)
        return draw_mesh(seen.rgb, *mesh_lines(scene, view)) if mode == "mesh" else seen.rgb

    return picture


def render_video(
    out: Path,
    scene: Scene,
    views: Cameras,
    times: Sequence[float],
    name: str,
    save_frames: bool = False,
    fps: float | None = None,
) -> float:
    """Renders a camera path to <name>.mp4; returns the least share of a frame that some mesh
    covers."""
    coverage = 1.0
    clear_numbered(out / "frames" / name)
    with VideoWriter(out / f"{name}.mp4", fps or scene.fps) as video:
        for i in tqdm(range(len(views)), desc=name, unit="frame"):
            view = scene.render(views[i], times[i])
            coverage = min(coverage, float(view.covered.mean()))
            video.add(view.rgb)
            if save_frames:
                save_frame(out, name, i, view.rgb)
    return coverage


def save_frame(output_dir: Path, name: str, number: int, rgb: np.ndarray) -> None:
    """One PNG of a video."""
    folder = make_subfolder(output_dir, "frames", name)
    write_image(folder / f"{number:05d}.png", rgb)
