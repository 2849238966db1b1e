"""A trained scene to model.pt and back: a plain dict of tensors, numbers and strings."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from models.cameras import Cameras, find_camera_problem
from models.clip import Exposure
from models.field import ColorField, HashGrid, Viewpoints
from models.movers import MovingMeshPipeline
from models.pipeline import Canvas, TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.options import RenderOptions
from models.render.scene import Layer, MovingLayer, Scene
from models.run import (
    MAX_PIXELS,
    MAX_SIDE,
    InputError,
    check_storage,
    is_file,
    load_tensors,
    write_tensors,
)
from models.tracks import is_thumbnails

# Models of another version have other parts and are refused.
_VERSION = 5
# Names of a colour field's hash grids in its state dict.
_GRIDS = ("grid", "changes")
# Levels and finest resolution of a hash grid; a damaged file must not ask for more memory.
_MAX_LEVELS = 64
_MAX_RESOLUTION = 1 << 24
# Frames per second.
_MAX_RATE = 1e4
# Characters of torch's own messages, which run over many lines, in an error.
_MAX_MESSAGE = 200


def save_scene(path: Path, scene: Scene) -> None:
    """Writes tensors, numbers and strings under a temporary name, then renames.

    Raises:
        InputError: the file cannot be written.
    """
    exposure = scene.exposure
    state = {
        "model_version": _VERSION,
        "fps": scene.fps,
        "cameras": _pack_cameras(scene.cameras),
        "exposure": {
            "gain": torch.from_numpy(exposure.gain),
            "shading": torch.from_numpy(exposure.shading),
        },
        "background": _pack_layer(scene.background),
    }
    if scene.thumbnails is not None:
        state["thumbnails"] = scene.thumbnails
    if scene.moving is not None:
        state["moving"] = {**scene.moving.meshes.state(), **_pack_renderer(scene.moving.renderer)}
    write_tensors(path, state)


def load_scene(path: Path, device: torch.device, options: RenderOptions = RenderOptions()) -> Scene:
    """Reads a file of ``save_scene``; the renderers go to ``device``.

    Raises:
        InputError: the file is missing, damaged, holds code or is of another version.
    """
    state = _read_state(Path(path))
    try:
        return _unpack_scene(state, device, options)
    except (KeyError, TypeError, RuntimeError, ValueError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:_MAX_MESSAGE]
        raise InputError(
            f"{path}: the model lacks parts or holds wrong values ({reason}); train again"
        ) from error


def _read_state(path: Path) -> dict:
    if not is_file(path):
        raise InputError(f"{path}: there is no such model file; train one with demo_pipeline.py")
    try:
        # Mapped: the meshes of a long clip take memory only while they are used.
        state = load_tensors(path, mapped=True)
        check_storage(state)
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        raise InputError(
            f"{path}: is no model file that can be read ({type(error).__name__}); train again"
        ) from error
    if not isinstance(state, dict) or state.get("model_version") != _VERSION:
        raise InputError(
            f"{path}: is no model of version {_VERSION}; train again with demo_pipeline.py"
        )
    return state


def _unpack_scene(state: dict, device: torch.device, options: RenderOptions) -> Scene:
    cameras = _unpack_cameras(state["cameras"])
    fps = float(state["fps"])
    gain = _check(state["exposure"]["gain"], len(cameras), 3).numpy()
    shading = _check(state["exposure"]["shading"], len(cameras), None, None, 3).numpy()
    if not (len(shading) and min(shading.shape[1:3]) > 0 and 0 < fps <= _MAX_RATE):
        raise ValueError("the exposure or the frame rate is empty")
    exposure = Exposure(gain, shading, cameras.width, cameras.height)
    background = _unpack_layer(state["background"], cameras, device)
    moving = None
    if "moving" in state:
        meshes = MovingMeshPipeline.from_state(state["moving"], cameras)
        moving = MovingLayer(meshes, _unpack_renderer(state["moving"], device))
    # Files of older versions have none.
    thumbnails = state.get("thumbnails")
    if thumbnails is not None and not is_thumbnails(thumbnails):
        raise ValueError("the thumbnails have another shape")
    return Scene(cameras, fps, exposure, background, moving, options, thumbnails)


def _check(tensor: Tensor, *shape: int | None) -> Tensor:
    """The tensor, if it is finite and of this shape (None: any size).

    Raises:
        ValueError: the tensor has another shape or is not finite.
    """
    fits = len(shape) == tensor.ndim and all(
        want in (None, n) for want, n in zip(shape, tensor.shape, strict=True)
    )
    if not fits or not torch.isfinite(tensor).all():
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} should be finite and of shape {shape}"
        )
    return tensor


def _pack_cameras(cameras: Cameras) -> dict:
    size = {"width": cameras.width, "height": cameras.height}
    return {"K": cameras.K, "world_from_cam": cameras.world_from_cam, **size}


def _unpack_cameras(state: dict) -> Cameras:
    K = _check(state["K"], None, 3, 3).double()
    poses = _check(state["world_from_cam"], len(K), 4, 4).double()
    width = int(state["width"])
    height = int(state["height"])
    if problem := find_camera_problem(K, poses):
        raise ValueError(problem)
    # a damaged size must not ask for more memory
    in_range = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS
    if not (len(K) and in_range):
        raise ValueError(f"{len(K)} images of {width}x{height} are out of range")
    return Cameras(K, poses, width, height)


def _pack_layer(layer: Layer) -> dict:
    meshes = layer.meshes
    return {
        "vertices": meshes.vertices,
        "faces": meshes.faces,
        "trust": meshes.trust,
        "canvas": asdict(meshes.canvas),
        **_pack_renderer(layer.renderer),
    }


def _unpack_layer(state: dict, cameras: Cameras, device: torch.device) -> Layer:
    vertices: Tensor = state["vertices"].float()
    if not state["faces"]:
        raise ValueError("no frame has a mesh")
    for t, faces in state["faces"].items():
        if not 0 <= t < len(cameras):
            raise ValueError(f"there is a mesh for frame {t} of {len(cameras)}")
        _check(state["trust"][t], len(_check(faces, None, 3)))
        # the kernels do not check indices
        if len(faces) and not (int(faces.min()) >= 0 and int(faces.max()) < len(vertices)):
            raise ValueError("a face names a vertex that does not exist")
        # other vertices may be infinite: no face uses them
        _check(vertices[faces.flatten().long()], 3 * len(faces), 3)
    faces = {t: of_frame.int() for t, of_frame in state["faces"].items()}
    canvas = Canvas(**state["canvas"])
    meshes = TriangleMeshPipeline(cameras, vertices, faces, state["trust"], canvas)
    return Layer(meshes, _unpack_renderer(state, device))


def _pack_renderer(renderer: WorldSpaceTrianglePipeline) -> dict:
    field = {key: value.cpu() for key, value in renderer.field.state_dict().items()}
    state = {
        "field": field,
        "finest": [grid.resolutions[-1] for grid in renderer.field.grids],
        "normalized_from_world": renderer.normalized_from_world.cpu(),
    }
    if renderer.viewpoints is not None:
        state["viewpoints"] = {
            key: value.cpu() for key, value in renderer.viewpoints.state_dict().items()
        }
    return state


def _unpack_renderer(state: dict, device: torch.device) -> WorldSpaceTrianglePipeline:
    # models without a grid of changes store one resolution
    grids = [
        _unpack_grid(state["field"][f"{name}.tables"], finest)
        for name, finest in zip(_GRIDS, state["finest"], strict=False)
    ]
    viewpoints = None
    if "viewpoints" in state:
        tensors = state["viewpoints"]
        shapes = {"code_from_world": (3, 4), "high": (3,), "clock": (2,)}
        viewpoints = Viewpoints(*(_check(tensors[name], *shape) for name, shape in shapes.items()))
    # only fields with viewpoints take a code
    width = 0 if viewpoints is None else Viewpoints.WIDTH
    field = ColorField(grids[0], code_width=width, changes=grids[1] if len(grids) > 1 else None)
    tensors = {key: _check(value, *value.shape) for key, value in state["field"].items()}
    field.load_state_dict(tensors)
    to_box = _check(state["normalized_from_world"], 4, 4)
    return WorldSpaceTrianglePipeline(field, to_box, viewpoints).to(device)


def _unpack_grid(tables: Tensor, finest: int) -> HashGrid:
    """An empty grid of the size of its tables."""
    levels, entries, features = tables.shape
    if not (0 < levels <= _MAX_LEVELS and 0 < int(finest) <= _MAX_RESOLUTION):
        raise ValueError(f"a grid of {levels} levels up to {finest} is out of range")
    return HashGrid(levels, features, int(entries).bit_length() - 1, finest_resolution=int(finest))
