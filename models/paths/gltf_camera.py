"""An animated camera of a glTF file -> a camera path.

Source: the glTF 2.0 specification, sections on nodes, cameras and animations. The camera's place in
the file's world is that of its node and of the nodes above it, each with its animation.
"""

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from models.cameras import OPENGL_FROM_OPENCV, Cameras, find_camera_problem
from models.paths.key_frames import K_from_fov
from models.paths.trajectories import CameraPath
from models.run import MAX_SIDE, InputError, read_limited

# Half a turn about x: from the scene's own world to glTF's, as scene.glb has it.
_GLTF_FROM_WORLD = np.diag([1.0, -1.0, -1.0, 1.0])
_FLOAT = 5126
_SIZES = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
# Most frames of a path; more is a mistake.
_MOST = 100_000
# Errors that the values of a damaged file lead to.
_DAMAGE = (
    *(OSError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError),
    *(RecursionError, struct.error),
)
_Sampler = Callable[[float], np.ndarray]


@dataclass(frozen=True)
class Node:
    """A node with its animation."""

    content: dict
    moves: dict[str, _Sampler] = field(default_factory=dict)
    """Values over time by "translation", "rotation" and "scale"."""

    def matrix(self, seconds: float) -> Float[np.ndarray, "4 4"]:
        """From the node's axes to those of the node above it."""
        if "matrix" in self.content and not self.moves:
            return np.array(self.content["matrix"], float).reshape(4, 4).T
        rest = {"translation": [0, 0, 0], "rotation": [0, 0, 0, 1], "scale": [1, 1, 1]}
        shift, turn, size = (
            self.moves[name](seconds)
            if name in self.moves
            else np.array(self.content.get(name, value), float)
            for name, value in rest.items()
        )
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat(turn).as_matrix() * size
        matrix[:3, 3] = shift
        return matrix


def read_gltf_camera(path: Path, height: int, fps: float) -> CameraPath:
    """The path of the first camera of a file, a view for each frame of its animation.

    Args:
        path: .glb or .gltf.
        height: of the views in pixels; their width follows from the camera's aspect ratio.
        fps: frames per second of the clip, by which seconds become frames.

    Raises:
        InputError: the file cannot be read, or has no perspective camera.
    """
    try:
        root, binary = _open(path, read_limited(path))
        return _read(root, binary, height, fps)
    except _DAMAGE as error:
        raise InputError(
            f"{path}: has no camera path that can be read ({error}); export the camera with its "
            "animation as glTF"
        ) from error


def _open(path: Path, data: bytes) -> tuple[dict, bytes]:
    """The JSON and the binary buffer of a file."""
    if data[:4] == b"glTF":
        (length,) = struct.unpack_from("<I", data, 12)
        return json.loads(data[20 : 20 + length]), data[20 + length + 8 :]
    root = json.loads(data)
    uri = root["buffers"][0].get("uri", "") if root.get("buffers") else ""
    if uri.startswith("data:"):
        return root, base64.b64decode(uri.split(",", 1)[1])
    if uri and Path(uri).name != uri:
        raise ValueError("its buffer lies in another folder")
    return root, read_limited(path.with_name(uri)) if uri else b""


def _read(root: dict, binary: bytes, height: int, fps: float) -> CameraPath:
    nodes = [Node(content) for content in root.get("nodes", [])]
    end = _attach_animation(root, binary, nodes)
    chain, lens = _find_camera(root, nodes)
    width = round(height * float(lens.get("aspectRatio", 1.0)))
    count = round(end * fps) + 1
    if not 0 < width <= MAX_SIDE or count > _MOST:
        raise ValueError(f"{count} views of {width}x{height}")
    poses = []
    for i in range(count):
        matrix = np.eye(4)
        for node in chain:
            matrix = matrix @ node.matrix(i / fps)
        # sizes above the camera do not stretch its picture
        matrix[:3, :3] /= np.linalg.norm(matrix[:3, :3], axis=0)
        poses.append(_GLTF_FROM_WORLD @ matrix)
    world_from_cam = torch.from_numpy(np.stack(poses)) @ OPENGL_FROM_OPENCV
    K = K_from_fov(float(lens["yfov"]), width, height)
    cameras = Cameras(K.repeat(count, 1, 1), world_from_cam, width, height)
    if problem := find_camera_problem(cameras.K, world_from_cam):
        raise ValueError(problem)
    return cameras, [float(i) for i in range(count)]


def _find_camera(root: dict, nodes: list[Node]) -> tuple[list[Node], dict]:
    """The nodes from the root down to the first perspective camera, and its lens."""
    above = {
        child: index
        for index, node in enumerate(nodes)
        for child in node.content.get("children", [])
    }
    for index, node in enumerate(nodes):
        camera = node.content.get("camera")
        if camera is None or root["cameras"][camera]["type"] != "perspective":
            continue
        chain = [node]
        while index in above and len(chain) <= len(nodes):
            index = above[index]
            chain.insert(0, nodes[index])
        return chain, root["cameras"][camera]["perspective"]
    raise ValueError("no perspective camera")


def _attach_animation(root: dict, binary: bytes, nodes: list[Node]) -> float:
    """Gives the nodes their motion; returns the end of the animation in seconds, 0 without one."""
    end = 0.0
    for animation in root.get("animations", []):
        for channel in animation["channels"]:
            target = channel["target"]
            sampler = animation["samplers"][channel["sampler"]]
            if target["path"] not in ("translation", "rotation", "scale"):
                continue
            times = _read_floats(root, binary, sampler["input"])[:, 0]
            values = _read_floats(root, binary, sampler["output"])
            how = sampler.get("interpolation", "LINEAR")
            if how == "CUBICSPLINE":
                values = values.reshape(len(times), 3, -1)[:, 1]  # without tangents
            move = _interpolate(times, values, target["path"] == "rotation", how == "STEP")
            nodes[target["node"]].moves[target["path"]] = move
            if not np.isfinite(times).all():
                raise ValueError("a time is not finite")
            end = max(end, float(times[-1]))
    return end


def _interpolate(
    times: Float[np.ndarray, "n"], values: Float[np.ndarray, "n c"], turns: bool, steps: bool
) -> _Sampler:
    """Values at any time; those at the ends hold before and after."""
    if len(times) != len(values):
        raise ValueError("an animation has not as many values as times")
    if len(times) == 1 or steps:
        return lambda t: values[max(0, int(np.searchsorted(times, t, "right")) - 1)]
    if turns:
        slerp = Slerp(times, Rotation.from_quat(values))
        return lambda t: slerp(np.clip(t, times[0], times[-1])).as_quat()
    return lambda t: np.array([np.interp(t, times, column) for column in values.T])


def _read_floats(root: dict, binary: bytes, index: int) -> Float[np.ndarray, "n c"]:
    """An accessor of floats."""
    accessor = root["accessors"][index]
    view = root["bufferViews"][accessor["bufferView"]]
    if accessor["componentType"] != _FLOAT:
        raise ValueError("an animation holds other values than floats")
    width = _SIZES[accessor["type"]]
    stride = view.get("byteStride", 4 * width)
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    count = int(accessor["count"])
    if count < 1 or start < 0 or start + (count - 1) * stride + 4 * width > len(binary):
        raise ValueError("an animation is cut short")
    rows = np.ndarray((count, width), "<f4", binary, start, (stride, 4))
    return rows.astype(float)
