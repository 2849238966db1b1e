"""Third-party models that a user has put into ``submodules/`` or installed: their code and
checkpoints, found and read.

Nothing is imported, read or downloaded before it is asked for.
"""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from models.run import InputError

SUBMODULES = Path(__file__).resolve().parents[2] / "submodules"


@dataclass(frozen=True)
class Source:
    """Where a tracker's code and weights come from."""

    tracker: str
    """The name it goes by, and that of its folder in submodules/."""
    package: str
    """The top-level package of its code."""
    repository: str
    """Where git finds the code."""
    commit: str
    """The version whose interface the adapter was written for."""
    checkpoint: str
    """File name of the weights, in the tracker's folder unless the user says otherwise."""
    checkpoint_url: str
    """Where the weights are."""
    requirements: str
    """Packages that the code needs beyond ours, as pip takes them; empty if none."""

    @property
    def folder(self) -> Path:
        return SUBMODULES / self.tracker

    @property
    def clone(self) -> str:
        """The command that fetches the code."""
        place = f"submodules/{self.tracker}"
        return f"git clone {self.repository} {place} && git -C {place} checkout {self.commit[:10]}"

    @property
    def download(self) -> str:
        """The command that fetches the weights."""
        place = f"submodules/{self.tracker}/{self.checkpoint}"
        return f"curl -L --create-dirs -o {place} {self.checkpoint_url}"


def import_from(source: Source, module: str) -> ModuleType:
    """A module of third-party code, from submodules/<tracker> or else as an installed package.

    Raises:
        InputError: the code, or a package that it imports, is missing.
    """
    if source.package not in sys.modules:
        _register(source)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == source.package:
            raise InputError(
                f"tracker '{source.tracker}' needs its own code; run: {source.clone}"
            ) from error
        install = f"pip install {source.requirements or missing}"
        raise InputError(
            f"tracker '{source.tracker}' needs the package '{missing}'; run: {install}"
        ) from error


def _register(source: Source) -> None:
    """Makes the clone's top-level package importable by its own name, without touching the search
    path."""
    init = source.folder / source.package / "__init__.py"
    if not init.is_file():
        return
    spec = importlib.util.spec_from_file_location(
        source.package, init, submodule_search_locations=[str(init.parent)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules[source.package] = package
    try:
        spec.loader.exec_module(package)
    except BaseException:
        del sys.modules[source.package]
        raise


def read_checkpoint(source: Source, path: Path | None) -> dict[str, Tensor]:
    """The weights in a checkpoint, on the CPU.

    Raises:
        InputError: the file is missing or holds no weights.
    """
    path = path or source.folder / source.checkpoint
    if not path.is_file():
        raise InputError(
            f"{path}: tracker '{source.tracker}' finds no checkpoint there; give --checkpoint_path or run: "
            f"{source.download}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file can fail anywhere in the unpickler
        raise InputError(
            _wrong(source, path, f"cannot be read ({type(error).__name__})")
        ) from error
    state = state.get("model", state) if isinstance(state, dict) else state
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(v, Tensor) for v in state.values())
    ):
        raise InputError(_wrong(source, path, "holds no weights"))
    return state


def load_weights(source: Source, model: nn.Module, path: Path | None) -> None:
    """Puts a checkpoint's weights into a model.

    Raises:
        InputError: the file is missing, or is another model's.
    """
    state = read_checkpoint(source, path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            _wrong(source, path or source.folder / source.checkpoint, "is another model's")
        ) from error


def _wrong(source: Source, path: Path, what: str) -> str:
    return f"{path}: as a checkpoint of '{source.tracker}' the file {what}; run: {source.download}"
