"""How close a run is to the truth: pictures, cameras, depth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from skimage.metrics import structural_similarity

from benchmarks.flip import flip_map
from models.cameras import Cameras
from models.clip import read_image
from models.run import InputError

FEWEST_PIXELS = 50
"""A region of fewer pixels is not scored."""
_WHITE = 127


@dataclass(frozen=True)
class Similarity:
    """What carries the estimated world into the true one: true = scale * rotation @ estimated +
    shift."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, "3"]

    def to_estimate(self, pose: Float[np.ndarray, "M 4 4"]) -> Float[np.ndarray, "M 4 4"]:
        """True world_from_cam in the estimated world.

        Raises:
            InputError: the two camera paths have no likeness, so there is no telling where these
                cameras are.
        """
        if self.scale <= 0:
            raise InputError("no similarity carries the estimated camera path to the true one")
        moved = np.tile(np.eye(4), (len(pose), 1, 1))
        moved[:, :3, :3] = self.rotation.T @ pose[:, :3, :3]
        moved[:, :3, 3] = (pose[:, :3, 3] - self.shift) @ self.rotation / self.scale
        return moved


def similarity(
    estimate: Float[np.ndarray, "F 4 4"], truth: Float[np.ndarray, "F 4 4"]
) -> Similarity:
    """The best one: its rotation from the cameras' own orientations, as centres on a line determine
    none."""
    u, _, vt = np.linalg.svd(np.einsum("nij,nkj->ik", truth[:, :3, :3], estimate[:, :3, :3]))
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    a, b = estimate[:, :3, 3] @ rotation.T, truth[:, :3, 3]
    a0, b0 = a - a.mean(0), b - b.mean(0)
    scale = float((a0 * b0).sum() / max((a0 * a0).sum(), 1e-12))
    return Similarity(scale, rotation, b.mean(0) - scale * a.mean(0))


def camera_errors(
    estimate: Float[np.ndarray, "F 4 4"], truth: Float[np.ndarray, "F 4 4"]
) -> dict[str, float]:
    """After the best similarity: RMS distance of centres as a share of the true path, mean angle in
    degrees."""
    best = similarity(estimate, truth)
    centre = best.scale * estimate[:, :3, 3] @ best.rotation.T + best.shift
    length = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    rmse = np.sqrt(((centre - truth[:, :3, 3]) ** 2).sum(1).mean())
    # |R1 - R2| = 2 sqrt(2) sin(angle / 2): exact for small angles, where the arc cosine of the trace is not.
    chord = np.linalg.norm(
        best.rotation @ estimate[:, :3, :3] - truth[:, :3, :3], axis=(1, 2)
    ) / np.sqrt(8)
    angle = np.degrees(2 * np.arcsin(np.clip(chord, 0, 1)))
    return {
        "camera_position_share": float(rmse / max(length, 1e-12)),
        "camera_rotation_degrees": float(angle.mean()),
    }


def score_pictures(
    made: Mapping[int, Path], truth: Mapping[int, Path], masks: Mapping[int, Path]
) -> dict[str, dict[str, float]]:
    """Means over the pictures of PSNR (dB), SSIM and FLIP: whole, and outside and inside the masks
    where there are any.

    Args:
        made: pictures by number; each has a true one, which is reduced where it is larger.
        masks: white = moving; none at all, or one for each picture.

    SSIM is scikit-image's with a 7x7 window, its map averaged over the region.

    Raises:
        InputError: a picture cannot be read, or has another shape than its true one.
    """
    scores: dict[str, list[tuple[float, ...]]] = {"whole": [], "outside": [], "inside": []}
    for number, path in sorted(made.items()):
        picture = read_image(path)
        maps = error_maps(picture, _reduced(read_image(truth[number]), picture, path))
        regions = {"whole": np.ones(picture.shape[:2], bool)}
        if masks:
            regions["inside"] = _reduced(read_image(masks[number]), picture, path).max(2) > _WHITE
            regions["outside"] = ~regions["inside"]
        for name, region in regions.items():
            if region.sum() >= FEWEST_PIXELS:
                scores[name].append(_means(maps, region))
    return {name: _summary(values) for name, values in scores.items() if values}


