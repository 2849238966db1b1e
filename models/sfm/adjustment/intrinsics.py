"""Lens distortion and zoom, found from the tracks of a mapped scene.

A pinhole camera of one focal length is compared with a camera whose lens bends straight lines
(COLMAP's RADIAL), and with a camera whose focal length changes over time. The richer camera is taken
where it explains the tracks clearly better.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.cameras import Cameras
from models.clip import Lens
from models.run import SILENT, Progress
from models.sfm.adjustment.bundle import Freedom, adjust_freely, smooth_focal_lengths
from models.sfm.adjustment.evidence import Fit, adjust_fit, compare_cost, measure_fit
from models.tracks import PointTracks

# Share of the robust cost that a lens or a zoom must save. A zoom has a number for each frame, with
# which it can also take up other errors.
_LENS_GAIN = 0.03
_ZOOM_GAIN = 0.25
# Half diagonals of the image that a lens must move a pixel by. The distortion of a plain camera is
# less, and straightening costs sharpness.
_LEAST_SHIFT = 0.015
# Share by which a lens may move a corner outwards from the middle, as pincushion distortion does.
# Beyond, it stands for something else, such as a rolling shutter.
_MOST_PINCUSHION = 0.04
# Relative change of the focal length that comes with a lens, in the share by which the lens moves a
# corner, at most. A pinhole camera fitted to a real lens has a focal length that is off by about that
# share; more stands for something else.
_MOST_FOCAL_CHANGE = 3.0
# Share by which the lens of each half of the clip may differ, in its focal length and at the
# corner.
_HALVES_DIFFER = (0.1, 0.3)
# Relative change of the focal length that counts as a zoom.
_LEAST_ZOOM = 0.05
_ZOOM_ROUNDS = 2
_OWN_FOCAL = Freedom(each_frame=True)
# Rounds of adjustment of a lens: each round begins with the tracks straightened by the last.
_LENS_ROUNDS = 4
# Share of the cost below which a single round of a lens is not followed by others.
_HOPEFUL_GAIN = 0.015


def find_zoom(cameras: Cameras, tracks: PointTracks, progress: Progress = SILENT) -> Cameras:
    """The cameras as they are, or with a focal length for each frame, smooth over time, where that
    explains the tracks clearly better.

    Args:
        cameras: mapped, with one focal length.
        progress: hears of a zoom.
    """
    pinhole = adjust_fit(measure_fit(cameras, tracks))
    free = adjust_fit(pinhole, _OWN_FOCAL)
    if _measure_gain(pinhole, free) < _ZOOM_GAIN:
        return cameras
    zoomed = _smooth(adjust_fit(free, _OWN_FOCAL, rounds=_ZOOM_ROUNDS))
    focal = zoomed.cameras.K[:, 0, 0].numpy()
    is_zoom = focal.max() > (1 + _LEAST_ZOOM) * focal.min()
    if not is_zoom or _measure_gain(pinhole, zoomed) < _ZOOM_GAIN:
        return cameras
    progress.say(f"zoom: the focal length goes from {focal[0]:.0f} to {focal[-1]:.0f} px")
    return zoomed.cameras


def _smooth(fit: Fit) -> Fit:
    """The fit with focal lengths that are smooth over time."""
    cameras = replace(fit.cameras, K=smooth_focal_lengths(fit.cameras.K))
    return adjust_fit(replace(fit, cameras=cameras), Freedom(False, each_frame=True))


def find_lens(
    cameras: Cameras, tracks: PointTracks, progress: Progress = SILENT
) -> tuple[Cameras, Lens | None]:
    """The lens that bends the images, and the cameras of the straight images; the given cameras and
    None where no lens explains the tracks clearly better.

    Args:
        cameras: with one focal length.
        tracks: in pixels of the images as they are.
        progress: hears of a lens.
    """
    if (cameras.K[:1] != cameras.K).any():
        return cameras, None
    pinhole = adjust_fit(measure_fit(cameras, tracks))
    fit, lens = _fit_lens(pinhole)
    if lens is None or _measure_gain(pinhole, fit) < _LENS_GAIN:
        return cameras, None
    k1, k2 = lens.params[3:]
    progress.say(f"lens: distortion of up to {lens.shift:.0f} px (k1 {k1:.3f}, k2 {k2:.3f})")
    K = torch.from_numpy(np.tile(lens.undistorted_K, (len(cameras), 1, 1)))
    return replace(fit.cameras, K=K), lens


def _measure_gain(pinhole: Fit, other: Fit) -> float:
    """Share of the cost that another camera saves, over the observations that agree with either."""
    return 1 - compare_cost(other, pinhole)


def _fit_lens(pinhole: Fit) -> tuple[Fit, Lens | None]:
    """The scene seen through a lens that distorts, and the lens; None if it moves no corner, is no
    real lens, or each half of the clip has another."""
    bent = pinhole.tracks
    fit, lens = _adjust_lens(pinhole, bent, (0.0, 0.0), 1)
    if lens is None or _measure_gain(pinhole, fit) < _HOPEFUL_GAIN:
        return pinhole, None
    fit, lens = _adjust_lens(fit, bent, lens.params[3:], _LENS_ROUNDS - 1)
    least = _LEAST_SHIFT * math.hypot(bent.width, bent.height) / 2
    if lens is None or lens.shift < least or not _is_plausible(lens, pinhole.cameras):
        return pinhole, None
    return (fit, lens) if _is_same_in_halves(fit, bent, lens) else (pinhole, None)


def _is_plausible(lens: Lens, pinhole: Cameras) -> bool:
    """Whether the distortion and the focal length may be those of a real lens.

    Args:
        pinhole: the cameras without a lens.
    """
    bend = _measure_corner(lens)
    change = abs(lens.params[0] / float(pinhole.K[0, 0, 0]) - 1)
    return bend <= _MOST_PINCUSHION and change <= _MOST_FOCAL_CHANGE * abs(bend)


def _adjust_lens(
    fit: Fit, bent: PointTracks, radial: tuple[float, float], rounds: int
) -> tuple[Fit, Lens | None]:
    """Rounds of bundle adjustment with a lens; None if no pinhole camera shows its image.

    Args:
        fit: the scene, whose tracks are straight.
        bent: the tracks as they were seen.
        radial: k1 and k2 at the start.
    """
    for _ in range(rounds):
        agreeing = replace(bent, visible=fit.agrees)
        xyz = np.nan_to_num(fit.xyz)
        adjusted = adjust_freely(fit.cameras, xyz, agreeing, Freedom(radial=radial))
        radial = adjusted.radial
        lens = _make_lens(adjusted.cameras, radial)
        if lens.find_problem() is not None:
            return fit, None
        straight = _straighten_tracks(bent, lens, adjusted.cameras)
        fit = measure_fit(adjusted.cameras, straight)
    return fit, lens


def _is_same_in_halves(fit: Fit, bent: PointTracks, lens: Lens) -> bool:
    """Whether each half of the clip has nearly this lens: errors of another kind change with the
    motion."""
    half = len(bent) // 2
    for frames in (range(half), range(half, len(bent))):
        part = bent.select_frames(np.array(frames))
        cameras = fit.cameras[list(frames)]
        start = measure_fit(cameras, _straighten_tracks(part, lens, cameras))
        _, own = _adjust_lens(start, part, lens.params[3:], _LENS_ROUNDS - 1)
        if own is None:
            return False
        focal = abs(own.params[0] / lens.params[0] - 1)
        corner = abs(_measure_corner(own) / _measure_corner(lens) - 1)
        if focal > _HALVES_DIFFER[0] or corner > _HALVES_DIFFER[1]:
            return False
    return True


def _measure_corner(lens: Lens) -> float:
    """Share by which the lens moves the corner of the image from the middle; negative for barrel
    distortion."""
    corner = np.zeros(2)
    bent = (corner - lens.bent_K[:2, 2]) / lens.bent_K.diagonal()[:2]
    return float(np.linalg.norm(bent) / np.linalg.norm(lens.find_rays(corner)) - 1)


def _make_lens(cameras: Cameras, radial: tuple[float, float]) -> Lens:
    K = cameras.K[0].double().numpy()
    params = (K[0, 0], K[0, 2], K[1, 2], *radial)
    return Lens("RADIAL", tuple(map(float, params)), cameras.width, cameras.height)


def _straighten_tracks(tracks: PointTracks, lens: Lens, cameras: Cameras) -> PointTracks:
    """The tracks in the pixels of cameras that have the focal length of the lens."""
    K = cameras.K[0].double().numpy()
    xy = lens.find_rays(tracks.xy) * K.diagonal()[:2] + K[:2, 2]
    known = np.isfinite(xy).all(-1)
    return replace(tracks, xy=np.nan_to_num(xy), visible=tracks.visible & known)


def straighten_points(tracks: PointTracks, lens: Lens) -> PointTracks:
    """The tracks in pixels of the straight images; observations without a ray, or outside the
    straight image, are dropped."""
    xy = lens.undistort_points(tracks.xy)
    inside = _find_inside(xy, lens)
    # A track keeps the position of its last observation.
    filled = np.where(np.isfinite(xy), xy, tracks.xy)
    return replace(tracks, xy=filled.astype(np.float32), visible=tracks.visible & inside)


def _find_inside(xy: Float[np.ndarray, "F N 2"], lens: Lens) -> Bool[np.ndarray, "F N"]:
    with np.errstate(invalid="ignore"):
        return ((xy >= 0) & (xy <= [lens.width, lens.height])).all(-1)
