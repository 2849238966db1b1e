"""A trained scene as files to take along: GLB, PLY, OBJ, a COLMAP model, a nerfstudio data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from models.export.datasets import write_colmap, write_nerfstudio
from models.export.footage import Footage
from models.export.gltf import decode_image, encode_image, to_bytes
from models.export.mesh_files import write_animated_glb, write_glb, write_obj, write_point_cloud
from models.export.mover_atlas import mover_meshes
from models.export.texture import TexturedMesh, textured_world
from models.render import Scene, finite_psnr, ssim
from models.run import OUTPUTS, InputError, check_output_dir, clear_outputs, make_subfolder
from models.tracks import Tracks


@dataclass(frozen=True)
class Export:
    """A scene on its way into the files of a folder."""

    folder: Path
    scene: Scene
    footage: Footage
    tracks: Tracks
    """Tracks of the background."""
    world: TexturedMesh | None
    """The static mesh; None if no format needs a mesh."""


@dataclass(frozen=True)
class ExportFormat:
    """A format that a scene can be exported in; its files stand in ``run.OUTPUTS``."""

    help: str
    """The programs that read the format."""
    write: Callable[[Export], None]
    """Writes the files of the format."""
    needs_mesh: bool = False
    """Whether the format holds the static mesh of the world."""

    def describe(self, name: str) -> str:
        """One line for the help of a command: the name, its files and the readers."""
        return f"{name} ({', '.join(format_files(name))}): {self.help}"


def format_files(name: str) -> tuple[str, ...]:
    """Names of the files and folders that an export format may write."""
    return tuple(output.name for output in OUTPUTS if output.format == name)


def parse_formats(text: str) -> list[str]:
    """The formats named in a text like "glb,ply".

    Raises:
        InputError: one of them is unknown.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise InputError(
                f"--export: there is no format '{name}'; choose from {', '.join(FORMATS)}"
            )
    return list(dict.fromkeys(names))


def footage_of(
    scene: Scene,
    frames: UInt8[np.ndarray, "F H W 3"],
    masks: Bool[np.ndarray, "F H W"] | None,
    margin: int = 0,
) -> Footage:
    """The frames that a scene was trained on: those with a mesh.

    Args:
        masks: where something moves.
        margin: pixels by which they are grown.
    """
    return Footage(
        scene.cameras, frames, masks, scene.exposure, sorted(scene.background.meshes.faces), margin
    )


def static_mesh(scene: Scene, footage: Footage) -> TexturedMesh:
    """One textured mesh of all that stands still."""
    return textured_world(scene.background.meshes, scene.background.renderer, footage)


def export_scene(
    scene: Scene,
    output_dir: Path,
    formats: Sequence[str],
    footage: Footage,
    tracks: Tracks,
    world: TexturedMesh | None = None,
) -> list[Path]:
    """Writes the scene in each of the formats into a folder; returns the files and folders made.

    Args:
        tracks: those of the background.
        world: what ``static_mesh`` made, where that is at hand.

    Raises:
        InputError: something cannot be written.
    """
    output_dir = check_output_dir(output_dir)
    if world is None and _need_mesh(formats):
        world = static_mesh(scene, footage)
    export = Export(output_dir, scene, footage, tracks, world)
    for name in formats:
        FORMATS[name].write(export)
    paths = [output_dir / file for name in formats for file in format_files(name)]
    return [path for path in paths if path.exists()]


def _need_mesh(formats: Sequence[str]) -> bool:
    return any(FORMATS[name].needs_mesh for name in formats)


def export_and_score(
    scene: Scene,
    output_dir: Path,
    formats: Sequence[str],
    footage: Footage,
    tracks: Tracks,
    held_out: Sequence[int] = (),
) -> dict:
    """Like ``export_scene``; returns how well the mesh alone shows the held-out frames, or all if
    none are."""
    world = static_mesh(scene, footage) if _need_mesh(formats) else None
    export_scene(scene, output_dir, formats, footage, tracks, world)
    if world is None:
        return {}
    name = "heldout_frames" if held_out else "training_frames"
    return {"exported_mesh": {name: score_mesh(world, footage, held_out or footage.times)}}


def score_mesh(world: TexturedMesh, footage: Footage, frames: Sequence[int]) -> dict[str, float]:
    """Mean PSNR (outside the masks) and SSIM of the mesh's pictures of frames, with its texture as
    it is in the files.

    Each frame's exposure is applied. ``coverage`` is the mean share of the image where the mesh is;
    elsewhere the pictures are black.
    """
    encoded = decode_image(encode_image(to_bytes(world.texture)))
    world = TexturedMesh(world.atlas, encoded.astype(np.float32) / 255)
    scores = []
    for t in frames:
        rgb, depth = world.render(footage.cameras[t])
        picture = (255 * rgb * footage.exposure.factor(t) + 0.5).clip(0, 255).astype(np.uint8)
        truth = footage.frames[t]
        still = footage.still(t)
        quality = finite_psnr(picture, truth, still if still.any() else None)
        scores.append((quality, ssim(picture, truth), np.isfinite(depth).mean()))
    return dict(zip(("psnr", "ssim", "coverage"), np.mean(scores, 0).tolist(), strict=True))


def _write_glbs(export: Export) -> None:
    scene = export.scene
    write_glb(export.folder / "scene.glb", export.world, scene.cameras)
    movers = mover_meshes(scene, export.world)
    clear_outputs(export.folder, "export", has_movers=movers is not None)
    if movers is not None:
        path = export.folder / "scene_animated.glb"
        write_animated_glb(path, export.world, movers, scene.cameras, scene.fps)


def _write_points(export: Export) -> None:
    write_point_cloud(export.folder / "points.ply", export.world)


def _write_obj(export: Export) -> None:
    write_obj(export.folder / "scene.obj", export.world)


def _write_colmap(export: Export) -> None:
    write_colmap(make_subfolder(export.folder, "colmap"), export.footage, export.tracks)


def _write_nerfstudio(export: Export) -> None:
    write_nerfstudio(make_subfolder(export.folder, "nerfstudio"), export.footage, export.tracks)


FORMATS: dict[str, ExportFormat] = {
    "glb": ExportFormat("Blender, three.js, MeshLab", _write_glbs, needs_mesh=True),
    "ply": ExportFormat("MeshLab, CloudCompare", _write_points, needs_mesh=True),
    "obj": ExportFormat("nearly every 3D program", _write_obj, needs_mesh=True),
    "colmap": ExportFormat("COLMAP and programs built on it", _write_colmap),
    "nerfstudio": ExportFormat("nerfstudio", _write_nerfstudio),
}
"""Export formats by the name that ``--export`` takes."""
