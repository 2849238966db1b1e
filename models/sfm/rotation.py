"""A camera that only turns, or stands still: rotations and focal length from tracks, without
depth."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from models.cameras import Cameras
from models.run import njit
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
    seen = _Seen.of(tracks)
    focal = _solve_focal_length(seen, max(width, height))
    rotations, error = _fit_rotations(seen, focal, _FINAL_ROUNDS)
    # A still camera keeps exact identities, which later stages compare with.
    poses = np.tile(np.eye(4), (len(tracks), 1, 1))
    observed = rotations[tracks.visible.any(1)]
    if _measure_motion(observed, focal, width, height) > options.still_motion:
        poses[:, :3, :3] = rotations
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    K = torch.from_numpy(np.tile(K, (len(tracks), 1, 1)))
    return Cameras(K, torch.from_numpy(poses), width, height), error


@dataclass(frozen=True)
class _Seen:
    """S observations of N tracks, frame by frame: in a long clip a small part of all frames times all
    tracks."""

    offset: Float[np.ndarray, "S 2"]
    """Pixels from the middle of the image."""
    frame: Int[np.ndarray, "S"]
    track: Int[np.ndarray, "S"]
    """Rising within a frame."""
    first: Int[np.ndarray, "F1"]
    """Row of each frame's first observation, and at the end S."""

    @staticmethod
    def of(tracks: PointTracks) -> "_Seen":
        """The visible observations of tracks."""
        frame, track = np.nonzero(tracks.visible)
        offset = tracks.xy[frame, track] - [tracks.width / 2, tracks.height / 2]
        first = np.searchsorted(frame, np.arange(len(tracks) + 1))
        return _Seen(offset, frame, track, first)


def _solve_focal_length(seen: _Seen, longer: int) -> float:
    """The focal length in pixels; the usual one if no other explains the tracks clearly better.

    Args:
        longer: side of the image in pixels.
    """

    def measure_error(focal: float) -> float:
        return _fit_rotations(seen, focal, _ROUGH_ROUNDS)[1]

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
    seen: _Seen, focal: float, rounds: int
) -> tuple[Float[np.ndarray, "F 3 3"], float]:
    """world_from_cam rotations at a given focal length, and the median residual in pixels."""
    rays = np.concatenate([seen.offset / focal, np.ones((len(seen.offset), 1))], 1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    rotations = _chain_rotations(rays, seen)
    weight = np.ones(len(rays))
    miss = np.empty(len(rays))
    given = rays, seen.frame, seen.track
    num_tracks = int(seen.track.max(initial=-1)) + 1
    for _ in range(rounds):
        direction = np.zeros((num_tracks, 3))
        _sum_directions(rotations, *given, weight, direction)
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
        products = np.zeros((len(rotations), 3, 3))
        _sum_products(direction, *given, weight, products)
        rotations = _align_directions(products)
        _measure_miss(rotations, direction, *given, miss)
        # Cauchy weights at a scale of one pixel.
        weight = 1.0 / (1.0 + (focal * miss) ** 2)
    # The first frame's axes are the world's.
    rotations = rotations[0].T @ rotations
    return rotations, float(np.median(focal * miss))


@njit(cache=True)
def _sum_directions(rotations, rays, frame, track, weight, direction):
    """Adds each ray, turned by the rotation of its frame, to the direction of its track."""
    for s in range(len(rays)):
        R = rotations[frame[s]]
        for k in range(3):
            turned = R[k, 0] * rays[s, 0] + R[k, 1] * rays[s, 1] + R[k, 2] * rays[s, 2]
            direction[track[s], k] += weight[s] * turned


@njit(cache=True)
def _sum_products(direction, rays, frame, track, weight, products):
    """Adds the products of directions and rays to those of the frames."""
    for s in range(len(rays)):
        for i in range(3):
            for j in range(3):
                products[frame[s], i, j] += weight[s] * direction[track[s], i] * rays[s, j]


@njit(cache=True)
def _measure_miss(rotations, direction, rays, frame, track, miss):
    """Length of the difference between each turned ray and its direction."""
    for s in range(len(rays)):
        R = rotations[frame[s]]
        total = 0.0
        for k in range(3):
            turned = R[k, 0] * rays[s, 0] + R[k, 1] * rays[s, 1] + R[k, 2] * rays[s, 2]
            total += (turned - direction[track[s], k]) ** 2
        miss[s] = np.sqrt(total)


def _chain_rotations(rays: Float[np.ndarray, "S 3"], seen: _Seen) -> Float[np.ndarray, "F 3 3"]:
    """Start values: rotations between successive frames, multiplied up."""
    products = np.zeros((len(seen.first) - 1, 3, 3))
    _sum_steps(rays, seen.track, seen.first, products)
    rotations = [np.eye(3)]
    for step in _align_directions(products)[1:]:
        rotations.append(rotations[-1] @ step)
    return np.stack(rotations)


@njit(cache=True)
def _sum_steps(rays, track, first, products):
    """Adds the products of the rays of tracks that a frame shares with the frame before."""
    for t in range(1, len(first) - 1):
        a = first[t - 1]
        for b in range(first[t], first[t + 1]):
            while a < first[t] and track[a] < track[b]:
                a += 1
            if a < first[t] and track[a] == track[b]:
                for i in range(3):
                    for j in range(3):
                        products[t, i, j] += rays[a, i] * rays[b, j]


def _align_directions(products: Float[np.ndarray, "F 3 3"]) -> Float[np.ndarray, "F 3 3"]:
    """Rotations R with target ~ R source, weighted least squares (Kabsch, 1976).

    Args:
        products: sums over a frame's rays of weight target source^T.
    """
    # The sign of the last singular vector excludes reflections.
    u, _, vt = np.linalg.svd(products)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return u @ vt
