"""The mesh of the movers of a frame, and its vertices at times between frames."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.cameras import Cameras
from models.surface import Fragments, rasterize_world

# Smallest z-depth that is drawn, as a share of the mover's median depth.
_NEAR = 1e-3
# Distance in frames up to which a known place bends a mover's path at a time.
_BEND_REACH = 4


@dataclass(frozen=True)
class MovingMesh:
    """Movers of a frame: triangles whose vertices have world positions in that frame and in nearby
    frames."""

    frame: int
    """Number of the frame."""
    times: Int[Tensor, "K"]
    """Frames with known places, rising; ``frame`` is among them."""
    places: Float[Tensor, "K V 3"]
    """World positions of the vertices in these frames."""
    source: Float[Tensor, "V 5"]
    """Canonical (u, v, w) of the vertices, and their pixels (x, y) in ``frame``."""
    faces: Int[Tensor, "T 3"]
    """Vertices of the triangles."""
    movers: Int[Tensor, "T"]
    """Number of the mover of each triangle, from 1, as in ``labels/``."""

    def __post_init__(self) -> None:
        """Checks the frames.

        Raises:
            ValueError: the number of places is not that of the times, or ``frame`` is not among
                them.
        """
        if len(self.times) != len(self.places) or self.frame not in self.times.tolist():
            raise ValueError(
                f"the mover's mesh of frame {self.frame} does not say where it is then"
            )

    @property
    def xyz(self) -> Float[Tensor, "V 3"]:
        """World positions in the mesh's own frame."""
        return self.places[self.times.tolist().index(self.frame)]

    def parts(self) -> tuple[Tensor, ...]:
        """All fields but the frame, in order."""
        return self.times, self.places, self.source, self.faces, self.movers

    def fragments(self, view: Cameras, xyz: Float[Tensor, "V 3"] | None = None) -> Fragments:
        """Rasterises the mesh.

        Args:
            view: a single camera.
            xyz: world positions of the vertices; by default in the mesh's own frame.
        """
        vertices = self.xyz if xyz is None else xyz
        return rasterize_world(vertices, self.faces, view, near_share=_NEAR)

    def place(self, time: float, centers: Float[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
        """World positions at a time between two known places; before the first and after the last
        known place, the positions in the mesh's own frame.

        A clip's camera observes the direction of a mover, while its distance may be a guess with
        another error in each frame. Therefore the directions from the camera follow a cubic through
        two places before and two after the time (Lagrange), and the distances a straight line. The
        directions begin at the same cubic of the camera's centres: from the camera of the time itself
        a mover would follow each of its shakes.

        Args:
            time: in frames of the clip.
            centers: of the clip's cameras, in the world.
        """
        around = None if time == self.frame else self._find_around(time)
        if around is None:
            return self.xyz
        before, after = around
        rays = [
            place.double() - centers[t] for t, place in zip(self.times, self.places, strict=True)
        ]
        tiny = torch.finfo(torch.float64).tiny
        lengths = [ray.norm(dim=1, keepdim=True).clamp_min(tiny) for ray in rays]
        here = [self.times.tolist().index(t) for t in (before, after)]
        share = (time - before) / (after - before)
        length = (1 - share) * lengths[here[0]] + share * lengths[here[1]]
        weights = self._weigh_places(time, before, after)
        direction = sum(weight * rays[i] / lengths[i] for i, weight in weights)
        center = sum(weight * centers[int(self.times[i])] for i, weight in weights)
        return (center + length * torch.nn.functional.normalize(direction, dim=1)).to(self.places)

    def is_placed(self, time: float) -> bool:
        """True at times between known places."""
        return bool(self.times[0] <= time <= self.times[-1])

    def _find_around(self, time: float) -> tuple[int, int] | None:
        """The nearest frames with known places before and after a time; None without both."""
        times = self.times.tolist()
        before = [t for t in times if t <= time]
        after = [t for t in times if t > time]
        return (before[-1], after[0]) if before and after else None

    def _weigh_places(self, time: float, before: int, after: int) -> list[tuple[int, float]]:
        """Rows of ``places`` that count at a time, and their Lagrange weights."""
        times = self.times.tolist()
        near = [t for t in times if t in (before, after) or abs(t - time) <= _BEND_REACH]
        nodes = [t for t in near if t <= before][-2:] + [t for t in near if t >= after][:2]
        weights = []
        for t in nodes:
            weight = 1.0
            for other in nodes:
                weight *= (time - other) / (t - other) if other != t else 1.0
            weights.append((times.index(t), weight))
        return weights
