"""How several meshes' pictures of one view become one: agreement in depth, and holes filled."""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.render.view_kernels import blend
from models.run import run_tasks, split_range

AGREEMENT = np.float32(0.03)
"""Depths within this ratio of each other are one surface."""
LEAST_SHARE = np.float32(0.02)
"""A mesh with a smaller share of a pixel is not asked for its colour."""
PARTS = 32
"""Parts of an image that threads share out."""


def blend_surfaces(
    depth: Float[np.ndarray, "M H W"], weight: Float[np.ndarray, "M H W"]
) -> tuple[Float[np.ndarray, "M H W"], Float[np.ndarray, "H W"]]:
    """Share of each mesh in each pixel, and the depth of the surface chosen.

    The surface is the one that most weight agrees on. Shares sum to 1 (those below ``LEAST_SHARE``
    are left out), or are all 0 (depth inf) where no mesh is.
    """
    share = np.empty(depth.shape, np.float32)
    surface = np.empty(depth.shape[1:], np.float32)
    flat = [np.ascontiguousarray(x, np.float32).reshape(len(depth), -1) for x in (depth, weight)]
    out = share.reshape(len(depth), -1), surface.reshape(-1)
    parts = split_range(surface.size, PARTS)
    run_tasks(lambda i: blend(*flat, *parts[i], AGREEMENT, LEAST_SHARE, *out), len(parts))
    return share, surface


def blend_surfaces_torch(
    depth: Float[Tensor, "M H W"], weight: Float[Tensor, "M H W"]
) -> tuple[Float[Tensor, "M H W"], Float[Tensor, "H W"]]:
    """Plain form of ``blend_surfaces``, on any device."""
    near = (depth[:, None] - depth).abs() < float(AGREEMENT) * depth  # [m, k]: m agrees with k
    near &= depth.isfinite()
    vote = (near * weight[:, None]).sum(0)
    best = torch.full_like(depth[0], torch.inf)
    best_vote = torch.zeros_like(depth[0])
    for d, v in zip(depth, vote, strict=True):
        better = (v > best_vote * 1.0001) | ((v > best_vote * 0.9999) & (d < best))
        best = torch.where(better, d, best)
        best_vote = torch.where(better, v, best_vote)
    share = torch.where((depth - best).abs() < float(AGREEMENT) * best, weight, 0)
    share = torch.where(share >= float(LEAST_SHARE) * share.sum(0), share, 0)
    kept = share.sum(0)
    share = share / torch.where(kept > 0, kept, 1)
    mean = torch.where(share > 0, share * depth, 0).sum(0)
    return share, torch.where(kept > 0, mean, torch.inf)


def fill_holes(
    rgb: Float[np.ndarray, "H W 3"], covered: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 3"]:
    """Carries colours smoothly into what is not covered (push-pull over an image pyramid).

    Source: Gortler et al., "The lumigraph", 1996, section 3.4.
    """
    if covered.all() or not covered.any():
        return rgb
    weight = covered.astype(np.float32)
    filled = _push_pull(rgb * weight[..., None], weight)
    return np.where(covered[..., None], rgb, filled)


def _push_pull(color: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Colours (premultiplied by weight) where there are any, else those of the next coarser
    level."""
    height, width = weight.shape
    own = color / np.where(weight > 0, weight, 1)[..., None]
    if weight.min() > 0:
        return own
    half = ((width + 1) // 2, (height + 1) // 2)
    smaller = [cv2.resize(image, half, interpolation=cv2.INTER_AREA) for image in (color, weight)]
    coarse = cv2.resize(_push_pull(*smaller), (width, height), interpolation=cv2.INTER_LINEAR)
    known = np.minimum(weight, 1)[..., None]
    return known * own + (1 - known) * coarse
