"""checkpoint.pt: the state of training of each layer, from which an interrupted run resumes."""

from pathlib import Path

from models.run import ALONE, SILENT, Progress, Ranks, is_file, load_tensors, write_tensors


class Checkpoint:
    """The checkpoint file of a run; the file of a run with another origin is not used.

    Of several processes, each has a file of its own: ``checkpoint.pt``, ``checkpoint_1.pt``, ...
    """

    def __init__(
        self, path: Path, made_from: str, progress: Progress = SILENT, ranks: Ranks = ALONE
    ):
        """Reads the files that exist.

        Args:
            path: the file of rank 0.
            made_from: a hash of everything that the training depends on; see ``digest``.
            progress: hears why training starts anew where a file cannot be used.
            ranks: the processes of this run.
        """
        self.path = path
        self.made_from = made_from
        self.progress = progress
        self.layers: dict[str, dict] = self._read(path)
        self._own_path = path
        self._own_layers: dict[str, dict] = {}
        if not ranks.leads:
            self._own_path = path.with_name(f"{path.stem}_{ranks.number}{path.suffix}")
            self._own_layers = self._read(self._own_path)

    def _read(self, path: Path) -> dict[str, dict]:
        if not is_file(path):
            return {}
        try:
            content = load_tensors(path)
            found = content["made_from"]
            layers = dict(content["layers"])
        except Exception as error:  # a damaged file can fail anywhere in the decoder
            self.progress.say(
                f"{path}: cannot be read ({type(error).__name__}), training starts anew"
            )
            return {}
        if found != self.made_from:
            self.progress.say(f"{path}: is of other inputs or settings, training starts anew")
            return {}
        return layers

    def load(self, layer: str) -> dict | None:
        """The saved state of a layer, or None: rank 0's, or this rank's own of the same step. An
        unfinished state is removed from memory once it is returned."""
        own = self._own_layers.pop(layer, None)
        state = self.layers.get(layer)
        if state is None or state["done"]:
            return state
        del self.layers[layer]
        return own if own is not None and own["step"] == state["step"] else state

    def save(self, layer: str, state: dict) -> None:
        """Replaces the state of a layer in this rank's file; the states of finished layers stay in
        it."""
        layers = {**self.layers, layer: state}
        write_tensors(self._own_path, {"made_from": self.made_from, "layers": layers})
        if state["done"]:
            self.layers[layer] = state

    def remove(self) -> None:
        """Removes the files of all ranks, once the trained model is written."""
        for path in (self.path, *self.path.parent.glob(f"{self.path.stem}_*{self.path.suffix}")):
            path.unlink(missing_ok=True)
