"""What each pixel would show if nothing moved: the static scene seen in other frames, compared with
the frame."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from models.cameras import Cameras
from models.motion.evidence import Evidence

OFFSETS = (-24, -16, -10, -6, -3, 3, 6, 10, 16, 24)
"""Frames, counted from the one asked about, in which its background is looked for."""
COLOUR_NOISE = 7.0
"""Standard deviation of the difference of two views of one point, in grey levels."""
SLIP = 0.7
"""Standard deviation in pixels of where the background is read."""
DARKEST = 0.3
BRIGHTEST = 0.88
"""Share of its light that a point keeps in a cast shadow, at least and at most."""
WINDOW = 7
"""Side in pixels of the window over which a shadow's gain is told."""
VIEWS = 4
"""Views of the background that are compared, at most: the nearest in time."""


def background_odds(
    evidence: Evidence, cameras: Cameras, suspect: Bool[np.ndarray, "F h w"]
) -> tuple[Float[np.ndarray, "F h w"], Float[np.ndarray, "F h w"]]:
    """Log-odds that a pixel is not the background behind it, and how much it looks like that
    background in shadow.

    Args:
        cameras: of the work size or not.
        suspect: pixels that may show a mover; the others show background, at their own depth.

    Returns:
        Odds, 0 where no other frame shows the background; shadow from 0 to 1.
    """
    num_frames, height, width = suspect.shape
    cameras = cameras.resized(width, height)
    K = cameras.K.double().numpy()
    world = cameras.world_from_cam.double().numpy()
    local = cameras.cam_from_world.double().numpy()
    images = [cv2.GaussianBlur(image, (0, 0), 0.8).astype(np.float32) for image in evidence.images]
    odds, shadow = np.zeros((2, *suspect.shape), np.float32)
    for t in range(num_frames):
        box = bounds(suspect[t])
        if box is None:
            continue
        inverse_depth = fill(evidence.inverse_depth[t], ~suspect[t])
        views = []
        for s in sorted(
            (t + d for d in OFFSETS if 0 <= t + d < num_frames), key=lambda s: abs(s - t)
        ):
            relative = local[s] @ world[t]
            infinity = K[s] @ relative[:3, :3] @ np.linalg.inv(K[t])
            where = _seen_from(infinity, K[s] @ relative[:3, 3], inverse_depth, box)
            static = (~suspect[s]).astype(np.float32)
            known = (
                cv2.remap(static, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
                > 0.99
            )
            views.append((cv2.remap(images[s], where, None, cv2.INTER_LINEAR), known))
        odds[t][box], shadow[t][box] = _compare(images[t][box], ~suspect[t][box], views)
    return odds, shadow


def bounds(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice] | None:
    """The rows and columns that a mask spans, and half as much around it, where static pixels show
    what is usual."""
    if not mask.any():
        return None
    spans = []
    for axis in (1, 0):
        there = np.flatnonzero(mask.any(axis))
        margin = max(8, (there[-1] - there[0]) // 4)
        spans.append(slice(max(0, there[0] - margin), there[-1] + margin + 1))
    return spans[0], spans[1]


def fill(values: Float[np.ndarray, "h w"], known: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Unknown values from the known ones around them, coarse to fine (normalised convolution in a
    pyramid)."""
    weight = known.astype(np.float32)
    if min(values.shape) < 4 or known.all():
        return np.where(known, values, values[known].mean() if known.any() else 1.0).astype(
            np.float32
        )
    size = -(-values.shape[1] // 2), -(-values.shape[0] // 2)
    small_weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(values.astype(np.float32) * weight, size, interpolation=cv2.INTER_AREA)
    small = fill(small / np.maximum(small_weight, 1e-6), small_weight > 0.05)
    return np.where(
        known, values, cv2.resize(small, values.shape[::-1], interpolation=cv2.INTER_LINEAR)
    )


def _seen_from(
    infinity: np.ndarray, epipole: np.ndarray, inverse_depth: np.ndarray, box: tuple[slice, slice]
) -> Float[np.ndarray, "h w 2"]:
    """Where another camera sees each pixel of the box, in OpenCV's coordinates."""
    x, y = np.arange(inverse_depth.shape[1]) + 0.5, np.arange(inverse_depth.shape[0])[:, None] + 0.5
    x = x[box[1]]
    y = y[box[0]]
    inverse_depth = inverse_depth[box]
    p = [
        infinity[k, 0] * x + infinity[k, 1] * y + infinity[k, 2] + epipole[k] * inverse_depth
        for k in range(3)
    ]
    z = np.where(p[2] > 1e-3, p[2], np.inf)
    seen = (
        np.stack([p[0] / z, p[1] / z], -1) - 0.5
    )  # OpenCV puts (0, 0) at the centre of the top-left pixel
    seen[~np.isfinite(z)] = -1e4
    return seen.astype(np.float32)


def _slope(image: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Squared gradient of colour, summed over channels, a little widened."""
    dx, dy = cv2.Scharr(image, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(image, cv2.CV_32F, 0, 1) / 32
    return cv2.dilate(_dot(dx, dx) + _dot(dy, dy), np.ones((3, 3)))


def _compare(image: np.ndarray, static: np.ndarray, views: list) -> tuple[np.ndarray, np.ndarray]:
    """Odds of foreground and likeness to shadow from the views of the background."""
    slope = _slope(image)
    used = np.zeros(slope.shape, np.float32)
    plain, dark = np.full((2, VIEWS, *slope.shape), np.inf, np.float32)
    for view, known in views:
        fresh = known & (used < VIEWS)
        if not fresh.any():
            continue
        view = view * _exposure(image, view, known & static)
        noise = 3 * COLOUR_NOISE**2 + SLIP**2 * np.minimum(slope, _slope(view))
        gain = _box(_dot(image, view)) / np.maximum(_box(_dot(view, view)), 1)
        dimmed = image - gain[..., None] * view
        plainly = image - view
        miss = _box(_dot(dimmed, dimmed)) / _box(noise)
        miss[(gain > BRIGHTEST) | (gain < DARKEST) | _other_texture(image, view, gain)] = 100
        place = used[fresh].astype(int), *np.nonzero(fresh)
        plain[place] = (_dot(plainly, plainly) / noise)[fresh]
        dark[place] = miss[fresh]
        used += fresh
    distance = _best_half(plain, used)
    miss = _best_half(dark, used)
    seen = used > 0
    usual = np.median(distance[seen & static]) if (seen & static).any() else 0.3
    spread = max(1.0, usual / 0.3)
    trust = 1 / np.sqrt(spread)
    odds = np.where(seen, trust * np.clip(1.2 * (np.sqrt(distance / spread) - 1.4), -1.5, 2.0), 0)
    shadow = np.where(seen, np.exp(-0.5 * np.maximum(miss / spread - 0.5, 0)), 0)
    shadow *= trust
    return odds.astype(np.float32), shadow.astype(np.float32)


def _best_half(
    values: Float[np.ndarray, "v h w"], used: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Mean of the better half of the views that are used; in the worse half something else stood
    before."""
    kept = np.ceil(used / 2)
    ordered = np.sort(values, 0)
    chosen = np.arange(len(values))[:, None, None] < kept
    return np.minimum(
        np.where(chosen, np.minimum(ordered, 100), 0).sum(0) / np.maximum(kept, 1), 100
    )


def _exposure(image: np.ndarray, view: np.ndarray, static: np.ndarray) -> Float[np.ndarray, "3"]:
    """Gain of each channel between two frames, from pixels that are static in both."""
    if static.sum() < 50:
        return np.ones(3, np.float32)
    few = np.flatnonzero(static)[:: 1 + static.sum() // 4000]
    return np.median((image.reshape(-1, 3)[few] + 4) / (view.reshape(-1, 3)[few] + 4), 0).astype(
        np.float32
    )


def _other_texture(
    image: np.ndarray, view: np.ndarray, gain: np.ndarray
) -> Bool[np.ndarray, "h w"]:
    """True where the background has texture that the image does not repeat: a shadow would keep
    it."""
    here, there = (cv2.transform(rgb, np.full((1, 3), 1 / 3)) for rgb in (image, view))
    mean_here = _box(here)
    mean_there = _box(there)
    variance = np.maximum(_box(there * there) - mean_there**2, 0)
    own = np.maximum(_box(here * here) - mean_here**2, 0)
    shared = _box(here * there) - mean_here * mean_there
    return (gain**2 * variance > (COLOUR_NOISE / 2) ** 2) & (shared < 0.5 * np.sqrt(own * variance))


def _dot(a: Float[np.ndarray, "h w 3"], b: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    return np.einsum("hwc,hwc->hw", a, b)


def _box(values: np.ndarray) -> np.ndarray:
    return cv2.blur(values, (WINDOW, WINDOW))
