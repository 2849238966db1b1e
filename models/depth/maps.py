"""Depth maps from elsewhere (a learned model, a sensor) brought to the scene's own scale by its 3D
points.

A map may hold depth or inverse depth, in any unit; which of the two is read off the points. Each
frame gets a robust scale and shift of inverse depth of its own, since what a monocular model
returns is known only up to these (Ranftl et al., "Towards robust monocular depth estimation",
2020).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from models.cameras import Cameras
from models.clip import ClipFrames, natural_key
from models.depth.fit import MIN_POINTS, fit_inverse_depth, holds_inverse
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

FAR_SHELL = 4.0
"""What lies beyond this many times the depth of the farthest points is drawn there: the far
shell."""
NEAR_POINTS = 16
NEAR_PIXELS = 0.06
NEAR_DEPTH = 0.1
"""How many points correct the alignment near them, and how far they reach: a share of the image's
longer side, a difference in the logarithm of depth. The error of a monocular map is smooth over a
surface, not white."""
MIN_EXPLAINED = 0.5
"""Share of the points' spread in inverse depth below which maps are not used."""
OUTLYING = 4.0
"""Standard deviations beyond which what alignment leaves at a point counts no further."""
_SUFFIXES = (".npy", ".png")


@dataclass(frozen=True)
class DepthMaps:
    """A depth map for each frame, read from its file when asked for."""

    paths: list[Path]
    inverse: bool | None = None
    """Whether they hold inverse depth; None where that is not known."""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, t: int) -> Float[np.ndarray, "h w"]:
        """The values as they were saved; NaN where they are negative or not finite.

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
        return np.where(np.isfinite(values) & (values >= 0), values, np.nan).astype(np.float32)


def read_depth(path: Path, frames: ClipFrames, inverse: bool | None = None) -> DepthMaps:
    """The depth maps in a folder (.npy or 16-bit PNG, in natural name order), one for each frame
    taken or one for each frame of the clip.

    The maps may have any size of about the aspect ratio of the frames. A zero in maps of depth, and
    a negative or non-finite value in any map, means "not known"; a zero in maps of inverse depth
    means "infinitely far".

    Args:
        inverse: whether the maps hold inverse depth; None if unknown.

    Raises:
        InputError: the folder is missing or holds no maps, their number fits neither, or a map has
            another aspect ratio.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(
            f"{path}: there is no such folder; give one with a depth map (.npy or 16-bit PNG) a frame"
        )
    files = [
        p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")
    ]
    files = sorted(files, key=lambda p: natural_key(p.name))
    advice = "give depth maps of this clip"
    rows = frames.choose_rows(path, len(files), "depth maps (.npy or .png)", advice)
    maps = DepthMaps([files[i] for i in rows], inverse)
    height, width = maps[0].shape
    advice = "give maps of the frames' aspect ratio"
    frames.check_aspect(maps.paths[0], (width, height), "the depth map is", advice)
    return maps


def _read_npy(path: Path) -> np.ndarray:
    try:
        if not is_file(path):
            raise FileNotFoundError
        return np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged file can fail anywhere in the decoder
        raise InputError(
            f"{path}: is no readable array ({type(error).__name__}); save it by numpy.save"
        ) from error


def _read_png(path: Path) -> np.ndarray:
    image = None
    with suppress(cv2.error, MemoryError, OSError):
        data = read_limited(path)
        width, height = read_claimed_size(data) or (0, 0)
        if 0 < width * height <= MAX_PIXELS and max(width, height) <= MAX_SIDE:
            with bound_memory(16 * width * height + HEADROOM):
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"{path}: the image is corrupt or cut short; replace it")
    if image.dtype != np.uint16 or image.ndim != 2:
        raise InputError(
            f"{path}: is {image.dtype} with {image.shape[2:] or 1} channels; save depth as 16-bit grey"
        )
    return image


