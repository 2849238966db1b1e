"""The scene's meshes as files: GLB (still, and with movers), OBJ and PLY."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from models.cameras import Cameras, find_middle_frame
from models.export.gltf import GltfWriter, camera_motion, encode_image, to_bytes
from models.export.mover_atlas import MoverMeshes
from models.export.texture import TexturedMesh
from models.run import write_bytes

MAX_POINTS = 500_000


def write_glb(path: Path, world: TexturedMesh, cameras: Cameras) -> None:
    """The static mesh, unlit, and the clip's middle camera."""
    gltf = GltfWriter()
    _add_world(gltf, world)
    gltf.add_camera("camera", cameras, find_middle_frame(cameras))
    gltf.write(path)


def write_animated_glb(
    path: Path, world: TexturedMesh, movers: MoverMeshes, cameras: Cameras, fps: float
) -> None:
    """The static mesh, a mesh for each frame's movers that has its full size at that time only, and
    the clip's camera.

    The one animation plays the clip once in its own time.
    """
    gltf = GltfWriter()
    _add_world(gltf, world)
    material = gltf.add_material("movers", to_bytes(movers.texture))
    channels = []
    samplers = []

    def animate(
        node: int, target: str, times: list[float], values: np.ndarray, interpolation: str
    ) -> None:
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": target}})
        arrays = gltf.add_array(np.array(times)), gltf.add_array(values)
        samplers.append({"input": arrays[0], "output": arrays[1], "interpolation": interpolation})

    for i, (t, mesh) in enumerate(zip(movers.times, movers.meshes, strict=True)):
        start, stop = _shown(movers.times, i)
        keys = {0.0: 0.0, start / fps: 1.0, stop / fps: 0.0}
        if stop >= len(cameras):
            keys[len(cameras) / fps] = 1.0  # the last picture stays
        node = {"name": f"mover_{t:05d}", "mesh": gltf.add_mesh(f"mover_{t:05d}", mesh, material)}
        index = gltf.add_node({**node, "scale": [float(i == 0)] * 3})
        animate(
            index,
            "scale",
            list(keys),
            np.repeat(np.array(list(keys.values()))[:, None], 3, 1),
            "STEP",
        )
    camera = gltf.add_camera("camera", cameras, 0)
    shift, turn = camera_motion(cameras)
    moments = [t / fps for t in range(len(cameras))]
    animate(camera, "translation", moments, shift, "LINEAR")
    animate(camera, "rotation", moments, turn, "LINEAR")
    gltf.add("animations", {"name": "clip", "channels": channels, "samplers": samplers})
    gltf.write(path)


def write_obj(path: Path, world: TexturedMesh) -> list[Path]:
    """OBJ with its .mtl and .jpg beside it; y up. Returns all three."""
    atlas = world.atlas
    material = path.with_suffix(".mtl")
    image = path.with_suffix(".jpg")
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
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    write_bytes(
        material, f"newmtl world\nKa 1 1 1\nKd 1 1 1\nillum 0\nmap_Kd {image.name}\n".encode()
    )
    write_bytes(image, encode_image(to_bytes(world.texture)))
    return [path, material, image]


def write_point_cloud(path: Path, world: TexturedMesh) -> None:
    """PLY of points spread over the static mesh, one a texel or fewer, in the scene's own world."""
    points, _, covered = world.atlas.texels(world.atlas.vertices)
    index = np.arange(len(points))
    if len(index) > MAX_POINTS:
        index = np.sort(np.random.default_rng(0).choice(index, MAX_POINTS, replace=False))
    write_ply(path, points.numpy()[index], to_bytes(world.texture[covered][None, index])[0])


def write_ply(path: Path, xyz: Float[np.ndarray, "N 3"], rgb: UInt8[np.ndarray, "N 3"]) -> None:
    """A binary PLY of coloured points."""
    names = ["x", "y", "z"], ["red", "green", "blue"]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}"]
    head += [f"property float {name}" for name in names[0]] + [
        f"property uchar {name}" for name in names[1]
    ]
    table = np.empty(len(xyz), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    table["xyz"] = xyz
    table["rgb"] = rgb
    write_bytes(path, "\n".join([*head, "end_header\n"]).encode() + table.tobytes())


def _add_world(gltf: GltfWriter, world: TexturedMesh) -> None:
    material = gltf.add_material("world", to_bytes(world.texture))
    gltf.add_node(
        {"name": "background", "mesh": gltf.add_mesh("background", world.atlas, material)}
    )


def _shown(times: list[int], i: int) -> tuple[int, int]:
    """First frame of the i-th mesh, and the one after its last: it stands in for a frame left out,
    not for a gap."""
    following = times[i + 1] if i + 1 < len(times) else times[i] + 1
    return times[i], following if following - times[i] <= 2 else times[i] + 1
