"""Learned point trackers by name, for users who have their code and weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

Tracker = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""``(frames (F, H, W, 3), queries (N, 3) as [t, x, y]) -> (xy (F, N, 2), visible (F, N))``."""
LEARNED: dict[str, Callable[[Path | None, str], Tracker]] = {}


def open_learned(name: str, checkpoint_path: Path | None, device: str) -> Tracker:
    """The learned tracker of that name with its weights read."""
    return LEARNED[name](checkpoint_path, device)
