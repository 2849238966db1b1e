"""One lens: points and images between the bent image of a real camera and the straight image of a
pinhole camera."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from models.clip.lens.formulas import (
    MODELS,
    Distortion,
    bend_rays,
    keeps_orientation,
    straighten_rays,
)

# Points along each side of the image at which its border is straightened.
_BORDER_POINTS = 513
# Rows of an image that are mapped at once, so that their rays stay in the cache.
_BAND_ROWS = 32
# Points along each side of the grid on which distortion is measured.
_GRID = 17
# Degrees between the rays of opposite borders from which a pinhole image would be mostly stretched
# border.
_WIDEST = 150.0


# Focal length of the straight image, at most, in focal lengths at which its border just fills.
_MOST_CROPPED = 1.15


@dataclass(frozen=True)
class Lens:
    """A lens model of COLMAP with its parameters, for images of one size.

    Pixels are continuous, and the centre of the top-left pixel is (0.5, 0.5). The straight image
    has the size of the bent image, its principal point in the middle, and the focal length of the
    lens, so that the middle keeps its scale; a larger one where its border would be empty, and a
    smaller one where too much of the view would be lost.
    """

    model: str
    """COLMAP's name of the model, or NERFSTUDIO for its perspective camera; a key of ``MODELS``."""
    params: tuple[float, ...]
    """In COLMAP's order, in pixels: focal length or lengths, principal point, coefficients."""
    width: int
    """Width of the image in pixels."""
    height: int
    """Height of the image in pixels."""

    @cached_property
    def bent_K(self) -> Float[ndarray, "3 3"]:
        """Intrinsics of the model before distortion."""
        focal = MODELS[self.model][0]
        fx, fy = self.params[0], self.params[focal - 1]
        cx, cy = self.params[focal : focal + 2]
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)

    @cached_property
    def undistorted_K(self) -> Float[ndarray, "3 3"]:
        """Intrinsics of the straight image, with the lens's own ratio of focal lengths.

        NaN for a lens that ``find_problem`` names.
        """
        ratio = self.bent_K[1, 1] / self.bent_K[0, 0]
        half = self.width / 2, self.height / 2
        rays = np.abs(self._straighten(_sample_border(self.width, self.height)))
        # The border of the bent image must lie outside the straight image.
        reach = np.maximum(rays[:, 0] / half[0], rays[:, 1] * ratio / half[1])
        nearest = np.min(reach, where=np.isfinite(reach), initial=np.inf)
        least = 1 / nearest if 0 < nearest < np.inf else np.nan
        focal = np.clip(self.bent_K[0, 0], least, _MOST_CROPPED * least)
        return np.array([[focal, 0, half[0]], [0, focal * ratio, half[1]], [0, 0, 1]])

    @cached_property
    def shift(self) -> float:
        """Largest distance in pixels by which distortion moves a pixel of the image; infinite if a
        pixel has no ray in front of the camera."""
        across = np.linspace(0, self.width, _GRID)
        down = np.linspace(0, self.height, _GRID)
        grid = np.stack(np.meshgrid(across, down), -1).reshape(-1, 2)
        straight = _apply(self.bent_K, self._straighten(grid))
        return float(np.nan_to_num(np.linalg.norm(straight - grid, axis=1), nan=np.inf).max())

    def find_problem(self) -> str | None:
        """A clause that says why no pinhole camera shows this image; None if one does."""
        # Coefficients of a damaged file may leave the range of numbers.
        with np.errstate(all="ignore"):
            return self._find_problem()

    def _find_problem(self) -> str | None:
        # Opposite borders stand beside each other.
        middles = np.array([[0, 0.5], [1, 0.5], [0.5, 0], [0.5, 1]]) * [self.width, self.height]
        rays = self._straighten(middles)
        angles = np.degrees(np.arctan(np.linalg.norm(rays, axis=1)))
        if np.isnan(angles).any() or max(angles[:2].sum(), angles[2:].sum()) >= _WIDEST:
            return f"its field of view is {_WIDEST:.0f} degrees or more"
        border = _sample_border(self.width, self.height)
        rays = _unapply(self.undistorted_K, border)
        bent = self.distort_points(border)
        outside = np.maximum(-bent, bent - [self.width, self.height]).max()
        if outside > 1 or not keeps_orientation(self._distortion, rays).all():
            return "its lens folds the image over itself, or its principal point lies outside"
        return None

    def undistort_points(self, xy: Float[ndarray, "*N 2"]) -> Float[ndarray, "*N 2"]:
        """Pixels of the bent image -> pixels of the straight image; NaN where there is no ray."""
        rays = self.find_rays(xy)
        return _apply(self.undistorted_K, rays.reshape(-1, 2)).reshape(rays.shape)

    def find_rays(self, xy: Float[ndarray, "*N 2"]) -> Float[ndarray, "*N 2"]:
        """Pixels of the bent image -> rays (x / z, y / z) in the camera's axes; NaN where there is
        none."""
        xy = np.asarray(xy, np.float64)
        return self._straighten(xy.reshape(-1, 2)).reshape(xy.shape)

    def distort_points(self, xy: Float[ndarray, "*N 2"]) -> Float[ndarray, "*N 2"]:
        """Pixels of the straight image -> pixels of the bent image."""
        xy = np.asarray(xy, np.float64)
        rays = _unapply(self.undistorted_K, xy.reshape(-1, 2))
        return _apply(self.bent_K, bend_rays(self._distortion, rays)).reshape(xy.shape)

    def remap(self, image: ndarray, nearest: bool = False) -> ndarray:
        """The straight image of a bent image.

        Args:
            image: (height, width) or (height, width, channels), of a type that OpenCV resamples.
            nearest: take the nearest pixel, as masks and labels need, instead of a mixture of four.
        """
        way = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        return cv2.remap(image, *_find_map(self), way, borderMode=cv2.BORDER_REPLICATE)

    def resized(self, width: int, height: int) -> "Lens":
        """The same lens for images scaled to another size; a model of one focal length gains a
        second where the sides scale unlike."""
        across, down = width / self.width, height / self.height
        focal = MODELS[self.model][0]
        if across != down and focal == 1:
            return self._with_two_focal_lengths().resized(width, height)
        scale = (*(across, down)[:focal], across, down)
        scaled = [p * s for p, s in zip(self.params, scale, strict=False)]
        return replace(
            self, params=(*scaled, *self.params[len(scale) :]), width=width, height=height
        )

    def to_line(self) -> str:
        """The lens as a line of COLMAP's cameras.txt, without its number: model, width, height and
        parameters."""
        return " ".join([self.model, str(self.width), str(self.height), *map(repr, self.params)])

    @staticmethod
    def from_line(line: str) -> "Lens":
        """The lens of ``to_line``.

        Raises:
            ValueError: the line is no lens.
        """
        model, width, height, *params = line.split()
        numbers = tuple(map(float, params))
        if model not in MODELS or len(numbers) != sum(MODELS[model][:2]) + 2:
            raise ValueError(f"{line:.80}: is no lens")
        if not np.isfinite(numbers).all() or min(int(width), int(height), *numbers[:1]) <= 0:
            raise ValueError(f"{line:.80}: is no lens")
        return Lens(model, numbers, int(width), int(height))

    def to_values(self) -> dict:
        """The lens as a dict, for ``from_values``."""
        return {"line": self.to_line()}

    @staticmethod
    def from_values(values: dict) -> "Lens":
        """The lens of ``to_values``."""
        return Lens.from_line(values["line"])

    @property
    def _distortion(self) -> Distortion:
        focal, _, read = MODELS[self.model]
        return read(*self.params[focal + 2 :])

    def _straighten(self, xy: Float[ndarray, "N 2"]) -> Float[ndarray, "N 2"]:
        """Rays of pixels of the bent image."""
        return straighten_rays(self._distortion, _unapply(self.bent_K, xy))

    def _with_two_focal_lengths(self) -> "Lens":
        """The same lens in the model of two focal lengths that includes its own."""
        fisheye = self._distortion.fisheye
        k = (*self.params[3:], 0.0, 0.0, 0.0, 0.0)
        coefficients = k[:4] if fisheye else (k[0], k[1], 0.0, 0.0)
        model = "OPENCV_FISHEYE" if fisheye else "OPENCV"
        f, cx, cy = self.params[:3]
        return replace(self, model=model, params=(f, f, cx, cy, *coefficients))


