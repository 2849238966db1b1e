"""The mesh of one frame's movers, and where it is between frames."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.cameras import Cameras
from models.surface import Fragments, rasterize_world

NEAR = 1e-3
"""Smallest depth that is drawn, as a share of the mover's."""
NODES_WITHIN = 4
"""Frames further than this from a time do not say how a mover's path bends there."""


@dataclass(frozen=True)
class MovingMesh:
    """Movers of one frame."""

    frame: int
    times: Int[Tensor, "K"]
    """Frames in which its places are known, in order; its own is among them."""
    places: Float[Tensor, "K V 3"]
    """World positions of its vertices in those frames."""
    source: Float[Tensor, "V 5"]
    """Canonical (u, v, w) and the pixel (x, y) in the frame."""
    faces: Int[Tensor, "T 3"]

    def __post_init__(self) -> None:
        """Raises: ValueError: the places known are not one for each time, or its own is not among
        them."""
        if len(self.times) != len(self.places) or self.frame not in self.times.tolist():
            raise ValueError(
                f"the mover's mesh of frame {self.frame} does not say where it is then"
            )

    @property
    def xyz(self) -> Float[Tensor, "V 3"]:
        """World positions at the frame's own time."""
        return self.places[self.times.tolist().index(self.frame)]

    def fragments(self, view: Cameras, xyz: Float[Tensor, "V 3"] | None = None) -> Fragments:
        """The mesh in the image of one camera, its vertices at ``xyz`` or at their positions in its
        own frame."""
        vertices = self.xyz if xyz is None else xyz
        return rasterize_world(vertices, self.faces, view, near_share=NEAR)

    def placed(self, time: float, centers: Float[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
        """World positions at a time, in frames.

        What a clip's camera sees of a mover is its direction, while its distance may be a guess,
        and another one in the next frame; so directions from the camera follow a cubic through two
        places before and two after (Lagrange), and distances a straight line. Past the places known
        the mover stays where it is.

        Args:
            centers: of the clip's cameras.
        """
        if time == self.frame:
            return self.xyz
        around = self._around(time)
        if around is None:
            return self.xyz
        before, after = around
        rays = [
            place.double() - centers[t] for t, place in zip(self.times, self.places, strict=True)
        ]
        lengths = [
            ray.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny) for ray in rays
        ]
        here = [self.times.tolist().index(t) for t in (before, after)]
        share = (time - before) / (after - before)
        length = (1 - share) * lengths[here[0]] + share * lengths[here[1]]
        direction = sum(w * rays[i] / lengths[i] for i, w in self._weights(time, before, after))
        # The camera goes straight from frame to frame.
        low = min(int(time), len(centers) - 2)
        center = centers[low] + (time - low) * (centers[low + 1] - centers[low])
        return (center + length * torch.nn.functional.normalize(direction, dim=1)).to(self.places)

    def _around(self, time: float) -> tuple[int, int] | None:
        """The frames before and after a time, of those whose places are known."""
        times = self.times.tolist()
        before = [t for t in times if t <= time]
        after = [t for t in times if t > time]
        return (before[-1], after[0]) if before and after else None

    def _weights(self, time: float, before: int, after: int) -> list[tuple[int, float]]:
        """Which places count at a time, and how much."""
        times = self.times.tolist()
        nodes = [t for t in times if t in (before, after) or abs(t - time) <= NODES_WITHIN]
        lower = [t for t in nodes if t <= before][-2:]
        upper = [t for t in nodes if t >= after][:2]
        weights = []
        for t in (nodes := lower + upper):
            weight = 1.0
            for other in nodes:
                weight *= (time - other) / (t - other) if other != t else 1.0
            weights.append((times.index(t), weight))
        return weights
