"""Codes of views: position on the camera path and time, on which colours may depend."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.cameras import Cameras

# Spread of the camera centres, as a share of their distance from the origin, that rounding of a
# still camera makes.
_STILL = 1e-9


@dataclass(frozen=True)
class ViewCode:
    """Inputs of the colour field beside the point, a row for each of S samples or views."""

    place: Float[Tensor, "S E"]
    """Camera position on the path, each axis -1 to 1; read by the MLP."""
    time: Float[Tensor, "S"]
    """Time, -1 to 1; the third coordinate in the grid of changes."""
    weight: Float[Tensor, "S"]
    """Weight of the grid of changes, 0 to 1."""

    def __len__(self) -> int:
        return len(self.time)

    def select(self, index: Tensor | slice) -> "ViewCode":
        """Some of the rows."""
        return ViewCode(self.place[index], self.time[index], self.weight[index])

    def split(self, size: int) -> list["ViewCode"]:
        """The rows in parts of ``size``, the last shorter."""
        return [self.select(slice(at, at + size)) for at in range(0, max(len(self), 1), size)]

    def without_changes(self, count: int) -> "ViewCode":
        """The same codes, the first ``count`` rows with weight 0."""
        weight = self.weight.clone()
        weight[:count] = 0
        return ViewCode(self.place, self.time, weight)


class Viewpoints(nn.Module):
    """Per-view input of the colour field: camera position (3), time (1), weight of the grid of
    changes (1).

    The axes of the position are the principal axes of the camera centres, all in the unit of the
    widest; a position off the path is clamped to the box round the path, as no frame shows how a
    highlight moves outside the box. The grid of changes was learned from the views on the path, errors
    of the surface included: off the path its weight is less.
    """

    WIDTH = 3
    """Numbers of the position."""

    def __init__(
        self,
        code_from_world: Float[Tensor, "3 4"],
        high: Float[Tensor, "3"],
        clock: Float[Tensor, "2"],
    ):
        """
        Args:
            code_from_world: affine map from world positions to codes.
            high: largest code along each axis; the least is its opposite.
            clock: the frame whose time is 0, and the step between neighbouring frames.
        """
        super().__init__()
        self.register_buffer("code_from_world", code_from_world.double())
        self.register_buffer("high", high.double())
        self.register_buffer("clock", clock.double())

    @staticmethod
    def of(cameras: Cameras, time_step: float = 0.0) -> "Viewpoints":
        """Codes for a clip's cameras; all have position 0 if the camera stands still.

        Args:
            time_step: time between neighbouring frames; less for a clip too long for -1 to 1.
        """
        centers = cameras.centers.double()
        _, _, axes = torch.linalg.svd(centers - centers.mean(0), full_matrices=True)
        along = centers @ axes.T
        # The box round the path, in the principal axes.
        low, high = along.amin(0), along.amax(0)
        middle = (low + high) / 2
        half = (high - low) / 2
        moves = float(half.max()) > _STILL * float(centers.norm(dim=1).max())
        scale = 1 / half.max() if moves else 0.0
        clock = torch.tensor([(len(cameras) - 1) / 2, min(time_step, 2 / len(cameras))])
        return Viewpoints(scale * torch.cat([axes, -middle[:, None]], 1), scale * half, clock)

    def forward(
        self, centers: Float[Tensor, "C 3"], frames: Float[Tensor, "C"], weight: float = 1.0
    ) -> ViewCode:
        """Codes of camera centres in the world.

        Args:
            frames: times, in frames of the clip.
            weight: of the grid of changes, 0 to 1.
        """
        matrix = self.code_from_world
        high = self.high
        place = centers.to(matrix) @ matrix[:, :3].T + matrix[:, 3]
        place = torch.minimum(torch.maximum(place, -high), high)
        time = (frames.to(matrix) - self.clock[0]) * self.clock[1]
        return ViewCode(place.float(), time.float(), torch.full_like(time, weight).float())
