"""Models of the ``transformers`` package: from a local folder, from the hub's cache on this machine,
or, only if allowed, from the hub.

Nothing is imported before a model is opened. Weights are read from safetensors alone, a format that
cannot hold code.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.learned.entry import SUBMODULES, LearnedModel
from models.run import InputError

# A weight that encoders need for training only; some checkpoints leave it out.
_UNUSED_WEIGHT = "mask_token"
# Command that installs the packages of these models.
_INSTALL = "pip install -r requirements-learned.txt"


@dataclass(frozen=True)
class Pretrained(LearnedModel):
    """A model of transformers; ``open(checkpoint, allow_download, device)`` returns the model."""

    model_class: str
    """Name of its class in transformers."""
    hub_name: str
    """Name of its usual weights on the hub."""

    @property
    def download(self) -> str:
        """Command that fetches the usual weights."""
        return f"hf download {self.hub_name} --local-dir {self.place}"

    @property
    def readme_row(self) -> str:
        """Its row in the table of depth and mask models of submodules/README.md."""
        return f"| `{self.option} {self.name}` | `{self.hub_name}` | {self.licence} |"


def open_pretrained(source: Pretrained, checkpoint: str | None, allow_download: bool) -> Any:
    """The model with its weights, on the CPU, in evaluation mode.

    Args:
        checkpoint: a folder or a hub name; None for ``submodules/<name>`` if that exists, else the
            usual weights.
        allow_download: whether weights that are not on this machine may be fetched from the hub.

    Raises:
        InputError: transformers is missing or too old, or the weights are missing, unreadable or
            another model's.
    """
    model_class = _import_class(source)
    folder = SUBMODULES / source.name
    place = checkpoint or (str(folder) if (folder / "config.json").is_file() else source.hub_name)
    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        raise InputError(
            f"{place}: holds no config.json of a '{source.name}' checkpoint; run: {source.download}"
        )
    with _silence_logs(show_progress=allow_download):
        _check_kind(source, place, model_class, allow_download)
        try:
            model, report = model_class.from_pretrained(
                place,
                local_files_only=not allow_download,
                use_safetensors=True,
                output_loading_info=True,
            )
        # A damaged folder can fail anywhere in the readers.
        except Exception as error:
            raise _explain_failure(source, place, allow_download, error) from error
    lacking = [*report["missing_keys"], *report["mismatched_keys"]]
    lacking = [key for key in lacking if not str(key).endswith(_UNUSED_WEIGHT)]
    if lacking:
        raise InputError(
            f"{place}: as a checkpoint of '{source.name}' lacks {len(lacking)} weights ({str(lacking[0])[:60]}); "
            f"run: {source.download}"
        )
    return model.eval()


def _import_class(source: Pretrained) -> Any:
    """The model's class.

    Raises:
        InputError: transformers is missing or too old.
    """
    try:
        return getattr(importlib.import_module("transformers"), source.model_class)
    except ModuleNotFoundError as error:
        missing = error.name or "transformers"
        raise InputError(
            f"{source.option} {source.name} needs the package '{missing}'; run: {_INSTALL}"
        ) from error
    except AttributeError as error:
        raise InputError(
            f"{source.option} {source.name} needs a newer package 'transformers' with {source.model_class}; "
            f"run: {_INSTALL}"
        ) from error


def _check_kind(source: Pretrained, place: str, model_class: Any, allow_download: bool) -> None:
    """Refuses weights of another kind of model, which transformers would fill up with random
    numbers."""
    try:
        found, _ = model_class.config_class.get_config_dict(
            place, local_files_only=not allow_download
        )
    # A damaged folder can fail anywhere in the readers.
    except Exception as error:
        raise _explain_failure(source, place, allow_download, error) from error
    expected = model_class.config_class.model_type
    kind = found.get("model_type")
    if kind != expected:
        raise InputError(
            f"{place}: is a checkpoint of '{kind}', but {source.option} {source.name} takes one of '{expected}'; "
            f"run: {source.download}"
        )


def _explain_failure(
    source: Pretrained, place: str, allow_download: bool, error: Exception
) -> InputError:
    """A sentence on why weights cannot be read, with the command that helps."""
    kind = type(error).__name__
    if Path(place).is_dir():
        return InputError(
            f"{place}: cannot be read as a checkpoint of '{source.name}' ({kind}: it needs "
            f"config.json and model.safetensors); run: {source.download}"
        )
    if not allow_download:
        return InputError(
            f"{place}: {source.option} {source.name} finds no such folder and no weights of that name on this "
            f"machine; add --allow_download, or run: {source.download}"
        )
    return InputError(
        f"{place}: the weights of '{source.name}' cannot be downloaded ({kind}: no network, or no "
        f"such name); on a machine with a network run: {source.download}"
    )


@contextmanager
def _silence_logs(show_progress: bool) -> Iterator[None]:
    """Hides the log of transformers and the hub, which is about retries and unused weights.

    Args:
        show_progress: leaves the progress bars of downloads visible.
    """
    from transformers.utils.logging import (
        disable_progress_bar,
        enable_progress_bar,
        is_progress_bar_enabled,
    )

    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    if not show_progress:
        disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            enable_progress_bar()
