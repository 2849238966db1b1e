import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from models.cameras import Cameras
from models.render.metrics import psnr, reprojection_error, ssim, track_error


def images(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
    return a, np.clip(a + rng.normal(0, 12, a.shape), 0, 255).astype(np.uint8)


def random_cameras(num: int = 6, seed: int = 0) -> Cameras:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (num, 1, 1))
    poses[:, :3, :3] = Rotation.random(num, rng=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(num, 3))
    K = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]], dtype=torch.float64).repeat(num, 1, 1)
    return Cameras(K, torch.from_numpy(poses), 64, 48)


def test_equal_images_have_infinite_psnr_and_ssim_one():
    a, _ = images()
    assert psnr(a, a) == float("inf")
    assert ssim(a, a) == pytest.approx(1)


def test_full_image_scores_agree_with_scikit_image():
    a, b = images()
    assert psnr(b, a) == pytest.approx(peak_signal_noise_ratio(a, b))
    settings = {
        "channel_axis": -1,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    assert ssim(b, a) == pytest.approx(structural_similarity(a, b, **settings))


def test_a_masked_score_does_not_see_what_lies_outside():
    a, b = images()
    mask = np.zeros(a.shape[:2], bool)
    mask[:12, :12] = True
    ruined = b.copy()
    ruined[:, 20:] = 0
    assert (
        psnr(ruined, a, mask) == psnr(b, a, mask) == pytest.approx(psnr(b[:12, :12], a[:12, :12]))
    )
    assert ssim(ruined, a, mask) == pytest.approx(ssim(b, a, mask))
    assert psnr(ruined, a) < psnr(b, a)


def test_an_empty_mask_is_an_error_not_a_number():
    a, b = images()
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match="empty"):
            metric(b, a, np.zeros(a.shape[:2], bool))


def test_reprojection_error_is_the_offset_of_the_observations():
    cameras = random_cameras()
    xyz = np.random.default_rng(0).normal(size=(9, 3))
    xy = cameras.project(torch.from_numpy(xyz))[0].numpy() + np.array([3.0, 4.0])
    visible = np.random.default_rng(1).random((6, 9)) < 0.5
    xy[~visible] = np.nan
    assert reprojection_error(cameras, xyz, xy, visible) == pytest.approx(5)
    with pytest.raises(ValueError, match="visible"):
        track_error(xy, xy, np.zeros_like(visible))
