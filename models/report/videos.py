"""The videos of a results folder: rebuilt clip, mesh, depth, layers, new views, tracks; and the
scores of the rebuilt frames."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from models.clip import VideoWriter, choose_evenly, write_image
from models.report.drawing import colorize_depth, draw_mesh, draw_tracks, measure_depth_range
from models.report.pictures import project_mesh
from models.run import (
    PAIR,
    SILENT,
    Progress,
    clear_numbered,
    clear_outputs,
    make_subfolder,
    run_ahead,
)
from models.tracks import PointTracks, Tracks

# Types alone: scripts that render nothing do not load the rooms behind them.
if TYPE_CHECKING:
    from models.paths import CameraPath
    from models.render import LayerViews, Scene
    from models.training import ClipInputs

# Tracks of a layer that the overlay shows; more would hide the picture.
_MAX_DRAWN = 2000
# Colour group of the background's tracks: its colour differs from the colours of the first movers.
_BACKGROUND_GROUP = 22


def reconstruct(
    out: Path,
    scene: "Scene",
    inputs: "ClipInputs",
    save_frames: bool = False,
    progress: Progress = SILENT,
) -> dict:
    """Rebuilds the clip with its mesh and depth in ``out``; returns PSNR and SSIM.

    ``input.mp4`` holds the frames of ``inputs`` for comparison. Held-out frames, which the scene
    was not trained on, are also written as PNGs.

    Args:
        save_frames: write a PNG of every rebuilt frame.
    """
    from models.render import average_scores, score_rebuilt

    scores = []
    has_movers = scene.moving is not None
    clear_outputs(out, "reconstruction", has_movers=has_movers)
    with _ReconstructionWriter(out, scene.fps, has_movers) as videos:
        times = range(len(inputs.frames))
        rebuilds = run_ahead(scene.rebuild, times, PAIR)
        for t, rebuilt in zip(progress.over(times, "reconstruction"), rebuilds, strict=True):
            frame = inputs.frames[t]
            layers = rebuilt.detailed
            rgb = layers.merged.rgb
            lines = draw_mesh(frame, *project_mesh(scene, scene.cameras[t]))
            videos.add(frame, layers, lines)
            scores.append(score_rebuilt(rebuilt, frame, _select_mask(inputs.masks, t)))
            if save_frames:
                save_frame(out, "reconstruction", t, rgb)
            if t in inputs.held_out:
                save_frame(out, "heldout", t, rgb)
    return {"frames": scores} | average_scores(scores, inputs.held_out)


def _select_mask(masks: Bool[ndarray, "F H W"] | None, t: int) -> Bool[ndarray, "H W"] | None:
    return None if masks is None else masks[t]


class _ReconstructionWriter(ExitStack):
    """The videos of the reconstruction, written frame by frame."""

    def __init__(self, out: Path, fps: float, has_movers: bool):
        super().__init__()
        names = ["input", "reconstruction", "mesh", "depth"]
        names += ["background_only", "foreground_only"] if has_movers else []
        self._writers: dict[str, VideoWriter] = {}
        self._paths = {name: out / f"{name}.mp4" for name in names}
        self._fps = fps
        self._near_far: tuple[float, float] | None = None

    def __enter__(self) -> "_ReconstructionWriter":
        super().__enter__()
        for name, path in self._paths.items():
            self._writers[name] = self.enter_context(VideoWriter(path, self._fps))
        return self

    def add(
        self,
        frame: UInt8[ndarray, "H W 3"],
        layers: "LayerViews",
        lines: UInt8[ndarray, "H W 3"],
    ) -> None:
        """Appends a frame to each video; the first frame sets the depth range of all frames.

        Args:
            frame: of the clip.
            layers: the rebuilt frame.
            lines: the mesh over the frame.
        """
        depth = layers.merged.depth
        self._near_far = self._near_far or measure_depth_range([depth])
        pictures = {
            "input": frame,
            "reconstruction": layers.merged.rgb,
            "mesh": lines,
            "depth": colorize_depth(depth, *self._near_far),
            "background_only": layers.background.rgb,
            "foreground_only": layers.foreground,
        }
        for name, writer in self._writers.items():
            writer.add(pictures[name])


def write_track_overlay(
    out: Path,
    frames: UInt8[ndarray, "F H W 3"],
    tracks: Tracks,
    movers: Tracks | None = None,
    progress: Progress = SILENT,
) -> None:
    """Writes tracks.mp4: tracks over the frames with their last positions, a colour for the
    background and a colour for each mover."""
    layers = [(tracks, np.full(tracks.num_tracks, _BACKGROUND_GROUP))]
    if movers is not None:
        ones = np.ones(movers.num_tracks, int)
        # movers of a file without labels are one mover
        layers.append((movers, ones if movers.label is None else movers.label.numpy()))
    drawn, groups = _join_layers(layers)
    pictures = draw_tracks(frames, drawn, groups=groups, max_tracks=2 * _MAX_DRAWN)
    _write_video(
        out / "tracks.mp4", tracks.fps, progress.over(pictures, "track overlay", len(frames))
    )


def _join_layers(
    layers: list[tuple[Tracks, ndarray]],
) -> tuple[PointTracks, ndarray]:
    """At most ``_MAX_DRAWN`` tracks of each layer, evenly chosen, with their colour groups."""
    xy = []
    visible = []
    groups = []
    for tracks, group in layers:
        index = choose_evenly(tracks.num_tracks, _MAX_DRAWN)
        xy.append(tracks.xy.numpy()[:, index])
        visible.append(tracks.visible.numpy()[:, index])
        groups.append(group[index])
    first = layers[0][0]
    arrays = np.concatenate(xy, 1), np.concatenate(visible, 1)
    return PointTracks(*arrays, first.width, first.height), np.concatenate(groups)


def _write_video(path: Path, fps: float, pictures: Iterable[UInt8[ndarray, "H W 3"]]) -> None:
    with VideoWriter(path, fps) as video:
        for picture in pictures:
            video.add(picture)


def render_video(
    path: Path,
    scene: "Scene",
    camera_path: "CameraPath",
    fps: float | None = None,
    save_frames: bool = False,
    progress: Progress = SILENT,
) -> float:
    """Renders a camera path to a video.

    Args:
        path: of the video; the PNGs go to ``frames`` in the same folder, under the video's name.
        fps: frames per second; the clip's if not given.
        save_frames: write a PNG of every view.

    Returns:
        The smallest covered share of a view: the rest shows filled-in colours.
    """
    views, times = camera_path
    coverage = 1.0
    # an earlier run may have rendered more views
    clear_numbered(path.parent / "frames" / path.stem)
    with VideoWriter(path, fps or scene.fps) as video:
        for i in progress.over(range(len(views)), path.stem):
            view = scene.render(views[i], times[i])
            coverage = min(coverage, float(view.covered.mean()))
            video.add(view.rgb)
            if save_frames:
                save_frame(path.parent, path.stem, i, view.rgb)
    return coverage


def save_frame(out: Path, name: str, number: int, rgb: UInt8[ndarray, "H W 3"]) -> None:
    """Writes a PNG of the video ``name`` of a results folder."""
    folder = make_subfolder(out, "frames", name)
    write_image(folder / f"{number:05d}.png", rgb)
