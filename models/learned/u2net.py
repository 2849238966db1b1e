"""Saliency by U2-Net-p: how likely each pixel belongs to the object that stands out of a picture.

Source: Qin et al., "U2-Net: going deeper with nested U-structure for salient object detection",
Pattern Recognition 2020.

OpenCV runs the network from its ONNX file of 4.6 MB; beside that file no package is needed.
"""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from models.learned.depth import IMAGENET_MEAN, IMAGENET_STD
from models.learned.entry import SUBMODULES, LearnedModel
from models.run import InputError

# Name of the weights' file, in packages and folders alike.
_FILE = "u2netp.onnx"
# Package of PyPI that carries the file, and the name under which Python finds it.
_PACKAGE = "rembg"
_INSTALL = "pip install --no-deps --ignore-requires-python -r requirements-weights.txt"
# Side in pixels of the pictures that the network takes.
_SIDE = 320


class SaliencyModel:
    """The network, as a function of a picture."""

    def __init__(self, net: "cv2.dnn.Net"):
        """Args: net: with a picture's saliency as its first output."""
        self._net = net
        self._output = net.getUnconnectedOutLayersNames()[0]

    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
        """Probability that each pixel of an RGB picture belongs to its salient object."""
        small = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        small = small.astype(np.float32) / max(int(small.max()), 1)
        small = (small - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
        self._net.setInput(np.ascontiguousarray(small.transpose(2, 0, 1)[None]))
        found = self._net.forward(self._output)[0, 0]
        return cv2.resize(found, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class SaliencyNetwork(LearnedModel):
    """A network in an ONNX file; ``open(checkpoint, allow_download, device)`` returns it."""

    download: str = _INSTALL
    """Command that brings the weights."""

    @property
    def weights(self) -> Path:
        """The file found on this machine."""
        return find_u2net() or super().weights

    @property
    def readme_row(self) -> str:
        """Its row in the table of depth and mask models of submodules/README.md."""
        return f"| `{self.option} {self.name}` | `{_FILE}` | {self.licence} |"


def open_u2net(checkpoint: str | None, allow_download: bool, device: str) -> SaliencyModel:
    """U2-Net-p on the CPU.

    Args:
        checkpoint: the file or its folder; searched for if None, see ``find_u2net``.
        allow_download: not used; the weights come as a package.
        device: not used.

    Raises:
        InputError: no weights, or a file of something else.
    """
    path = find_u2net() if checkpoint is None else _locate(Path(checkpoint))
    if path is None:
        raise InputError(
            f"--masks u2net finds no {_FILE}; run: {_INSTALL}, or put the file into submodules/u2net"
        )
    try:
        # OpenCV itself cannot read paths that are not ASCII on every system.
        net = cv2.dnn.readNetFromONNX(np.frombuffer(path.read_bytes(), np.uint8))
        model = SaliencyModel(net)
        model(np.zeros((_SIDE, _SIDE, 3), np.uint8))
    # OpenCV raises errors of its own, and of Python where outputs have another shape.
    except (OSError, cv2.error, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as the weights of U2-Net-p ({type(error).__name__}); run: {_INSTALL}"
        ) from error
    return model


def find_u2net() -> Path | None:
    """The weights in submodules/u2net, in the installed package, or where rembg keeps them; None if
    there are none."""
    return next((path for path in _list_places() if path.is_file()), None)


def _list_places() -> Iterator[Path]:
    """Files that may hold the weights."""
    yield SUBMODULES / "u2net" / _FILE
    # The package is found but not imported: it needs other packages that need not be here.
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield Path(folder) / _FILE
    home = os.environ.get("U2NET_HOME") or Path.home() / ".u2net"
    yield Path(home) / _FILE


def _locate(place: Path) -> Path:
    """The file that a user named, or the file in the folder that a user named."""
    return place / _FILE if place.is_dir() else place


U2NET = SaliencyNetwork(
    option="--masks",
    name="u2net",
    title="U2-Net",
    licence="Apache-2.0",
    open=open_u2net,
)
