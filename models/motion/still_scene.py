"""From tracks to the background layer: its scene where things move, and the content of its track
file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from models.clip import Video, at_points, dilate
from models.learned import MaskModel
from models.motion.evidence import WORK_SIZE
from models.motion.motion_masks import MARGIN, WHOLE, WINDOW, background_scene, motion_masks
from models.run import InputError
from models.sfm import Progress, StaticScene, solve_points, solve_scene
from models.tracks import Tracks

MUCH_MORE = 1.1
"""Times as many sightings must agree with cameras found from a rotation for them to replace mapped
ones."""
ABOUT_AS_MANY = 0.95
"""Share of the sightings that agree with the former cameras that must agree with those solved
without movers."""
MOVERS_MATTER = 0.02
"""Share of all sightings on movers from which cameras are solved anew without them."""
MASK_MARGIN = 3
"""Pixels by which masks are grown before background points are sought."""
BASE_MEMORY = 1 << 29
"""Bytes that the program takes whatever the clip."""
BYTES_OF_AN_ENTRY = 20
BYTES_OF_EVIDENCE = 108
"""What all arrays together hold for a track in a frame, and evidence of motion for a pixel of the
size it has."""
COVERS = 3
FRAMES_OF_A_TRACK = 75
"""A slow clip has its grid of ``spacing`` filled so many times, and once more each time so many
frames have passed."""


def masked_scene(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    width: int,
    height: int,
    seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda stage, done, total: None,
) -> StaticScene:
    """The scene from tracks off given masks: as mapped, or from a rotation where far more sightings
    agree with that.

    Raises:
        InputError: too few tracks.
    """
    solved = solve_scene(xy, visible, width, height, None, seed, report, progress)
    other = background_scene(xy, visible, solved, width, height)
    much_more = other.points.agrees.sum() > MUCH_MORE * solved.points.agrees.sum()
    return other if much_more else solved


def without_movers(
    frames: UInt8[np.ndarray, "F H W 3"],
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    scene: StaticScene,
    seed: int = 0,
    mask_model: MaskModel | None = None,
    report: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[Bool[np.ndarray, "F H W"], StaticScene]:
    """Masks of what moves against the scene, redrawn by a learned model where there is one; the
    scene without them.

    Args:
        xy: 2D tracks of the whole image in pixels, movers included.
        visible: which of them were seen.
        scene: cameras and points of those tracks.
        report: is told how much moves, and how cameras were solved anew.
        progress: is told the stage, and how many of its steps are done.
    """
    motion = motion_masks(frames, xy, visible, scene, partial(progress, "motion"))
    masks = motion.masks
    against = motion.scene
    report(f"motion: {int(motion.labels.max())} mover(s), {100 * masks.mean():.1f} % of the pixels")
    if not masks.any() or against is None:
        return masks, scene
    if mask_model is not None:
        masks = mask_model(frames, motion.labels, partial(progress, "learned masks")) > 0
        report(f"learned masks: {100 * masks.mean():.1f} % of the pixels")
    del motion  # its labels, as large as the masks
    free = visible & _outside(masks, xy)
    known = solve_points(against, xy, free)
    if scene.method == "given" or free.sum() > (1 - MOVERS_MATTER) * visible.sum():
        return masks, known
    return masks, _better(known, _solved_again(known, xy, free, seed, report, progress))


def _outside(
    masks: Bool[np.ndarray, "F H W"], xy: Float[np.ndarray, "F N 2"]
) -> Bool[np.ndarray, "F N"]:
    """Which sightings lie off the (grown) masks; frame by frame, as all grown masks at once take as
    much again."""
    free = np.empty(xy.shape[:2], bool)
    for t in range(len(masks)):
        free[[t]] = at_points(~dilate(masks[[t]], MASK_MARGIN), xy[[t]])
    return free


def _solved_again(
    known: StaticScene,
    xy: np.ndarray,
    visible: np.ndarray,
    seed: int,
    report: Callable[[str], None],
    progress: Progress,
) -> StaticScene | None:
    """The scene from the tracks outside the masks alone; None where they are too few."""
    try:
        return solve_scene(
            xy, visible, known.cameras.width, known.cameras.height, None, seed, report, progress
        )
    except InputError:
        return None


def _better(known: StaticScene, again: StaticScene | None) -> StaticScene:
    """The scene that more frames and about as many sightings agree with; the one without movers if
    in doubt."""
    if again is None or again.registered.sum() < known.registered.sum():
        return known
    return again if again.points.agrees.sum() > ABOUT_AS_MANY * known.points.agrees.sum() else known


def with_points(scene: StaticScene, path: Path) -> Bool[np.ndarray, "N"]:
    """Which tracks have a 3D point.

    Raises:
        InputError: none of the clip at ``path`` has.
    """
    good = np.isfinite(scene.points.xyz).all(1)
    if not good.any():
        raise InputError(
            f"{path}: no track could be placed in space; give a clip with more detail and motion"
        )
    return good


def static_tracks(
    video: Video,
    scene: StaticScene,
    xy: Float[np.ndarray, "F n 2"],
    good: Bool[np.ndarray, "N"],
    video_path: Path,
) -> Tracks:
    """The track file's content: tracks that have a 3D point (``good``), and their 2D positions."""
    xyz = torch.from_numpy(scene.points.xyz[good]).float()
    agrees = scene.points.agrees[:, good]
    confidence = np.zeros(agrees.shape, np.float32)
    # numpy's exp, not torch's: of two threads that call MKL's first, one may get it in low accuracy.
    confidence[agrees] = np.exp(-scene.points.residual)
    return Tracks(
        xy=torch.from_numpy(xy).float(),
        visible=torch.from_numpy(agrees),
        confidence=torch.from_numpy(confidence).float(),
        xyz=xyz[None].expand(len(video), -1, -1),
        K=scene.cameras.K,
        world_from_cam=scene.cameras.world_from_cam,
        width=video.width,
        height=video.height,
        fps=video.fps,
        frame_indices=torch.as_tensor(video.frame_indices),
        layer="background",
        video_path=str(video_path),
    )


def least_tracks(video: Video, spacing: int) -> int:
    """About how many tracks a clip has whose points stay in view for long; a fast one has up to ten
    times as many."""
    return int(video.width * video.height / spacing**2 * (COVERS + len(video) / FRAMES_OF_A_TRACK))


def needed_memory(video: Video, num_tracks: int, with_motion: bool = True) -> int:
    """About how many bytes a run holds: the program, frames and masks, and an entry of each track
    for each frame.

    Args:
        with_motion: masks are made from motion, from evidence that is held for a stretch of the
            clip.
    """
    size = video.width * video.height
    need = BASE_MEMORY + 4 * size * len(video) + BYTES_OF_AN_ENTRY * num_tracks * len(video)
    if with_motion:
        shrink = min(1.0, WORK_SIZE / max(video.width, video.height)) ** 2
        held = len(video) if len(video) <= WHOLE else WINDOW + 2 * MARGIN
        need += int(BYTES_OF_EVIDENCE * shrink * size * held)
    return need
