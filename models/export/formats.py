"""A trained scene as files to take along: GLB, PLY, OBJ, a COLMAP model, a nerfstudio data set."""

from collections.abc import Sequence
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
from models.run import InputError, check_output_dir, subfolder
from models.tracks import Tracks

FORMATS = ("glb", "ply", "obj", "colmap", "nerfstudio")
EXPORTED = (
    "scene.glb",
    "scene_animated.glb",
    "points.ply",
    "scene.obj",
    "scene.mtl",
    "scene.jpg",
    "colmap",
)
EXPORTED += ("nerfstudio",)
"""Files and folders that exporting may write."""
MESH_FORMATS = frozenset({"glb", "ply", "obj"})


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
    if world is None and MESH_FORMATS & set(formats):
        world = static_mesh(scene, footage)
    paths = []
    if "glb" in formats:
        paths += _write_glbs(output_dir, scene, world)
    if "ply" in formats:
        paths.append(output_dir / "points.ply")
        write_point_cloud(paths[-1], world)
    if "obj" in formats:
        paths += write_obj(output_dir / "scene.obj", world)
    if "colmap" in formats:
        paths.append(subfolder(output_dir, "colmap"))
        write_colmap(paths[-1], footage, tracks)
    if "nerfstudio" in formats:
        paths.append(subfolder(output_dir, "nerfstudio"))
        write_nerfstudio(paths[-1], footage, tracks)
    return paths


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
    world = static_mesh(scene, footage) if MESH_FORMATS & set(formats) else None
    export_scene(scene, output_dir, formats, footage, tracks, world)
    if world is None:
        return {}
    name = "heldout_frames" if held_out else "training_frames"
    return {"exported_mesh": {name: score_mesh(world, footage, held_out or footage.times)}}


def _write_glbs(output_dir: Path, scene: Scene, world: TexturedMesh) -> list[Path]:
    still = output_dir / "scene.glb"
    animated = output_dir / "scene_animated.glb"
    write_glb(still, world, scene.cameras)
    movers = mover_meshes(scene, world)
    if movers is None:
        animated.unlink(missing_ok=True)  # an earlier run's
        return [still]
    write_animated_glb(animated, world, movers, scene.cameras, scene.fps)
    return [still, animated]


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
