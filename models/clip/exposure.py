"""How each frame's colours differ from the scene's own: auto-exposure, white balance, vignetting,
sheen.

Estimated from the colours of static tracks before training, so that the colour field learns one
colour for each point instead of an average over exposures. Differences that are smooth over a frame
are removed; texture stays.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from models.clip.masks import at_points

# Alternations between colours of tracks and exposures of frames.
_ROUNDS = 12
# Difference in log colour at which an observation counts half.
_HALF_WEIGHT = 0.05
# Standard deviation of the smoothing of the shading grid, in cells.
_SHADING_BLUR = 0.8
# Tracks that two consecutive frames must share for their colours to be compared.
_MIN_SHARED = 8
# Side in pixels of the square around a point over which its colour is averaged.
_POINT_SIZE = 5


@dataclass(frozen=True)
class ExposureOptions:
    """How exposure is estimated."""

    dark: float = 12
    """Colour, 0 to 255, up to which an observation is left out as noise."""
    bright: float = 243
    """Colour, 0 to 255, from which an observation is left out as clipped."""
    cells: int = 16
    """Cells of the shading grid along the longer side of the image. More cells follow finer
    shading, but with few tracks they take texture for shading."""
    prior: float = 2.0
    """Weight of flat shading in each cell, in observations. Larger values give flatter shading."""


@dataclass(frozen=True)
class Exposure:
    """Log factors between a frame's colours and the scene's own."""

    gain: Float[np.ndarray, "F 3"]
    """Of each frame and channel; the median over the clip is 0."""
    shading: Float[np.ndarray, "F h w 3"]
    """The part that varies smoothly over the frame, on a coarse grid of cell centres."""
    width: int
    """Width of the frames in pixels."""
    height: int
    """Height of the frames in pixels."""

    def factor(self, t: int) -> Float[np.ndarray, "H W 3"]:
        """Frame t's colours over the scene's own, at each pixel."""
        size = self.width, self.height
        image = cv2.resize(self.shading[t], size, interpolation=cv2.INTER_LINEAR)
        return np.exp(image + self.gain[t])


def estimate_exposure(
    frames: UInt8[np.ndarray, "F H W 3"],
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    frames_known: list[int],
    options: ExposureOptions = ExposureOptions(),
) -> Exposure:
    """Exposure from static tracks: the log colour of track n in frame t is c_n + gain_t +
    shading_t(xy) + noise.

    Solved by robust alternating least squares.

    Args:
        frames: RGB.
        xy: pixels of static tracks.
        visible: whether a frame sees a track.
        frames_known: frames whose colours are used; the exposure of other frames is interpolated in
            time.
    """
    height, width = frames.shape[1:3]
    grid = _choose_grid(width, height, options)
    known = sorted(frames_known)
    samples = [_sample_frame(frames[t], xy[t], visible[t], grid, options) for t in known]
    count = np.zeros(visible.shape[1], np.int64)
    for own in samples:
        count[own.track] += 1
    # A track that one frame alone shows tells nothing of the exposure.
    samples = [own.select(count[own.track] >= 2) for own in samples]
    gain, shading = _solve(samples, visible.shape[1], grid, options)
    times = np.arange(len(frames))
    return Exposure(
        _interpolate(gain, known, times), _interpolate(shading, known, times), width, height
    )


@dataclass(frozen=True)
class _Samples:
    """Colours of a frame at its tracks."""

    track: Int[np.ndarray, "n"]
    """Index of each track."""
    value: Float[np.ndarray, "n 3"]
    """Logarithm of the colour."""
    cell: Int[np.ndarray, "n"]
    """Cell of the shading grid, row-major."""

    def select(self, good: Bool[np.ndarray, "n"]) -> "_Samples":
        """Some of the samples."""
        return _Samples(self.track[good], self.value[good], self.cell[good])


def _sample_frame(
    frame: UInt8[np.ndarray, "H W 3"],
    xy: Float[np.ndarray, "N 2"],
    visible: Bool[np.ndarray, "N"],
    grid: tuple[int, int],
    options: ExposureOptions,
) -> _Samples:
    """The colours of a frame at its visible tracks, without noise and clipped colours.

    Visible tracks alone are kept: they are a small part of all tracks of a long clip.
    """
    track = np.flatnonzero(visible)
    xy = np.nan_to_num(xy[track])
    color = _sample_colors(frame, xy)
    cell = _find_cells(xy, frame.shape[1], frame.shape[0], grid)
    own = _Samples(track, np.log(np.maximum(color, 1.0)), cell)
    return own.select((color > options.dark).all(-1) & (color < options.bright).all(-1))


def _sample_colors(
    frame: UInt8[np.ndarray, "H W 3"], xy: Float[np.ndarray, "N 2"]
) -> Float[np.ndarray, "N 3"]:
    """Colour around each point, averaged over a small square."""
    smooth = cv2.blur(frame.astype(np.float32), (_POINT_SIZE, _POINT_SIZE))
    return at_points(smooth[None], xy[None])[0]


def _solve(
    samples: list[_Samples], num_tracks: int, grid: tuple[int, int], options: ExposureOptions
) -> tuple[Float[np.ndarray, "K 3"], Float[np.ndarray, "K h w 3"]]:
    """Gain and shading of each frame: colours of tracks and exposures of frames in turn."""
    robust = [np.ones(len(s.track), np.float32) for s in samples]
    gain = _chain_gains(samples)
    shading = np.zeros((len(samples), *grid, 3), np.float32)
    for _ in range(_ROUNDS):
        model = [
            g + own.reshape(-1, 3)[s.cell] for g, own, s in zip(gain, shading, samples, strict=True)
        ]
        colors = _average_colors(samples, robust, model, num_tracks)
        for t, s in enumerate(samples):
            left = s.value - colors[s.track]
            shading[t] = _smooth_cells(left - gain[t], robust[t], s.cell, grid, options.prior)
            robust[t] = 1 / (1 + (np.abs(left - model[t]).max(-1) / _HALF_WEIGHT) ** 2)
        mean = shading.mean((1, 2))
        gain = gain + mean
        shading = shading - mean[:, None, None]
    return gain - np.median(gain, 0), shading


def _average_colors(
    samples: list[_Samples], robust: list[np.ndarray], model: list[np.ndarray], num_tracks: int
) -> Float[np.ndarray, "N 3"]:
    """Weighted mean log colour of each track without the exposures of its frames.

    Args:
        robust: weight of each sample.
        model: exposure of each sample.
    """
    total = np.zeros((num_tracks, 3), np.float32)
    weight = np.zeros(num_tracks, np.float32)
    for s, r, m in zip(samples, robust, model, strict=True):
        total[s.track] += r[:, None] * (s.value - m)
        weight[s.track] += r
    return total / np.maximum(weight, 1e-9)[:, None]


def _chain_gains(samples: list[_Samples]) -> Float[np.ndarray, "K 3"]:
    """Initial gains: the median change of colour from each frame to the next, added up."""
    steps = [np.zeros(3)]
    for a, b in pairwise(samples):
        shared, of_a, of_b = np.intersect1d(
            a.track, b.track, assume_unique=True, return_indices=True
        )
        enough = len(shared) >= _MIN_SHARED
        steps.append(np.median(b.value[of_b] - a.value[of_a], 0) if enough else np.zeros(3))
    gain = np.cumsum(steps, 0)
    return (gain - np.median(gain, 0)).astype(np.float32)


def _smooth_cells(
    error: Float[np.ndarray, "n 3"],
    weight: Float[np.ndarray, "n"],
    cell: Int[np.ndarray, "n"],
    grid: tuple[int, int],
    prior: float,
) -> Float[np.ndarray, "h w 3"]:
    """Weighted mean error of each cell and its neighbours, pulled to zero by ``prior``."""
    count = np.bincount(cell, weight, grid[0] * grid[1])
    total = np.stack(
        [np.bincount(cell, weight * error[:, c], grid[0] * grid[1]) for c in range(3)], 1
    )
    image = np.concatenate([total, count[:, None]], 1).reshape(*grid, 4).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), _SHADING_BLUR, borderType=cv2.BORDER_REPLICATE)
    return image[..., :3] / (image[..., 3:] + prior)


def _interpolate(
    values: Float[np.ndarray, "K *V"], known: list[int], times: Int[np.ndarray, "F"]
) -> Float[np.ndarray, "F *V"]:
    """Values of all frames from the values of known frames, linear in time."""
    after = np.zeros(len(times), int)
    if len(known) > 1:
        after = np.searchsorted(known, times).clip(1, len(known) - 1)
    before = np.maximum(after - 1, 0)
    at = np.asarray(known, float)
    share = ((times - at[before]) / np.maximum(at[after] - at[before], 1)).clip(0, 1)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return ((1 - share) * values[before] + share * values[after]).astype(np.float32)


def _choose_grid(width: int, height: int, options: ExposureOptions) -> tuple[int, int]:
    """Rows and columns of the shading grid."""
    size = max(width, height) / options.cells
    return max(1, round(height / size)), max(1, round(width / size))


def _find_cells(
    xy: Float[np.ndarray, "N 2"], width: int, height: int, grid: tuple[int, int]
) -> Int[np.ndarray, "N"]:
    """Cell of the shading grid, row-major, at points of an image."""
    rows, columns = grid
    column = (xy[:, 0] * columns / width).astype(np.int64).clip(0, columns - 1)
    row = (xy[:, 1] * rows / height).astype(np.int64).clip(0, rows - 1)
    return row * columns + column
