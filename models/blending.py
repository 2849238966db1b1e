"""How several meshes' pictures of one view become one: agreement in depth, and holes filled."""

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float

AGREEMENT = 0.03
"""Depths within this ratio of each other are one surface."""
LEAST_SHARE = np.float32(0.02)
"""A mesh with a smaller share of a pixel is not asked for its colour."""


def blend_surfaces(
    depth: Float[np.ndarray, "M H W"], weight: Float[np.ndarray, "M H W"]
) -> tuple[Float[np.ndarray, "M H W"], Float[np.ndarray, "H W"]]:
    """Share of each mesh in each pixel, and the depth of the surface chosen.

    The surface is the one that most weight agrees on. Shares sum to 1 (those below ``LEAST_SHARE`` are left out),
    or are all 0 (depth inf) where no mesh is.
    """
    share = np.zeros(depth.shape, np.float32)
    surface = np.full(depth.shape[1:], np.inf, np.float32)
    _blend(depth.astype(np.float32), weight.astype(np.float32), np.float32(AGREEMENT), share, surface)
    return share, surface


@numba.njit(cache=True, parallel=True)
def _blend(depth, weight, agreement, share, surface):
    meshes, height, width = depth.shape
    for y in numba.prange(height):
        own = np.empty(meshes, np.float32)
        for x in range(width):
            best, best_vote = -1, np.float32(0)
            for k in range(meshes):
                own[k] = weight[k, y, x]
            for k in range(meshes):
                d = depth[k, y, x]
                if not np.isfinite(d):
                    continue
                vote = np.float32(0)
                for m in range(meshes):
                    if abs(depth[m, y, x] - d) < agreement * d:
                        vote += own[m]
                level = vote > best_vote * np.float32(0.9999) and d < depth[best, y, x]
                if vote > best_vote * np.float32(1.0001) or level:
                    best, best_vote = k, vote
            if best < 0:
                continue
            d = depth[best, y, x]
            total, mean = np.float32(0), np.float32(0)
            for k in range(meshes):
                if abs(depth[k, y, x] - d) < agreement * d:
                    share[k, y, x] = own[k]
                    total += own[k]
            kept = np.float32(0)
            for k in range(meshes):
                share[k, y, x] = share[k, y, x] if share[k, y, x] >= LEAST_SHARE * total else np.float32(0)
                kept += share[k, y, x]
                mean += share[k, y, x] * depth[k, y, x] if share[k, y, x] > 0 else np.float32(0)
            for k in range(meshes):
                share[k, y, x] /= kept
            surface[y, x] = mean / kept


def fill_holes(rgb: Float[np.ndarray, "H W 3"], covered: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W 3"]:
    """Carries colours smoothly into what is not covered (push-pull over an image pyramid).

    Source: Gortler et al., "The lumigraph", 1996, section 3.4.
    """
    if covered.all() or not covered.any():
        return rgb
    weight = covered.astype(np.float32)
    filled = _push_pull(rgb * weight[..., None], weight)
    return np.where(covered[..., None], rgb, filled)


def _push_pull(color: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Colours (premultiplied by weight) where there are any, else those of the next coarser level."""
    height, width = weight.shape
    own = color / np.where(weight > 0, weight, 1)[..., None]
    if weight.min() > 0:
        return own
    half = ((width + 1) // 2, (height + 1) // 2)
    smaller = [cv2.resize(image, half, interpolation=cv2.INTER_AREA) for image in (color, weight)]
    coarse = cv2.resize(_push_pull(*smaller), (width, height), interpolation=cv2.INTER_LINEAR)
    known = np.minimum(weight, 1)[..., None]
    return known * own + (1 - known) * coarse
