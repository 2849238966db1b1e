"""Lens distortion against OpenCV, COLMAP and itself."""

import cv2
import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.clip import Lens

SIZE = 160, 90
RANDOM = np.random.default_rng(3)
COLMAP = [
    ("SIMPLE_RADIAL", (130.0, 82.0, 44.0, -0.21)),
    ("SIMPLE_RADIAL", (130.0, 78.0, 47.0, 0.3)),
    ("RADIAL", (110.0, 80.0, 45.0, -0.26, 0.05)),
    ("OPENCV", (120.0, 123.0, 79.0, 46.0, -0.18, 0.03, 0.004, -0.006)),
    ("FULL_OPENCV", (120.0, 118.0, 80.0, 45.0, 0.2, -0.1, 0.002, 0.003, 0.04, 0.3, -0.05, 0.02)),
    ("OPENCV_FISHEYE", (75.0, 76.0, 81.0, 44.0, 0.05, -0.02, 0.004, -0.001)),
    ("SIMPLE_RADIAL_FISHEYE", (80.0, 80.0, 45.0, -0.03)),
    ("RADIAL_FISHEYE", (85.0, 80.0, 45.0, 0.04, -0.01)),
    ("SIMPLE_FISHEYE", (80.0, 80.0, 45.0)),
    ("FISHEYE", (80.0, 84.0, 79.0, 46.0)),
    ("PINHOLE", (140.0, 150.0, 70.0, 50.0)),
]
EVERY_MODEL = pytest.mark.parametrize(("model", "params"), COLMAP)


def grid(size: tuple[int, int] = SIZE) -> np.ndarray:
    across, down = np.linspace(2, size[0] - 2, 15), np.linspace(2, size[1] - 2, 9)
    return np.stack(np.meshgrid(across, down), -1).reshape(-1, 2)


