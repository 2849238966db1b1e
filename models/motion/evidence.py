"""Dense evidence of motion: optical flow over several gaps that no static point under the cameras
explains."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from models.cameras import Cameras
from models.motion.options import MotionOptions
from models.motion.static_points import ROUND_TRIP_LIMIT, FlowVectors, fit_static_points
from models.run import SILENT, Progress

# Frames between the two images of a flow field.
_GAPS = (1, 2, 4, 8)
# Gaps whose flow is kept to carry evidence through time.
_KEPT_GAPS = (1, 4)
# Standard deviation of grey levels averaged over a patch: sets how far flow may slide where the
# patch lacks gradient.
_GREY_NOISE = 1.5
# Smallest side in pixels of the images on which flow is computed: the search needs several blocks.
_MIN_SIDE = 16
# Standard deviation in pixels of the blur before gradients, and of the patch of a flow vector.
_GRADIENT_BLUR = 0.8
_PATCH_BLUR = 3.0


@dataclass(frozen=True)
class Evidence:
    """Flow of each frame held against the static scene, at the work size (h, w)."""

    images: UInt8[np.ndarray, "F h w 3"]
    """Frames at the work size, RGB."""
    misfit: Float[np.ndarray, "F h w"]
    """Root mean square distance of the flow from the best static point's path, in standard
    deviations of the flow."""
    support: Float[np.ndarray, "F h w"]
    """Number of flow vectors behind the misfit; 0 if no other frame sees the pixel."""
    texture: Float[np.ndarray, "F h w"]
    """0 to 1: how well the pixel's surroundings determine a flow vector; low on edges and on plain
    surfaces, along which flow slides."""
    inverse_depth: Float[np.ndarray, "F h w"]
    """Inverse depth of the static point that explains each pixel best, in 1 / world units."""
    flows: dict[tuple[int, int], Float[np.ndarray, "h w 2"]]
    """Flow from frame a to frame b in pixels (float16); NaN if the round trip fails."""

    def average_along_flow(
        self, values: Float[np.ndarray, "F h w"], known: Float[np.ndarray, "F h w"] | None = None
    ) -> Float[np.ndarray, "F h w"]:
        """Values averaged over each frame, at weight 2, and the frames to which its flow is known.

        Args:
            known: weight of each value, which is 0 where the weight is; None if all are known.
        """
        total = 2 * values
        weight = np.full_like(values, 2) if known is None else 2 * known + 1e-6
        for (a, b), flow in self.flows.items():
            total[a] += warp(values[b], flow)
            weight[a] += np.isfinite(flow[..., 0]) if known is None else warp(known[b], flow)
        return total / weight


def gather_evidence(
    frames: UInt8[np.ndarray, "F H W 3"],
    cameras: Cameras,
    nearest: Float[np.ndarray, "F"],
    progress: Progress = SILENT,
    options: MotionOptions = MotionOptions(),
) -> Evidence:
    """Flow between frames at several gaps, and its distance from the flow of any static point.

    Args:
        frames: RGB.
        cameras: of the frames.
        nearest: largest inverse depth that a static point may have in each frame.
    """
    images = shrink_frames(frames, options.work_size)
    num_frames, height, width = images.shape[:3]
    cameras = cameras.resized(width, height)
    flows = _Flows(images)
    misfit, support, texture, depth = np.zeros((4, num_frames, height, width), np.float32)
    kept = {}
    for t in progress.over(range(num_frames), "motion"):
        signed = (t + sign * gap for gap in _GAPS for sign in (-1, 1))
        others = [b for b in signed if 0 <= b < num_frames]
        if others:
            flow, error = zip(*(flows.find_with_error(t, b) for b in others), strict=True)
            covariance = _estimate_covariance(flows.grey[t])
            texture[t] = 1 / (1 + _find_largest_variance(covariance))
            given = np.stack(flow), np.stack(error), covariance, *_relate(cameras, t, others)
            found = fit_static_points(FlowVectors(*given), nearest[t])
            misfit[t], support[t], depth[t] = found
            for b, field, miss in zip(others, flow, error, strict=True):
                if abs(b - t) in _KEPT_GAPS:
                    known = miss[..., None] < ROUND_TRIP_LIMIT
                    kept[t, b] = np.where(known, field, np.nan).astype(np.float16)
        flows.forget_before(t - max(_GAPS))
    return Evidence(images, misfit, support, texture, depth, kept)


def warp(
    image: np.ndarray, flow: Float[np.ndarray, "h w 2"], corner: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """The image read at the ends of the flow; 0 beyond the border and for flow that is NaN.

    Args:
        corner: row and column of the flow's first pixel in the image.
    """
    height, width = flow.shape[:2]
    flow = flow.astype(np.float32)
    flow[np.isnan(flow)] = -1e4
    x = np.arange(corner[1], corner[1] + width, dtype=np.float32) + flow[..., 0]
    y = np.arange(corner[0], corner[0] + height, dtype=np.float32)[:, None] + flow[..., 1]
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def read_shifted(image: np.ndarray, flow: Float[np.ndarray, "h w 2"]) -> np.ndarray:
    """The image, or a flow field, read at the ends of the flow; beyond the border, its values at
    the border."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def shrink_frames(
    frames: UInt8[np.ndarray, "F H W 3"], work_size: int
) -> UInt8[np.ndarray, "F h w 3"]:
    """Frames reduced to the work size; smaller ones as they are."""
    height, width = frames.shape[1:3]
    scale = min(1.0, work_size / max(height, width))
    size = max(_MIN_SIDE, round(width * scale)), max(_MIN_SIDE, round(height * scale))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def _relate(cameras: Cameras, t: int, others: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Homographies at infinity (n, 3, 3) and epipoles (n, 3) from frame t to other frames.

    A static point at pixel x of frame t and inverse depth rho is seen by another frame at
    infinity @ x + rho * epipole (homogeneous).
    """
    K = cameras.K.double().numpy()
    world_from_cam = cameras.world_from_cam.double().numpy()
    cam_from_world = cameras.cam_from_world.double().numpy()
    relative = cam_from_world[others] @ world_from_cam[t]
    infinity = K[others] @ relative[:, :3, :3] @ np.linalg.inv(K[t])
    return infinity, np.einsum("nij,nj->ni", K[others], relative[:, :3, 3])


class _Flows:
    """Flow fields on demand. Long gaps start from two halves chained, so that large motion is
    found."""

    def __init__(self, images: UInt8[np.ndarray, "F h w 3"]):
        self.grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        self._search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._known: dict[tuple[int, int], np.ndarray] = {}

    def find(self, a: int, b: int) -> Float[np.ndarray, "h w 2"]:
        """Flow from frame a to frame b in pixels."""
        if (a, b) not in self._known:
            start = None
            if abs(b - a) > 1:
                middle = (a + b) // 2
                half = self.find(a, middle)
                start = half + read_shifted(self.find(middle, b), half)
            self._known[a, b] = self._search.calc(self.grey[a], self.grey[b], start)
        return self._known[a, b]

    def find_with_error(
        self, a: int, b: int
    ) -> tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w"]]:
        """The flow, and the distance in pixels by which the flow back misses the start."""
        there = self.find(a, b)
        return there, np.linalg.norm(there + read_shifted(self.find(b, a), there), axis=-1)

    def forget_before(self, t: int) -> None:
        """Frees the flow fields of frames before t."""
        for pair in [pair for pair in self._known if min(pair) < t]:
            del self._known[pair]


def _estimate_covariance(grey: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    """Covariance (xx, xy, yy) of flow in square pixels: _GREY_NOISE^2 times the inverse structure
    tensor.

    Along an edge, and without texture, flow is free to slide: motion observed there proves little.
    """
    image = cv2.GaussianBlur(grey, (0, 0), _GRADIENT_BLUR).astype(np.float32)
    # Scharr's kernel sums to 32 for a slope of one grey level per pixel.
    dx = cv2.Scharr(image, cv2.CV_32F, 1, 0) / 32
    dy = cv2.Scharr(image, cv2.CV_32F, 0, 1) / 32
    products = (dx * dx, dx * dy, dy * dy)
    xx, xy, yy = (cv2.GaussianBlur(product, (0, 0), _PATCH_BLUR) for product in products)
    # A little gradient everywhere keeps the tensor invertible.
    xx = xx + 0.1
    yy = yy + 0.1
    scale = _GREY_NOISE**2 / (xx * yy - xy * xy)
    return np.stack([scale * yy, -scale * xy, scale * xx], -1)


def _find_largest_variance(covariance: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Larger eigenvalue of each covariance (xx, xy, yy)."""
    xx = covariance[..., 0]
    xy = covariance[..., 1]
    yy = covariance[..., 2]
    return 0.5 * (xx + yy) + np.sqrt(0.25 * (xx - yy) ** 2 + xy**2)