def _apply(K: Float[ndarray, "3 3"], rays: Float[ndarray, "N 2"]) -> Float[ndarray, "N 2"]:
    return rays * [K[0, 0], K[1, 1]] + K[:2, 2]


def _unapply(K: Float[ndarray, "3 3"], xy: Float[ndarray, "N 2"]) -> Float[ndarray, "N 2"]:
    return (xy - K[:2, 2]) / [K[0, 0], K[1, 1]]


def _sample_border(width: int, height: int) -> Float[ndarray, "N 2"]:
    """Points on the border of an image, corners included."""
    along = np.linspace(0, 1, _BORDER_POINTS)
    low, high = np.zeros_like(along), np.ones_like(along)
    sides = [(along, low), (along, high), (low, along), (high, along)]
    return np.concatenate([np.stack(side, 1) for side in sides]) * [width, height]


# A clip has one lens or a lens for each frame; a map holds 8 bytes for each pixel.
@lru_cache(maxsize=2)
def _find_map(lens: Lens) -> tuple[Float[ndarray, "H W"], Float[ndarray, "H W"]]:
    """Column and row in the bent image of each pixel of the straight image, from OpenCV's origin."""
    columns, rows = np.empty((2, lens.height, lens.width), np.float32)
    across = np.arange(lens.width) + 0.5
    for top in range(0, lens.height, _BAND_ROWS):
        down = np.arange(top, min(top + _BAND_ROWS, lens.height)) + 0.5
        bent = lens.distort_points(np.stack(np.meshgrid(across, down), -1)) - 0.5
        columns[top : top + len(down)] = bent[..., 0]
        rows[top : top + len(down)] = bent[..., 1]
    return columns, rows
