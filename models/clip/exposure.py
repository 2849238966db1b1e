"""How each frame's colours differ from the scene's own: auto-exposure, white balance, vignetting,
sheen.

Told from the colours of static tracks before training, so that the colour field learns one colour a
point instead of an average of exposures. What is smooth over a frame is taken out; texture stays.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

DARK = 12
BRIGHT = 243
"""Colours outside are clipped or noise, and say nothing of the exposure."""
CELLS = 16
"""Cells of the shading grid along the longer side of the image."""
ROUNDS = 12
PRIOR = 2.0
"""Sightings' worth of belief, in each cell, that a frame's shading is flat."""


@dataclass(frozen=True)
class Exposure:
    """Log factors between a frame's colours and the scene's own."""

    gain: Float[np.ndarray, "F 3"]
    """One for each frame and channel; median zero over the clip."""
    shading: Float[np.ndarray, "F h w 3"]
    """What varies smoothly over the frame, on a coarse grid of cell centres."""
    width: int
    height: int

    @staticmethod
    def neutral(num_frames: int, width: int, height: int) -> "Exposure":
        """No difference at all."""
        rows, columns = _grid(width, height)
        shape = (num_frames, rows, columns, 3)
        return Exposure(
            np.zeros((num_frames, 3), np.float32), np.zeros(shape, np.float32), width, height
        )

    def factor(self, t: int, with_gain: bool = True) -> Float[np.ndarray, "H W 3"]:
        """Frame t's colours over the scene's own, at each pixel."""
        image = cv2.resize(
            self.shading[t], (self.width, self.height), interpolation=cv2.INTER_LINEAR
        )
        return np.exp(image + (self.gain[t] if with_gain else 0.0))


def estimate_exposure(
    frames: UInt8[np.ndarray, "F H W 3"],
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    frames_known: list[int],
) -> Exposure:
    """Exposure from static tracks: the log colour of track n in frame t is c_n + gain_t +
    shading_t(xy) + noise.

    Robust alternating least squares. Frames outside ``frames_known`` are not looked at: theirs is
    interpolated in time.
    """
    height, width = frames.shape[1:3]
    known = sorted(frames_known)
    sightings = _sightings(frames, xy, visible, known)
    gain, shading = _alternate(sightings, visible.shape[1], _grid(width, height))
    times = np.arange(len(frames))
    return Exposure(
        _interpolated(gain, known, times), _interpolated(shading, known, times), width, height
    )


@dataclass(frozen=True)
class _Sightings:
    """What one frame says: its tracks that are neither clipped nor seen in no other frame."""

    track: Int[np.ndarray, "n"]
    value: Float[np.ndarray, "n 3"]
    """Logarithm of the colour."""
    cell: Int[np.ndarray, "n"]
    """Cell of the shading grid, row-major."""

    def chosen(self, good: Bool[np.ndarray, "n"]) -> "_Sightings":
        """Some of them."""
        return _Sightings(self.track[good], self.value[good], self.cell[good])


def _sightings(
    frames: np.ndarray, xy: np.ndarray, visible: np.ndarray, known: list[int]
) -> list[_Sightings]:
    """Of each known frame; only what is seen is kept, a small part of all frames times all tracks
    in a long clip."""
    height, width = frames.shape[1:3]
    found = []
    count = np.zeros(visible.shape[1], np.int64)
    for t in known:
        track = np.flatnonzero(visible[t])
        color = _sampled(frames[t], xy[t, track])
        own = _Sightings(track, np.log(np.maximum(color, 1.0)), _cells(xy[t, track], width, height))
        found.append(own.chosen((color > DARK).all(-1) & (color < BRIGHT).all(-1)))
        count[found[-1].track] += 1
    return [own.chosen(count[own.track] >= 2) for own in found]


def _alternate(sightings: list[_Sightings], num_tracks: int, grid: tuple[int, int]):
    """Colours of tracks against exposures of frames, in turn."""
    robust = [np.ones(len(s.track), np.float32) for s in sightings]
    gain = _chained_gains(sightings)
    shading = np.zeros((len(sightings), *grid, 3), np.float32)
    for _ in range(ROUNDS):
        model = [
            g + own.reshape(-1, 3)[s.cell]
            for g, own, s in zip(gain, shading, sightings, strict=True)
        ]
        colors = _colors(sightings, robust, model, num_tracks)
        for t, s in enumerate(sightings):
            left = s.value - colors[s.track]
            shading[t] = _smooth(left - gain[t], robust[t], s.cell, grid)
            robust[t] = 1 / (1 + (np.abs(left - model[t]).max(-1) / 0.05) ** 2)
        mean = shading.mean((1, 2))
        gain = gain + mean
        shading = shading - mean[:, None, None]
    return gain - np.median(gain, 0), shading


def _colors(
    sightings: list[_Sightings], robust: list[np.ndarray], model: list[np.ndarray], num_tracks: int
) -> Float[np.ndarray, "N 3"]:
    """Weighted mean colour of each track, without its frames' exposures."""
    total = np.zeros((num_tracks, 3), np.float32)
    weight = np.zeros(num_tracks, np.float32)
    for s, r, m in zip(sightings, robust, model, strict=True):
        total[s.track] += r[:, None] * (s.value - m)
        weight[s.track] += r
    return total / np.maximum(weight, 1e-9)[:, None]


