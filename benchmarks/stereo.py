"""The right eye of a stereoscopic pair against the truth, and against warping the left picture.

    python -m models.synthetic data/sample         # and the three scripts on it
    python benchmarks/stereo.py --demo_dir results/pipeline_demo --truth data/sample

Works on the rendered sample clip: models.synthetic renders what the right eye truly sees. The left
eye is a frame's own camera. The method of common converters is measured beside: the left picture is
warped by its depth, and holes are filled by OpenCV's inpainting.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.quality_scores import similarity
from models.cameras import Cameras
from models.detail import DetailOptions
from models.render import Scene, finite_psnr, load_scene
from models.run import SILENT, parse_settings
from models.synthetic.sample import RoomOptions, render_views
from models.training import add_details

# Width in pixels from which a hole is uncovered background.
_CRACK = 3
# Radius in pixels of OpenCV's inpainting (Telea).
_INPAINT = 3


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    demo_dir: Path = Path("results/pipeline_demo")
    """Results of demo_pipeline.py on the sample clip."""
    truth: Path = Path("data/sample")
    """Folder that models.synthetic wrote."""
    separation: float = 0.03
    """Distance between the eyes as a share of the mean depth."""
    step: int = 4
    """Every step-th frame is measured."""


def warp(
    rgb: UInt8[np.ndarray, "H W 3"],
    depth: Float[np.ndarray, "H W"],
    left: Cameras,
    right: Cameras,
) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
    """The left picture moved to the right eye, far pixels first, with inpainted holes; and
    what the left eye does not see."""
    height, width = depth.shape
    rows, columns = np.mgrid[:height, :width]
    xy = torch.from_numpy(np.stack([columns, rows], -1).reshape(1, -1, 2) + 0.5)
    known = np.isfinite(depth.ravel())
    z = torch.from_numpy(np.where(known, depth.ravel(), 1.0)).double()[None]
    moved, far = right.project(left.unproject(xy, z)[0])
    column = np.floor(moved[0, :, 0].numpy()).astype(int)
    row = np.floor(moved[0, :, 1].numpy() + 1e-6).astype(int)
    known &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
    order = np.argsort(-far[0].numpy())
    order = order[known[order]]
    out = np.zeros_like(rgb)
    hole = np.ones((height, width), bool)
    # the nearest surface is written last
    out[row[order], column[order]] = rgb.reshape(-1, 3)[order]
    hole[row[order], column[order]] = False
    filled = cv2.inpaint(out, hole.astype(np.uint8), _INPAINT, cv2.INPAINT_TELEA)
    # cracks between the pixels of a slanted surface are no uncovered background
    wide = cv2.morphologyEx(hole.astype(np.uint8), cv2.MORPH_OPEN, np.ones((_CRACK, _CRACK)))
    return filled, wide > 0


def load_truth(folder: Path) -> tuple[Float[np.ndarray, "F 4 4"], Float[np.ndarray, "3 3"], float]:
    """Cameras, intrinsics and mean depth of the clip."""
    with np.load(folder / "truth.npz") as truth:
        return truth["world_from_cam"], truth["K"], float(truth["mean_depth"])


def true_pair(
    folder: Path, t: int, separation: float
) -> tuple[Float[np.ndarray, "4 4"], np.ndarray]:
    """Pose of the right eye of frame t, and what it sees."""
    poses, K, mean_depth = load_truth(folder)
    options = RoomOptions()
    pose = poses[t].copy()
    pose[:3, 3] += separation * mean_depth * pose[:3, 0]
    eye = Cameras(
        torch.from_numpy(K)[None].double(),
        torch.from_numpy(pose)[None],
        options.width,
        options.height,
    )
    seen, _, _ = render_views(eye, [t], options.num_frames, options.seed, options.num_movers)
    return pose, seen[0]


def measure(scene: Scene, settings: Settings) -> dict[str, float]:
    """Mean PSNR of the right eye in dB: ours and the warped left picture, on the whole picture and
    on what the left eye does not see."""
    poses, _, _ = load_truth(settings.truth)
    likeness = similarity(scene.cameras.world_from_cam.numpy(), poses)
    figures: dict[str, list[float]] = {}
    disparities = []
    for t in range(0, len(scene.cameras), settings.step):
        pose, truth = true_pair(settings.truth, t, settings.separation)
        left = scene.cameras[t]
        moved = torch.from_numpy(likeness.to_estimate(np.stack([poses[t], pose]))).to(
            left.world_from_cam
        )
        # our camera of the frame, moved as the true one
        right_pose = moved[1] @ torch.linalg.inv(moved[0]) @ left.world_from_cam[0]
        right = Cameras(left.K, right_pose[None], left.width, left.height)
        ours = scene.render(right, t).rgb
        seen = scene.render(left, t)
        warped, hole = warp(seen.rgb, seen.depth, left, right)
        for name, picture in (("ours", ours), ("warped", warped)):
            figures.setdefault(name, []).append(finite_psnr(picture, truth))
            if hole.any():
                uncovered = finite_psnr(picture, truth, hole)
                figures.setdefault(f"{name}_uncovered", []).append(uncovered)
        disparities.append(measure_vertical(seen.depth, left, right))
    means = {name: float(np.mean(values)) for name, values in figures.items()}
    return means | {"vertical_disparity_px": max(disparities)}


def measure_vertical(depth: Float[np.ndarray, "H W"], left: Cameras, right: Cameras) -> float:
    """Largest vertical disparity of the surfaces of a view, in pixels."""
    rows, columns = np.nonzero(np.isfinite(depth))
    xy = torch.from_numpy(np.stack([columns, rows], -1) + 0.5).double()[None]
    z = torch.from_numpy(depth[rows, columns]).double()[None]
    moved, _ = right.project(left.unproject(xy, z)[0])
    return float((moved[0, :, 1] - xy[0, :, 1]).abs().max())


def main() -> None:
    settings = parse_settings(Settings())
    path = settings.demo_dir / "model.pt"
    scene = add_details(load_scene(path, torch.device("cpu")), path, DetailOptions(), SILENT)
    for name, value in measure(scene, settings).items():
        print(f"{name:<24}{value:.3f}")


if __name__ == "__main__":
    main()
