"""How close a result is to the truth: images, poses, tracks. Arrays in, floats out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from skimage.metrics import structural_similarity

from models.cameras import Cameras, estimate_similarity
from models.render.scene import Scene


@dataclass(frozen=True)
class PoseErrors:
    """Distance of estimated cameras from true ones, once the freedom of the world's frame and scale
    is taken away."""

    position_share: float
    """Root mean square of the distance between centres, as a share of the true path's length; 0 if
    it has none."""
    rotation_degrees: float
    """Mean angle between orientations."""


def psnr(
    estimate: UInt8[ndarray, "H W 3"],
    truth: UInt8[ndarray, "H W 3"],
    mask: Bool[ndarray, "H W"] | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB, over the pixels of ``mask`` or all; infinite for equal
    images."""
    error = np.square(estimate.astype(np.float64) - truth)
    mean = (error if mask is None else error[_checked(mask)]).mean()
    return float("inf") if mean == 0 else float(10 * np.log10(255**2 / mean))


def finite_psnr(
    estimate: UInt8[ndarray, "H W 3"],
    truth: UInt8[ndarray, "H W 3"],
    mask: Bool[ndarray, "H W"] | None = None,
) -> float:
    """The same, at most 99 dB, so that means over frames are numbers too."""
    return min(psnr(estimate, truth, mask), 99.0)


def ssim(
    estimate: UInt8[ndarray, "H W 3"],
    truth: UInt8[ndarray, "H W 3"],
    mask: Bool[ndarray, "H W"] | None = None,
) -> float:
    """Structural similarity, mean over the pixels of ``mask`` or all; images of 11x11 pixels or
    more.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity",
    2004, with that paper's Gaussian window (sigma 1.5).
    """
    settings = {"channel_axis": -1, "data_range": 255, "gaussian_weights": True, "sigma": 1.5}
    mean, values = structural_similarity(
        truth, estimate, use_sample_covariance=False, full=True, **settings
    )
    return float(mean) if mask is None else float(values[_checked(mask)].mean())


def score_frame(rgb: np.ndarray, frame: np.ndarray, mask: np.ndarray | None) -> dict[str, float]:
    """PSNR and SSIM of the whole frame, and outside the mask where something moves."""
    values = {"psnr": finite_psnr(rgb, frame), "ssim": ssim(rgb, frame)}
    if mask is not None and mask.any() and not mask.all():
        values["psnr_outside_mask"] = finite_psnr(rgb, frame, ~mask)
        values["psnr_inside_mask"] = finite_psnr(rgb, frame, mask)
    return values


def average_scores(scores: list[dict[str, float]], held_out: Sequence[int]) -> dict:
    """Means over training frames and over held-out frames."""
    groups = {"training_frames": [s for t, s in enumerate(scores) if t not in held_out]}
    if held_out:
        groups["heldout_frames"] = [scores[t] for t in held_out]
    keys = ("psnr", "ssim", "psnr_outside_mask", "psnr_inside_mask")
    return {
        name: {
            key: float(np.mean([s[key] for s in group if key in s]))
            for key in keys
            if any(key in s for s in group)
        }
        for name, group in groups.items()
    }


def score_heldout(
    scene: Scene, frames: np.ndarray, masks: np.ndarray | None, held_out: Sequence[int]
) -> float:
    """Mean PSNR (dB) of two held-out frames outside what moves, to watch training by: all would
    take too long."""
    values = []
    for t in (held_out[len(held_out) // 4], held_out[3 * len(held_out) // 4]):
        outside = None if masks is None or masks[t].all() else ~masks[t]
        values.append(finite_psnr(scene.rebuild(t).merged.rgb, frames[t], outside))
    return float(np.mean(values))


def _checked(mask: ndarray) -> ndarray:
    if not mask.any():
        raise ValueError("the mask is empty: there are no pixels to compare")
    return mask


def pose_errors(estimated: Cameras, true: Cameras) -> PoseErrors:
    """Errors after the similarity that brings the estimated centres closest to the true ones.

    Orientations are aligned by their own mean rotation: centres on a line, or all in one place,
    determine none.
    """
    source = estimated.centers.double()
    target = true.centers.double()
    scale, rotation, shift = estimate_similarity(source, target)
    distances = (scale * source @ rotation.T + shift - target).norm(dim=1)
    length = float(target.diff(dim=0).norm(dim=1).sum())
    share = float(distances.square().mean().sqrt()) / length if length > 0 else 0.0
    return PoseErrors(share, _rotation_error(estimated, true))


def _rotation_error(estimated: Cameras, true: Cameras) -> float:
    a, b = estimated.world_from_cam[:, :3, :3].double(), true.world_from_cam[:, :3, :3].double()
    u, _, vt = torch.linalg.svd((b @ a.transpose(1, 2)).sum(0))
    sign = torch.tensor([1, 1, torch.det(u @ vt).sign()], dtype=torch.float64)
    difference = u @ torch.diag(sign) @ vt @ a - b
    # |R1 - R2| = 2 sqrt(2) sin(angle / 2): exact for small angles, where the arc cosine of the trace is not.
    half = difference.flatten(1).norm(dim=1) / (2 * 2**0.5)
    return float(torch.rad2deg(2 * torch.asin(half.clamp(max=1))).mean())


def reprojection_error(
    cameras: Cameras,
    xyz: Float[ndarray, "*F N 3"],
    xy: Float[ndarray, "F N 2"],
    visible: Bool[ndarray, "F N"],
) -> float:
    """Mean distance in pixels between observations and projected points, over what is visible."""
    projected = cameras.project(torch.as_tensor(xyz, dtype=torch.float64))[0].numpy()
    return track_error(projected, xy, visible)


def track_error(
    estimate: Float[ndarray, "F N D"], truth: Float[ndarray, "F N D"], visible: Bool[ndarray, "F N"]
) -> float:
    """Mean distance between two sets of tracks (pixels in 2D, world units in 3D), over what is
    visible."""
    estimate = np.asarray(estimate)
    truth = np.asarray(truth)
    visible = np.asarray(visible)
    if not visible.any():
        raise ValueError("no point is visible: there is nothing to compare")
    return float(np.linalg.norm(estimate[visible] - truth[visible], axis=-1).mean())
