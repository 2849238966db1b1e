"""Masks of movers from motion alone: flow against the rigid scene, cut to pixel edges, with a label
for each mover."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from models.clip import ClipSize, split_into_stretches
from models.motion.background_scene import find_background_scene
from models.motion.cues import Appearance, Saliency, TrackMaps
from models.motion.evidence import gather_evidence
from models.motion.options import MotionOptions
from models.motion.patches import Patch
from models.motion.segments import count_passes, label_movers, segment_motion
from models.run import SILENT, Progress, ProgressPart, allocate, return_freed
from models.sfm import StaticScene
from models.tracks import PointTracks

# Inverse depth of the nearest static point, relative to that of the nearest tracked points.
_NEAREST_FACTOR = 2
# Quantile of the depth of agreeing points that counts as the nearest.
_NEAREST_QUANTILE = 0.01
# Bytes that the program takes for any clip.
_BASE = 1 << 29
# Bytes of all arrays together for a track in a frame.
_PER_OBSERVATION = 20
# Bytes of the evidence of motion for a pixel at the work size.
_PER_EVIDENCE_PIXEL = 116
# Bytes of frames, masks and shadows for a pixel, small ones among them.
_PER_PIXEL = 6
# Tracks of a slow clip in a grid cell, and frames after which the cell is filled once more.
_TRACKS_PER_CELL = 3
_FRAMES_PER_TRACK = 75


@dataclass(frozen=True)
class MotionMasks:
    """Movers in each frame."""

    masks: Bool[np.ndarray, "F H W"]
    """True on movers."""
    labels: UInt8[np.ndarray, "F H W"]
    """0 = static; 1, 2, ... = movers, with the same number in all frames; 1 covers most pixels."""
    scene: StaticScene | None
    """The rigid scene that flow was compared with; not the given scene if that follows a mover."""


def find_movers(
    frames: UInt8[np.ndarray, "F H W 3"],
    tracks: PointTracks,
    scene: StaticScene | None = None,
    progress: Progress = SILENT,
    options: MotionOptions = MotionOptions(),
    saliency: Saliency | None = None,
) -> MotionMasks:
    """Masks and labels of movers; all False and 0 if nothing moves.

    Args:
        frames: RGB.
        tracks: of the whole image, movers included.
        scene: cameras, and points of these tracks. Without a scene, and if most of the image
            disagrees with the scene (reconstruction has followed a mover), the background's cameras
            are solved here from the tracks that the scene leaves out.
        saliency: network that draws the outlines of what moves.
    """
    if len(frames) > 1:
        scene = find_background_scene(tracks, scene, options)
    if len(frames) < 2 or scene is None:
        labels = np.zeros(frames.shape[:3], np.uint8)
        return MotionMasks(labels > 0, labels, scene)
    clip = _MovingClip(frames, tracks, scene, saliency, options)
    patches = _estimate_probabilities(clip, progress)
    small = label_movers(_threshold(patches), options)
    masks, labels = _enlarge(patches, small, tracks.width, tracks.height)
    return MotionMasks(masks, labels, scene)


@dataclass(frozen=True)
class _MovingClip:
    """A clip whose movers are looked for; see ``find_movers``."""

    frames: UInt8[np.ndarray, "F H W 3"]
    tracks: PointTracks
    scene: StaticScene
    saliency: Saliency | None
    options: MotionOptions


def _estimate_probabilities(clip: _MovingClip, progress: Progress) -> list[Patch]:
    """Probability of motion of each pixel, at the size of the evidence. Evidence is held for a
    window of frames at a time."""
    patches = []
    before = 0
    windows = split_windows(len(clip.frames), clip.options)
    # Frames of a window count once for the evidence, and once in each pass of the segmentation.
    passes = 1 + count_passes(clip.saliency is not None)
    total = passes * sum(len(around) for around, _ in windows)
    for around, own in windows:
        probability = _estimate_window(clip, around, ProgressPart(progress, before, total))
        patches += [Patch.of(probability[t - around[0]]) for t in own]
        del probability
        before += passes * len(around)
        # The evidence goes, much of it arrays of one frame, before that of the next window comes.
        return_freed()
    return patches


def _estimate_window(
    clip: _MovingClip, around: range, progress: ProgressPart
) -> Float[np.ndarray, "T h w"]:
    """Probability of motion of each pixel of the frames ``around``; the evidence is not kept."""
    part = slice(around[0], around[-1] + 1)
    frames = clip.frames[part]
    cameras = clip.scene.cameras[part]
    nearest = _find_nearest(clip.scene, around)
    evidence = gather_evidence(frames, cameras, nearest, progress, clip.options)
    size = evidence.misfit.shape[1:]
    maps = TrackMaps.draw(clip.tracks, clip.scene, size, around, clip.options)
    look = None if clip.saliency is None else Appearance(frames, clip.saliency)
    hear = ProgressPart(progress, len(around), progress.total)
    return segment_motion(evidence, maps, cameras, look, hear, clip.options)


def split_windows(
    num_frames: int, options: MotionOptions = MotionOptions()
) -> list[tuple[range, range]]:
    """Overlapping stretches of a clip, each with the frames whose masks are made from the
    stretch."""
    if num_frames <= options.whole_frames:
        return [(range(num_frames), range(num_frames))]
    margin = options.window_margin
    return [
        (range(max(0, own.start - margin), min(num_frames, own.stop + margin)), own)
        for own in split_into_stretches(0, num_frames, options.window_frames)
    ]


def _find_nearest(scene: StaticScene, times: range) -> Float[np.ndarray, "T"]:
    """Largest inverse depth of static points in some frames: twice that of the nearest agreeing
    tracks."""
    nearest = np.ones(len(times))
    for i, t in enumerate(times):
        depth = measure_depth(scene, t)
        depth = depth[depth > 1e-6]
        if len(depth):
            nearest[i] = _NEAREST_FACTOR / np.quantile(depth, _NEAREST_QUANTILE)
    return nearest


def measure_depth(scene: StaticScene, t: int) -> Float[np.ndarray, "n"]:
    """z-depth in frame t of the points that agree there."""
    axis = scene.cameras[t].cam_from_world[0, 2].double().numpy()
    return scene.points.xyz[scene.points.agrees[t]] @ axis[:3] + axis[3]


def _threshold(patches: list[Patch]) -> Bool[np.ndarray, "F h w"]:
    """Pixels that move more likely than not."""
    moving = allocate((len(patches), *patches[0].shape), bool)
    for t, patch in enumerate(patches):
        moving[t] = patch.to_image() > 0.5
    return moving


def _enlarge(
    patches: list[Patch], labels: UInt8[np.ndarray, "F h w"], width: int, height: int
) -> tuple[Bool[np.ndarray, "F H W"], UInt8[np.ndarray, "F H W"]]:
    """Masks and labels at the frames' own size; along their edges the interpolated probability
    is 0.5."""
    out = allocate((len(labels), height, width), np.uint8)
    for t, (patch, small) in enumerate(zip(patches, labels, strict=True)):
        if not small.any():
            continue
        probability = patch.to_image()
        # Movers that were dropped must not come back at the edge of those that were kept.
        kept = np.where(small > 0, probability, np.minimum(probability, 0.49))
        large = cv2.resize(kept, (width, height), interpolation=cv2.INTER_LINEAR)
        nearest = ndimage.distance_transform_edt(
            small == 0, return_distances=False, return_indices=True
        )
        spread = small[tuple(nearest)]
        grown = cv2.resize(spread, (width, height), interpolation=cv2.INTER_NEAREST)
        out[t] = np.where(large > 0.5, grown, 0)
    masks = allocate(out.shape, bool)
    return np.greater(out, 0, out=masks), out


def estimate_num_tracks(size: ClipSize, spacing: int) -> int:
    """Number of tracks of a clip whose points stay in view for long; a fast clip has up to ten
    times as many.

    Args:
        spacing: side in pixels of the grid cells in which tracks begin.
    """
    cells = size.area / spacing**2
    return int(cells * (_TRACKS_PER_CELL + size.frames / _FRAMES_PER_TRACK))


def estimate_memory(
    size: ClipSize,
    num_tracks: int,
    with_motion: bool = True,
    options: MotionOptions = MotionOptions(),
) -> int:
    """Bytes that a run holds: the program, frames and masks, and all tracks in all frames.

    Args:
        with_motion: masks are made from motion, whose evidence is held for a window of frames.
    """
    need = _BASE + size.frames * (_PER_PIXEL * size.area + _PER_OBSERVATION * num_tracks)
    if with_motion:
        shrink = min(1.0, options.work_size / max(size.width, size.height)) ** 2
        window = options.window_frames + 2 * options.window_margin
        held = size.frames if size.frames <= options.whole_frames else window
        need += int(_PER_EVIDENCE_PIXEL * shrink * size.area * held)
    return need
