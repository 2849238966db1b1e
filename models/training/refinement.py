"""Photometric refinement: moves vertices until the rays of training pixels meet the surface at
points whose colour agrees.

A pixel's ray is fixed; its intersection with the plane of its face moves with the vertices: x = o +
t d, t = n.(a - o) / (n.d). With g = dL/dx and barycentrics b_k of x, the derivative by vertex k is
b_k (g.d) / (n.d) n, independent of the rasteriser. ``PlainRefinement`` takes the derivative by
autograd on any device; ``Refinement`` is the CPU's kernel. Both take Adam's step with a single second
moment for each vertex: that of its slope's length, so that the step does not depend on the axes of
the world.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.field import transform_points
from models.run import allocate, njit, run_tasks, split_range
from models.surface import GATHERED, compute_normal, compute_ray, gather_corners
from models.tools import DevicePixels, TrainingPixels, find_plane_hits

# Decay of Adam's moments. A shorter memory of the slope lets vertices shake apart, as few pixels of
# a batch see each of them.
_BETAS = 0.97, 0.99
GRAZING = 0.05
"""Least cosine between a ray and its face's normal; the slope of a face seen more edge-on is
noise."""
# Keeps the step of a vertex finite whose slopes have been zero.
_TINY = 1e-30
# Numbers of a vertex: mean slope (3), mean square of its length, sum of slopes (3), distance from
# the cameras.
_STATE = 8
# Vertices that are measured at a time.
_PART = 1 << 20


class Refinement:
    """Steps of all vertices of a clip, by the slopes of a training batch.

    Vertices that no pixel of the batch sees keep their position and their moments.
    """

    def __init__(
        self, pixels: TrainingPixels, positions: Float[np.ndarray, "V 3"], rate: float = 1e-4
    ):
        """
        Args:
            positions: world positions of the meshes' vertices; moved in place.
            rate: see ``TrainingOptions.refine_rate``.
        """
        self.pixels = pixels
        self.positions = positions
        self.rate = rate
        self.state = allocate((len(positions), _STATE), np.float32)
        _measure_distances(positions, pixels.world_from_cam, self.state[:, 7])
        self._corner = np.empty((0, 3), np.int32)
        self._push = np.empty((0, 3, 3), np.float32)

    def step(
        self,
        index: Int[Tensor, "B"],
        normalized_from_world: Float[Tensor, "4 4"],
        slope: Float[Tensor, "B 3"],
        rate: float,
    ) -> None:
        """Moves the vertices that pixels ``index`` see, given dL/dx of their normalised points.

        Args:
            rate: learning rate as a share of the rate at the start.
        """
        pixels = self.pixels
        corner, push = self._buffers(len(index))
        samples = index.numpy(), pixels.frame, pixels.pixel, pixels.face
        cameras = (
            pixels.inverse_K,
            pixels.world_from_cam,
            pixels.width,
            normalized_from_world.numpy(),
        )
        parts = split_range(len(index), 16)
        fixed = *samples, pixels.vertices, self.positions, *cameras, slope.numpy(), corner, push
        run_tasks(lambda i: _slopes(*parts[i], *fixed), len(parts))
        corner = corner.reshape(-1)
        push = push.reshape(-1, 3)
        # A thread owns a range of vertices and sums in the order of samples: the result does not
        # depend on the number of threads.
        shares = split_range(len(self.positions), torch.get_num_threads())
        size = np.float32(rate * self.rate)
        run_tasks(
            lambda i: _move(*shares[i], corner, push, self.positions, self.state, size), len(shares)
        )

    def _buffers(self, count: int) -> tuple[Int[np.ndarray, "B 3"], Float[np.ndarray, "B 3 3"]]:
        """Unfilled corners and slopes of ``count`` samples; the same memory each time, as fresh
        memory is slow."""
        if len(self._corner) != count:
            self._corner = np.empty((count, 3), np.int32)
            self._push = np.empty((count, 3, 3), np.float32)
        return self._corner, self._push

    def state_dict(self, done: bool = False) -> dict[str, Tensor]:
        """Positions and moments, from which a stopped run goes on to the bit; shared, not copied.

        Args:
            done: leave out the moments, which only further steps need.
        """
        positions = {"positions": torch.from_numpy(self.positions)}
        return positions if done else {**positions, "state": torch.from_numpy(self.state)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over the result of ``state_dict``."""
        self.positions[:] = state["positions"].numpy()
        if "state" in state:
            self.state[:] = state["state"].numpy()

    @property
    def moved(self) -> Float[Tensor, "V 3"]:
        """The positions that steps move; shared, not copied."""
        return torch.from_numpy(self.positions)

    def publish(self) -> None:
        """Nothing to do: this class moves the meshes' own array."""


