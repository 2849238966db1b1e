"""Dense evidence of motion: optical flow over several gaps that no static point under the cameras
explains."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numba
import numpy as np
from jaxtyping import Float, UInt8

from models.cameras import Cameras

WORK_SIZE = 480
"""Longer side in pixels of the images on which flow is computed."""
GAPS = (1, 2, 4, 8)
"""Frames between the images of a pair."""
KEPT_GAPS = (1, 4)
"""Gaps whose flow is kept, to carry evidence through time."""
FLOW_NOISE = 0.25
"""Standard deviation of a good flow vector in pixels of the work size."""
GREY_NOISE = 1.5
"""Standard deviation of grey levels averaged over a patch: how far flow may slide where the patch
lacks gradient."""
ROUND_TRIP_LIMIT = 1.0
"""Flow whose way back misses its start by more than this, in pixels, is not believed."""

ROUND_TRIP_SHARE = 0.02
"""The same, for each pixel of the flow's length."""


@dataclass(frozen=True)
class Evidence:
    """What the flow of each frame says, at the work size (h, w)."""

    images: UInt8[np.ndarray, "F h w 3"]
    """Frames at the work size, RGB."""
    misfit: Float[np.ndarray, "F h w"]
    """Root mean square distance from the best static point's path, in standard deviations of the
    flow."""
    support: Float[np.ndarray, "F h w"]
    """How many flow vectors that stands on; 0 where the pixel is seen in no other frame."""
    texture: Float[np.ndarray, "F h w"]
    """0 to 1: how much the pixel's surroundings let a flow vector be told; low where it may slide
    unseen."""
    inverse_depth: Float[np.ndarray, "F h w"]
    """Of the static point that explains each pixel best."""
    flows: dict[tuple[int, int], Float[np.ndarray, "h w 2"]]
    """Flow from frame a to frame b in pixels (float16; not a number where the round trip fails)."""


