"""How well the cameras of a scene explain the tracks; doubt is told with its likely cause."""

import numpy as np

from models.clip import split_into_stretches
from models.run import SILENT, Progress
from models.sfm.adjustment import Fit, find_cause, measure_fit
from models.sfm.options import CameraOptions
from models.sfm.static_scene import StaticScene, select_few
from models.tracks import PointTracks


def judge_scene(
    tracks: PointTracks,
    scene: StaticScene,
    progress: Progress = SILENT,
    options: CameraOptions = CameraOptions(),
) -> dict:
    """Share of the observations that agree with the cameras, their median residual in pixels, and
    the likely cause of systematic residuals or None: figures for ``background_metrics.json``.

    Args:
        tracks: in the pixels of the scene's cameras.
        scene: with the points of these tracks.
        progress: hears a warning where few observations agree, or a cause is likely.
    """
    agrees = scene.points.agrees & tracks.visible
    share = float(agrees.sum() / max(tracks.visible.sum(), 1))
    residual = float(np.median(scene.points.residual)) if agrees.any() else None
    cause = _seek_cause(tracks, scene, options)
    if cause is not None:
        progress.say(
            f"warning: the tracks disagree with the cameras in the manner of {cause}; cameras and "
            "depths may be bent by it"
        )
    elif share < options.doubtful and scene.method != "given":
        progress.say(
            f"warning: only {100 * share:.0f} % of the observations agree with the cameras; movers "
            "that fill the picture, a rolling shutter, a lens or a zoom are likely causes"
        )
    return {"observations_agree": share, "median_residual_px": residual, "likely_cause": cause}


def _seek_cause(tracks: PointTracks, scene: StaticScene, options: CameraOptions) -> str | None:
    """The likely cause; None for a camera that stands still or only turns: parallax that is left in
    the residuals looks like any of them."""
    placed = np.isfinite(scene.points.xyz).all(1)
    if scene.method in ("still", "rotation") or not placed.any():
        return None
    used = tracks.select(placed).restrict(scene.registered[:, None])
    # In stretches: arrays of all frames and all their tracks grow with the square of the length.
    stretches = split_into_stretches(0, len(tracks), options.most_keyframes)
    return find_cause(_measure_stretch(used, scene, part, options) for part in stretches)


def _measure_stretch(
    tracks: PointTracks, scene: StaticScene, times: range, options: CameraOptions
) -> Fit:
    """How well the cameras explain a few hundred tracks in some frames."""
    part = slice(times.start, times.stop)
    few = select_few(tracks.select_frames(part), options)
    return measure_fit(scene.cameras[part], few)
