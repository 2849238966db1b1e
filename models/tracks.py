"""The track file: 2D tracks, their 3D points and the cameras of a clip; the only link between the
scripts."""

import pickle
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.cameras import LARGEST, Cameras, find_camera_problem
from models.clip import SPATRACKER_KEYS, from_npz, from_spatracker
from models.run import InputError, is_file, load_tensors, write_tensors

FORMAT_VERSION = 1
LAYERS = ("background", "foreground")
_MAX_VALUES = 1 << 31
_MAX_SIDE = 16384
_MAX_FRAME = 1 << 31
_MAX_NAME = 4096


@dataclass(frozen=True)
class Tracks:
    """N points followed through the F frames taken from a clip, with the camera of every frame."""

    xy: Float[Tensor, "F N 2"]
    """Pixels of the frames worked on; anything where not visible."""
    visible: Bool[Tensor, "F N"]
    """Where a point was seen and followed."""
    confidence: Float[Tensor, "F N"]
    """Trust in each observation, 0 to 1."""
    xyz: Float[Tensor, "F N 3"]
    """World points; those of a static layer may be one frame's, expanded (stride 0 over F)."""
    K: Float[Tensor, "F 3 3"]
    """Intrinsics in pixels of the frames worked on."""
    world_from_cam: Float[Tensor, "F 4 4"]
    """Rigid poses, OpenCV camera axes to world."""
    width: int
    """Width in pixels of the frames worked on."""
    height: int
    """Height in pixels of the frames worked on."""
    fps: float
    """Frames per second of the frames taken."""
    frame_indices: Int[Tensor, "F"]
    """Number of each frame in the original clip, from 0, rising."""
    layer: str
    """background or foreground."""
    video_path: str
    """The clip, as the user gave it; empty where it is not known."""
    canonical: Float[Tensor, "N 3"] | None = None
    """Foreground: where the colour of each track lives, constant in time."""
    label: Int[Tensor, "N"] | None = None
    """Foreground: number of the object that each track belongs to."""

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def num_tracks(self) -> int:
        """N."""
        return self.xy.shape[1]

    @property
    def cameras(self) -> Cameras:
        """The cameras of the frames taken."""
        return Cameras(self.K, self.world_from_cam, self.width, self.height)


