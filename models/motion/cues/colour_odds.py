"""Colours of movers against those of their surroundings."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

# Bins of each colour channel, and the standard deviation of their blur, in bins and in frames.
_COLOUR_LEVELS = 12
_COLOUR_BLUR = 0.7
_COLOUR_FRAMES = 4.0


def estimate_colour_odds(
    images: UInt8[np.ndarray, "F h w 3"],
    probability: Float[np.ndarray, "F h w"],
    near: Bool[np.ndarray, "F h w"],
) -> Float[np.ndarray, "F h w"]:
    """Log-odds of each pixel's colour: histogram of the movers over the frames around, against that
    of their surroundings."""
    level_of = _find_levels(images)
    bins = [_find_bins(image, level_of) for image in images]
    size = _COLOUR_LEVELS**3
    inside = np.stack(
        [np.bincount(b.ravel(), p.ravel(), size) for b, p in zip(bins, probability, strict=True)]
    )
    outside = np.stack(
        [np.bincount(b[n], 1 - p[n], size) for b, p, n in zip(bins, probability, near, strict=True)]
    )
    inside = _normalize_histograms(inside)
    outside = _normalize_histograms(outside)
    ratio = np.clip(np.log((inside + 2e-5) / (outside + 2e-5)), -3, 3)
    odds = np.empty(probability.shape, np.float32)
    for t, own in enumerate(bins):
        odds[t] = ratio[t, own]
    return odds


def _find_levels(images: UInt8[np.ndarray, "F h w 3"]) -> Int[np.ndarray, "256 3"]:
    """Level of each value of each channel; levels hold about equally many pixels of the clip, so
    that dark clips have as many as bright ones."""
    levels = np.empty((256, 3), np.int64)
    for channel in range(3):
        count = np.zeros(256)
        for image in images:
            count += np.bincount(image[..., channel].ravel(), minlength=256)
        share = np.cumsum(count) / count.sum()
        # The middle of a value's share of the pixels.
        share -= 0.5 * count / count.sum()
        levels[:, channel] = np.clip(share * _COLOUR_LEVELS, 0, _COLOUR_LEVELS - 1)
    return levels


def _find_bins(
    image: UInt8[np.ndarray, "h w 3"], level_of: Int[np.ndarray, "256 3"]
) -> Int[np.ndarray, "h w"]:
    """Number of each pixel's colour bin."""
    red, green, blue = (level_of[image[..., channel], channel] for channel in range(3))
    return (red * _COLOUR_LEVELS + green) * _COLOUR_LEVELS + blue


def _normalize_histograms(histograms: Float[np.ndarray, "F bins"]) -> Float[np.ndarray, "F bins"]:
    """Histograms blurred over frames and colours, each divided by its sum."""
    blurred = ndimage.gaussian_filter1d(histograms, _COLOUR_FRAMES, 0, mode="nearest")
    cube = blurred.reshape(-1, _COLOUR_LEVELS, _COLOUR_LEVELS, _COLOUR_LEVELS)
    blur = (0, _COLOUR_BLUR, _COLOUR_BLUR, _COLOUR_BLUR)
    smooth = ndimage.gaussian_filter(cube, blur).reshape(len(histograms), -1)
    smooth /= smooth.sum(1, keepdims=True) + 1e-9
    return smooth