class PlainRefinement:
    """``Refinement`` in plain torch, on the device of ``pixels``, whose positions move."""

    def __init__(
        self, pixels: DevicePixels, positions: Float[np.ndarray, "V 3"], rate: float = 1e-4
    ):
        """
        Args:
            positions: world positions of the meshes' vertices, overwritten by ``publish``.
            rate: see ``TrainingOptions.refine_rate``.
        """
        self.pixels = pixels
        self.rate = rate
        self._published = positions
        self.mean = torch.zeros_like(pixels.positions)
        self.square = torch.zeros_like(pixels.positions[:, 0])
        away = np.empty(len(positions), np.float32)
        _measure_distances(positions, pixels.world_from_cam.cpu().numpy(), away)
        self.distance = torch.from_numpy(away).to(pixels.positions)

    def step(
        self,
        index: Int[Tensor, "B"],
        normalized_from_world: Float[Tensor, "4 4"],
        slope: Float[Tensor, "B 3"],
        rate: float,
    ) -> None:
        """See ``Refinement.step``."""
        pixels = self.pixels
        corner = pixels.corners(index)
        origin, ray = pixels.rays(index)
        vertices = pixels.positions[corner].double().requires_grad_()
        with torch.enable_grad():
            points = transform_points(normalized_from_world, find_plane_hits(vertices, origin, ray))
            (push,) = torch.autograd.grad(points, vertices, slope.double())
        a, b, c = vertices.detach().unbind(1)
        normal = torch.linalg.cross(b - a, c - a)
        facing = (normal * ray).sum(1).abs() > GRAZING * normal.norm(dim=1) * ray.norm(dim=1)
        summed = torch.zeros_like(self.mean).double()
        summed.index_add_(0, corner[facing].flatten(), push[facing].reshape(-1, 3))
        # Vertices without a slope keep their moments, as in the kernel.
        hit = summed.ne(0).any(1).nonzero()[:, 0]
        total = summed[hit].float()
        beta1, beta2 = _BETAS
        self.mean[hit] = beta1 * self.mean[hit] + (1 - beta1) * total
        self.square[hit] = beta2 * self.square[hit] + (1 - beta2) * total.square().sum(1)
        size = rate * self.rate * self.distance[hit] / (self.square[hit].sqrt() + _TINY)
        pixels.positions[hit] -= size[:, None] * self.mean[hit]

    def state_dict(self, done: bool = False) -> dict[str, Tensor]:
        """See ``Refinement.state_dict``."""
        kept = ("positions",) if done else ("positions", "mean", "square")
        return {name: tensor.cpu() for name, tensor in self._tensors().items() if name in kept}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over the result of ``state_dict``."""
        own = self._tensors()
        for name, values in state.items():
            own[name].copy_(values)
        self.publish()

    @property
    def moved(self) -> Float[Tensor, "V 3"]:
        """See ``Refinement.moved``."""
        return self.pixels.positions

    def _tensors(self) -> dict[str, Tensor]:
        return {"positions": self.pixels.positions, "mean": self.mean, "square": self.square}

    def publish(self) -> None:
        """Copies the positions on the device to the meshes' vertices."""
        self._published[:] = self.pixels.positions.cpu().numpy()


def _measure_distances(
    positions: Float[np.ndarray, "V 3"],
    world_from_cam: Float[np.ndarray, "F 4 4"],
    out: Float[np.ndarray, "V"],
) -> None:
    """Writes the distance of each vertex from the mean camera centre, in world units; 0 for a vertex
    that is not finite, which stays in place."""
    center = world_from_cam[:, :3, 3].mean(0).astype(np.float32)
    # Some at a time: a long clip has tens of millions.
    for begin in range(0, len(positions), _PART):
        part = slice(begin, begin + _PART)
        away = np.linalg.norm(positions[part] - center, axis=1)
        out[part] = np.where(np.isfinite(away), away, 0)


@njit(nogil=True, cache=True, error_model="numpy")
def _slope_in_world(matrix, x, y, z, slope):
    """dL/d(world point), from dL/d(its image under a projective map)."""
    # Quotient rule of the homogeneous division by w.
    w = matrix[3, 0] * x + matrix[3, 1] * y + matrix[3, 2] * z + matrix[3, 3]
    along = 0.0
    for k in range(3):
        along += (
            slope[k] * (matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] * z + matrix[k, 3]) / w
        )
    gx = (
        slope[0] * matrix[0, 0]
        + slope[1] * matrix[1, 0]
        + slope[2] * matrix[2, 0]
        - along * matrix[3, 0]
    )
    gy = (
        slope[0] * matrix[0, 1]
        + slope[1] * matrix[1, 1]
        + slope[2] * matrix[2, 1]
        - along * matrix[3, 1]
    )
    gz = (
        slope[0] * matrix[0, 2]
        + slope[1] * matrix[1, 2]
        + slope[2] * matrix[2, 2]
        - along * matrix[3, 2]
    )
    return gx / w, gy / w, gz / w


