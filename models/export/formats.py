"""A trained scene in the formats of other programs: GLB, PLY, OBJ, a COLMAP model, a nerfstudio
data set, depth maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.export.datasets import write_colmap, write_nerfstudio
from models.export.depth_maps import write_depth_maps
from models.export.footage import Footage
from models.export.gltf import bytes_from_colors, decode_image, encode_image
from models.export.mesh_files import write_animated_glb, write_glb, write_obj, write_point_cloud
from models.export.options import ExportOptions
from models.export.usd import check_usd, write_usdz
from models.export.world.mover_atlas import build_mover_meshes
from models.export.world.texture import TexturedMesh, build_textured_world
from models.paths import CameraPath
from models.render import Scene, finite_psnr, ssim
from models.run import (
    OUTPUTS,
    PAIR,
    SILENT,
    InputError,
    Progress,
    check_output_dir,
    clear_outputs,
    make_subfolder,
    run_ahead,
)
from models.tracks import Tracks


@dataclass(frozen=True)
class ExportSource:
    """The data behind exported files."""

    scene: Scene
    footage: Footage
    tracks: Tracks
    """Tracks of the background."""
    options: ExportOptions = ExportOptions()
    paths: Mapping[str, CameraPath] = field(default_factory=dict)
    """Camera paths of the videos by their names, whose depth is exported."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Frames per second of these videos; the clip's where there is none."""
    unit: str = "the scene's own"
    """Of the scene's lengths, in words."""


Writer = Callable[[ExportSource, Path, TexturedMesh | None, Progress], None]
"""Writes the files of a format into a folder; the mesh is None if no format needs a mesh."""


@dataclass(frozen=True)
class ExportFormat:
    """A format that a scene can be exported in.

    The rows of ``run.OUTPUTS`` with the format's name tell its files; a new format takes these rows
    and an entry of ``FORMATS``.
    """

    help: str
    """The programs that read the format."""
    write: Writer
    needs_mesh: bool = False
    """Whether the format holds the static mesh of the world."""
    check: Callable[[], None] | None = None
    """Refuses the format where a library is missing."""


def format_files(name: str) -> tuple[str, ...]:
    """Names of the files and folders that an export format may write."""
    return tuple(output.name for output in OUTPUTS if output.format == name)


