"""The two halves of the renderer: meshes that follow the tracks, and the colour field read at their
surface.

``TriangleMeshPipeline``: a frame's points -> mesh -> fragments in any camera.
``WorldSpaceTrianglePipeline``: fragments -> world points -> hash-grid features -> MLP -> rgb.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.cameras import Cameras
from models.field import ColorField, Viewpoints, transform_points
from models.run import InputError
from models.surface import (
    Fragments,
    FramePoints,
    Surface,
    build_mesh,
    find_hidden_points,
    find_used_vertices,
    rasterize_world,
)
from models.tracks import Tracks

CHUNK = 1 << 18
"""Points coloured at a time."""
NEAR = 1e-4
"""Smallest depth that is drawn, as a share of the scene's."""


@dataclass(frozen=True)
class Canvas:
    """The global pixel canvas that spans all frames' 2D vertices, and its origin in frame
    pixels."""

    left: float
    top: float
    width: float
    height: float

    @staticmethod
    def around(xy: Iterable[Float[np.ndarray, "V 2"]]) -> "Canvas":
        """The smallest canvas that holds all vertices."""
        xy = np.concatenate(list(xy))
        low, high = np.floor(xy.min(0)), np.ceil(xy.max(0))
        return Canvas(*map(float, (*low, *(high - low))))


