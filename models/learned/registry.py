"""All learned models by name: their entries, opened or refused; ``submodules/README.md`` says how a
user gets their code and weights."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from models.learned.cotracker3 import COTRACKER3
from models.learned.depth import DEPTH_ANYTHING, DEPTH_PRO, DepthModel
from models.learned.entry import SUBMODULES, LearnedModel
from models.learned.pretrained import Pretrained
from models.learned.sam2 import SAM2, MaskModel
from models.learned.spatracker2 import SPATRACKER2
from models.learned.tapir import TAPIR
from models.learned.third_party import ThirdParty
from models.learned.u2net import U2NET, SaliencyModel, find_u2net
from models.run import InputError

Tracker = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``(frames (F, H, W, 3), queries (N, 3) as [t, x, y]) -> (xy (F, N, 2), visible (F, N))``."""
AUTO = "auto"
"""Name of the mask model that ``choose_mask_model`` finds on this machine."""
_Entry = TypeVar("_Entry", bound=LearnedModel)


def _index_entries(entries: Iterable[_Entry]) -> dict[str, _Entry]:
    return {entry.name: entry for entry in entries}


LEARNED: dict[str, ThirdParty] = _index_entries([COTRACKER3, TAPIR, SPATRACKER2])
"""Learned trackers by name."""
DEPTH_MODELS: dict[str, Pretrained] = _index_entries([DEPTH_ANYTHING, DEPTH_PRO])
"""Depth models by name."""
MASK_MODELS: dict[str, LearnedModel] = _index_entries([SAM2, U2NET])
"""Mask models by name."""


def list_models(entries: dict[str, LearnedModel]) -> str:
    """The models as a clause for the help of an option, such as "tapir (BootsTAPIR) or ..."."""
    texts = [f"{entry.name} ({entry.title})" for entry in entries.values()]
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def open_learned(name: str, checkpoint_path: Path | None, device: str) -> Tracker:
    """The learned tracker of that name with its weights on a device; its code is imported here and
    not before.

    Raises:
        InputError: the code or the checkpoint is missing or wrong, or the tracker needs another
            device.
    """
    return LEARNED[name].open(checkpoint_path, device)


def check_depth_model(name: str) -> None:
    """Refuses a name of no depth model.

    Raises:
        InputError: the name is not known.
    """
    _check_name(name, "depth", DEPTH_MODELS)


def choose_mask_model(name: str | None) -> str | None:
    """The name of a mask model; of "auto", a model whose weights are on this machine, SAM 2 before
    U2-Net, and None without either."""
    if name != AUTO:
        return name
    if (SUBMODULES / SAM2.name / "config.json").is_file():
        return SAM2.name
    return U2NET.name if find_u2net() else None


def check_mask_model(name: str) -> None:
    """Refuses a name of no mask model.

    Raises:
        InputError: the name is not known.
    """
    _check_name(name, "mask", MASK_MODELS)


def _check_name(name: str, kind: str, entries: dict[str, LearnedModel]) -> None:
    if name not in entries:
        known = ", ".join(sorted(entries))
        raise InputError(f"{kind} model '{name}' is not known; choose one of {known}")


def open_depth_model(
    name: str, checkpoint: str | None = None, allow_download: bool = False, device: str = "cpu"
) -> DepthModel:
    """The depth model of that name with its weights on a device.

    Args:
        checkpoint: a folder or a hub name; see ``open_pretrained``.
        allow_download: whether the hub may be asked for weights that are not on this machine.

    Raises:
        InputError: no such model; its package or weights are missing or wrong.
    """
    check_depth_model(name)
    return DEPTH_MODELS[name].open(checkpoint, allow_download, device)


def open_mask_model(
    name: str, checkpoint: str | None = None, allow_download: bool = False, device: str = "cpu"
) -> MaskModel | SaliencyModel:
    """The mask model of that name with its weights on a device; arguments and errors as of
    ``open_depth_model``."""
    check_mask_model(name)
    return MASK_MODELS[name].open(checkpoint, allow_download, device)