def _chained_gains(sightings: list[_Sightings]) -> Float[np.ndarray, "K 3"]:
    """A start: median change of colour from each frame to the next, added up."""
    steps = [np.zeros(3)]
    for a, b in pairwise(sightings):
        shared, of_a, of_b = np.intersect1d(
            a.track, b.track, assume_unique=True, return_indices=True
        )
        steps.append(
            np.median(b.value[of_b] - a.value[of_a], 0) if len(shared) >= 8 else np.zeros(3)
        )
    gain = np.cumsum(steps, 0)
    return (gain - np.median(gain, 0)).astype(np.float32)


def _smooth(
    error: np.ndarray, weight: np.ndarray, cell: np.ndarray, grid: tuple[int, int]
) -> np.ndarray:
    """Weighted mean error of each cell and its neighbours, pulled to zero where few tracks are."""
    count = np.bincount(cell, weight, grid[0] * grid[1])
    total = np.stack(
        [np.bincount(cell, weight * error[:, c], grid[0] * grid[1]) for c in range(3)], 1
    )
    image = np.concatenate([total, count[:, None]], 1).reshape(*grid, 4).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE)
    return image[..., :3] / (image[..., 3:] + PRIOR)


def _interpolated(values: np.ndarray, known: list[int], times: np.ndarray) -> np.ndarray:
    after = (
        np.searchsorted(known, times).clip(1, len(known) - 1)
        if len(known) > 1
        else np.zeros(len(times), int)
    )
    before = np.maximum(after - 1, 0)
    at = np.asarray(known, float)
    share = ((times - at[before]) / np.maximum(at[after] - at[before], 1)).clip(0, 1)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return ((1 - share) * values[before] + share * values[after]).astype(np.float32)


def _grid(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the shading grid."""
    size = max(width, height) / CELLS
    return max(1, round(height / size)), max(1, round(width / size))


def _cells(xy: Float[np.ndarray, "N 2"], width: int, height: int) -> np.ndarray:
    rows, columns = _grid(width, height)
    xy = np.nan_to_num(xy)
    column = (xy[:, 0] * columns / width).astype(np.int64).clip(0, columns - 1)
    row = (xy[:, 1] * rows / height).astype(np.int64).clip(0, rows - 1)
    return row * columns + column


def _sampled(
    frame: UInt8[np.ndarray, "H W 3"], xy: Float[np.ndarray, "N 2"]
) -> Float[np.ndarray, "N 3"]:
    """Colour around each point, averaged over 5 x 5 pixels."""
    height, width = frame.shape[:2]
    smooth = cv2.blur(frame.astype(np.float32), (5, 5))
    pixel = np.nan_to_num(xy).astype(np.int64)
    return smooth[pixel[:, 1].clip(0, height - 1), pixel[:, 0].clip(0, width - 1)]