class TriangleMeshPipeline:
    """One mesh a frame over a shared pool of vertices: the tracks' points and each mesh's own
    border."""

    def __init__(
        self,
        cameras: Cameras,
        vertices: Float[Tensor, "V 3"],
        faces: dict[int, Int[Tensor, "T 3"]],
        trust: dict[int, Float[Tensor, "T"]],
        canvas: Canvas,
    ):
        """See ``from_tracks``.

        Args:
            cameras: those of all frames of the clip.
            vertices: world positions.
            faces: vertex indices of each frame's mesh, by frame.
            trust: how far to believe each face, see ``FrameMesh``.
        """
        self.cameras = cameras
        self.vertices = vertices
        self.faces = faces
        self.trust = trust
        self.canvas = canvas

    @staticmethod
    def from_tracks(
        tracks: Tracks,
        frames: Iterable[int],
        masks: Bool[np.ndarray, "F H W"] | None = None,
        surface_of: Callable[[int], Surface] | None = None,
    ) -> "TriangleMeshPipeline":
        """The mesh of each of ``frames`` from the points visible in it, drawn at their projections.

        Points that other frames saw take part where the frame itself cannot see the scene: past its
        border, and behind the movers of ``masks``. With ``surface_of`` dense depth replaces points
        that it does not confirm.

        Raises:
            InputError: no frame has enough points for a mesh.
        """
        cameras = tracks.cameras
        points = tracks.xyz[0].double()
        pool = [points.float().numpy()]
        faces = {}
        trust = {}
        spans = []
        size = len(points)
        first, last = _lifetime(tracks.visible)
        for t in frames:
            seen = torch.nonzero(tracks.visible[t])[:, 0].numpy()
            xy, depth = (
                of_frame[0].numpy() for of_frame in cameras[[t]].project(points)
            )  # all at once fill memory
            gap = (first - t).clamp_min(0) + (t - last).clamp_min(0)
            mask = None if masks is None else masks[t]
            projected = FramePoints(xy, depth, np.arange(len(xy)), tracks.width, tracks.height)
            visible = tracks.visible[t].numpy()
            unseen = find_hidden_points(projected, gap.numpy(), visible, mask)
            fine = None
            if surface_of is not None:
                surface = surface_of(t)
                fine = surface.place_vertices(tracks.width, tracks.height)
                seen = seen[surface.confirms(projected[seen])]
            mesh = build_mesh(projected[np.concatenate([seen, unseen])], fine)
            if mesh is None:
                continue
            border = mesh.point < 0
            own = (
                torch.from_numpy(mesh.xy[border])[None],
                torch.from_numpy(mesh.depth[border])[None],
            )
            pool.append(cameras[[t]].unproject(*own)[0].float().numpy())
            index = mesh.point.astype(np.int32)  # half the memory of what torch is used to
            index[border] = size + np.arange(border.sum())
            size += int(border.sum())
            faces[t] = torch.from_numpy(index[mesh.faces])
            trust[t] = torch.from_numpy(mesh.trust)
            spans.append(np.stack([mesh.xy.min(0), mesh.xy.max(0)]))
        if not faces:
            raise InputError(
                "no frame has enough tracked points for a mesh: track more (a smaller --spacing)"
            )
        vertices = torch.from_numpy(np.concatenate(pool))
        return TriangleMeshPipeline(cameras, vertices, faces, trust, Canvas.around(spans))

    def fragments(
        self,
        t: int,
        view: Cameras,
        out: Fragments | None = None,
        device: torch.device | str = "cpu",
    ) -> Fragments:
        """Frame t's mesh in the image of one camera; faces across depth jumps included."""
        return self.draw_faces(self.faces[t], view, out, device)

    def draw_faces(
        self,
        faces: Int[Tensor, "T 3"],
        view: Cameras,
        out: Fragments | None = None,
        device: torch.device | str = "cpu",
    ) -> Fragments:
        """Any faces over the pool of vertices in the image of one camera."""
        used, own = find_used_vertices(faces, len(self.vertices))
        vertices = self.vertices[used].to(device)
        return rasterize_world(vertices, own.to(device), view, near=self.near, out=out)

    @property
    def near(self) -> float:
        """Smallest depth that is drawn, in world units."""
        return NEAR * self.depth_scale

    @cached_property
    def used(self) -> Int[Tensor, "U"]:
        """Vertices that some face has; points that no mesh could use may lie anywhere."""
        return self._corners(self.faces.values())

    def _corners(self, parts: Iterable[Int[Tensor, "T 3"]]) -> Int[Tensor, "U"]:
        """Vertices of some faces, in order."""
        found = torch.zeros(len(self.vertices), dtype=torch.bool)
        for faces in parts:  # to sort those of all frames takes gigabytes in a long clip
            found[faces.flatten().long()] = True
        return found.nonzero()[:, 0]

    def joined(self, times: Sequence[int]) -> tuple[Int[Tensor, "T 3"], Float[Tensor, "T"]]:
        """Faces and trust of some frames, one after the other; the frames' own become parts of
        them: held once."""
        size = sum(len(self.faces[t]) for t in times)
        faces = torch.empty((size, 3), dtype=torch.int32)
        trust = torch.empty(size)
        end = 0
        for t in times:
            part = slice(end, end + len(self.faces[t]))
            faces[part] = self.faces[t]
            trust[part] = self.trust[t]
            end = part.stop
            self.faces[t] = faces[part]
            self.trust[t] = trust[part]
        return faces, trust

    @cached_property
    def depth_scale(self) -> float:
        """Median distance of the points from the middle camera, in world units."""
        middle = self.cameras.centers[len(self.cameras) // 2]
        return float((self.vertices[self.used].double() - middle).norm(dim=1).median())

    def clearance(self, point: Float[Tensor, "3"]) -> float:
        """Distance from a world point to the nearest vertex of a surface, in world units."""
        trusted = self._corners(faces[self.trust[t] == 1] for t, faces in self.faces.items())
        vertices = self.vertices[trusted].double()
        return (
            float((vertices - point.double()).norm(dim=1).min())
            if len(vertices)
            else self.depth_scale
        )

    def inverse_depth(self, t: int, width: int, height: int) -> Float[np.ndarray, "h w"]:
        """1 / z-depth, in world units, of each pixel of frame t's own view of its mesh, scaled; 0
        where none is."""
        return 1 / self.fragments(t, self.cameras[t].resized(width, height)).depth.double().numpy()

    def nearest_frame(self, view: Cameras) -> int:
        """Frame with a mesh whose camera is nearest to one camera in position and direction."""
        return list(self.faces)[int(torch.argsort(self.view_costs(view), stable=True)[0])]

    def view_costs(self, view: Cameras) -> Float[Tensor, "M"]:
        """Distance of one camera from the camera of each frame with a mesh: position, as a share of
        the scene's depth, plus half the angle between their axes in radians."""
        axes = self.cameras[list(self.faces)].world_from_cam[:, :3, 2]
        axis = view.world_from_cam[0].double()[:3, 2]
        turned = torch.arccos((axes * axis).sum(1).clamp(-1, 1))
        return self.view_distances(view) + 0.5 * turned

    def view_distances(self, view: Cameras) -> Float[Tensor, "M"]:
        """Distance of one camera from the camera of each frame with a mesh, as a share of the
        scene's depth."""
        centers = self.cameras[list(self.faces)].centers
        return (centers - view.world_from_cam[0, :3, 3].double()).norm(dim=1) / self.depth_scale


def _lifetime(visible: Bool[Tensor, "F N"]) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    """First and last frame in which each track is seen."""
    far = len(visible)
    first, last = torch.full(visible.shape[1:], far), torch.full(visible.shape[1:], -far)
    for t, seen in enumerate(visible):
        first[seen & (first == far)] = t
        last[seen] = t
    return first, last


class WorldSpaceTrianglePipeline(nn.Module):
    """Colour of surface points: a hash grid over normalised world space and an MLP."""

    def __init__(
        self,
        field: ColorField,
        normalized_from_world: Float[Tensor, "4 4"],
        viewpoints: Viewpoints | None = None,
    ):
        """Args: viewpoints: gives the codes that the field reads; None for a field that reads
        none."""
        super().__init__()
        self.field = field
        self.viewpoints = viewpoints
        self.register_buffer("normalized_from_world", normalized_from_world.double())

    def seen_from(
        self, center: Float[Tensor, "3"], frame: float, changes: float = 1.0
    ) -> "WorldSpaceTrianglePipeline":
        """This renderer for a camera at one place of the world at one time; without it, for the
        middle of the path.

        Args:
            frame: the time, in frames of the clip.
            changes: how much what changes with time counts.
        """
        if self.viewpoints is None:
            return self
        field = self.field.specialize(self.viewpoints(center[None], torch.tensor([frame]), changes))
        return WorldSpaceTrianglePipeline(field, self.normalized_from_world)

    def forward(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3"]:
        """World points -> rgb in [0, 1]."""
        return self.field(transform_points(self.normalized_from_world, points.double()).float())

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3"]:
        """World points on any device -> rgb in [0, 1] on the same, a chunk at a time; in half
        precision on a GPU."""
        device = self.normalized_from_world.device
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            parts = [
                self(chunk.to(device)).float().to(points.device) for chunk in points.split(CHUNK)
            ]
        return torch.cat(parts) if len(points) else points.new_zeros((0, 3))
