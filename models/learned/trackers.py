"""Learned point trackers by name, for users who have their code and weights;
``submodules/README.md`` says how."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.learned.cotracker3 import open_cotracker3
from models.learned.spatracker2 import open_spatracker2
from models.learned.tapir import open_tapir

Tracker = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``(frames (F, H, W, 3), queries (N, 3) as [t, x, y]) -> (xy (F, N, 2), visible (F, N))``."""
LEARNED: dict[str, Callable[[Path | None, str], Tracker]] = {
    "cotracker3": open_cotracker3,
    "tapir": open_tapir,
    "spatracker2": open_spatracker2,
}


def open_learned(name: str, checkpoint_path: Path | None, device: str) -> Tracker:
    """The learned tracker of that name with its weights read; its code is imported here and not
    before.

    Raises:
        InputError: the code or the checkpoint is missing or wrong, or the tracker needs another
            device.
    """
    return LEARNED[name](checkpoint_path, device)
