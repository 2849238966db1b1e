"""Textured meshes, movers switched frame by frame, and cameras -> one binary glTF file (GLB).

Source: Khronos Group, "glTF 2.0 specification", 2021, and KHR_materials_unlit: colours are shown as
they are. The vertices stand in the scene's own world; the root node turns that (y down) to glTF's
(y up).
"""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from models.cameras import OPENGL_FROM_OPENCV, Cameras
from models.export.atlas import Atlas
from models.run import replace_file

FLOAT = 5126
UINT32 = 5125
ARRAY_BUFFER = 34962
ELEMENT_ARRAY_BUFFER = 34963
LINEAR = 9729
LINEAR_MIPMAP_LINEAR = 9987
CLAMP = 33071
JPEG_QUALITY = 95


class GltfWriter:
    """Collects a scene piece by piece, then writes it."""

    def __init__(self):
        self.binary = bytearray()
        turn = {"name": "world", "rotation": [1.0, 0.0, 0.0, 0.0], "children": []}
        self.root: dict = {
            "asset": {"version": "2.0", "generator": "spacelayer"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [turn],
            "extensionsUsed": ["KHR_materials_unlit"],
        }

    def add(self, kind: str, item: dict) -> int:
        """Appends to one of the file's lists; returns the place in it."""
        self.root.setdefault(kind, []).append(item)
        return len(self.root[kind]) - 1

    def add_node(self, node: dict) -> int:
        """Appends a node in world axes."""
        index = self.add("nodes", node)
        self.root["nodes"][0]["children"].append(index)
        return index

    def add_material(self, name: str, image: UInt8[np.ndarray, "h w C"]) -> int:
        """An unlit material with a texture: JPEG, or PNG with a cut-out where the image has an
        alpha channel."""
        has_alpha = image.shape[2] == 4
        data = encode_image(image)
        mime = "image/png" if has_alpha else "image/jpeg"
        view = self._add_view(data, None)
        source = self.add("images", {"name": name, "mimeType": mime, "bufferView": view})
        wrap = {
            "magFilter": LINEAR,
            "minFilter": LINEAR_MIPMAP_LINEAR,
            "wrapS": CLAMP,
            "wrapT": CLAMP,
        }
        sampler = self.add("samplers", wrap)
        texture = self.add("textures", {"source": source, "sampler": sampler})
        surface = {
            "baseColorTexture": {"index": texture},
            "metallicFactor": 0.0,
            "roughnessFactor": 1.0,
        }
        cut = {"alphaMode": "MASK", "alphaCutoff": 0.5} if has_alpha else {}
        unlit = {"extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}
        return self.add(
            "materials", {"name": name, "pbrMetallicRoughness": surface, **unlit, **cut}
        )

    def add_mesh(self, name: str, atlas: Atlas, material: int) -> int:
        """A mesh with its own vertices; returns its number."""
        scale = np.array([atlas.width, atlas.height], np.float32)
        attributes = {
            "POSITION": self.add_array(atlas.vertices, ARRAY_BUFFER),
            "TEXCOORD_0": self.add_array(atlas.uv / scale, ARRAY_BUFFER),
        }
        indices = self.add_array(atlas.faces.ravel(), ELEMENT_ARRAY_BUFFER)
        primitive = {"attributes": attributes, "indices": indices, "material": material}
        return self.add("meshes", {"name": name, "primitives": [primitive]})

    def add_camera(self, name: str, cameras: Cameras, t: int) -> int:
        """Camera t as a node; a principal point off the middle is not told."""
        lens = {
            "yfov": float(2 * np.arctan(cameras.height / 2 / float(cameras.K[t, 1, 1]))),
            "aspectRatio": cameras.width / cameras.height,
            "znear": 1e-3,
        }
        camera = self.add("cameras", {"name": name, "type": "perspective", "perspective": lens})
        shift, turn = camera_motion(cameras)
        place = {"translation": shift[t].tolist(), "rotation": turn[t].tolist()}
        return self.add_node({"name": name, "camera": camera, **place})

    def add_array(self, array: np.ndarray, target: int | None = None) -> int:
        """Floats (N, C) or (N,), or indices (N,), as an accessor."""
        is_index = array.dtype.kind in "iu"
        array = np.ascontiguousarray(array, "<u4" if is_index else "<f4")
        view = self._add_view(array.tobytes(), target)
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[
            1 if array.ndim == 1 else array.shape[1]
        ]
        component = UINT32 if is_index else FLOAT
        low, high = (np.atleast_1d(f(array, 0)).tolist() for f in (np.min, np.max))
        item = {"bufferView": view, "componentType": component, "count": len(array), "type": kind}
        return self.add("accessors", {**item, "min": low, "max": high})

    def _add_view(self, data: bytes, target: int | None) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.binary += data
        return self.add("bufferViews", view if target is None else {**view, "target": target})

    def write(self, path: Path) -> None:
        """Writes the GLB under a temporary name and renames it.

        Raises:
            InputError: the file cannot be written.
        """
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.root["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.root, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(self.binary))
        sizes = (
            struct.pack("<I4s", len(text), b"JSON"),
            struct.pack("<I4s", len(self.binary), b"BIN\0"),
        )
        with replace_file(path) as temporary, temporary.open("wb") as file:
            file.writelines([head, sizes[0], text, sizes[1], self.binary])


def camera_motion(cameras: Cameras) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, "F 4"]]:
    """Centres and unit quaternions (x, y, z, w) of cameras in glTF's axes (y up, z backward), world
    as it is."""
    poses = (cameras.world_from_cam.double() @ OPENGL_FROM_OPENCV).numpy()
    turn = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    for i in range(1, len(turn)):
        if (
            turn[i] @ turn[i - 1] < 0
        ):  # q and -q are one rotation; interpolation takes the short way
            turn[i] = -turn[i]
    return poses[:, :3, 3], turn


def encode_image(image: UInt8[np.ndarray, "h w C"]) -> bytes:
    """JPEG of an RGB image, PNG of one with alpha."""
    if image.shape[2] == 4:
        return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))[1].tobytes()
    full = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    )  # charts are small: colour must not run from one into the next
    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def decode_image(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of an encoded image, as others will read them."""
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )


def to_bytes(texture: Float[np.ndarray, "h w C"]) -> UInt8[np.ndarray, "h w C"]:
    """0 to 1 -> 0 to 255."""
    return (texture * 255 + np.float32(0.5)).clip(0, 255).astype(np.uint8)
