"""Trackers whose code a user has cloned into ``submodules/`` or installed: their code and
checkpoints, found and read.

No code is imported and nothing is read or downloaded before a tracker is opened.
"""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from models.learned.entry import SUBMODULES, LearnedModel
from models.run import InputError


@dataclass(frozen=True)
class ThirdParty(LearnedModel):
    """A tracker with code of its own; ``open(checkpoint_path, device)`` returns the tracker."""

    package: str
    """The top-level package of its code."""
    repository: str
    """Address from which git clones the code."""
    commit: str
    """Commit whose interface the adapter was written for."""
    checkpoint: str
    """File or folder of the weights inside the tracker's folder."""
    checkpoint_url: str
    """Address of the weights."""
    requirements: str
    """Packages that the code needs beyond ours, as arguments of pip; empty if none."""
    hardware: str
    """The machine that the code needs or profits from, for submodules/README.md."""

    @property
    def folder(self) -> Path:
        """Folder of its code and weights."""
        return SUBMODULES / self.name

    @property
    def clone(self) -> str:
        """Command that fetches the code."""
        checkout = f"git -C {self.place} checkout {self.commit[:10]}"
        return f"git clone {self.repository} {self.place} && {checkout}"

    @property
    def download(self) -> str:
        """Command that fetches the weights."""
        return f"curl -L --create-dirs -o {self.place}/{self.checkpoint} {self.checkpoint_url}"

    @property
    def readme_row(self) -> str:
        """Its row in the table of trackers of submodules/README.md."""
        where = f"[{self.repository.removeprefix('https://github.com/')}]({self.repository})"
        packages = ", ".join(f"`{package}`" for package in self.requirements.split())
        needs = f"{packages}; {self.hardware}" if packages else self.hardware
        cells = f"`{self.name}`", f"{where} `{self.commit[:10]}`", self.licence
        return f"| {' | '.join([*cells, f'`{self.checkpoint}`', needs])} |"


def import_from(source: ThirdParty, module: str) -> ModuleType:
    """A module of third-party code, from the tracker's folder or else from an installed package.

    Raises:
        InputError: the code, or a package that the code imports, is missing.
    """
    if source.package not in sys.modules:
        _register_package(source)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == source.package:
            raise InputError(
                f"tracker '{source.name}' needs its own code; run: {source.clone}"
            ) from error
        install = f"pip install {source.requirements or missing}"
        raise InputError(
            f"tracker '{source.name}' needs the package '{missing}'; run: {install}"
        ) from error


def _register_package(source: ThirdParty) -> None:
    """Makes the clone's top-level package importable under its own name, without a change of the
    search path."""
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


def read_checkpoint(source: ThirdParty, path: Path | None) -> dict[str, Tensor]:
    """The weights in a checkpoint by name, on the CPU.

    Args:
        path: the checkpoint file; None for the file in the tracker's folder.

    Raises:
        InputError: the file is missing or holds no weights.
    """
    path = path or source.folder / source.checkpoint
    if not path.is_file():
        raise InputError(
            f"{path}: tracker '{source.name}' finds no checkpoint there; give --checkpoint_path or run: "
            f"{source.download}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged or foreign file can fail anywhere in the unpickler.
    except Exception as error:
        problem = f"cannot be read ({type(error).__name__})"
        raise _checkpoint_error(source, path, problem) from error
    state = state.get("model", state) if isinstance(state, dict) else state
    is_state = isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())
    if not is_state or not state:
        raise _checkpoint_error(source, path, "holds no weights")
    return state


def load_weights(source: ThirdParty, model: nn.Module, path: Path | None) -> None:
    """Puts a checkpoint's weights into a model.

    Raises:
        InputError: the file is missing, or is another model's.
    """
    state = read_checkpoint(source, path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        path = path or source.folder / source.checkpoint
        raise _checkpoint_error(source, path, "is another model's") from error


def _checkpoint_error(source: ThirdParty, path: Path, problem: str) -> InputError:
    return InputError(
        f"{path}: as a checkpoint of '{source.name}' the file {problem}; run: {source.download}"
    )
