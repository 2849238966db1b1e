"""The table of all files and folders of a results folder.

Stages, the results page, the summary in the terminal and the removal of old files read this table.
Files on the way to a result (``checkpoint.pt``, ``stages/``) are not in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

KINDS = ("model", "tracks", "videos", "charts", "data", "exported")
"""Kinds of files that a summary lists, in its order."""
FRAMES = "frames"
"""Kind of a folder of numbered PNGs that belong to a video."""


@dataclass(frozen=True)
class Output:
    """A file or folder of a results folder."""

    name: str
    """Path below the results folder; ``*`` stands for the variant, such as ``_spiral``."""
    script: str
    """Script that writes the file, without ``.py``."""
    stage: str
    """Stage that writes the file; empty for files that every run writes anew."""
    kind: str
    """A member of ``KINDS``, ``FRAMES``, or empty."""
    text: str
    """The content in one sentence."""
    title: str = ""
    """Heading on the results page; empty for files that the page only lists."""
    format: str = ""
    """Export format that the file belongs to."""
    needs_movers: bool = False
    """Written only for a scene with movers."""

    def path(self, variant: str = "") -> str:
        """The name with the variant filled in."""
        return self.name.replace("*", variant)


_BACKGROUND = "background_points", "background_points"
_FOREGROUND = "foreground_points", "foreground_points"
_RECONSTRUCTION = "demo_pipeline", "reconstruction"
_EXPORT = "demo_pipeline", "export"
_END = "demo_pipeline", ""

# The page shows titled videos and charts in the order of this table.
OUTPUTS: tuple[Output, ...] = (
    Output("background_points.pt", *_BACKGROUND, "tracks", "2D tracks, 3D points and cameras."),
    Output("background_points", *_BACKGROUND, "", "Parts of a long clip's background_points.pt."),
    Output("transforms.json", *_BACKGROUND, "data", "Cameras for instant-ngp and nerfstudio."),
    Output("masks", *_BACKGROUND, "", "Masks of movers as PNGs, white = moving."),
    Output("shadows", *_BACKGROUND, "", "Masks of the shadows that movers cast, as PNGs."),
    Output("background_tracks.mp4", *_BACKGROUND, "videos", "Background tracks over the video."),
    Output("background_metrics.json", *_BACKGROUND, "data", "Figures of tracks and cameras."),
    Output("background_config.json", *_BACKGROUND, "data", "Settings, seed, versions."),
    Output("depth", "background_points", "depth", "", "Inverse depth of each frame as .npy."),
    Output("foreground_points.pt", *_FOREGROUND, "tracks", "Tracks of the movers in 2D and 3D."),
    Output("foreground_points", *_FOREGROUND, "", "Parts of a long clip's foreground_points.pt."),
    Output("foreground_tracks.mp4", *_FOREGROUND, "videos", "Tracks of the movers over the video."),
    Output("labels", *_FOREGROUND, "", "Number of the mover of each pixel as PNGs, 0 = none."),
    Output("foreground_metrics.json", *_FOREGROUND, "data", "Tracks and depth of each mover."),
    Output("foreground_config.json", *_FOREGROUND, "data", "Settings, seed, versions."),
    Output("model.pt", "demo_pipeline", "train", "model", "The trained scene."),
    Output(
        "detail.pt", "demo_pipeline", "detail", "model", "Colours of the frames, for sharp views."
    ),
    Output("index.html", *_END, "", "The results page, which opens from disk."),
    Output("config.json", *_END, "data", "Settings, seed, versions."),
    Output("metrics.json", *_END, "data", "Every figure of the results page."),
    Output("stages.json", *_END, "data", "The inputs that each stage was made from."),
    Output("transforms.json", *_END, "data", "Cameras for instant-ngp and nerfstudio."),
    Output("camera_path.json", *_END, "data", "Camera path made in the viewer."),
    Output("input.mp4", *_RECONSTRUCTION, "videos", "The frames that the scene was made from."),
    Output("reconstruction.mp4", *_RECONSTRUCTION, "videos", "The video rebuilt from the scene."),
    Output(
        "novel_view.mp4",
        "demo_pipeline",
        "camera_path",
        "videos",
        "The scene from a camera that never filmed it.",
        "New viewpoints",
    ),
    Output(
        "novel_view_path.json",
        "demo_pipeline",
        "camera_path",
        "data",
        "Camera path of novel_view.mp4 for nerfstudio.",
    ),
    Output(
        "novel_view_path.glb",
        "demo_pipeline",
        "camera_path",
        "exported",
        "Camera path of novel_view.mp4 for Blender.",
    ),
    Output(
        "novel_view*_path.json",
        "demo_pipeline",
        "novel_view",
        "data",
        "Camera path of the video for nerfstudio.",
    ),
    Output(
        "novel_view*_path.glb",
        "demo_pipeline",
        "novel_view",
        "exported",
        "Camera path of the video for Blender.",
    ),
    Output(
        "novel_view*.mp4",
        "demo_pipeline",
        "novel_view",
        "videos",
        "The scene from a camera that never filmed it.",
        "New viewpoints",
    ),
    Output(
        "stereo_*.mp4",
        "demo_pipeline",
        "stereo",
        "videos",
        "For a headset, a 3D screen or coloured glasses.",
        "Stereo",
    ),
    Output(
        "background_only.mp4",
        *_RECONSTRUCTION,
        "videos",
        "The video without its movers.",
        "Background alone",
        needs_movers=True,
    ),
    Output(
        "foreground_only.mp4",
        *_RECONSTRUCTION,
        "videos",
        "The movers over black.",
        "Movers alone",
        needs_movers=True,
    ),
    Output(
        "mesh.mp4", *_RECONSTRUCTION, "videos", "Each frame's triangles over the video.", "Mesh"
    ),
    Output("depth.mp4", *_RECONSTRUCTION, "videos", "Red is near, blue is far.", "Depth"),
    Output(
        "tracks.mp4",
        "demo_pipeline",
        "tracks",
        "videos",
        "Tracks and their last positions, coloured by layer.",
        "Tracks",
    ),
    Output("frames/reconstruction", *_RECONSTRUCTION, FRAMES, "Rebuilt frames as PNGs."),
    Output("frames/heldout", *_RECONSTRUCTION, FRAMES, "Rebuilt held-out frames as PNGs."),
    Output("frames/novel_view", "demo_pipeline", "camera_path", FRAMES, "New views as PNGs."),
    Output("frames/novel_view*", "demo_pipeline", "novel_view", FRAMES, "New views as PNGs."),
    Output(
        "loss_curve.png",
        *_END,
        "charts",
        "PSNR of training pixels and held-out frames over the training steps.",
        "PSNR during training",
    ),
    Output(
        "psnr_per_frame.png", *_END, "charts", "PSNR of each rebuilt frame.", "PSNR of each frame"
    ),
    Output(
        "reprojection_error.png",
        *_END,
        "charts",
        "Distances between tracks and projected 3D points.",
        "Reprojection error",
    ),
    Output(
        "camera_path.png",
        *_END,
        "charts",
        "Cameras and static points from above.",
        "Camera path from above",
    ),
    Output(
        "scene.glb",
        *_EXPORT,
        "exported",
        "The static scene for Blender, three.js, MeshLab.",
        format="glb",
    ),
    Output(
        "scene_animated.glb",
        *_EXPORT,
        "exported",
        "The scene with its movers, animated.",
        format="glb",
        needs_movers=True,
    ),
    Output(
        "scene.usdz",
        *_EXPORT,
        "exported",
        "The scene with its movers, animated, for Quick Look and Vision Pro.",
        format="usdz",
    ),
    Output("points.ply", *_EXPORT, "exported", "Coloured points of the surface.", format="ply"),
    Output("scene.obj", *_EXPORT, "exported", "The static scene, y up.", format="obj"),
    Output("scene.mtl", *_EXPORT, "exported", "Material of scene.obj.", format="obj"),
    Output("scene.jpg", *_EXPORT, "exported", "Texture of scene.obj.", format="obj"),
    Output(
        "depth_maps",
        *_EXPORT,
        "exported",
        "z-depth of each video: EXR, 16-bit PNG, grey video, JSON with near and far.",
        format="depth",
    ),
    Output("colmap", *_EXPORT, "exported", "Training images and a COLMAP model.", format="colmap"),
    Output(
        "nerfstudio",
        *_EXPORT,
        "exported",
        "Training images, cameras, masks and points for nerfstudio.",
        format="nerfstudio",
    ),
)


def stage_outputs(stage: str, variant: str = "") -> tuple[str, ...]:
    """Names of the files and folders that a stage may write.

    Args:
        variant: part of the name of a novel view video, such as ``_spiral``.
    """
    return tuple(output.path(variant) for output in OUTPUTS if output.stage == stage)


def find_output(name: str) -> Output | None:
    """The entry of a file of a results folder; None for files that no script writes."""
    exact = (output for output in OUTPUTS if output.name == name)
    matching = (output for output in OUTPUTS if fnmatchcase(name, output.name))
    return next(exact, next(matching, None))


def find_shown(folder: Path, kind: str) -> dict[Path, Output]:
    """The titled files of a kind that exist in a results folder, in the order of the page."""
    shown: dict[Path, Output] = {}
    for output in OUTPUTS:
        if output.title and output.kind == kind:
            for path in sorted(folder.glob(output.name)):
                shown.setdefault(path, output)
    return shown


def group_by_kind(names: Iterable[str]) -> dict[str, list[str]]:
    """File names of a results folder under their kinds, in the order of ``KINDS``."""
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for name in sorted(names):
        output = find_output(name)
        if output is not None and output.kind in kinds:
            kinds[output.kind].append(name)
    return {kind: members for kind, members in kinds.items() if members}


def clear_outputs(folder: Path, stage: str, *, has_movers: bool) -> None:
    """Removes files that an earlier run of a stage wrote and this run may not overwrite.

    Args:
        has_movers: keeps the files that are written only for a scene with movers.
    """
    for output in OUTPUTS:
        if output.stage != stage:
            continue
        if output.kind == FRAMES:
            clear_numbered(folder / output.name)
        elif output.needs_movers and not has_movers:
            (folder / output.name).unlink(missing_ok=True)


def clear_numbered(folder: Path) -> None:
    """Removes the numbered PNGs of a folder."""
    for path in folder.glob("[0-9]*.png"):
        path.unlink()
