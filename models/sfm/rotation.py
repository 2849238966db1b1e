"""A camera that only turns, or stands still: rotations and focal length from tracks, without
depth."""

import numpy as np
import torch
from jaxtyping import Float

from models.cameras import Cameras
from models.sfm.options import CameraOptions
from models.tracks import PointTracks

# Gain of the residual, in pixels and as a share, below which a focal length explains the tracks no
# better than the usual one.
_CLEAR_GAIN = 0.02
_CLEAR_SHARE = 0.03
# Focal length of an unknown camera, in longer sides of the image.
_USUAL_FOCAL = 1.2
# Focal lengths that are tried, in longer sides of the image: 104 to 14 degrees of view.
_SHORTEST_FOCAL = 0.5
_LONGEST_FOCAL = 4.0
# Rounds of reweighting while focal lengths are compared, and for the result.
_ROUGH_ROUNDS = 6
_FINAL_ROUNDS = 20


def solve_rotation(
    tracks: PointTracks, options: CameraOptions = CameraOptions()
) -> tuple[Cameras, float]:
    """The best camera that turns about its centre, and its median residual in pixels.

    A track is a direction; the rotation of a frame maps directions to its rays (Kabsch, robustly
    weighted). The focal length is the best of a ladder, refined once. If the camera hardly turns
    all focal lengths fit alike, and it is 1.2 times the longer side. The poses of a still camera
    are exactly the identity. The first frame's axes are the world's.
    """
    width, height = tracks.width, tracks.height
    focal = _solve_focal_length(tracks)
    rotations, error = _fit_rotations(tracks, focal, _FINAL_ROUNDS)
    # A still camera keeps exact identities, which later stages compare with.
    poses = np.tile(np.eye(4), (len(tracks), 1, 1))
    observed = rotations[tracks.visible.any(1)]
    if _measure_motion(observed, focal, width, height) > options.still_motion:
        poses[:, :3, :3] = rotations
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    K = torch.from_numpy(np.tile(K, (len(tracks), 1, 1)))
    return Cameras(K, torch.from_numpy(poses), width, height), error


def _solve_focal_length(tracks: PointTracks) -> float:
    """The focal length in pixels; the usual one if no other explains the tracks clearly better."""

    def measure_error(focal: float) -> float:
        return _fit_rotations(tracks, focal, _ROUGH_ROUNDS)[1]

    longer = max(tracks.width, tracks.height)
    usual = _USUAL_FOCAL * longer
    ladder = longer * np.geomspace(_SHORTEST_FOCAL, _LONGEST_FOCAL, 10)
    errors = np.array([measure_error(focal) for focal in ladder])
    best = int(errors.argmin())
    if measure_error(usual) - errors[best] < max(_CLEAR_GAIN, _CLEAR_SHARE * errors[best]):
        return usual
    # Once more between the best's neighbours on the ladder.
    fine = np.geomspace(ladder[max(0, best - 1)], ladder[min(len(ladder) - 1, best + 1)], 9)
    return float(fine[np.argmin([measure_error(focal) for focal in fine])])


def _measure_motion(
    rotations: Float[np.ndarray, "F 3 3"], focal: float, width: int, height: int
) -> float:
    """Largest motion in pixels of the image's centre and corners from the first frame on."""
    x, y = width / 2 / focal, height / 2 / focal
    rays = np.array([[0, 0, 1], [x, y, 1], [-x, y, 1], [x, -y, 1], [-x, -y, 1]])
    relative = rotations[0].T @ rotations
    return float(focal * np.linalg.norm(relative @ rays.T - rays.T, axis=1).max())


def _fit_rotations(
    tracks: PointTracks, focal: float, rounds: int
) -> tuple[Float[np.ndarray, "F 3 3"], float]:
    """world_from_cam rotations at a given focal length, and the median residual in pixels."""
    xy = tracks.xy
    visible = tracks.visible
    middle = [tracks.width / 2, tracks.height / 2]
    rays = np.concatenate([(xy - middle) / focal, np.ones_like(xy[..., :1])], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    rotations = _chain_rotations(rays, visible)
    weight = visible.astype(np.float64)
    for _ in range(rounds):
        direction = (weight[..., None] * _rotate(rotations, rays)).sum(0)
        direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
        rotations = np.stack(
            [_align_directions(rays[t], direction, weight[t]) for t in range(len(rays))]
        )
        # Cauchy weights at a scale of one pixel.
        miss = focal * np.linalg.norm(_rotate(rotations, rays) - direction, axis=-1)
        weight = visible / (1.0 + miss**2)
    # The first frame's axes are the world's.
    rotations = rotations[0].T @ rotations
    return rotations, float(np.median(miss[visible]))


def _rotate(
    rotations: Float[np.ndarray, "F 3 3"], rays: Float[np.ndarray, "F n 3"]
) -> Float[np.ndarray, "F n 3"]:
    """The rays of each frame, turned by its rotation."""
    return rays @ rotations.transpose(0, 2, 1)


def _chain_rotations(rays: np.ndarray, visible: np.ndarray) -> Float[np.ndarray, "F 3 3"]:
    """Start values: rotations between successive frames, multiplied up."""
    rotations = [np.eye(3)]
    for t in range(1, len(rays)):
        both = (visible[t - 1] & visible[t]).astype(np.float64)
        rotations.append(rotations[-1] @ _align_directions(rays[t], rays[t - 1], both))
    return np.stack(rotations)


def _align_directions(
    source: Float[np.ndarray, "n 3"],
    target: Float[np.ndarray, "n 3"],
    weight: Float[np.ndarray, "n"],
) -> Float[np.ndarray, "3 3"]:
    """Rotation R with target ~ R source, weighted least squares (Kabsch, 1976)."""
    # The sign of the last singular vector excludes reflections.
    u, _, vt = np.linalg.svd((weight[:, None] * target).T @ source)
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
