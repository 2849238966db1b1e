"""Track files: written, and read with every value checked; the only link between the scripts.

The track file of a long clip is an index with a folder of parts beside it; see ``parts``.
"""

import pickle
from collections.abc import Collection
from dataclasses import Field, fields
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from models.run import (
    InputError,
    hash_content,
    is_file,
    load_tensors,
    make_subfolder,
    write_tensors,
)
from models.tracks.checks import find_problem, is_plain
from models.tracks.content import TENSORS, Tracks, is_expanded
from models.tracks.foreign import SPATRACKER_KEYS, from_npz, from_spatracker
from models.tracks.parts import (
    NUMBERS,
    PARTS,
    WHOLE_FRAMES,
    Part,
    check_index,
    describe_index,
    join_parts,
    name_folder,
    split_tracks,
)

# Version of the format.
_FORMAT_VERSION = 1


def save_tracks(path: str | Path, tracks: Tracks) -> None:
    """Writes a track file: a plain dict of tensors, numbers and strings, under a temporary name that
    is replaced at the end. A clip of more than ``WHOLE_FRAMES`` frames is written in parts.

    If the points stand still, one frame of ``xyz`` is stored and expanded, so that the file does not
    grow with F.

    Raises:
        ValueError: the tracks would not load again.
        InputError: a file cannot be written.
    """
    path = Path(path)
    data = _checked_fields(path, tracks)
    old = _name_parts(path)
    parts: dict[str, str] = {}
    if len(tracks) > WHOLE_FRAMES:
        # Without an index no one reads old parts between new parts.
        path.unlink(missing_ok=True)
        parts = _write_parts(path, tracks)
        data = describe_index(data, _is_static(tracks.xyz), parts)
    else:
        data = _compact_all(data)
    write_tensors(path, {"format_version": _FORMAT_VERSION, **data})
    _remove_parts(name_folder(path), old - set(parts))


def _write_parts(path: Path, tracks: Tracks) -> dict[str, str]:
    """Writes the parts of a track file; returns the SHA-256 of each by its name."""
    folder = make_subfolder(path.parent, name_folder(path).name)
    hashes = {}
    for i, part in enumerate(split_tracks(tracks)):
        name = f"{i:05d}.pt"
        data = _compact_all(_fields_of(part.tracks))
        numbered = {"format_version": _FORMAT_VERSION, **data, NUMBERS: part.numbers}
        write_tensors(folder / name, numbered)
        hashes[name] = hash_content(folder / name)
    return hashes


def _name_parts(path: Path) -> set[str]:
    """Names of the parts of a track file that is there; none of any other file."""
    try:
        index = _read_dict(path)
        check_index(index, path)
    except (InputError, KeyError, OSError):
        return set()
    return set(index[PARTS])


def _remove_parts(folder: Path, names: Collection[str]) -> None:
    """Removes parts of an earlier run, and their folder if it is empty then."""
    if not names or folder.is_symlink() or not folder.is_dir():
        return
    for name in names:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _checked_fields(path: Path, tracks: Tracks) -> dict:
    """The fields of a track file, which keep the rules of the format."""
    data = _fields_of(tracks)
    if problem := find_problem(data):
        raise ValueError(f"{path}: these tracks cannot be saved: {problem}")
    return data


def _fields_of(tracks: Tracks) -> dict:
    """The fields that have a value, by name."""
    data = {own.name: getattr(tracks, own.name) for own in fields(tracks)}
    return {key: value for key, value in data.items() if value is not None}


def _compact_all(data: dict) -> dict:
    """The fields with each tensor in a storage of its own."""
    tensors = {own.name: own for own in TENSORS}
    return {
        key: _compact(tensors[key], value) if key in tensors else value
        for key, value in data.items()
    }


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
    if path.is_dir() and is_file(index := path.with_name(f"{path.name}.pt")):
        path = index  # of this folder of parts
    if not is_file(path):
        raise InputError(
            f"{path}: there is no such file; make it with background_points.py or foreground_points.py"
        )
    data, is_mapped = _read_fields(path)
    _check_version(data, path)
    if PARTS in data:
        data, is_mapped = _read_parts(data, path), False
    _check_fields(data, path)
    if is_mapped:
        # Mapped anew: the checks used all values, whose pages need not stay in memory.
        data = _read_dict(path)
    return _to_tracks(data)


def _read_parts(index: dict, path: Path) -> dict:
    """The fields of the track file of a long clip, of which the index is read.

    Raises:
        InputError: a part is missing or changed, or breaks a rule of the format.
    """
    check_index(index, path)
    parts = []
    for name, content in index[PARTS].items():
        own = name_folder(path) / name
        if not is_file(own) or hash_content(own) != content:
            state = "has changed" if is_file(own) else "is missing"
            raise InputError(f"{path}: its part {own} {state}; copy both, or make the file again")
        data = _read_dict(own)
        _check_version(data, own)
        _check_fields(data, own)
        numbers = data.get(NUMBERS)
        if not is_plain(numbers) or numbers.dtype != torch.int64 or numbers.ndim != 1:
            raise InputError(f"{own}: does not number its tracks; make the file again")
        if len(numbers) != data["xy"].shape[1]:
            raise InputError(f"{own}: numbers {len(numbers)} tracks of {data['xy'].shape[1]}")
        parts.append(partial(_open_part, own))
    return join_parts(index, parts, path)


def _open_part(path: Path) -> Part:
    """A part that was checked, mapped."""
    data = _read_dict(path)
    return Part(_to_tracks(data), data[NUMBERS])


def _check_version(data: dict, path: Path) -> None:
    version = data.get("format_version")
    if version != _FORMAT_VERSION or isinstance(version, (bool, Tensor)):
        raise InputError(
            f"{path}: is no track file of format {_FORMAT_VERSION} (found {version!r:.40}); make it again"
        )


def _check_fields(data: dict, path: Path) -> None:
    if problem := find_problem(data):
        raise InputError(
            f"{path}: {problem}; make the file again with background_points.py or foreground_points.py"
        )


def _to_tracks(data: dict) -> Tracks:
    """The checked fields in their types."""
    values = {own.name: data.get(own.name) for own in fields(Tracks)}
    for own in TENSORS:
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
