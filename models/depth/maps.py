"""Depth maps of a sensor or a depth model: files, read when they are asked for."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from models.clip import ClipFrames, Lens, sort_naturally
from models.depth.options import AlignmentOptions
from models.run import (
    HEADROOM,
    MAX_PIXELS,
    MAX_SIDE,
    InputError,
    bound_memory,
    is_file,
    read_claimed_size,
    read_limited,
)

_SUFFIXES = (".npy", ".png")
# Bytes that OpenCV takes at most for a pixel while it decodes an image.
_DECODED_PIXEL = 16


@dataclass(frozen=True)
class DepthMaps:
    """A depth map for each frame, read from its file at each access."""

    paths: list[Path]
    inverse: bool | None = None
    """Whether they hold inverse depth; None if unknown."""
    options: AlignmentOptions = AlignmentOptions()
    """How they are aligned to a scene and used in it."""
    lens: Lens | None = None
    """The lens of the frames that the maps were made of; a map is straightened as it is read."""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, t: int) -> Float[np.ndarray, "h w"]:
        """The values of frame t in the file's unit; NaN for negative and non-finite values.

        Raises:
            InputError: the file cannot be read or is no map of numbers.
        """
        path = self.paths[t]
        values = _read_npy(path) if path.suffix.lower() == ".npy" else _read_png(path)
        values = np.squeeze(values)
        if values.ndim != 2 or values.dtype.kind not in "fiu":
            raise InputError(
                f"{path}: is {values.dtype} of shape {values.shape}, expected one number a pixel"
            )
        values = np.where(np.isfinite(values) & (values >= 0), values, np.nan).astype(np.float32)
        if self.lens is None:
            return values
        # Of a single pixel each, since a mean of two depths may lie on no surface.
        return self.lens.resized(*values.shape[::-1]).remap(values, nearest=True)

    def sample(
        self, t: int, xy: Float[np.ndarray, "N 2"], size: tuple[int, int]
    ) -> Float[np.ndarray, "N"]:
        """Values of frame t at points, each of a single pixel of the map, since a mean of two pixels
        may lie on no surface.

        Args:
            xy: pixels of the frame.
            size: width and height of the frame in pixels.
        """
        values = self[t]
        rows, columns = values.shape
        x = np.clip((xy[:, 0] * columns / size[0]).astype(np.int64), 0, columns - 1)
        y = np.clip((xy[:, 1] * rows / size[1]).astype(np.int64), 0, rows - 1)
        return values[y, x]


def invert_depth(depth: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """1 / depth; NaN for a depth of 0, which means "not known"."""
    return 1 / np.where(depth > 0, depth, np.nan).astype(np.float64)


def read_depth(
    path: Path,
    frames: ClipFrames,
    inverse: bool | None = None,
    options: AlignmentOptions = AlignmentOptions(),
) -> DepthMaps:
    """The depth maps in a folder (.npy or 16-bit PNG, in natural name order) of the frames taken, or
    of all frames of the clip.

    The maps may have any size of about the aspect ratio of the frames. A zero in maps of depth, and
    a negative or non-finite value in any map, means "not known"; a zero in maps of inverse depth
    means "infinitely far".

    Args:
        inverse: whether the maps hold inverse depth; None if unknown.

    Raises:
        InputError: the folder is missing or holds no maps, their number fits neither, or the first
            map has another aspect ratio.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(
            f"{path}: there is no such folder; give one with a depth map (.npy or 16-bit PNG) a frame"
        )
    files = [
        p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")
    ]
    files = sort_naturally(files, lambda path: path.name)
    advice = "give depth maps of this clip"
    rows = frames.choose_rows(path, len(files), "depth maps (.npy or .png)", advice)
    maps = DepthMaps([files[i] for i in rows], inverse, options)
    height, width = maps[0].shape
    advice = "give maps of the frames' aspect ratio"
    frames.check_aspect(maps.paths[0], (width, height), "the depth map is", advice)
    return maps


def _read_npy(path: Path) -> np.ndarray:
    try:
        if not is_file(path):
            raise FileNotFoundError
        return np.load(path, allow_pickle=False)
    # A damaged file can fail anywhere in the decoder.
    except Exception as error:
        raise InputError(
            f"{path}: is no readable array ({type(error).__name__}); save it by numpy.save"
        ) from error


def _read_png(path: Path) -> np.ndarray:
    image = None
    with suppress(cv2.error, MemoryError, OSError):
        data = read_limited(path)
        width, height = read_claimed_size(data) or (0, 0)
        if 0 < width * height <= MAX_PIXELS and max(width, height) <= MAX_SIDE:
            with bound_memory(_DECODED_PIXEL * width * height + HEADROOM):
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"{path}: the image is corrupt or cut short; replace it")
    if image.dtype != np.uint16 or image.ndim != 2:
        raise InputError(
            f"{path}: is {image.dtype} with {image.shape[2:] or 1} channels; save depth as 16-bit grey"
        )
    return image
