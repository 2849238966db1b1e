"""Where a camera is on the clip's path, as a code that colours may depend on."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.cameras import Cameras

STILL = 1e-9
"""Spread of camera centres, as a share of their distance from the origin, that rounding makes."""


class Viewpoints(nn.Module):
    """Places of cameras as codes that the colour may depend on: where on the clip's path, -1 to 1.

    The axes are those in which the cameras spread, all in the unit of the widest; a place off the path counts as the
    nearest of the box round it, for nobody saw what a highlight does there.
    """

    WIDTH = 3

    def __init__(self, code_from_world: Float[Tensor, "3 4"], high: Float[Tensor, "3"]):
        """Args: high: largest code along each axis; the least is its opposite."""
        super().__init__()
        self.register_buffer("code_from_world", code_from_world.double())
        self.register_buffer("high", high.double())

    @staticmethod
    def of(cameras: Cameras) -> "Viewpoints":
        """Those of a clip's cameras; all have the code 0 if the camera stands still."""
        centers = cameras.centers.double()
        _, _, axes = torch.linalg.svd(centers - centers.mean(0), full_matrices=True)
        along = centers @ axes.T
        low, high = along.amin(0), along.amax(0)
        middle, half = (low + high) / 2, (high - low) / 2
        scale = 1 / half.max() if float(half.max()) > STILL * float(centers.norm(dim=1).max()) else 0.0
        return Viewpoints(scale * torch.cat([axes, -middle[:, None]], 1), scale * half)

    def forward(self, centers: Float[Tensor, "C 3"]) -> Float[Tensor, "C 3"]:
        """Codes of camera centres in the world."""
        matrix, high = self.code_from_world, self.high
        code = centers.to(matrix) @ matrix[:, :3].T + matrix[:, 3]
        return torch.minimum(torch.maximum(code, -high), high).float()