@njit(nogil=True, cache=True, error_model="numpy")
def _share(nx, ny, nz, b, c, x, y, z):
    """Barycentric coordinate of (x, y, z) for the corner opposite to edge b c, times the squared
    normal."""
    # Twice the signed area of (b, c, x), times the normal's length.
    ex = c[0] - b[0]
    ey = c[1] - b[1]
    ez = c[2] - b[2]
    px = x - b[0]
    py = y - b[1]
    pz = z - b[2]
    return (ey * pz - ez * py) * nx + (ez * px - ex * pz) * ny + (ex * py - ey * px) * nz


@njit(nogil=True, cache=True, error_model="numpy")
def _slopes(
    begin, end, index, frame, pixel, face, vertices, positions, inverse_K, pose, width, matrix, slope, corner, push
):  # fmt: skip
    """Corners of the faces of samples [begin, end), and dL/d(their positions)."""
    places = np.empty((GATHERED, 3), np.int64)
    spots = np.empty((GATHERED, 3, 3))
    for start in range(begin, end, GATHERED):
        stop = min(start + GATHERED, end)
        gather_corners(start, stop, index, frame, pixel, face, vertices, places, corner[start:stop])
        for i in range(start, stop):
            for k in range(3):
                for axis in range(3):
                    spots[i - start, k, axis] = positions[corner[i, k], axis]
        for i in range(start, stop):
            place, (a, b, c) = places[i - start], spots[i - start]
            # A face seen edge-on gives no slope.
            push[i] = 0
            nx, ny, nz = compute_normal(a, b, c)
            ox, oy, oz, dx, dy, dz = compute_ray(place[0], place[1], inverse_K, pose, width)
            # Cosine of ray and normal, times both lengths.
            facing = nx * dx + ny * dy + nz * dz
            squared = nx * nx + ny * ny + nz * nz
            if not abs(facing) > GRAZING * math.sqrt(squared * (dx * dx + dy * dy + dz * dz)):
                continue
            # t of the plane's intersection, see the formula at the top.
            depth = (nx * (a[0] - ox) + ny * (a[1] - oy) + nz * (a[2] - oz)) / facing
            x = ox + depth * dx
            y = oy + depth * dy
            z = oz + depth * dz
            gx, gy, gz = _slope_in_world(matrix, x, y, z, slope[i])
            # (g.d) / (n.d), over |n|^2 as _share leaves barycentrics unnormalised.
            along = (gx * dx + gy * dy + gz * dz) / (facing * squared)
            first = _share(nx, ny, nz, b, c, x, y, z)
            second = _share(nx, ny, nz, c, a, x, y, z)
            for k, share in ((0, first), (1, second), (2, squared - first - second)):
                push[i, k, 0] = share * along * nx
                push[i, k, 1] = share * along * ny
                push[i, k, 2] = share * along * nz


@njit(nogil=True, cache=True, error_model="numpy")
def _move(begin, end, corner, push, positions, state, rate):
    """Sums the slopes of vertices [begin, end) in the order of samples, and takes a step with
    each vertex that has a slope."""
    beta1 = np.float32(_BETAS[0])
    beta2 = np.float32(_BETAS[1])
    one = np.float32(1)
    tiny = np.float32(_TINY)
    for i in range(len(corner)):
        if begin <= corner[i] < end:
            # Elements 4 to 6 are the sum of slopes, zero between steps.
            for k in range(3):
                state[corner[i], 4 + k] += push[i, k]
    for i in range(len(corner)):
        v = corner[i]
        if not begin <= v < end:
            continue
        x = state[v, 4]
        y = state[v, 5]
        z = state[v, 6]
        # No slope, or the vertex has taken its step for an earlier sample.
        if x == 0 and y == 0 and z == 0:
            continue
        # Adam with one second moment: of the slope's squared length.
        state[v, 3] = beta2 * state[v, 3] + (one - beta2) * (x * x + y * y + z * z)
        size = rate * state[v, 7] / (np.float32(math.sqrt(state[v, 3])) + tiny)
        for k in range(3):
            state[v, k] = beta1 * state[v, k] + (one - beta1) * state[v, 4 + k]
            positions[v, k] -= size * state[v, k]
            state[v, 4 + k] = 0
