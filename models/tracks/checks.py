"""The rules of a track file, which follow from the fields of ``Tracks``."""

from dataclasses import fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.cameras import LARGEST, find_camera_problem
from models.clip import Lens
from models.tracks.content import TENSORS, Tracks, is_expanded

# Names of the layers that a track file can hold.
_LAYERS = ("background", "foreground")
MAX_VALUES = 1 << 31
"""Values that a tensor of a track file may claim."""
# Largest image side in pixels.
_MAX_SIDE = 16384
# Largest frame number.
_MAX_FRAME = 1 << 31
# Letters of the longest path.
_MAX_NAME = 4096
# Largest frame rate in frames per second.
_MAX_FPS = 1e4

_SCALARS = [own for own in fields(Tracks) if not own.metadata]


def find_problem(data: dict) -> str | None:
    """The first rule of the format that the data break, as a clause without the file's name; None
    if they keep all.

    Sizes are checked before any value is read, so that a small file cannot claim a huge tensor.
    """
    lacking = [
        own.name for own in fields(Tracks) if own.default is not None and own.name not in data
    ]
    if lacking:
        return f"lacks {', '.join(lacking)}"
    return (
        _find_scalar_problem(data)
        or _find_shape_problem(data)
        or _find_storage_problem(data)
        or _find_frame_problem(data)
        or _find_value_problem(data)
    )


def _find_scalar_problem(data: dict) -> str | None:
    for own in _SCALARS:
        value = data.get(own.name)
        kinds = (int, float) if own.type is float else own.type
        if isinstance(value, bool) or not isinstance(value, kinds):
            expected = getattr(own.type, "__name__", "text")
            return f"{own.name} is a {type(value).__name__}, expected {expected}"
    width, height, fps = data["width"], data["height"], data["fps"]
    if data["layer"] not in _LAYERS:
        return f"layer is {data['layer']!r:.40}, expected background or foreground"
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        return f"image size {width:.0f}x{height:.0f} is out of range (1 to {_MAX_SIDE})"
    for name in ("video_path", "clip_place"):
        if len(data.get(name) or "") > _MAX_NAME:
            return f"{name} has {len(data[name])} letters"
    if data.get("lens") is not None and (problem := _find_lens_problem(data)):
        return problem
    return None if 0 < fps <= _MAX_FPS else f"fps is {fps}, expected a positive number"


def _find_lens_problem(data: dict) -> str | None:
    try:
        lens = Lens.from_line(data["lens"])
    except ValueError:
        return "lens is no line of model, width, height and parameters"
    if (lens.width, lens.height) != (data["width"], data["height"]):
        return f"lens is for images {lens.width}x{lens.height}"
    return lens.find_problem()


def _find_shape_problem(data: dict) -> str | None:
    xy = data["xy"]
    if not isinstance(xy, Tensor) or xy.ndim != 3:
        return "xy is no tensor of shape (frames, points, 2)"
    sides = {"F": xy.shape[0], "N": xy.shape[1]}
    if not sides["F"] or (not sides["N"] and data["layer"] == "background"):
        return f"holds {sides['F']} frames and {sides['N']} points, needs at least one of each"
    for own in TENSORS:
        value = data.get(own.name)
        if value is None and own.default is None:
            continue
        shape = tuple(sides[s] if s in sides else int(s) for s in own.metadata["shape"])
        if not is_plain(value) or tuple(value.shape) != shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            return f"{own.name} is {found}, expected a dense tensor of shape {shape}"
        if not _is_convertible(value.dtype, own.metadata["dtype"]):
            return f"{own.name} has type {value.dtype}, expected {own.metadata['dtype']}"
    return None


def is_plain(value: object) -> bool:
    """Whether a value is a dense tensor on the CPU."""
    is_tensor = isinstance(value, Tensor)
    return is_tensor and value.layout == torch.strided and value.device.type == "cpu"


def _is_convertible(found: torch.dtype, expected: torch.dtype) -> bool:
    """Whether values of a type stand for values of the expected type: flags for flags, whole
    numbers for whole numbers, and real numbers for real numbers."""
    if expected == torch.bool or found == torch.bool:
        return found == expected
    return found.is_floating_point == expected.is_floating_point and not found.is_complex


def _find_storage_problem(data: dict) -> str | None:
    for own in TENSORS:
        value = data.get(own.name)
        if value is None:
            continue
        stored = value[:1] if is_expanded(own, value) else value
        size = stored.numel() * stored.element_size()
        if value.numel() > MAX_VALUES or size > stored.untyped_storage().nbytes():
            return (
                f"{own.name} claims {value.numel()} values, more than it holds or than can be "
                "worked on"
            )
    return None


def _find_frame_problem(data: dict) -> str | None:
    if problem := find_camera_problem(data["K"].double(), data["world_from_cam"].double()):
        return problem
    indices = data["frame_indices"]
    if indices[0] < 0 or (indices.diff() <= 0).any() or indices[-1] > _MAX_FRAME:
        return "frame_indices do not rise from 0 or above"
    return None


def _find_value_problem(data: dict) -> str | None:
    visible = data["visible"]
    for own in TENSORS:
        if own.name not in ("xy", "confidence", "xyz"):
            continue
        values = data[own.name]
        seen = visible
        if is_expanded(own, values):
            values = values[:1]
            seen = visible.any(0)[None]
        is_position = own.name != "confidence"
        # Frame by frame: a copy of all values would fill the memory.
        largest = [_find_largest(*frame) for frame in zip(values, seen, strict=True)]
        if not np.isfinite(largest).all():
            return f"{own.name} holds NaN or infinity at visible points"
        if is_position and max(largest, default=0) > LARGEST:
            return f"{own.name} holds values above {LARGEST:.0e}"
    if data.get("canonical") is not None and not torch.isfinite(data["canonical"]).all():
        return "canonical holds NaN or infinity"
    return None


def _find_largest(values: Float[Tensor, "N *C"], seen: Bool[Tensor, "N"]) -> float:
    """Largest magnitude of some values of a frame; 0 for none, NaN if one is."""
    own = values[seen].abs()
    return float(own.max()) if own.numel() else 0.0
