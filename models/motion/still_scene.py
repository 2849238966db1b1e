"""The static scene of a clip in which things move."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt8

from models.clip import at_points, dilate
from models.learned import MaskModel, SaliencyModel
from models.motion.background_scene import find_background_scene
from models.motion.motion_masks import find_movers
from models.motion.options import MotionOptions
from models.run import SILENT, InputError, Progress, allocate
from models.sfm import (
    CameraOptions,
    StaticScene,
    judge_scene,
    refine_scene,
    solve_points,
    solve_scene,
)
from models.tracks import PointTracks

SceneSolver = Callable[[PointTracks], StaticScene]
"""Solves cameras and points from tracks, such as ``solve_scene`` with its seed and options
bound."""

# A scene found from a rotation replaces the mapped scene if this many times as many observations
# agree with it.
_ROTATION_GAIN = 1.1
# Share of the picture, and share of its border, from which masks may hold the still scene.
_LARGE_SHARE = 1 / 3
_BORDER_SHARE = 0.25
# Cameras that explain this share of the observations outside the masks are refined, not solved
# again: mapping takes several times as long.
_EXPLAINED_SHARE = 0.8
# New cameras replace the old if they explain at least this share of the observations that the old
# explain.
_AGREEING_SHARE = 0.95


def solve_masked_scene(
    tracks: PointTracks,
    solve: SceneSolver = solve_scene,
    options: MotionOptions = MotionOptions(),
) -> StaticScene:
    """The scene from tracks outside given masks: as mapped, or found from a rotation if far more
    observations agree with that.

    Raises:
        InputError: too few tracks.
    """
    mapped = solve(tracks)
    other = find_background_scene(tracks, mapped, options)
    is_better = other.points.agrees.sum() > _ROTATION_GAIN * mapped.points.agrees.sum()
    return other if is_better else mapped


def mask_movers(
    frames: UInt8[np.ndarray, "F H W 3"],
    tracks: PointTracks,
    scene: StaticScene,
    mask_model: MaskModel | SaliencyModel | None = None,
    progress: Progress = SILENT,
    options: MotionOptions = MotionOptions(),
) -> tuple[Bool[np.ndarray, "F H W"], StaticScene]:
    """Masks of movers, and the scene that motion was measured against.

    Args:
        frames: RGB.
        tracks: of the whole image, movers included.
        scene: cameras, and points of these tracks. Another scene is returned if this scene follows
            a mover.
        mask_model: redraws the masks that motion gives, or draws outlines as they are found.
        progress: hears which share of the pixels moves.
    """
    saliency = mask_model if isinstance(mask_model, SaliencyModel) else None
    motion = find_movers(frames, tracks, scene, progress, options, saliency)
    masks = motion.masks
    against = motion.scene
    count = int(motion.labels.max())
    progress.say(f"motion: {count} mover(s), {100 * masks.mean():.1f} % of the pixels")
    _warn_of_majority(masks, progress)
    if not masks.any() or against is None:
        return masks, scene
    if mask_model is not None and saliency is None:
        masks = mask_model(frames, motion.labels, progress) > 0
        progress.say(f"learned masks: {100 * masks.mean():.1f} % of the pixels")
        if not masks.any():
            return masks, solve_points(against, tracks)
    return masks, against


def _warn_of_majority(masks: Bool[np.ndarray, "F H W"], progress: Progress) -> None:
    """Says so if what moves may be the still scene around a mover that fills the picture."""
    sides = masks[:, [0, -1]], masks[:, :, [0, -1]]
    border = np.mean([side.mean() for side in sides])
    if masks.mean() > _LARGE_SHARE or border > _BORDER_SHARE:
        progress.say(
            f"warning: {100 * masks.mean():.0f} % of the picture, {100 * border:.0f} % at its border, "
            "move apart from the scene that the cameras follow; if this part is the still scene, the "
            "cameras follow a mover that fills the picture: give masks of the mover (--mask_path)"
        )


def solve_without_movers(
    tracks: PointTracks,
    masks: Bool[np.ndarray, "F H W"],
    scene: StaticScene,
    solve: SceneSolver = solve_scene,
    options: MotionOptions = MotionOptions(),
) -> StaticScene:
    """The scene from the observations outside the masks. Where movers hold many of the observations,
    the cameras are refined, or solved again if they explain too little; given cameras stay.

    Args:
        tracks: of the whole image.
        masks: of movers.
        scene: that the masks were made against.
    """
    if not masks.any():
        return scene
    free = tracks.restrict(_find_outside(masks, tracks, options.mask_margin))
    known = solve_points(scene, free)
    many = free.visible.sum() > (1 - options.movers_matter) * tracks.visible.sum()
    if scene.method == "given" or many:
        return known
    is_mapped = scene.method not in ("rotation", "still") and scene.registered.all()
    if is_mapped and known.points.agrees.sum() >= _EXPLAINED_SHARE * free.visible.sum():
        return refine_scene(known, free)
    try:
        again = solve(free)
    except InputError:  # too few tracks outside the masks
        return known
    if again.registered.sum() < known.registered.sum():
        return known
    enough = again.points.agrees.sum() > _AGREEING_SHARE * known.points.agrees.sum()
    return again if enough else known


def judge_static_scene(
    tracks: PointTracks,
    masks: Bool[np.ndarray, "F H W"],
    scene: StaticScene,
    cameras: CameraOptions = CameraOptions(),
    progress: Progress = SILENT,
    options: MotionOptions = MotionOptions(),
) -> dict:
    """``judge_scene`` of the observations outside the masks.

    Args:
        tracks: of the whole image.
        cameras: how the scene was solved.
        progress: hears warnings.
    """
    free = tracks.restrict(_find_outside(masks, tracks, options.mask_margin))
    return judge_scene(free, scene, progress, cameras)


def _find_outside(
    masks: Bool[np.ndarray, "F H W"], tracks: PointTracks, margin: int
) -> Bool[np.ndarray, "F N"]:
    """Track positions outside the masks, grown by a margin in pixels."""
    outside = allocate(tracks.visible.shape, bool)
    # Frame by frame: grown masks of all frames take as much memory as the masks.
    for t in range(len(masks)):
        outside[[t]] = at_points(~dilate(masks[[t]], margin), tracks.xy[[t]])
    return outside