def parse_formats(text: str) -> list[str]:
    """The formats named in a text like "glb,ply".

    Raises:
        InputError: a format is unknown, or its library is missing.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise InputError(
                f"--export: there is no format '{name}'; choose from {', '.join(FORMATS)}"
            )
        check = FORMATS[name].check
        if check is not None:
            check()
    # each format once, in the order given
    return list(dict.fromkeys(names))


def build_static_mesh(source: ExportSource, progress: Progress = SILENT) -> TexturedMesh:
    """A textured mesh of the static background."""
    return build_textured_world(source.scene.background, source.footage, progress, source.options)


def export_scene(
    source: ExportSource,
    output_dir: Path,
    formats: Sequence[str],
    world: TexturedMesh | None = None,
    progress: Progress = SILENT,
) -> list[Path]:
    """Writes the scene in each of the formats into a folder; returns the files and folders made.

    Args:
        world: the result of ``build_static_mesh``, if at hand.

    Raises:
        InputError: a file cannot be written.
    """
    output_dir = check_output_dir(output_dir)
    if world is None and _need_mesh(formats):
        world = build_static_mesh(source, progress)
    for name in formats:
        FORMATS[name].write(source, output_dir, world, progress)
    paths = [output_dir / file for name in formats for file in format_files(name)]
    return [path for path in paths if path.exists()]


def _need_mesh(formats: Sequence[str]) -> bool:
    return any(FORMATS[name].needs_mesh for name in formats)


def export_and_score(
    source: ExportSource,
    output_dir: Path,
    formats: Sequence[str],
    held_out: Sequence[int] = (),
    progress: Progress = SILENT,
) -> dict:
    """``export_scene``, and the scores of the exported mesh.

    Args:
        held_out: frames to score; all frames of the footage if there are none.

    Returns:
        Scores under "exported_mesh" for metrics.json; empty if no format has a mesh.
    """
    world = build_static_mesh(source, progress) if _need_mesh(formats) else None
    export_scene(source, output_dir, formats, world, progress)
    if world is None:
        return {}
    name = "heldout_frames" if held_out else "training_frames"
    scores = score_mesh(world, source.footage, held_out or source.footage.times, source.options)
    return {"exported_mesh": {name: scores}}


def score_mesh(
    world: TexturedMesh,
    footage: Footage,
    frames: Sequence[int],
    options: ExportOptions = ExportOptions(),
) -> dict[str, float]:
    """Mean PSNR (outside the masks) and SSIM of the mesh's pictures of frames, with the compressed
    texture of the files.

    Each frame's exposure is applied. ``coverage`` is the mean share of the image that the mesh
    covers; other pixels are black.
    """
    # viewers see the texture after compression
    encoded = encode_image(bytes_from_colors(world.texture), options.jpeg_quality)
    world = TexturedMesh(world.atlas, decode_image(encoded).astype(np.float32) / 255)

    def score(t: int) -> tuple[float, float, float]:
        rgb, depth = world.render(footage.cameras[t])
        picture = (255 * rgb * footage.exposure.factor(t) + 0.5).clip(0, 255).astype(np.uint8)
        truth = footage.frames[t]
        still = footage.still(t)
        quality = finite_psnr(picture, truth, still if still.any() else None)
        return quality, ssim(picture, truth), float(np.isfinite(depth).mean())

    scores = list(run_ahead(score, frames, PAIR))
    return dict(zip(("psnr", "ssim", "coverage"), np.mean(scores, 0).tolist(), strict=True))


def _write_glbs(
    source: ExportSource, folder: Path, world: TexturedMesh | None, progress: Progress
) -> None:
    scene = source.scene
    options = source.options
    write_glb(folder / "scene.glb", world, scene.cameras, options)
    movers = build_mover_meshes(scene, world, options)
    # an earlier run may have had movers
    clear_outputs(folder, "export", has_movers=movers is not None)
    if movers is not None:
        path = folder / "scene_animated.glb"
        write_animated_glb(path, world, movers, scene.cameras, scene.fps, options)


def _write_usdz(
    source: ExportSource, folder: Path, world: TexturedMesh | None, progress: Progress
) -> None:
    scene = source.scene
    movers = build_mover_meshes(scene, world, source.options)
    write_usdz(folder / "scene.usdz", world, movers, scene.cameras, scene.fps, source.options)


def _write_points(
    source: ExportSource, folder: Path, world: TexturedMesh | None, progress: Progress
) -> None:
    write_point_cloud(folder / "points.ply", world, source.options)


def _write_obj(
    source: ExportSource, folder: Path, world: TexturedMesh | None, progress: Progress
) -> None:
    write_obj(folder / "scene.obj", world, source.options)


def _write_colmap(
    source: ExportSource, folder: Path, world: TexturedMesh | None, progress: Progress
) -> None:
    write_colmap(make_subfolder(folder, "colmap"), source.footage, source.tracks)


def _write_nerfstudio(
    source: ExportSource, folder: Path, world: TexturedMesh | None, progress: Progress
) -> None:
    write_nerfstudio(make_subfolder(folder, "nerfstudio"), source.footage, source.tracks)


def _write_depth(
    source: ExportSource, folder: Path, world: TexturedMesh | None, progress: Progress
) -> None:
    own = make_subfolder(folder, "depth_maps")
    write_depth_maps(own, source.scene, source.paths, source.rates, source.unit, progress)


FORMATS: dict[str, ExportFormat] = {
    "glb": ExportFormat("Blender, three.js, MeshLab", _write_glbs, needs_mesh=True),
    "usdz": ExportFormat("Quick Look, Vision Pro", _write_usdz, needs_mesh=True, check=check_usd),
    "ply": ExportFormat("MeshLab, CloudCompare", _write_points, needs_mesh=True),
    "obj": ExportFormat("nearly every 3D program", _write_obj, needs_mesh=True),
    "colmap": ExportFormat("COLMAP and programs built on it", _write_colmap),
    "nerfstudio": ExportFormat("nerfstudio", _write_nerfstudio),
    "depth": ExportFormat("compositors such as Nuke, Blender, After Effects", _write_depth),
}
"""Export formats by the name that ``--export`` takes."""
