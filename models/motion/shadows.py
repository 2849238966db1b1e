"""Shadows that movers cast: pixels beside a mover that look like their background with less
light."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.motion.blobs import Blobs
from models.motion.cues import compare_with_background, sum_at_points
from models.motion.evidence import Evidence, shrink_frames
from models.motion.motion_masks import measure_depth, split_windows
from models.motion.options import MotionOptions
from models.motion.patches import fill_unknown, grow
from models.motion.segments import find_lasting
from models.motion.smoothing import smooth_probability
from models.run import SILENT, Progress, ProgressPart, allocate
from models.sfm import StaticScene
from models.tracks import PointTracks

# Likeness to the background in shadow at which a shadow is as likely as not, and the log-odds that
# a likeness of 1 more gives.
_EVEN_LIKENESS, _ODDS_OF_LIKENESS = 0.6, 8.0
# Log-odds of pixels on movers and out of reach.
_NO_SHADOW = -6.0
# Pixels of the work size within which a shadow begins beside its mover.
_TOUCHING = 4
# Pixels that are added around a shadow: light is compared in windows, which must lie inside it.
_EDGE = 3
# Half the width, in pixels of the work size, of the strip between a shadow and its mover.
_STRIP = 7


def find_shadows(
    frames: UInt8[np.ndarray, "F H W 3"],
    masks: Bool[np.ndarray, "F H W"],
    tracks: PointTracks,
    scene: StaticScene,
    progress: Progress = SILENT,
    options: MotionOptions = MotionOptions(),
) -> Bool[np.ndarray, "F H W"]:
    """True in the shadows that movers cast, beside the movers.

    Args:
        frames: RGB.
        masks: of the movers.
        tracks: of the static scene.
        scene: cameras, and points of these tracks.
        progress: hears the frames of the stage "shadows".
    """
    shadows = allocate(masks.shape, bool)
    if not (masks.any() and options.shadow_reach):
        return shadows
    size = shrink_frames(frames[:1], options.work_size).shape[1:3]
    small = np.stack([_shrink_mask(mask, size[::-1]) for mask in masks])
    dark = np.zeros_like(small)
    windows = split_windows(len(frames), options)
    total = sum(len(around) for around, _ in windows)
    before = 0
    for around, own in windows:
        part = slice(around[0], around[-1] + 1)
        images = shrink_frames(frames[part], options.work_size)
        depth = np.stack([_draw_depth(tracks, scene, t, size) for t in around])
        nothing = np.zeros_like(depth)
        evidence = Evidence(images, nothing, nothing, nothing, depth, {})
        hear = ProgressPart(progress, before, total)
        found = find_dark(evidence, scene.cameras[part], small[part], hear, options)
        dark[own[0] : own[-1] + 1] = found[own[0] - around[0] : own[-1] + 1 - around[0]]
        before += len(around)
    kept = keep_shadows(dark, small, options)
    for t in np.flatnonzero(kept.any((1, 2))):
        share = cv2.resize(kept[t].astype(np.float32), masks.shape[:0:-1])
        shadows[t] = (share > 0.5) & ~masks[t]
    return shadows


def _shrink_mask(mask: Bool[np.ndarray, "H W"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """A mask at another width and height."""
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5


def _draw_depth(
    tracks: PointTracks, scene: StaticScene, t: int, size: tuple[int, int]
) -> Float[np.ndarray, "h w"]:
    """Inverse depth of the static scene in frame t, filled in between the points that agree.

    Args:
        size: height and width in pixels.
    """
    depth = measure_depth(scene, t)
    front = depth > 0
    scale = size[1] / tracks.width, size[0] / tracks.height
    xy = (tracks.xy[t, scene.points.agrees[t]] * scale)[front]
    total = sum_at_points(xy, size, 1 / depth[front])
    count = sum_at_points(xy, size)
    return fill_unknown(total / np.maximum(count, 1), count > 0)


def find_dark(
    evidence: Evidence,
    cameras: Cameras,
    movers: Bool[np.ndarray, "F h w"],
    progress: Progress = SILENT,
    options: MotionOptions = MotionOptions(),
) -> Bool[np.ndarray, "F h w"]:
    """Pixels within reach of a mover that look like their background with less light; the
    background is known from other frames.

    Args:
        evidence: images and inverse depth count; without flow frames are judged one by one.
        cameras: of the frames, for images of any size.
        movers: pixels of movers.
        progress: hears the frames of the stage "shadows".
    """
    if not movers.any():
        progress.step("shadows", len(movers), len(movers))
        return np.zeros_like(movers)
    near = grow(movers, options.shadow_reach)
    likeness = compare_with_background(evidence, cameras, near, False, progress, "shadows")[1]
    odds = _ODDS_OF_LIKENESS * (likeness - _EVEN_LIKENESS)
    odds[movers | ~near] = _NO_SHADOW
    start = 1 / (1 + np.exp(-odds))
    dark = smooth_probability(evidence, odds, start, near) > 0.5
    return np.stack([_join(*masks) for masks in zip(dark, movers, strict=True)])


def _join(dark: Bool[np.ndarray, "h w"], mover: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Dark pixels with their edge, and the strip between them and the mover, which is too dark to be
    compared."""
    square, disc = (np.ones((2 * reach + 1,) * 2, np.uint8) for reach in (_EDGE, _STRIP))
    dark = cv2.dilate(dark.astype(np.uint8), square)
    closed = cv2.morphologyEx(dark | mover, cv2.MORPH_CLOSE, disc)
    beside = cv2.dilate(dark, disc)
    return ((dark | (closed & beside)) > 0) & ~mover


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
    return blobs.paint(find_lasting(blobs, options.smallest_seed, options))