def error_maps(
    a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"]
) -> tuple[np.ndarray, ...]:
    """Squared error (of values 0 to 1) and SSIM of each pixel and channel, FLIP of each pixel."""
    x, y = a / 255.0, b / 255.0
    return (
        (x - y) ** 2,
        structural_similarity(y, x, channel_axis=2, data_range=1, full=True)[1],
        flip_map(b, a),
    )


def _means(maps: tuple[np.ndarray, ...], region: Bool[np.ndarray, "H W"]) -> tuple[float, ...]:
    squared, ssim, flip = (float(values[region].mean()) for values in maps)
    return -10 * np.log10(max(squared, 1e-12)), ssim, flip


def _summary(values: list[tuple[float, ...]]) -> dict[str, float]:
    mean = dict(zip(("psnr", "ssim", "flip"), np.mean(values, 0).tolist(), strict=True))
    return {"frames": len(values), **mean, "psnr_min": float(np.min(values, 0)[0])}


def _reduced(
    image: UInt8[np.ndarray, "H W 3"], like: np.ndarray, path: Path
) -> UInt8[np.ndarray, "h w 3"]:
    """The image at the size of ``like``, as the scripts reduce large frames."""
    height, width = like.shape[:2]
    if image.shape[:2] == (height, width):
        return image
    if image.shape[0] < height or abs(image.shape[1] / image.shape[0] * height - width) > 1:
        raise InputError(
            f"{path}: is {width}x{height}, but its true picture is {image.shape[1]}x{image.shape[0]}"
        )
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def track_depth_error(
    cameras: Cameras,
    xyz: Float[torch.Tensor, "F N 3"],
    xy: Float[torch.Tensor, "F N 2"],
    visible: Bool[torch.Tensor, "F N"],
    depth: Float[np.ndarray, "F h w"],
    scale: float,
) -> float:
    """Median of |scale * z - true z| / true z, z of each point in each camera that sees it.

    Args:
        depth: true z-depth, of the frames' shape in any size.
        scale: true units to one estimated.
    """
    errors = []
    height, width = depth.shape[1:]
    for t in range(len(cameras)):
        seen = visible[t]
        z = cameras[[t]].to_camera(xyz[t, seen].double())[0, :, 2].numpy()
        x, y = (
            (xy[t, seen].numpy() * [width / cameras.width, height / cameras.height]).astype(int).T
        )
        errors.append(
            relative_errors(scale * z, depth[t, y.clip(0, height - 1), x.clip(0, width - 1)])
        )
    return float(np.median(np.concatenate(errors)))


def relative_errors(
    estimate: Float[np.ndarray, "*S"], truth: Float[np.ndarray, "*S"]
) -> Float[np.ndarray, "n"]:
    """|estimate - truth| / truth where both are known."""
    truth = truth.astype(np.float64)
    known = np.isfinite(estimate) & np.isfinite(truth) & (truth > 0)
    return np.abs(estimate[known] - truth[known]) / truth[known]


def rendered_depth_error(
    pictures: Mapping[int, Float[np.ndarray, "H W"]],
    depth: Float[np.ndarray, "F h w"],
    scale: float,
) -> float:
    """The same over the pixels of rendered depth maps by frame, inf where nothing was drawn."""
    errors = []
    for t, estimate in pictures.items():
        rows, columns = (
            _middles(size, of) for size, of in zip(estimate.shape, depth.shape[1:], strict=True)
        )
        errors.append(relative_errors(scale * estimate, depth[t][np.ix_(rows, columns)]))
    return float(np.median(np.concatenate(errors)))


def _middles(size: int, of: int) -> Int[np.ndarray, "n"]:
    """For each of ``size`` pixels the one of ``of`` that its centre lies in."""
    return ((np.arange(size) + 0.5) * of / size).astype(int)
