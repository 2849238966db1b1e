"""The colours of each training frame, in ``detail.pt`` beside the model.

The file holds images as JPEG and PNG data. It is mapped into memory, and a frame is decoded when a
view needs it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from models.run import InputError, check_storage, is_file, load_tensors, write_tensors

BACKGROUND, OUTLINE, MOVER = 0, 128, 255
"""Values of ``FrameDetail.layers``."""
# Pixels beside a mover that show neither the mover nor the background alone.
_OUTLINE_WIDTH = 3
# Pixels of a frame along a side of a stored pixel of light.
_LIGHT_STEP = 2
_VERSION = 1
# Decoded frames that are held: the nearest frames of successive views are nearly the same.
_HELD = 12


@dataclass(frozen=True)
class FrameDetail:
    """The colours of a frame."""

    rgb: UInt8[np.ndarray, "H W 3"]
    """The frame without its exposure: the scene's own colours."""
    layers: UInt8[np.ndarray, "H W"]
    """BACKGROUND, MOVER, or OUTLINE for pixels just beside a mover."""
    light: UInt8[np.ndarray, "H W 3"] | None = None
    """255 times the share of its light that the background keeps in the shadows of movers; None in
    a frame without shadows."""

    @staticmethod
    def of(
        frame: UInt8[np.ndarray, "H W 3"],
        factor: Float[np.ndarray, "H W 3"],
        movers: Bool[np.ndarray, "H W"],
        light: UInt8[np.ndarray, "H W 3"] | None = None,
    ) -> "FrameDetail":
        """The colours of a frame without its exposure and without shadows.

        Args:
            factor: of the frame's exposure, see ``Exposure.factor``.
            movers: True at pixels of movers.
            light: see the field.
        """
        size = 2 * _OUTLINE_WIDTH + 1
        layers = cv2.dilate(movers.astype(np.uint8), np.ones((size, size), np.uint8)) * OUTLINE
        layers[movers] = MOVER
        if light is not None:
            lit = np.where(movers[..., None], 255, light).astype(np.float32) / 255
            factor = factor * lit
        return FrameDetail((frame / factor + 0.5).clip(0, 255).astype(np.uint8), layers, light)

    def encode(self, quality: int) -> dict[str, Tensor]:
        """Compressed images for the file.

        Args:
            quality: of JPEG, 1 to 100.
        """
        full = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        how = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full]
        data = {
            "rgb": _encode(".jpg", cv2.cvtColor(self.rgb, cv2.COLOR_RGB2BGR), how),
            "layers": _encode(".png", self.layers, []),
        }
        if self.light is not None:
            height, width = self.layers.shape
            size = -(-width // _LIGHT_STEP), -(-height // _LIGHT_STEP)
            small = cv2.resize(self.light, size, interpolation=cv2.INTER_AREA)
            data["light"] = _encode(".png", small, [])
        return data

    @staticmethod
    def decode(data: dict[str, Tensor]) -> "FrameDetail":
        """The inverse of ``encode`` up to JPEG's loss.

        Raises:
            ValueError: the data are no images, or of different sizes.
        """
        rgb = cv2.cvtColor(_decode(data["rgb"], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        layers = _decode(data["layers"], cv2.IMREAD_GRAYSCALE)
        if rgb.shape[:2] != layers.shape:
            raise ValueError("the images differ in size")
        light = None
        if "light" in data:
            small = _decode(data["light"], cv2.IMREAD_COLOR)
            light = cv2.resize(small, layers.shape[::-1], interpolation=cv2.INTER_LINEAR)
        return FrameDetail(rgb, layers, light)


class FrameDetails:
    """Detail of all frames of a clip that have some, by frame number."""

    def __init__(self, data: dict[int, dict[str, Tensor]], size: tuple[int, int]):
        """
        Args:
            data: compressed images by frame.
            size: width and height of the frames.
        """
        self._data = data
        self._size = size
        self._read_held = lru_cache(_HELD)(self._read)

    def __contains__(self, t: int) -> bool:
        return t in self._data

    def __getitem__(self, t: int) -> FrameDetail:
        return self._read_held(t)

    def _read(self, t: int) -> FrameDetail:
        try:
            detail = FrameDetail.decode(self._data[t])
            if detail.layers.shape[::-1] != self._size:
                raise ValueError("another size")
        except (cv2.error, KeyError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"detail.pt: the pictures of frame {t} are damaged ({error}); train again"
            ) from error
        return detail


def save_details(
    path: Path, details: Iterable[tuple[int, FrameDetail]], quality: int, model: str
) -> None:
    """Writes detail.pt.

    Args:
        details: of frames by number.
        quality: of JPEG, 1 to 100.
        model: hash of the model's file: detail fits a single model.

    Raises:
        InputError: the file cannot be written.
    """
    frames = {t: detail.encode(quality) for t, detail in details}
    write_tensors(path, {"detail_version": _VERSION, "model": model, "frames": frames})


def load_details(path: Path, model: str, size: tuple[int, int]) -> FrameDetails:
    """Reads a file of ``save_details``.

    Args:
        model: hash of the model's file.
        size: width and height of the frames.

    Raises:
        InputError: the file is missing or damaged, or belongs to another model.
    """
    if not is_file(path):
        raise InputError(f"{path}: there is no such file of detail; train again")
    try:
        state = load_tensors(path, mapped=True)
        check_storage(state)
        if state["detail_version"] != _VERSION:
            raise ValueError(f"version {state['detail_version']}, not {_VERSION}")
        details = FrameDetails({int(t): dict(data) for t, data in state["frames"].items()}, size)
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        raise InputError(
            f"{path}: is no file of detail that can be read ({type(error).__name__}); train again"
        ) from error
    if state["model"] != model:
        raise InputError(f"{path}: belongs to another model than the file beside it; train again")
    return details


def _encode(kind: str, image: np.ndarray, how: list[int]) -> Tensor:
    return torch.from_numpy(cv2.imencode(kind, image, how)[1].reshape(-1))


def _decode(data: Tensor, how: int) -> np.ndarray:
    image = cv2.imdecode(data.numpy(), how)
    if image is None:
        raise ValueError("a picture cannot be decoded")
    return image
