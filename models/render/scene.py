"""The whole trained scene: its layers and the clip's cameras; what model.pt holds."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.cameras import Cameras, find_camera_problem
from models.clip import Exposure
from models.field import ColorField, HashGrid, Viewpoints
from models.movers import MovingMeshPipeline
from models.pipeline import Canvas, TriangleMeshPipeline, WorldSpaceTrianglePipeline
from models.render.rendering import Rendering, render_view
from models.run import (
    MAX_PIXELS,
    MAX_SIDE,
    InputError,
    check_storage,
    is_file,
    load_tensors,
    write_tensors,
)

MODEL_VERSION = 4
GRIDS = "grid", "changes"
"""Names of a colour field's hash grids in a model file."""
DEPTH_TOLERANCE = 0.15
"""A mover is hidden only by a background nearer than it by more than this share: the ground it
stands on is not."""


@dataclass(frozen=True)
class Layer:
    """Meshes and the renderer that colours them."""

    meshes: TriangleMeshPipeline
    renderer: WorldSpaceTrianglePipeline


@dataclass(frozen=True)
class MovingLayer:
    """Meshes of the movers and the renderer that colours them."""

    meshes: MovingMeshPipeline
    renderer: WorldSpaceTrianglePipeline


@dataclass(frozen=True)
class Scene:
    """A clip's cameras and its trained layers."""

    cameras: Cameras
    fps: float
    exposure: Exposure
    background: Layer
    moving: MovingLayer | None = None

    def render(self, view: Cameras, time: float) -> Rendering:
        """One camera's picture at ``time`` (in frames of the clip, may be fractional)."""
        return self.views(view, time).merged

    def views(self, view: Cameras, time: float, in_front: bool = False) -> "LayerViews":
        """The layers apart and merged by depth; with ``in_front`` movers hide the background
        wherever they are."""
        background = render_view(self.background.meshes, self.background.renderer, view)
        mover = None
        if self.moving is not None:
            mover = self.moving.meshes.draw(self.moving.renderer, view, time)
        if mover is None:
            return LayerViews(background, background, np.zeros_like(background.rgb))
        shown = (
            mover.depth < np.inf
            if in_front
            else mover.depth < (1 + DEPTH_TOLERANCE) * background.depth
        )
        alpha = (mover.alpha * shown)[..., None]
        rgb = alpha * mover.rgb * 255 + (1 - alpha) * background.rgb
        depth = np.where(alpha[..., 0] > 0.5, mover.depth, background.depth)
        covered = background.covered | (alpha[..., 0] > 0.5)
        merged = Rendering((rgb + 0.5).clip(0, 255).astype(np.uint8), depth, covered)
        alone = (alpha * mover.rgb * 255 + 0.5).clip(0, 255).astype(np.uint8)
        return LayerViews(merged, background, alone)

    def rebuild(self, t: int) -> "LayerViews":
        """Frame t as the clip's own camera saw it, with that frame's exposure; its masks put movers
        in front."""
        views = self.views(self.cameras[t], t, in_front=True)
        factor = self.exposure.factor(t)
        merged, background = (
            replace(r, rgb=_exposed(r.rgb, factor)) for r in (views.merged, views.background)
        )
        return LayerViews(merged, background, _exposed(views.foreground, factor))

    @property
    def depth(self) -> float:
        """Harmonic mean of the background's z-depth in the middle of the path, world units:
        parallax goes by it."""
        middle = self.background.meshes.nearest_frame(self.cameras[len(self.cameras) // 2])
        vertices = torch.unique(self.background.meshes.faces[middle]).long()
        z = self.cameras[[middle]].to_camera(self.background.meshes.vertices[vertices].double())[
            0, :, 2
        ]
        return float(1 / (1 / z[z > 0]).mean())


@dataclass(frozen=True)
class LayerViews:
    """One view, whole and layer by layer."""

    merged: Rendering
    background: Rendering
    foreground: UInt8[np.ndarray, "H W 3"]
    """Movers over black."""


def _exposed(
    rgb: UInt8[np.ndarray, "H W 3"], factor: Float[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    return (rgb * factor + 0.5).clip(0, 255).astype(np.uint8)


def save_scene(path: Path, scene: Scene) -> None:
    """Writes tensors, numbers and strings under a temporary name, then renames.

    Raises:
        InputError: the file cannot be written.
    """
    state = {
        "model_version": MODEL_VERSION,
        "fps": scene.fps,
        "cameras": _camera_state(scene.cameras),
        "exposure": {
            "gain": torch.from_numpy(scene.exposure.gain),
            "shading": torch.from_numpy(scene.exposure.shading),
        },
        "background": _layer_state(scene.background),
    }
    if scene.moving is not None:
        state["moving"] = {**scene.moving.meshes.state(), **_renderer_state(scene.moving.renderer)}
    write_tensors(path, state)


def load_scene(path: Path, device: torch.device) -> Scene:
    """Reads what save_scene wrote, the renderers onto ``device``.

    Raises:
        InputError: the file is missing, damaged, holds code or is of another version.
    """
    if not is_file(path):
        raise InputError(f"{path}: there is no such model file; train one with demo_pipeline.py")
    try:
        state = load_tensors(Path(path))
        check_storage(state)
    except Exception as error:  # torch raises many kinds for a damaged file; all mean the same here
        raise InputError(
            f"{path}: is no model file that can be read ({type(error).__name__}); train again"
        ) from error
    if not isinstance(state, dict) or state.get("model_version") != MODEL_VERSION:
        raise InputError(
            f"{path}: is no model of version {MODEL_VERSION}; train again with demo_pipeline.py"
        )
    try:
        cameras = _camera_from(state["cameras"])
        gain = _checked(state["exposure"]["gain"], len(cameras), 3).numpy()
        shading = _checked(state["exposure"]["shading"], len(cameras), None, None, 3).numpy()
        if not (len(shading) and min(shading.shape[1:3]) > 0 and 0 < float(state["fps"]) <= 1e4):
            raise ValueError("the exposure or the frame rate is empty")
        exposure = Exposure(gain, shading, cameras.width, cameras.height)
        background = _layer_from(state["background"], cameras, device)
        moving = None
        if "moving" in state:
            meshes = MovingMeshPipeline.from_state(state["moving"], cameras)
            moving = MovingLayer(meshes, _renderer_from(state["moving"], device))
        return Scene(cameras, float(state["fps"]), exposure, background, moving)
    except (KeyError, TypeError, RuntimeError, ValueError, AttributeError, IndexError) as error:
        what = " ".join(str(error).split())[:200]  # torch's own messages run over many lines
        raise InputError(
            f"{path}: the model lacks parts or holds wrong values ({what}); train again"
        ) from error


def _checked(tensor: Tensor, *shape: int | None) -> Tensor:
    """The tensor, if it is finite and of that shape (None: any size)."""
    fits = len(shape) == tensor.ndim and all(
        want in (None, n) for want, n in zip(shape, tensor.shape, strict=True)
    )
    if not fits or not torch.isfinite(tensor).all():
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} should be finite and of shape {shape}"
        )
    return tensor


def _camera_state(cameras: Cameras) -> dict:
    size = {"width": cameras.width, "height": cameras.height}
    return {"K": cameras.K, "world_from_cam": cameras.world_from_cam, **size}


def _camera_from(state: dict) -> Cameras:
    K = _checked(state["K"], None, 3, 3).double()
    poses = _checked(state["world_from_cam"], len(K), 4, 4).double()
    width, height = int(state["width"]), int(state["height"])
    if problem := find_camera_problem(K, poses):
        raise ValueError(problem)
    if not (
        len(K) and 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS
    ):
        raise ValueError(f"{len(K)} images of {width}x{height} are out of range")
    return Cameras(K, poses, width, height)


def _layer_state(layer: Layer) -> dict:
    meshes = layer.meshes
    return {
        "vertices": meshes.vertices,
        "faces": meshes.faces,
        "trust": meshes.trust,
        "canvas": asdict(meshes.canvas),
        **_renderer_state(layer.renderer),
    }


def _renderer_state(renderer: WorldSpaceTrianglePipeline) -> dict:
    field = {key: value.cpu() for key, value in renderer.field.state_dict().items()}
    finest = [grid.resolutions[-1] for grid in renderer.field.grids]
    state = {
        "field": field,
        "finest": finest,
        "normalized_from_world": renderer.normalized_from_world.cpu(),
    }
    if renderer.viewpoints is not None:
        state["viewpoints"] = {
            key: value.cpu() for key, value in renderer.viewpoints.state_dict().items()
        }
    return state


def _renderer_from(state: dict, device: torch.device) -> WorldSpaceTrianglePipeline:
    grids = [
        _grid_from(state["field"][f"{name}.tables"], finest)
        for name, finest in zip(GRIDS, state["finest"], strict=False)
    ]
    viewpoints = None
    if "viewpoints" in state:
        found = state["viewpoints"]
        shapes = {"code_from_world": (3, 4), "high": (3,), "clock": (2,)}
        viewpoints = Viewpoints(*(_checked(found[name], *shape) for name, shape in shapes.items()))
    field = ColorField(
        grids[0],
        code_width=0 if viewpoints is None else Viewpoints.WIDTH,
        changes=(*grids, None)[1],
    )
    field.load_state_dict(
        {key: _checked(value, *value.shape) for key, value in state["field"].items()}
    )
    to_box = _checked(state["normalized_from_world"], 4, 4)
    return WorldSpaceTrianglePipeline(field, to_box, viewpoints).to(device)


def _grid_from(tables: Tensor, finest: int) -> HashGrid:
    """A grid of the size of its tables, to be filled."""
    levels, entries, features = tables.shape
    if not (0 < levels <= 64 and 0 < int(finest) <= 1 << 24):
        raise ValueError(f"a grid of {levels} levels up to {finest} is out of range")
    return HashGrid(levels, features, int(entries).bit_length() - 1, finest_resolution=int(finest))


def _layer_from(state: dict, cameras: Cameras, device: torch.device) -> Layer:
    vertices: Tensor = state["vertices"].float()
    if not state["faces"]:
        raise ValueError("no frame has a mesh")
    for t, faces in state["faces"].items():
        if not 0 <= t < len(cameras):
            raise ValueError(f"there is a mesh for frame {t} of {len(cameras)}")
        _checked(state["trust"][t], len(_checked(faces, None, 3)))
        if len(faces) and not (int(faces.min()) >= 0 and int(faces.max()) < len(vertices)):
            raise ValueError("a face names a vertex that does not exist")
        _checked(vertices[faces.flatten().long()], 3 * len(faces), 3)
    faces = {t: of_frame.int() for t, of_frame in state["faces"].items()}
    meshes = TriangleMeshPipeline(
        cameras, vertices, faces, state["trust"], Canvas(**state["canvas"])
    )
    return Layer(meshes, _renderer_from(state, device))