def paint_board(size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth colour picture."""
    small = RANDOM.integers(0, 256, (size[1] // 8, size[0] // 8, 3)).astype(np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


@EVERY_MODEL
def test_rays_are_those_of_colmap(model, params):
    lens = Lens(model, params, *SIZE)
    camera = pycolmap.Camera(model=model, width=SIZE[0], height=SIZE[1], params=params)
    K = lens.undistorted_K
    rays = np.asarray(camera.cam_from_img(grid()))
    np.testing.assert_allclose(
        lens.undistort_points(grid()), rays * [K[0, 0], K[1, 1]] + K[:2, 2], atol=1e-4
    )


@EVERY_MODEL
def test_straight_and_bent_points_are_inverse(model, params):
    lens = Lens(model, params, *SIZE)
    assert lens.find_problem() is None
    np.testing.assert_allclose(
        lens.distort_points(lens.undistort_points(grid())), grid(), atol=1e-6
    )
    np.testing.assert_allclose(
        lens.undistort_points(lens.distort_points(grid())), grid(), atol=1e-6
    )


@EVERY_MODEL
def test_the_straight_image_has_no_empty_border_and_keeps_the_scale_or_the_view(model, params):
    lens = Lens(model, params, *SIZE)
    along = np.linspace(0, 1, 200)
    sides = [(along, 0 * along), (along, 1 + 0 * along), (0 * along, along), (1 + 0 * along, along)]
    border = np.concatenate([np.stack(side, 1) for side in sides]) * SIZE
    bent = lens.distort_points(border)
    room = np.minimum(bent, SIZE - bent).min()
    assert room > -0.05
    # Larger than the lens's own only to fill the border, smaller only to keep the view.
    focal = lens.undistorted_K[0, 0]
    assert focal < params[0] or focal == pytest.approx(params[0]) or room < 0.3
    # Of the view across the middle, no more than the limit is lost.
    middle = np.array([[0.0, SIZE[1] / 2], [SIZE[0], SIZE[1] / 2]])
    assert lens.distort_points(middle)[:, 0].min() < 0.2 * SIZE[0]


def test_the_focal_length_is_opencvs_for_no_empty_border():
    lens = Lens("OPENCV", (120.0, 120.0, 80.0, 45.0, -0.2, 0.04, 0, 0), *SIZE)
    K = lens.bent_K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    coefficients = np.array(lens.params[4:])
    theirs, _ = cv2.getOptimalNewCameraMatrix(K, coefficients, SIZE, 0, SIZE, True)
    focal = np.clip(120.0, theirs[0, 0], 1.15 * theirs[0, 0])
    assert lens.undistorted_K[0, 0] == pytest.approx(focal, rel=0.02)
    narrow = Lens("OPENCV", (120.0, 120.0, 80.0, 45.0, 0.2, 0.04, 0, 0), *SIZE)
    theirs, _ = cv2.getOptimalNewCameraMatrix(K, np.array([0.2, 0.04, 0, 0]), SIZE, 0, SIZE, True)
    assert narrow.undistorted_K[0, 0] == pytest.approx(theirs[0, 0], rel=0.02)


@pytest.mark.parametrize("fisheye", [False, True])
def test_images_are_straightened_as_by_opencv(fisheye):
    model, k = (
        ("OPENCV_FISHEYE", (0.04, -0.02, 0.01, 0.0))
        if fisheye
        else ("OPENCV", (-0.2, 0.05, 0.003, -0.002))
    )
    lens = Lens(model, (100.0, 102.0, 81.0, 46.0, *k), *SIZE)
    half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    find = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
    maps = find(
        lens.bent_K - half, np.array(k), np.eye(3), lens.undistorted_K - half, SIZE, cv2.CV_32FC1
    )
    board = paint_board()
    theirs = cv2.remap(board, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(lens.remap(board).astype(int) - theirs).max() <= 2


def test_masks_stay_masks():
    mask = np.where(RANDOM.random((SIZE[1], SIZE[0])) < 0.3, 255, 0).astype(np.uint8)
    lens = Lens("SIMPLE_RADIAL", (130.0, 80.0, 45.0, -0.2), *SIZE)
    assert set(np.unique(lens.remap(mask, nearest=True))) == {0, 255}


def test_without_distortion_the_image_stays():
    lens = Lens("RADIAL", (130.0, 80.0, 45.0, 0.0, 0.0), *SIZE)
    board = paint_board()
    assert lens.shift < 1e-9
    np.testing.assert_allclose(lens.undistorted_K, lens.bent_K, rtol=1e-12)
    np.testing.assert_array_equal(lens.remap(board), board)


@EVERY_MODEL
@pytest.mark.parametrize("scale", [(2.0, 2.0), (0.5, 0.6)])
def test_a_resized_lens_bends_the_resized_image(model, params, scale):
    lens = Lens(model, params, *SIZE)
    size = round(SIZE[0] * scale[0]), round(SIZE[1] * scale[1])
    other = lens.resized(*size)
    assert (other.width, other.height) == size
    np.testing.assert_allclose(
        other.undistort_points(grid() * scale), lens.undistort_points(grid()) * scale, atol=0.02
    )


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.25, 0.5), st.floats(-0.05, 0.2), st.floats(-0.01, 0.01), st.floats(0.7, 2.0))
def test_any_moderate_lens_is_inverted_or_has_a_problem(k1, k2, p, focal):
    lens = Lens("OPENCV", (focal * 160, focal * 160, 80.0, 45.0, k1, k2, p, -p), *SIZE)
    if lens.find_problem() is None:
        np.testing.assert_allclose(
            lens.undistort_points(lens.distort_points(grid())), grid(), atol=1e-5
        )


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("OPENCV_FISHEYE", (40.0, 40.0, 80.0, 45.0, 0.0, 0.0, 0.0, 0.0)),
        ("SIMPLE_RADIAL", (60.0, 80.0, 45.0, -0.9)),
        ("SIMPLE_PINHOLE", (15.0, 80.0, 45.0)),
        ("SIMPLE_RADIAL", (120.0, 190.0, 45.0, 0.1)),
        ("SIMPLE_RADIAL", (120.0, 0.0, 45.0, 0.1)),
        ("OPENCV", (120.0, 120.0, 80.0, 45.0, 1e300, -1e300, 0.0, 0.0)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_lens_that_no_pinhole_shows_is_named(model, params):
    assert Lens(model, params, *SIZE).find_problem()


def test_the_perspective_camera_of_nerfstudio_has_a_fourth_radial_coefficient():
    lens = Lens("NERFSTUDIO", (100.0, 100.0, 80.0, 45.0, 0, 0, 0, 0, 0, 0.2), *SIZE)
    ray = np.array([0.5, 0.25])
    K = lens.undistorted_K
    bent = lens.distort_points(ray * K[0, 0] + K[:2, 2])
    np.testing.assert_allclose(bent, 100 * ray * (1 + 0.2 * 0.3125**4) + [80, 45])