@dataclass(frozen=True)
class PointTracks:
    """N points followed through F frames in pixels, without 3D: numpy arrays and the image size."""

    xy: Float[np.ndarray, "F N 2"]
    """Pixels; where a track is not visible, its position in the last frame in which it was."""
    visible: Bool[np.ndarray, "F N"]
    """True where a track was observed."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def num_tracks(self) -> int:
        """N."""
        return self.xy.shape[1]

    def select(self, tracks: Int[np.ndarray, "n"] | Bool[np.ndarray, "N"]) -> "PointTracks":
        """Some of the tracks, in the given order."""
        return replace(self, xy=self.xy[:, tracks], visible=self.visible[:, tracks])

    def select_frames(self, frames: slice | Int[np.ndarray, "f"]) -> "PointTracks":
        """All tracks in some of the frames."""
        return replace(self, xy=self.xy[frames], visible=self.visible[frames])

    def restrict(self, allowed: Bool[np.ndarray, "F N"]) -> "PointTracks":
        """The same tracks, visible only where ``allowed`` too; positions are shared, not copied."""
        return replace(self, visible=self.visible & allowed)


_OPTIONAL = {"canonical", "label"}
_SHAPES = {
    "xy": "FN2",
    "visible": "FN",
    "confidence": "FN",
    "xyz": "FN3",
    "K": "F33",
    "world_from_cam": "F44",
    "frame_indices": "F",
    "canonical": "N3",
    "label": "N",
}
_DTYPES = {"visible": torch.bool, "frame_indices": torch.int64, "label": torch.int64}
_DTYPES |= {"K": torch.float64, "world_from_cam": torch.float64}
_SCALARS = {"width": int, "height": int, "fps": float, "layer": str, "video_path": str}


def save_tracks(path: str | Path, tracks: Tracks) -> None:
    """Writes a track file: a plain dict of tensors, numbers and strings, under a temporary name,
    then renamed.

    Where the points stand still, one frame of ``xyz`` is stored and expanded, so the file does not
    grow with F.

    Raises:
        ValueError: the tracks would not load again.
        InputError: the file cannot be written.
    """
    path = Path(path)
    data = {field.name: getattr(tracks, field.name) for field in fields(tracks)}
    data = {key: value for key, value in data.items() if value is not None}
    if problem := _problem(data):
        raise ValueError(f"{path}: these tracks cannot be saved: {problem}")
    data = {
        key: _compact(key, value) if isinstance(value, Tensor) else value
        for key, value in data.items()
    }
    write_tensors(path, {"format_version": FORMAT_VERSION, **data})


def load_tracks(path: str | Path) -> Tracks:
    """Reads and checks a track file: ours, a SpaTrackerV2 script's .pt, or a TAPIP3D / SpaTrackerV2
    .npz.

    Tensors come back on the CPU: poses, K in float64, other numbers in float32. Those of our own
    files stay in the file until they are looked at; loaded again, a file takes no memory but for
    what is looked at then.

    Raises:
        InputError: the file is missing, damaged, holds code, is of another format or breaks the
            format's rules.
    """
    path = Path(path)
    if not is_file(path):
        raise InputError(
            f"{path}: there is no such file; make it with background_points.py or foreground_points.py"
        )
    data = from_npz(path) if path.suffix.lower() == ".npz" else _read_dict(path)
    own = path.suffix.lower() != ".npz" and "format_version" in data
    if "format_version" not in data and any(key in data for key in SPATRACKER_KEYS):
        data = from_spatracker(data, path)
    version = data.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, (bool, Tensor)):
        raise InputError(
            f"{path}: is no track file of format {FORMAT_VERSION} (found {version!r:.40}); make it again"
        )
    if problem := _problem(data):
        raise InputError(
            f"{path}: {problem}; make the file again with background_points.py or foreground_points.py"
        )
    if own:
        data = _read_dict(
            path
        )  # mapped anew: what the checks looked at, all of it, need not stay in memory
    values = {field.name: data.get(field.name) for field in fields(Tracks)}
    return Tracks(
        **{
            key: _typed(key, value) if isinstance(value, Tensor) else value
            for key, value in values.items()
        }
    )


def _read_dict(path: Path) -> dict:
    try:
        data = load_tensors(path, mapped=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: is no plain file of tensors, or holds code, which is never run; "
            "save it as a dict of tensors, numbers and strings"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere in the decoders
        raise InputError(
            f"{path}: cannot be read, it is damaged or cut short; make it again"
        ) from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InputError(
            f"{path}: holds no dict of named tensors; make it with background_points.py"
        )
    return data


def _compact(key: str, tensor: Tensor) -> Tensor:
    """The tensor with a storage of just its own values: torch.save writes whole storages, and
    shares expanded ones."""
    tensor = tensor.detach().cpu()
    if key == "xyz" and _is_static(tensor):
        return (
            _typed(key, tensor[:1])
            .clone(memory_format=torch.contiguous_format)
            .expand(tensor.shape)
        )
    typed = _typed(key, tensor)
    alone = (
        typed.is_contiguous()
        and typed.untyped_storage().nbytes() == typed.numel() * typed.element_size()
    )
    return typed if alone else typed.clone(memory_format=torch.contiguous_format)


def _is_static(xyz: Float[Tensor, "F N 3"]) -> bool:
    return (
        len(xyz) == 1 or xyz.stride(0) == 0 or all(torch.equal(xyz[0], frame) for frame in xyz[1:])
    )


def _typed(key: str, tensor: Tensor) -> Tensor:
    if (
        key == "xyz" and tensor.stride(0) == 0
    ):  # a change of type would otherwise fill the expanded memory
        return tensor[:1].to(torch.float32).expand(tensor.shape)
    return tensor.to(_DTYPES.get(key, torch.float32))


def _problem(data: dict) -> str | None:
    """What breaks the format's rules, as a clause without the file's name; None if nothing does.

    The order matters: sizes are checked before any value is looked at, so that a small file cannot
    claim a huge tensor.
    """
    return (
        _missing_problem(data)
        or _scalar_problem(data)
        or _shape_problem(data)
        or _storage_problem(data)
        or _camera_problem(data)
        or _value_problem(data)
    )


def _missing_problem(data: dict) -> str | None:
    missing = [f.name for f in fields(Tracks) if f.name not in _OPTIONAL and f.name not in data]
    return f"lacks {', '.join(missing)}" if missing else None


def _scalar_problem(data: dict) -> str | None:
    for key, kind in _SCALARS.items():
        value = data[key]
        if isinstance(value, bool) or not isinstance(
            value, (int, float) if kind is float else kind
        ):
            return f"{key} is a {type(value).__name__}, expected {kind.__name__}"
    if data["layer"] not in LAYERS:
        return f"layer is {data['layer']!r:.40}, expected background or foreground"
    if not (0 < data["width"] <= _MAX_SIDE and 0 < data["height"] <= _MAX_SIDE):
        return f"image size {data['width']:.0f}x{data['height']:.0f} is out of range (1 to {_MAX_SIDE})"
    if len(data["video_path"]) > _MAX_NAME:
        return f"video_path has {len(data['video_path'])} letters"
    return None if 0 < data["fps"] <= 1e4 else f"fps is {data['fps']}, expected a positive number"


def _shape_problem(data: dict) -> str | None:
    xy = data["xy"]
    if not isinstance(xy, Tensor) or xy.ndim != 3:
        return "xy is no tensor of shape (frames, points, 2)"
    letters = {"F": xy.shape[0], "N": xy.shape[1]}
    if not letters["F"] or (not letters["N"] and data["layer"] == "background"):
        return f"holds {letters['F']} frames and {letters['N']} points, needs at least one of each"
    for key, shape in _SHAPES.items():
        value = data.get(key)
        if value is None and key in _OPTIONAL:
            continue
        expected = tuple(letters[s] if s in letters else int(s) for s in shape)
        plain = (
            isinstance(value, Tensor)
            and value.layout == torch.strided
            and value.device.type == "cpu"
        )
        if not plain or tuple(value.shape) != expected:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            return f"{key} is {found}, expected a dense tensor of shape {expected}"
        kind = _DTYPES.get(key, torch.float32)
        fits = (
            value.dtype == torch.bool
            if kind == torch.bool
            else value.dtype.is_floating_point == kind.is_floating_point
        )
        if (
            not fits
            or value.dtype.is_complex
            or (kind == torch.int64 and value.dtype == torch.bool)
        ):
            return f"{key} has type {value.dtype}, expected {kind}"
    return None


def _storage_problem(data: dict) -> str | None:
    for key in _SHAPES:
        value = data.get(key)
        if value is None:
            continue
        stored = value[:1] if key == "xyz" and value.stride(0) == 0 else value
        claimed = stored.numel() * stored.element_size()
        if value.numel() > _MAX_VALUES or claimed > stored.untyped_storage().nbytes():
            return (
                f"{key} claims {value.numel()} values, more than it holds or than can be worked on"
            )
    return None


def _camera_problem(data: dict) -> str | None:
    indices = data["frame_indices"]
    if problem := find_camera_problem(data["K"].double(), data["world_from_cam"].double()):
        return problem
    if indices[0] < 0 or (indices.diff() <= 0).any() or indices[-1] > _MAX_FRAME:
        return "frame_indices do not rise from 0 or above"
    return None


def _value_problem(data: dict) -> str | None:
    visible = data["visible"]
    xyz = data["xyz"]
    for key in ("xy", "confidence"):
        if not torch.isfinite(data[key][visible]).all():
            return f"{key} holds NaN or infinity at visible points"
    seen = (
        torch.isfinite(xyz[0])[visible.any(0)]
        if xyz.stride(0) == 0
        else torch.isfinite(xyz[visible])
    )
    if not seen.all():
        return "xyz holds NaN or infinity at visible points"
    for key in ("xy", "xyz"):
        values = data[key][:1] if key == "xyz" and xyz.stride(0) == 0 else data[key]
        seen = visible.any(0)[None] if len(values) < len(visible) else visible
        if len(values) and (values[seen].abs() > LARGEST).any():
            return f"{key} holds values above {LARGEST:.0e}"
    if data.get("canonical") is not None and not torch.isfinite(data["canonical"]).all():
        return "canonical holds NaN or infinity"
    return None
