"""Models of the ``transformers`` package from a local folder, the local cache of the hub, or, only
if allowed, the hub.

Nothing is imported before it is asked for. Weights are read from safetensors alone, which cannot
hold code.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.learned.third_party import SUBMODULES
from models.run import InputError

UNUSED = "mask_token"
"""A weight that encoders need in training only, so that some checkpoints leave it out."""
INSTALL = "pip install -r requirements-learned.txt"


@dataclass(frozen=True)
class Pretrained:
    """Where a model's weights come from."""

    flag: str
    """The option that chooses it, for messages."""
    name: str
    """The name it goes by, and that of its folder in submodules/."""
    model_class: str
    """Its class in transformers."""
    hub_name: str
    """Its usual weights on the hub."""

    @property
    def download(self) -> str:
        """The command that fetches the usual weights."""
        return f"hf download {self.hub_name} --local-dir submodules/{self.name}"


def open_pretrained(source: Pretrained, checkpoint: str | None, allow_download: bool) -> Any:
    """The model with its weights, on the CPU, ready to be called.

    Args:
        checkpoint: a folder or a hub name; None for ``submodules/<name>`` if it is there, else the
            usual weights.
        allow_download: whether the hub may be asked for what is not here.

    Raises:
        InputError: transformers is missing or too old, or the weights are missing, unreadable or
            another model's.
    """
    model_class = _model_class(source)
    folder = SUBMODULES / source.name
    place = checkpoint or (str(folder) if (folder / "config.json").is_file() else source.hub_name)
    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        raise InputError(
            f"{place}: holds no config.json of a '{source.name}' checkpoint; run: {source.download}"
        )
    with _quiet(show_progress=allow_download):
        _check_kind(source, place, model_class, allow_download)
        try:
            model, report = model_class.from_pretrained(
                place,
                local_files_only=not allow_download,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:  # a damaged folder can fail anywhere in the readers
            raise _explained(source, place, allow_download, error) from error
    lacking = [*report["missing_keys"], *report["mismatched_keys"]]
    lacking = [key for key in lacking if not str(key).endswith(UNUSED)]
    if lacking:
        raise InputError(
            f"{place}: as a checkpoint of '{source.name}' lacks {len(lacking)} weights ({str(lacking[0])[:60]}); "
            f"run: {source.download}"
        )
    return model.eval()


def _model_class(source: Pretrained) -> Any:
    try:
        return getattr(importlib.import_module("transformers"), source.model_class)
    except ModuleNotFoundError as error:
        missing = error.name or "transformers"
        raise InputError(
            f"{source.flag} {source.name} needs the package '{missing}'; run: {INSTALL}"
        ) from error
    except AttributeError as error:
        raise InputError(
            f"{source.flag} {source.name} needs a newer package 'transformers' with {source.model_class}; "
            f"run: {INSTALL}"
        ) from error


def _check_kind(source: Pretrained, place: str, model_class: Any, allow_download: bool) -> None:
    """Refuses weights of another kind of model, which transformers would fill with random
    numbers."""
    try:
        found, _ = model_class.config_class.get_config_dict(
            place, local_files_only=not allow_download
        )
    except Exception as error:  # as above
        raise _explained(source, place, allow_download, error) from error
    expected = model_class.config_class.model_type
    kind = found.get("model_type")
    if kind != expected:
        raise InputError(
            f"{place}: is a checkpoint of '{kind}', but {source.flag} {source.name} takes one of '{expected}'; "
            f"run: {source.download}"
        )


def _explained(
    source: Pretrained, place: str, allow_download: bool, error: Exception
) -> InputError:
    """What went wrong, as one sentence with the command that helps."""
    if Path(place).is_dir():
        return InputError(
            f"{place}: cannot be read as a checkpoint of '{source.name}' ({type(error).__name__}: it needs "
            f"config.json and model.safetensors); run: {source.download}"
        )
    if not allow_download:
        return InputError(
            f"{place}: {source.flag} {source.name} finds no such folder and no weights of that name on this machine; "
            f"add --allow_download, or run: {source.download}"
        )
    return InputError(
        f"{place}: the weights of '{source.name}' cannot be downloaded ({type(error).__name__}: no network, or no "
        f"such name); on a machine with a network run: {source.download}"
    )


@contextmanager
def _quiet(show_progress: bool) -> Iterator[None]:
    """transformers and the hub speak of retries and unused weights that no user asked about."""
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
