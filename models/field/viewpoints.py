"""Where on the clip's path, and when, a view is: a code that colours may depend on."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.cameras import Cameras

STILL = 1e-9
"""Spread of camera centres, as a share of their distance from the origin, that rounding makes."""


class Viewpoints(nn.Module):
    """Codes of views: where on the path the camera is (3 numbers, -1 to 1), the time (-1 to 1), and
    what changes count.

    The axes of the place are those in which the cameras spread, all in the unit of the widest; a
    place off the path counts as the nearest of the box round it, for nobody saw what a highlight
    does there. What changes with time is as the path's cameras saw it, inexact surfaces and all:
    off the path it counts less.
    """

    WIDTH = 3
    """Numbers of the place; two more are behind them."""

    def __init__(
        self,
        code_from_world: Float[Tensor, "3 4"],
        high: Float[Tensor, "3"],
        clock: Float[Tensor, "2"],
    ):
        """
        Args:
            high: largest code along each axis; the least is its opposite.
            clock: the frame whose time is 0, and the step from one frame to the next.
        """
        super().__init__()
        self.register_buffer("code_from_world", code_from_world.double())
        self.register_buffer("high", high.double())
        self.register_buffer("clock", clock.double())

    @staticmethod
    def of(cameras: Cameras, time_step: float = 0.0) -> "Viewpoints":
        """Those of a clip's cameras; all have the place 0 if the camera stands still.

        Args:
            time_step: by how much a frame is later than the one before; less for a clip too long
                for -1 to 1.
        """
        centers = cameras.centers.double()
        _, _, axes = torch.linalg.svd(centers - centers.mean(0), full_matrices=True)
        along = centers @ axes.T
        low, high = along.amin(0), along.amax(0)
        middle = (low + high) / 2
        half = (high - low) / 2
        scale = (
            1 / half.max() if float(half.max()) > STILL * float(centers.norm(dim=1).max()) else 0.0
        )
        clock = torch.tensor([(len(cameras) - 1) / 2, min(time_step, 2 / len(cameras))])
        return Viewpoints(scale * torch.cat([axes, -middle[:, None]], 1), scale * half, clock)

    def forward(
        self, centers: Float[Tensor, "C 3"], frames: Float[Tensor, "C"], changes: float = 1.0
    ) -> Float[Tensor, "C 5"]:
        """Codes of camera centres in the world.

        Args:
            frames: times, in frames of the clip.
            changes: how much they count, 0 to 1.
        """
        matrix = self.code_from_world
        high = self.high
        place = centers.to(matrix) @ matrix[:, :3].T + matrix[:, 3]
        place = torch.minimum(torch.maximum(place, -high), high)
        time = (frames.to(matrix) - self.clock[0]) * self.clock[1]
        return torch.cat([place, time[:, None], torch.full_like(time[:, None], changes)], 1).float()
