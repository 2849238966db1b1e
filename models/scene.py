"""The whole trained scene: its layers and the clip's cameras; what model.pt holds."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.cameras import Cameras
from models.encoding import ColorField
from models.errors import InputError
from models.exposure import Exposure
from models.pipeline import Canvas, Rendering, TriangleMeshPipeline, WorldSpaceTrianglePipeline, render_view

MODEL_VERSION = 1


@dataclass(frozen=True)
class Layer:
    """Meshes and the renderer that colours them."""

    meshes: TriangleMeshPipeline
    renderer: WorldSpaceTrianglePipeline


@dataclass(frozen=True)
class Scene:
    """A clip's cameras and its trained layers."""

    cameras: Cameras
    fps: float
    exposure: Exposure
    background: Layer

    def render(self, view: Cameras, index: int, time: float) -> Rendering:
        """What camera ``index`` of ``view`` sees at ``time`` (in frames of the clip, may be fractional)."""
        return render_view(self.background.meshes, self.background.renderer, view, index)

    def rebuild(self, t: int) -> Rendering:
        """Frame t as the clip's own camera saw it, with that frame's exposure."""
        picture = self.render(self.cameras, t, t)
        rgb = (picture.rgb * self.exposure.factor(t) + 0.5).clip(0, 255).astype(np.uint8)
        return replace(picture, rgb=rgb)

    @property
    def depth(self) -> float:
        """Median z-depth of the background's points in the middle of the path, in world units."""
        middle = len(self.cameras) // 2
        z = self.cameras[[middle]].to_camera(self.background.meshes.vertices.double())[0, :, 2]
        return float(z[torch.isfinite(z) & (z > 0)].median())


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
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error}); free some space or choose another folder") from error


def load_scene(path: Path, device: torch.device) -> Scene:
    """Reads what save_scene wrote, the renderers onto ``device``.

    Raises:
        InputError: the file is missing, damaged, holds code or is of another version.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such model file; train one with demo_pipeline.py")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file; all mean the same here
        raise InputError(f"{path}: is no model file that can be read ({type(error).__name__}); train again") from error
    if not isinstance(state, dict) or state.get("model_version") != MODEL_VERSION:
        raise InputError(f"{path}: is no model of version {MODEL_VERSION}; train again with demo_pipeline.py")
    try:
        cameras = _camera_from(state["cameras"])
        gain, shading = (state["exposure"][key].numpy() for key in ("gain", "shading"))
        exposure = Exposure(gain, shading, cameras.width, cameras.height)
        return Scene(cameras, float(state["fps"]), exposure, _layer_from(state["background"], cameras, device))
    except (KeyError, TypeError, RuntimeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: the model lacks parts or holds wrong shapes ({error}); train again") from error


def _camera_state(cameras: Cameras) -> dict:
    size = {"width": cameras.width, "height": cameras.height}
    return {"K": cameras.K, "world_from_cam": cameras.world_from_cam, **size}


def _camera_from(state: dict) -> Cameras:
    return Cameras(state["K"], state["world_from_cam"], int(state["width"]), int(state["height"]))


def _layer_state(layer: Layer) -> dict:
    meshes = layer.meshes
    return {
        "vertices": meshes.vertices,
        "faces": meshes.faces,
        "trust": meshes.trust,
        "canvas": asdict(meshes.canvas),
        "field": {key: value.cpu() for key, value in layer.renderer.field.state_dict().items()},
        "normalized_from_world": layer.renderer.normalized_from_world.cpu(),
    }


def _layer_from(state: dict, cameras: Cameras, device: torch.device) -> Layer:
    vertices: Tensor = state["vertices"]
    for faces in state["faces"].values():
        if len(faces) and not (int(faces.min()) >= 0 and int(faces.max()) < len(vertices)):
            raise ValueError("a face names a vertex that does not exist")
    meshes = TriangleMeshPipeline(cameras, vertices, state["faces"], state["trust"], Canvas(**state["canvas"]))
    field = ColorField()
    field.load_state_dict(state["field"])
    return Layer(meshes, WorldSpaceTrianglePipeline(field, state["normalized_from_world"]).to(device))
