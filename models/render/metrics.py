"""Distance of results from the truth: images and tracks. Arrays in, floats out."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from models.cameras import Cameras
from models.render.scene import RebuiltFrame, Scene

# dB; the PSNR of equal images in averages.
_MAX_PSNR = 99.0
FIELD = "_field"
"""End of the names of scores of the colour field alone."""
_SCORES = "psnr", "ssim", "psnr_outside_mask", "psnr_inside_mask"


def psnr(
    estimate: UInt8[ndarray, "H W 3"],
    truth: UInt8[ndarray, "H W 3"],
    mask: Bool[ndarray, "H W"] | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB, over the pixels of ``mask`` or all; infinite for equal
    images.

    Raises:
        ValueError: the mask is empty.
    """
    # uint8 differences would wrap
    error = np.square(estimate.astype(np.float64) - truth)
    mean = (error if mask is None else error[_check_mask(mask)]).mean()
    return float("inf") if mean == 0 else float(10 * np.log10(255**2 / mean))


def finite_psnr(
    estimate: UInt8[ndarray, "H W 3"],
    truth: UInt8[ndarray, "H W 3"],
    mask: Bool[ndarray, "H W"] | None = None,
) -> float:
    """``psnr``, at most 99 dB, so that means over frames stay finite."""
    return min(psnr(estimate, truth, mask), _MAX_PSNR)


def ssim(
    estimate: UInt8[ndarray, "H W 3"],
    truth: UInt8[ndarray, "H W 3"],
    mask: Bool[ndarray, "H W"] | None = None,
) -> float:
    """Structural similarity, mean over the pixels of ``mask`` or all; images of 11x11 pixels or
    more.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity",
    2004, with the Gaussian window of the paper (sigma 1.5).

    Raises:
        ValueError: the mask is empty.
    """
    # 0.25 s to import, and scripts that score no picture do not wait for it
    from skimage.metrics import structural_similarity

    # as bytes they would be compared in double precision, which takes a third longer
    floats = (image.astype(np.float32) for image in (truth, estimate))
    settings = {"channel_axis": -1, "data_range": 255, "gaussian_weights": True, "sigma": 1.5}
    mean, values = structural_similarity(
        *floats, use_sample_covariance=False, full=True, **settings
    )
    return float(mean) if mask is None else float(values[_check_mask(mask)].mean())


def score_frame(rgb: np.ndarray, frame: np.ndarray, mask: np.ndarray | None) -> dict[str, float]:
    """PSNR and SSIM of the whole frame, and PSNR outside and inside the mask of movers."""
    values = {"psnr": finite_psnr(rgb, frame), "ssim": ssim(rgb, frame)}
    if mask is not None and mask.any() and not mask.all():
        values["psnr_outside_mask"] = finite_psnr(rgb, frame, ~mask)
        values["psnr_inside_mask"] = finite_psnr(rgb, frame, mask)
    return values


def score_rebuilt(
    rebuilt: RebuiltFrame, frame: np.ndarray, mask: np.ndarray | None
) -> dict[str, float]:
    """Scores of a rebuilt frame with detail of other frames and, under names that end in
    ``FIELD``, by the colour field alone."""
    scores = score_frame(rebuilt.detailed.merged.rgb, frame, mask)
    if rebuilt.detailed is not rebuilt.field:
        field = score_frame(rebuilt.field.merged.rgb, frame, mask)
        scores |= {f"{name}{FIELD}": value for name, value in field.items()}
    return scores


def average_scores(scores: list[dict[str, float]], held_out: Sequence[int]) -> dict:
    """Means over training frames and over held-out frames."""
    groups = {"training_frames": [s for t, s in enumerate(scores) if t not in held_out]}
    if held_out:
        groups["heldout_frames"] = [scores[t] for t in held_out]
    return {name: _average(group) for name, group in groups.items()}


def _average(scores: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each score over the frames that have the score."""
    keys = [key for key in _SCORES for key in (key, f"{key}{FIELD}")]
    present = [key for key in keys if any(key in s for s in scores)]
    return {key: float(np.mean([s[key] for s in scores if key in s])) for key in present}


def score_heldout(
    scene: Scene, frames: np.ndarray, masks: np.ndarray | None, held_out: Sequence[int]
) -> float:
    """Mean PSNR (dB) of two held-out frames outside the movers.

    Training shows this figure while it runs; more frames would take too long.
    """
    values = []
    # a quarter and three quarters through the held-out frames
    for t in (held_out[len(held_out) // 4], held_out[3 * len(held_out) // 4]):
        outside = None if masks is None or masks[t].all() else ~masks[t]
        values.append(finite_psnr(scene.rebuild(t).field.merged.rgb, frames[t], outside))
    return float(np.mean(values))


def _check_mask(mask: ndarray) -> ndarray:
    if not mask.any():
        raise ValueError("the mask is empty: there are no pixels to compare")
    return mask


def reprojection_error(
    cameras: Cameras,
    xyz: Float[ndarray, "*F N 3"],
    xy: Float[ndarray, "F N 2"],
    visible: Bool[ndarray, "F N"],
) -> float:
    """Mean distance in pixels between visible observations and projected points.

    Args:
        xyz: world points, shared by all frames or given for each frame.

    Raises:
        ValueError: nothing is visible.
    """
    projected = cameras.project(torch.as_tensor(xyz, dtype=torch.float64))[0].numpy()
    return track_error(projected, xy, visible)


def track_error(
    estimate: Float[ndarray, "F N D"], truth: Float[ndarray, "F N D"], visible: Bool[ndarray, "F N"]
) -> float:
    """Mean distance between two sets of tracks (pixels in 2D, world units in 3D) while visible.

    Raises:
        ValueError: nothing is visible.
    """
    estimate = np.asarray(estimate)
    truth = np.asarray(truth)
    visible = np.asarray(visible)
    if not visible.any():
        raise ValueError("no point is visible: there is nothing to compare")
    return float(np.linalg.norm(estimate[visible] - truth[visible], axis=-1).mean())