def gather_evidence(
    frames: UInt8[np.ndarray, "F H W 3"],
    cameras: Cameras,
    nearest: Float[np.ndarray, "F"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evidence:
    """Flow between frames at the gaps, and how far it is from that of any static point.

    Args:
        cameras: one for each frame.
        nearest: largest inverse depth that a static point may have in each frame.
    """
    images = _reduced(frames)
    num_frames, height, width = images.shape[:3]
    cameras = cameras.resized(width, height)
    K = cameras.K.double().numpy()
    world_from_cam = cameras.world_from_cam.double().numpy()
    cam_from_world = cameras.cam_from_world.double().numpy()
    flows = _Flows(images)
    misfit, support, texture, depth = np.zeros((4, num_frames, height, width), np.float32)
    kept = {}
    for t in range(num_frames):
        others = [
            t + sign * gap for gap in GAPS for sign in (-1, 1) if 0 <= t + sign * gap < num_frames
        ]
        if others:
            flow, error = zip(*(flows.with_error(t, b) for b in others), strict=True)
            relative = cam_from_world[others] @ world_from_cam[t]
            infinity = K[others] @ relative[:, :3, :3] @ np.linalg.inv(K[t])
            epipole = np.einsum("nij,nj->ni", K[others], relative[:, :3, 3])
            spread = _spread(flows.grey[t])
            texture[t] = 1 / (1 + _largest_variance(spread))
            _misfit(
                np.stack(flow),
                np.stack(error),
                spread,
                infinity,
                epipole,
                nearest[t],
                misfit[t],
                support[t],
                depth[t],
            )
            for b, one, miss in zip(others, flow, error, strict=True):
                if abs(b - t) in KEPT_GAPS:
                    kept[t, b] = np.where(miss[..., None] < ROUND_TRIP_LIMIT, one, np.nan).astype(
                        np.float16
                    )
        flows.forget_before(t - max(GAPS))
        progress(t + 1, num_frames)
    return Evidence(images, misfit, support, texture, depth, kept)


def warp(image: np.ndarray, flow: Float[np.ndarray, "h w 2"]) -> np.ndarray:
    """The image read where the flow leads; 0 beyond its border and where the flow is not a
    number."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + np.nan_to_num(flow[..., 0], nan=-1e4).astype(
        np.float32
    )
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1].astype(np.float32)
    y = np.nan_to_num(y, nan=-1e4)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _reduced(frames: np.ndarray) -> UInt8[np.ndarray, "F h w 3"]:
    height, width = frames.shape[1:3]
    scale = min(1.0, WORK_SIZE / max(height, width))
    size = max(16, round(width * scale)), max(16, round(height * scale))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


class _Flows:
    """Flow fields on demand; long gaps start from two halves put together, so that far motion is
    found."""

    def __init__(self, images: np.ndarray):
        self.grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        self._search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._known: dict[tuple[int, int], np.ndarray] = {}

    def between(self, a: int, b: int) -> Float[np.ndarray, "h w 2"]:
        if (a, b) not in self._known:
            start = None
            if abs(b - a) > 1:
                middle = (a + b) // 2
                half = self.between(a, middle)
                start = half + _carried(self.between(middle, b), half)
            self._known[a, b] = self._search.calc(self.grey[a], self.grey[b], start)
        return self._known[a, b]

    def with_error(
        self, a: int, b: int
    ) -> tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w"]]:
        """The flow and by how many pixels its way back misses."""
        there = self.between(a, b)
        return there, np.linalg.norm(there + _carried(self.between(b, a), there), axis=-1)

    def forget_before(self, t: int) -> None:
        for pair in [pair for pair in self._known if min(pair) < t]:
            del self._known[pair]


def _carried(field: np.ndarray, flow: np.ndarray) -> np.ndarray:
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _spread(grey: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    """Covariance (xx, xy, yy) of flow in square pixels: GREY_NOISE^2 times the inverse structure
    tensor.

    Along an edge, and where there is no texture, flow is free to slide: motion seen there proves
    little.
    """
    image = cv2.GaussianBlur(grey, (0, 0), 0.8).astype(np.float32)
    dx, dy = cv2.Scharr(image, cv2.CV_32F, 1, 0) / 32, cv2.Scharr(image, cv2.CV_32F, 0, 1) / 32
    xx, xy, yy = (cv2.GaussianBlur(product, (0, 0), 3.0) for product in (dx * dx, dx * dy, dy * dy))
    xx = xx + 0.1
    yy = yy + 0.1
    scale = GREY_NOISE**2 / (xx * yy - xy * xy)
    return np.stack([scale * yy, -scale * xy, scale * xx], -1)


def _largest_variance(spread: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    xx = spread[..., 0]
    xy = spread[..., 1]
    yy = spread[..., 2]
    return 0.5 * (xx + yy) + np.sqrt(0.25 * (xx - yy) ** 2 + xy**2)


@numba.njit(cache=True, parallel=True)
def _misfit(flow, error, spread, infinity, epipole, nearest, misfit, support, depth):
    """Fits one inverse depth a pixel to all its flow vectors; writes misfit and support.

    A static point at inverse depth rho is seen at infinity @ x + rho * epipole (homogeneous), which
    is linear in rho; three rounds of reweighting make it robust.
    """
    num_pairs, height, width = error.shape
    for y in numba.prange(height):
        for x in range(width):
            rho = 0.0
            count = 0.0
            squares = np.zeros(num_pairs)
            for turn in range(4):
                top = 0.0
                bottom = 1e-9
                count = 0.0
                for k in range(num_pairs):
                    e = error[k, y, x]
                    u, v = x + 0.5 + flow[k, y, x, 0], y + 0.5 + flow[k, y, x, 1]
                    if (
                        e
                        > ROUND_TRIP_LIMIT
                        + ROUND_TRIP_SHARE * (abs(u - x - 0.5) + abs(v - y - 0.5))
                        or u < 0
                        or v < 0
                        or u > width
                        or v > height
                    ):
                        continue
                    own = FLOW_NOISE**2 + 0.25 * e * e
                    cxx = spread[y, x, 0] + own
                    cxy = spread[y, x, 1]
                    cyy = spread[y, x, 2] + own
                    det = cxx * cyy - cxy * cxy
                    wxx = cyy / det
                    wxy = -cxy / det
                    wyy = cxx / det
                    A = infinity[k]
                    c = epipole[k]
                    p0 = A[0, 0] * (x + 0.5) + A[0, 1] * (y + 0.5) + A[0, 2]
                    p1 = A[1, 0] * (x + 0.5) + A[1, 1] * (y + 0.5) + A[1, 2]
                    p2 = A[2, 0] * (x + 0.5) + A[2, 1] * (y + 0.5) + A[2, 2]
                    z = max(p2 + rho * c[2], 1e-3)
                    rx = (u * p2 - p0) / z
                    ry = (v * p2 - p1) / z
                    jx = (u * c[2] - c[0]) / z
                    jy = (v * c[2] - c[1]) / z
                    ex = rx + rho * jx
                    ey = ry + rho * jy
                    e2 = wxx * ex * ex + 2.0 * wxy * ex * ey + wyy * ey * ey
                    soft = 1.0 / np.sqrt(1.0 + e2 / 9.0) if turn > 0 else 1.0
                    top -= soft * (wxx * rx * jx + wxy * (rx * jy + ry * jx) + wyy * ry * jy)
                    bottom += soft * (wxx * jx * jx + 2.0 * wxy * jx * jy + wyy * jy * jy)
                    squares[int(count)] = min(e2, 400.0)
                    count += 1.0
                if turn < 3:
                    rho = min(max(top / bottom, 0.0), nearest)
            if count > 0:
                kept = (
                    int(count) - int(count) // 4
                )  # the worst quarter may be flow that something else drew along
                misfit[y, x] = np.sqrt(np.sort(squares[: int(count)])[:kept].mean())
            support[y, x] = count
            depth[y, x] = rho
