"""The scene's meshes as files: GLB (still, and with movers), OBJ and PLY.

OBJ and PLY have writers of their own instead of those of trimesh, which would compress the texture
by Pillow's defaults, with subsampled colour, and write lit materials.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from models.cameras import Cameras, find_middle_frame
from models.export.gltf import (
    AnimationWriter,
    GltfWriter,
    bytes_from_colors,
    compute_camera_motion,
    encode_image,
)
from models.export.options import ExportOptions
from models.export.world.mover_atlas import MoverMeshes
from models.export.world.texture import TexturedMesh
from models.run import write_bytes


def write_glb(
    path: Path, world: TexturedMesh, cameras: Cameras, options: ExportOptions = ExportOptions()
) -> None:
    """Writes the static mesh, unlit, and the clip's middle camera."""
    gltf = GltfWriter(options)
    _add_world(gltf, world)
    gltf.add_camera("camera", cameras, find_middle_frame(cameras))
    gltf.write(path)


def write_animated_glb(
    path: Path,
    world: TexturedMesh,
    movers: MoverMeshes,
    cameras: Cameras,
    fps: float,
    options: ExportOptions = ExportOptions(),
) -> None:
    """Writes the static mesh, a mesh for each frame's movers, and the clip's camera.

    The animation plays the clip at its own speed: the mesh of each frame has full size at the time
    of the frame, and size 0 at other times.
    """
    gltf = GltfWriter(options)
    _add_world(gltf, world)
    animation = AnimationWriter(gltf)
    _add_movers(gltf, animation, movers, len(cameras), fps)
    camera = gltf.add_camera("camera", cameras, 0)
    shift, turn = compute_camera_motion(cameras)
    seconds = [t / fps for t in range(len(cameras))]
    animation.animate(camera, "translation", seconds, shift, "LINEAR")
    animation.animate(camera, "rotation", seconds, turn, "LINEAR")
    animation.finish("clip")
    gltf.write(path)


def _add_world(gltf: GltfWriter, world: TexturedMesh) -> None:
    material = gltf.add_material("world", bytes_from_colors(world.texture))
    mesh = gltf.add_mesh("background", world.atlas, material)
    gltf.add_node({"name": "background", "mesh": mesh})


def _add_movers(
    gltf: GltfWriter, animation: AnimationWriter, movers: MoverMeshes, num_frames: int, fps: float
) -> None:
    """Adds the movers' meshes and switches their sizes frame by frame."""
    material = gltf.add_material("movers", bytes_from_colors(movers.texture))
    for i, (t, mesh) in enumerate(zip(movers.times, movers.meshes, strict=True)):
        start, stop = find_span(movers.times, i)
        # glTF has no visibility: size 0 hides a mesh
        keys = {0.0: 0.0, start / fps: 1.0, stop / fps: 0.0}
        if stop >= num_frames:
            # the last picture stays
            keys[num_frames / fps] = 1.0
        name = f"mover_{t:05d}"
        node = {"name": name, "mesh": gltf.add_mesh(name, mesh, material)}
        index = gltf.add_node({**node, "scale": [float(i == 0)] * 3})
        sizes = np.repeat(np.array(list(keys.values()))[:, None], 3, 1)
        animation.animate(index, "scale", list(keys), sizes, "STEP")


def find_span(times: list[int], i: int) -> tuple[int, int]:
    """First frame that shows the i-th mesh, and the frame after its last.

    A mesh also stands in for a single missing frame after its own, but not for a longer gap.
    """
    following = times[i + 1] if i + 1 < len(times) else times[i] + 1
    return times[i], following if following - times[i] <= 2 else times[i] + 1


def write_obj(path: Path, world: TexturedMesh, options: ExportOptions = ExportOptions()) -> None:
    """Writes OBJ with its .mtl and .jpg beside it; y up."""
    atlas = world.atlas
    material = path.with_suffix(".mtl")
    image = path.with_suffix(".jpg")
    # OBJ viewers have y up
    xyz = atlas.vertices * np.array([1, -1, -1], np.float32)
    uv = atlas.uv / [atlas.width, atlas.height]
    lines = [
        "# spacelayer: x right, y up, z backward in the first camera",
        f"mtllib {material.name}",
        "usemtl world",
    ]
    lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in xyz.tolist()]
    lines += [f"vt {u:.7g} {1 - v:.7g}" for u, v in uv.tolist()]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in (atlas.faces + 1).tolist()]
    # illum 0 shows the texture without lighting
    unlit = f"newmtl world\nKa 1 1 1\nKd 1 1 1\nillum 0\nmap_Kd {image.name}\n"
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    write_bytes(material, unlit.encode())
    write_bytes(image, encode_image(bytes_from_colors(world.texture), options.jpeg_quality))


def write_point_cloud(
    path: Path, world: TexturedMesh, options: ExportOptions = ExportOptions()
) -> None:
    """Writes PLY of points on the static mesh, in the scene's own world: a point for each texel, or
    for a random choice of texels."""
    points, _, covered = world.atlas.locate_texels(world.atlas.vertices)
    # seed 0: the same points in every run
    index = np.arange(len(points))
    if len(index) > options.points:
        generator = np.random.default_rng(0)
        index = np.sort(generator.choice(index, options.points, replace=False))
    rgb = bytes_from_colors(world.texture[covered][None, index])[0]
    write_ply(path, points.numpy()[index], rgb)


def write_ply(path: Path, xyz: Float[np.ndarray, "N 3"], rgb: UInt8[np.ndarray, "N 3"]) -> None:
    """Writes a binary PLY of coloured points."""
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}"]
    head += [f"property float {name}" for name in ("x", "y", "z")]
    head += [f"property uchar {name}" for name in ("red", "green", "blue")]
    table = np.empty(len(xyz), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    table["xyz"] = xyz
    table["rgb"] = rgb
    write_bytes(path, "\n".join([*head, "end_header\n"]).encode() + table.tobytes())
