"""The entry of a learned model: every fact about it that options, messages and documents need."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUBMODULES = Path(__file__).resolve().parents[2] / "submodules"
"""Folder in which a user puts the code and weights of learned models."""


@dataclass(frozen=True)
class LearnedModel:
    """A model of other authors that an option chooses by name."""

    option: str
    """The option that chooses the model, such as "--tracker"."""
    name: str
    """Value of the option; also the name of the model's folder in submodules/."""
    title: str
    """Name under which the model was published."""
    licence: str
    """Licence of code and weights, for submodules/README.md."""
    open: Callable[..., Any]
    """Reads the weights and returns the model as a function; imports its packages."""

    @property
    def place(self) -> str:
        """The model's folder, as in commands that run from the root of the repository."""
        return f"submodules/{self.name}"

    @property
    def weights(self) -> Path:
        """File or folder of the weights where none is named."""
        return SUBMODULES / self.name
