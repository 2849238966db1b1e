"""Several meshes' pictures of a view become one picture: agreement in depth, and holes filled."""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.render.options import RenderOptions

# Votes whose ratio lies within 1e-4 of 1 are level, and the nearer surface wins: sums of weights
# differ by rounding. view_kernels has the same number.
_LEVEL = 0.0001


def blend_surfaces(
    depth: Float[Tensor, "M H W"],
    weight: Float[Tensor, "M H W"],
    options: RenderOptions = RenderOptions(),
) -> tuple[Float[Tensor, "M H W"], Float[Tensor, "H W"]]:
    """Share of each mesh in each pixel, and the depth of the visible surface.

    Meshes that agree in depth vote with their weights, and the surface with most votes is visible.
    This is the plain form of ``view_kernels.tile_points``, on any device.

    Args:
        depth: z-depth of each mesh, inf if the mesh does not cover the pixel.
        weight: of each mesh at each pixel.

    Returns:
        Shares, which sum to 1, or are all 0 if no mesh covers the pixel; and depth, inf there.
    """
    # float32, as in the kernels
    agreement = float(np.float32(options.agreement))
    least_share = float(np.float32(options.least_share))
    # [m, k]: mesh m agrees with mesh k
    near = (depth[:, None] - depth).abs() < agreement * depth
    near &= depth.isfinite()
    vote = (near * weight[:, None]).sum(0)
    # a loop over meshes, as in the kernel: ties depend on the order
    best = torch.full_like(depth[0], torch.inf)
    best_vote = torch.zeros_like(depth[0])
    for d, v in zip(depth, vote, strict=True):
        wins = v > best_vote * (1 + _LEVEL)
        better = wins | ((v > best_vote * (1 - _LEVEL)) & (d < best))
        best = torch.where(better, d, best)
        best_vote = torch.where(better, v, best_vote)
    share = torch.where((depth - best).abs() < agreement * best, weight, 0)
    share = torch.where(share >= least_share * share.amax(0), share, 0)
    total = share.sum(0)
    share = share / torch.where(total > 0, total, 1)
    mean = torch.where(share > 0, share * depth, 0).sum(0)
    return share, torch.where(total > 0, mean, torch.inf)


def fill_holes(
    rgb: Float[np.ndarray, "H W 3"], covered: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 3"]:
    """Carries colours smoothly into uncovered pixels (push-pull over an image pyramid).

    Source: Gortler et al., "The lumigraph", 1996, section 3.4.
    """
    if covered.all() or not covered.any():
        return rgb
    weight = covered.astype(np.float32)
    filled = _push_pull(rgb * weight[..., None], weight)
    return np.where(covered[..., None], rgb, filled)


def _push_pull(
    color: Float[np.ndarray, "H W 3"], weight: Float[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 3"]:
    """Colours, mixed with the next coarser level as far as their weight is below 1.

    Args:
        color: premultiplied by the weight.
    """
    height, width = weight.shape
    # 1 avoids a division by 0; these pixels have weight 0 below
    own = color / np.where(weight > 0, weight, 1)[..., None]
    if weight.min() > 0:
        return own
    half = ((width + 1) // 2, (height + 1) // 2)
    smaller = [cv2.resize(image, half, interpolation=cv2.INTER_AREA) for image in (color, weight)]
    coarse = cv2.resize(_push_pull(*smaller), (width, height), interpolation=cv2.INTER_LINEAR)
    certainty = np.minimum(weight, 1)[..., None]
    return certainty * own + (1 - certainty) * coarse
