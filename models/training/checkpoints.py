"""checkpoint.pt: the state of training of each layer, from which an interrupted run resumes."""

import json
from pathlib import Path

import numpy as np

from models.run import SILENT, Progress, is_file, load_tensors, write_tensors


class Checkpoint:
    """The checkpoint file of a run; the file of a run with another origin is not used."""

    def __init__(self, path: Path, made_from: str, progress: Progress = SILENT):
        """Reads the file if it exists.

        Args:
            made_from: a hash of everything that the training depends on; see ``digest``.
            progress: hears why training starts anew where the file cannot be used.
        """
        self.path = path
        self.made_from = made_from
        self.progress = progress
        self.layers: dict[str, dict] = self._read()

    def _read(self) -> dict[str, dict]:
        if not is_file(self.path):
            return {}
        try:
            content = load_tensors(self.path)
            found = content["made_from"]
            layers = dict(content["layers"])
        except Exception as error:  # a damaged file can fail anywhere in the decoder
            self.progress.say(
                f"{self.path}: cannot be read ({type(error).__name__}), training starts anew"
            )
            return {}
        if found != self.made_from:
            self.progress.say(f"{self.path}: is of other inputs or settings, training starts anew")
            return {}
        return layers

    def load(self, layer: str) -> dict | None:
        """The saved state of a layer, or None. An unfinished state is removed from memory once it is
        returned."""
        state = self.layers.get(layer)
        return state if state is None or state["done"] else self.layers.pop(layer)

    def save(self, layer: str, state: dict) -> None:
        """Replaces the state of a layer in the file; the states of finished layers stay in it."""
        write_tensors(
            self.path, {"made_from": self.made_from, "layers": {**self.layers, layer: state}}
        )
        if state["done"]:
            self.layers[layer] = state

    def remove(self) -> None:
        """Removes the file, once the trained model is written."""
        self.path.unlink(missing_ok=True)


def pack_generator(generator: np.random.Generator) -> str:
    """The state of a random generator as text: its integers have more bits than tensors hold."""
    return json.dumps(generator.bit_generator.state)


def restore_generator(generator: np.random.Generator, state: str) -> None:
    """Sets a generator of the same kind to a state of ``pack_generator``."""
    generator.bit_generator.state = json.loads(state)
