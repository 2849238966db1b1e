"""Track files: written, and read with every value checked; the only link between the scripts."""

import pickle
from dataclasses import Field, fields
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from models.run import InputError, is_file, load_tensors, write_tensors
from models.tracks.checks import find_problem
from models.tracks.content import Tracks, is_expanded
from models.tracks.foreign import SPATRACKER_KEYS, from_npz, from_spatracker

# Version of the format.
_FORMAT_VERSION = 1

_TENSORS = [own for own in fields(Tracks) if own.metadata]


def save_tracks(path: str | Path, tracks: Tracks) -> None:
    """Writes a track file: a plain dict of tensors, numbers and strings, under a temporary name that
    is replaced at the end.

    If the points stand still, one frame of ``xyz`` is stored and expanded, so that the file does not
    grow with F.

    Raises:
        ValueError: the tracks would not load again.
        InputError: the file cannot be written.
    """
    path = Path(path)
    data = {own.name: getattr(tracks, own.name) for own in fields(tracks)}
    data = {key: value for key, value in data.items() if value is not None}
    if problem := find_problem(data):
        raise ValueError(f"{path}: these tracks cannot be saved: {problem}")
    for own in _TENSORS:
        if own.name in data:
            data[own.name] = _compact(own, data[own.name])
    write_tensors(path, {"format_version": _FORMAT_VERSION, **data})


def load_tracks(path: str | Path) -> Tracks:
    """Reads and checks a track file: ours, a SpaTrackerV2 script's .pt, or a TAPIP3D / SpaTrackerV2
    .npz.

    Tensors come back on the CPU: poses and K in float64, other numbers in float32. Tensors of our
    own files are mapped: a page is read, and takes memory, when its values are used.

    Raises:
        InputError: the file is missing, damaged, holds code, has another format or breaks a rule of
            the format.
    """
    path = Path(path)
    if not is_file(path):
        raise InputError(
            f"{path}: there is no such file; make it with background_points.py or foreground_points.py"
        )
    data, is_mapped = _read_fields(path)
    version = data.get("format_version")
    if version != _FORMAT_VERSION or isinstance(version, (bool, Tensor)):
        raise InputError(
            f"{path}: is no track file of format {_FORMAT_VERSION} (found {version!r:.40}); make it again"
        )
    if problem := find_problem(data):
        raise InputError(
            f"{path}: {problem}; make the file again with background_points.py or foreground_points.py"
        )
    if is_mapped:
        # Mapped anew: the checks used all values, whose pages need not stay in memory.
        data = _read_dict(path)
    values = {own.name: data.get(own.name) for own in fields(Tracks)}
    for own in _TENSORS:
        if values[own.name] is not None:
            values[own.name] = _convert(own, values[own.name])
    return Tracks(**values)


def _read_fields(path: Path) -> tuple[dict, bool]:
    """The fields of a track file in any format, unchecked, and whether they are mapped."""
    if path.suffix.lower() == ".npz":
        return from_npz(path), False
    data = _read_dict(path)
    if "format_version" not in data and any(key in data for key in SPATRACKER_KEYS):
        return from_spatracker(data, path), False
    return data, "format_version" in data


def _read_dict(path: Path) -> dict:
    """The named tensors of a file, mapped."""
    try:
        data = load_tensors(path, mapped=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: is no plain file of tensors, or holds code, which is never run; "
            "save it as a dict of tensors, numbers and strings"
        ) from error
    # A damaged file can fail anywhere in the decoders.
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read, it is damaged or cut short; make it again"
        ) from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InputError(
            f"{path}: holds no dict of named tensors; make it with background_points.py"
        )
    return data


def _convert(own: Field, tensor: Tensor) -> Tensor:
    """The tensor in the type of its field."""
    if is_expanded(own, tensor):
        # A change of type would otherwise fill the memory of all frames.
        return tensor[:1].to(own.metadata["dtype"]).expand(tensor.shape)
    return tensor.to(own.metadata["dtype"])


def _compact(own: Field, tensor: Tensor) -> Tensor:
    """The tensor in the type of its field, in a storage of its own values only, since torch.save
    writes whole storages; static points as one frame."""
    tensor = tensor.detach().cpu()
    if own.metadata["expands"] and _is_static(tensor):
        first = _convert(own, tensor[:1]).clone(memory_format=torch.contiguous_format)
        return first.expand(tensor.shape)
    typed = _convert(own, tensor)
    size = typed.numel() * typed.element_size()
    is_alone = typed.is_contiguous() and typed.untyped_storage().nbytes() == size
    return typed if is_alone else typed.clone(memory_format=torch.contiguous_format)


def _is_static(xyz: Float[Tensor, "F N 3"]) -> bool:
    if len(xyz) == 1 or xyz.stride(0) == 0:
        return True
    return all(torch.equal(xyz[0], frame) for frame in xyz[1:])