@dataclass(frozen=True)
class AlignedDepth:
    """Depth maps in world units: 1 / depth = scale * inverse value + shift for each frame, and what
    near points add."""

    maps: DepthMaps
    inverse: bool
    """True where the maps hold inverse depth, False where they hold depth."""
    scale: Float[np.ndarray, "F"]
    shift: Float[np.ndarray, "F"]
    error: Float[np.ndarray, "F"]
    """Robust standard deviation of what scale and shift leave, in inverse depth."""
    known: list[Float[np.ndarray, "P 4"]]
    """Of each frame: pixel x, y and inverse depth of its points, and what scale and shift leave
    there."""
    farthest: float
    """Depth of the far shell in world units; nothing is placed beyond it."""
    width: int
    """Of the frames, in pixels."""
    height: int
    explained: float
    """Share of the spread of the points' inverse depth that the maps explain; 1 = all, 0 = they
    tell nothing."""

    @property
    def trusted(self) -> bool:
        """Whether the maps say enough about this scene to be used."""
        return self.explained > MIN_EXPLAINED

    def at(
        self, t: int, xy: Float[np.ndarray, "N 2"]
    ) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """z-depth in world units at pixels of frame t, and its relative standard deviation; NaN
        where not known."""
        values = _sampled(self.maps[t], xy, self.width, self.height)
        value = values.astype(np.float64) if self.inverse else _inverted(values)
        rho = np.maximum(self.scale[t] * value + self.shift[t], 1 / self.farthest)
        bias, error = self._near(t, xy, rho)
        rho = np.maximum(rho + bias, 1 / self.farthest)
        return 1 / rho, error / rho

    def _near(self, t: int, xy: np.ndarray, rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What points near in the image and in depth say about the alignment there, and how well
        they agree."""
        own = self.known[t]
        error = self.error[t]
        bias = np.zeros(len(rho))
        spread = np.full(len(rho), error)
        told = np.flatnonzero(np.isfinite(rho))
        if not len(own) or not len(told):
            return bias, spread
        reach = NEAR_PIXELS * max(self.width, self.height)
        place = [
            np.c_[p / reach, np.log(r) / NEAR_DEPTH]
            for p, r in ((own[:, :2], own[:, 2]), (xy[told], rho[told]))
        ]
        distance, index = cKDTree(place[0]).query(
            place[1], list(range(1, min(NEAR_POINTS, len(own)) + 1))
        )
        weight = np.exp(-0.5 * distance**2)
        left = own[index, 3]
        total = weight.sum(1) + 1  # the global alignment counts as one point that says 0
        bias[told] = (weight * left).sum(1) / total
        spread[told] = np.sqrt(
            ((weight * (left - bias[told, None]) ** 2).sum(1) + error**2) / total
        )
        return bias, spread

    def describe(self) -> str:
        """One line on how the maps were aligned."""
        kind = "inverse depth" if self.inverse else "depth"
        low, middle, high = np.percentile(self.scale, [0, 50, 100])
        told = f"they explain {100 * self.explained:.0f} % of the spread" + (
            "" if self.trusted else ": not used"
        )
        return (
            f"maps of {kind} aligned to {sum(map(len, self.known))} sightings: inverse depth = {middle:.3g} x value "
            f"{np.median(self.shift):+.3g} (scales {low:.3g} to {high:.3g}); {told}"
        )


def align_depth(
    maps: DepthMaps,
    cameras: Cameras,
    xyz: Float[np.ndarray, "N 3"],
    seen: Bool[np.ndarray, "F N"],
    progress: Callable[[int], None] = lambda done: None,
) -> AlignedDepth:
    """Depth maps brought to the scale of static 3D points, each frame by itself.

    Args:
        cameras: one for each map.
        xyz: world points that are sure of their depth; others (NaN) are left out.
        seen: the frames that see them.
        progress: is told how many frames are done.

    Raises:
        InputError: too few points lie on known depth in every frame.
    """
    image, depth = (
        v.numpy() for v in cameras.project(torch.from_numpy(np.asarray(xyz, np.float64)))
    )
    samples = []
    for t in range(len(maps)):
        use = seen[t] & np.isfinite(depth[t]) & (depth[t] > 0)
        value = _sampled(maps[t], image[t, use], cameras.width, cameras.height).astype(np.float64)
        samples.append(np.c_[image[t, use], 1 / depth[t, use], value][np.isfinite(value)])
        progress(t + 1)
    inverse = (
        holds_inverse([(s[:, 3], s[:, 2]) for s in samples])
        if maps.inverse is None
        else maps.inverse
    )
    if not inverse:
        samples = [np.c_[s[:, :3], _inverted(s[:, 3])][s[:, 3] > 0] for s in samples]
    fits = [fit_inverse_depth(s[:, 3], s[:, 2]) for s in samples]
    good = np.array([f is not None for f in fits])
    if not good.any():
        raise InputError(
            f"{maps.paths[0].parent}: no frame has {MIN_POINTS} tracked points on known depth, so that the depth maps "
            "cannot be aligned; leave them out, or check that they belong to this clip"
        )
    table = np.array([f if f is not None else (np.nan,) * 3 for f in fits])
    scale, shift, error = (
        np.interp(np.arange(len(maps)), np.flatnonzero(good), column[good]) for column in table.T
    )
    known = [
        np.c_[s[:, :3], np.clip(s[:, 2] - a * s[:, 3] - b, -OUTLYING * e, OUTLYING * e)]
        for s, a, b, e in zip(samples, scale, shift, error, strict=True)
    ]
    rho, left = (np.concatenate([k[:, c] for k in known]) for c in (2, 3))
    farthest = FAR_SHELL / max(np.quantile(rho, 0.01), 1e-12)
    explained = max(
        0.0, 1 - float(np.abs(left).mean() / max(np.abs(rho - np.median(rho)).mean(), 1e-12))
    )
    size = cameras.width, cameras.height
    return AlignedDepth(maps, inverse, scale, shift, error, known, farthest, *size, explained)


def inverse_values(
    maps: DepthMaps, t: int, xy: Float[np.ndarray, "N 2"], width: int, height: int
) -> Float[np.ndarray, "N"]:
    """Inverse depth in the maps' unit at pixels of frame t; maps that do not say what they hold are
    taken as depth."""
    values = _sampled(maps[t], xy, width, height).astype(np.float64)
    return values if maps.inverse else _inverted(values)


def _sampled(
    values: Float[np.ndarray, "h w"], xy: np.ndarray, width: int, height: int
) -> Float[np.ndarray, "N"]:
    """The value of the pixel that each point of the frame lies on; between two, a mean would lie on
    no surface."""
    rows, columns = values.shape
    x = np.clip((xy[:, 0] * columns / width).astype(np.int64), 0, columns - 1)
    y = np.clip((xy[:, 1] * rows / height).astype(np.int64), 0, rows - 1)
    return values[y, x]


def _inverted(depth: np.ndarray) -> np.ndarray:
    """1 / depth; NaN where depth is 0, which means "not known"."""
    return 1 / np.where(depth > 0, depth, np.nan).astype(np.float64)
