"""Shadows that movers cast: pixels beside a mover that look like their background with less
light."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from models.cameras import Cameras
from models.motion.blobs import Blobs
from models.motion.cues import compare_with_background
from models.motion.evidence import Evidence
from models.motion.options import MotionOptions
from models.motion.patches import grow
from models.motion.smoothing import smooth_probability
from models.run import SILENT, Progress

# Likeness to the background in shadow at which a shadow is as likely as not, and the log-odds that
# a likeness of 1 more gives.
_EVEN_LIKENESS, _ODDS_OF_LIKENESS = 0.6, 8.0
# Log-odds of pixels on movers and out of reach.
_NO_SHADOW = -6.0
# Pixels of the work size within which a shadow begins beside its mover.
_TOUCHING = 4
# Pixels that are added around a shadow: light is compared in windows, which must lie inside it.
_EDGE = 3


def find_dark(
    evidence: Evidence,
    cameras: Cameras,
    probability: Float[np.ndarray, "F h w"],
    progress: Progress = SILENT,
    options: MotionOptions = MotionOptions(),
) -> Bool[np.ndarray, "F h w"]:
    """Pixels within reach of a mover that look like their background with less light; the
    background is known from other frames.

    Args:
        cameras: of the frames, for images of any size.
        probability: of a mover at each pixel.
        progress: hears the frames of the stage "motion".
    """
    movers = probability > 0.5
    if not (movers.any() and options.shadow_reach):
        progress.step("motion", len(movers), len(movers))
        return np.zeros_like(movers)
    near = grow(movers, options.shadow_reach)
    likeness = compare_with_background(evidence, cameras, near, False, progress)[1]
    odds = _ODDS_OF_LIKENESS * (likeness - _EVEN_LIKENESS)
    odds[movers | ~near] = _NO_SHADOW
    start = 1 / (1 + np.exp(-odds))
    dark = smooth_probability(evidence, odds, start, near) > 0.5
    square = np.ones((2 * _EDGE + 1,) * 2, np.uint8)
    return np.stack([cv2.dilate(mask.astype(np.uint8), square) > 0 for mask in dark]) & ~movers


def keep_shadows(
    dark: Bool[np.ndarray, "F h w"],
    movers: Bool[np.ndarray, "F h w"],
    options: MotionOptions = MotionOptions(),
) -> Bool[np.ndarray, "F h w"]:
    """The patches of dark pixels that touch a mover, of blobs that are large and last."""
    square = np.ones((2 * _TOUCHING + 1,) * 2, np.uint8)
    attached = np.zeros_like(dark)
    for t, mask in enumerate(dark):
        _, patches = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        beside = cv2.dilate(movers[t].astype(np.uint8), square) > 0
        touching = np.setdiff1d(patches[beside], 0)
        attached[t] = np.isin(patches, touching)
    blobs = Blobs(attached)
    area = options.smallest_seed * dark[0].size
    shortest = min(options.shortest, len(dark))
    return blobs.paint(blobs.find_lasting(shortest, area))
