"""Textured meshes, movers switched frame by frame, and cameras -> a binary glTF file (GLB).

Source: Khronos Group, "glTF 2.0 specification", 2021, and KHR_materials_unlit, which shows colours
without lighting. The vertices keep the scene's own world; the root node turns from y down
to glTF's y up.
"""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from models.cameras import OPENGL_FROM_OPENCV, Cameras
from models.export.options import ExportOptions
from models.export.world.atlas import Atlas
from models.run import make_write_error, replace_file

# Enumerations of the specification, which are those of OpenGL.
_FLOAT = 5126
_UINT32 = 5125
_ARRAY_BUFFER = 34962
_ELEMENT_ARRAY_BUFFER = 34963
_LINEAR = 9729
_LINEAR_MIPMAP_LINEAR = 9987
_CLAMP = 33071
_ACCESSOR_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
# glTF aligns accessors and chunks to four bytes.
_ALIGNMENT = 4


class GltfWriter:
    """Collects a scene piece by piece and writes the file."""

    def __init__(self, options: ExportOptions = ExportOptions()):
        self.binary = bytearray()
        self.options = options
        # half a turn about x
        turn = {"name": "world", "rotation": [1.0, 0.0, 0.0, 0.0], "children": []}
        self.root: dict = {
            "asset": {"version": "2.0", "generator": "spacelayer"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [turn],
            "extensionsUsed": ["KHR_materials_unlit"],
        }

    def add(self, kind: str, item: dict) -> int:
        """Appends to a list of the file; returns the index in the list."""
        self.root.setdefault(kind, []).append(item)
        return len(self.root[kind]) - 1

    def add_node(self, node: dict) -> int:
        """Appends a node in world axes; returns its index."""
        index = self.add("nodes", node)
        self.root["nodes"][0]["children"].append(index)
        return index

    def add_material(self, name: str, image: UInt8[np.ndarray, "h w C"]) -> int:
        """Adds an unlit material with a texture: JPEG, or PNG with a cut-out for an image with an
        alpha channel."""
        has_alpha = image.shape[2] == 4
        surface = {
            "baseColorTexture": {"index": self._add_texture(name, image)},
            "metallicFactor": 0.0,
            "roughnessFactor": 1.0,
        }
        # a cut-out, not blending: viewers sort blended faces wrongly
        cut = {"alphaMode": "MASK", "alphaCutoff": 0.5} if has_alpha else {}
        # colours hold the light of the video already
        unlit = {"extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}
        material = {"name": name, "pbrMetallicRoughness": surface, **unlit, **cut}
        return self.add("materials", material)

    def _add_texture(self, name: str, image: UInt8[np.ndarray, "h w C"]) -> int:
        mime = "image/png" if image.shape[2] == 4 else "image/jpeg"
        view = self._add_view(encode_image(image, self.options.jpeg_quality), None)
        source = self.add("images", {"name": name, "mimeType": mime, "bufferView": view})
        filters = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR}
        sampler = self.add("samplers", {**filters, "wrapS": _CLAMP, "wrapT": _CLAMP})
        return self.add("textures", {"source": source, "sampler": sampler})

    def add_mesh(self, name: str, atlas: Atlas, material: int) -> int:
        """Adds a mesh with vertices of its own; returns its index."""
        scale = np.array([atlas.width, atlas.height], np.float32)
        attributes = {
            "POSITION": self.add_array(atlas.vertices, _ARRAY_BUFFER),
            "TEXCOORD_0": self.add_array(atlas.uv / scale, _ARRAY_BUFFER),
        }
        indices = self.add_array(atlas.faces.ravel(), _ELEMENT_ARRAY_BUFFER)
        primitive = {"attributes": attributes, "indices": indices, "material": material}
        return self.add("meshes", {"name": name, "primitives": [primitive]})

    def add_camera(self, name: str, cameras: Cameras, t: int) -> int:
        """Adds camera t as a node; glTF has no principal point outside the image's middle."""
        lens = {
            "yfov": float(2 * np.arctan(cameras.height / 2 / float(cameras.K[t, 1, 1]))),
            "aspectRatio": cameras.width / cameras.height,
            "znear": 1e-3,
        }
        camera = self.add("cameras", {"name": name, "type": "perspective", "perspective": lens})
        shift, turn = compute_camera_motion(cameras)
        place = {"translation": shift[t].tolist(), "rotation": turn[t].tolist()}
        return self.add_node({"name": name, "camera": camera, **place})

    def add_array(self, array: np.ndarray, target: int | None = None) -> int:
        """Adds floats (N, C) or (N,), or indices (N,), as an accessor; returns its index.

        Args:
            target: the buffer that the array is for; None for arrays of animations.
        """
        is_index = array.dtype.kind in "iu"
        array = np.ascontiguousarray(array, "<u4" if is_index else "<f4")
        view = self._add_view(array.tobytes(), target)
        kind = _ACCESSOR_TYPES[1 if array.ndim == 1 else array.shape[1]]
        component = _UINT32 if is_index else _FLOAT
        # the specification demands the range of positions and times
        low, high = (np.atleast_1d(f(array, 0)).tolist() for f in (np.min, np.max))
        item = {"bufferView": view, "componentType": component, "count": len(array), "type": kind}
        return self.add("accessors", {**item, "min": low, "max": high})

    def _add_view(self, data: bytes, target: int | None) -> int:
        self.binary += b"\0" * (-len(self.binary) % _ALIGNMENT)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.binary += data
        return self.add("bufferViews", view if target is None else {**view, "target": target})

    def write(self, path: Path) -> None:
        """Writes the GLB under a temporary name, then renames.

        Raises:
            InputError: the file cannot be written.
        """
        self.binary += b"\0" * (-len(self.binary) % _ALIGNMENT)
        self.root["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.root, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        # the file's header of 12 bytes, and a header of 8 bytes before each chunk
        size = 12 + 8 + len(text) + 8 + len(self.binary)
        parts = [
            struct.pack("<4sII", b"glTF", 2, size),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(self.binary), b"BIN\0"),
            self.binary,
        ]
        with replace_file(path) as temporary:
            with temporary.open("wb") as file:
                file.writelines(parts)
            if read_gltf(temporary) != json.loads(text):
                raise make_write_error(path, "the file is not the same when it is read again")


def read_gltf(path: Path) -> dict | None:
    """The JSON of a GLB file; None where the file is cut short or no GLB."""
    with path.open("rb") as file:
        head = file.read(20)
        if len(head) < 20:
            return None
        magic, version, size, length, kind = struct.unpack("<4sIII4s", head)
        if (magic, version, kind) != (b"glTF", 2, b"JSON") or size != path.stat().st_size:
            return None
        return json.loads(file.read(length))


class AnimationWriter:
    """Collects the channels of an animation."""

    def __init__(self, gltf: GltfWriter):
        self._gltf = gltf
        self._channels: list[dict] = []
        self._samplers: list[dict] = []

    def animate(
        self, node: int, target: str, times: list[float], values: np.ndarray, interpolation: str
    ) -> None:
        """Moves a node over time.

        Args:
            target: "translation", "rotation" or "scale".
            times: of the keys, in seconds.
            values: of each key.
            interpolation: "STEP" or "LINEAR".
        """
        channel = {"sampler": len(self._samplers), "target": {"node": node, "path": target}}
        arrays = self._gltf.add_array(np.array(times)), self._gltf.add_array(values)
        sampler = {"input": arrays[0], "output": arrays[1], "interpolation": interpolation}
        self._channels.append(channel)
        self._samplers.append(sampler)

    def finish(self, name: str) -> None:
        """Adds the animation to the file."""
        animation = {"name": name, "channels": self._channels, "samplers": self._samplers}
        self._gltf.add("animations", animation)


def compute_camera_motion(
    cameras: Cameras,
) -> tuple[Float[np.ndarray, "F 3"], Float[np.ndarray, "F 4"]]:
    """Centres and unit quaternions (x, y, z, w) of cameras in glTF's camera axes (y up, z
    backward), in the scene's own world."""
    poses = (cameras.world_from_cam.double() @ OPENGL_FROM_OPENCV).numpy()
    turn = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    for i in range(1, len(turn)):
        # q and -q are one rotation; interpolation must take the short way
        if turn[i] @ turn[i - 1] < 0:
            turn[i] = -turn[i]
    return poses[:, :3, 3], turn


def encode_image(image: UInt8[np.ndarray, "h w C"], quality: int) -> bytes:
    """JPEG of an RGB image, PNG of an image with alpha.

    Args:
        quality: of a JPEG, 0 to 100.
    """
    if image.shape[2] == 4:
        return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))[1].tobytes()
    # charts are small: subsampled colour would run from one chart into the next
    full = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def decode_image(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of an encoded image, as other programs read them."""
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def bytes_from_colors(texture: Float[np.ndarray, "h w C"]) -> UInt8[np.ndarray, "h w C"]:
    """0 to 1 -> 0 to 255."""
    return (texture * 255 + np.float32(0.5)).clip(0, 255).astype(np.uint8)
