"""The two halves of the renderer: meshes that follow the tracks, and the colour field read at their
surface.

``TriangleMeshPipeline``: the points of a frame -> mesh -> fragments in any camera.
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
from models.run import InputError, Shelf, allocate, run_ahead
from models.surface import (
    Fragments,
    FrameMesh,
    FramePoints,
    MeshOptions,
    Surface,
    build_mesh,
    find_hidden_points,
    find_used_vertices,
    rasterize_world,
)
from models.tracks import Tracks, find_lifetimes

# Smallest depth that is drawn, as a share of the scene's depth.
_NEAR_SHARE = 1e-4
# Vertices of which the scene's depth is the median, at most.
_MEDIAN_VERTICES = 1 << 21
# Points coloured at a time: bounds the memory of their features.
_COLOR_CHUNK = 1 << 18


@dataclass(frozen=True)
class Canvas:
    """Bounding rectangle, in frame pixels, of the 2D vertices of all frames' meshes: the global
    canvas of the pipeline. Part of every model file."""

    left: float
    """x of the left edge; negative, as meshes reach past the image."""
    top: float
    """y of the upper edge."""
    width: float
    height: float

    @staticmethod
    def around(xy: Iterable[Float[np.ndarray, "V 2"]]) -> "Canvas":
        """The smallest canvas of whole pixels that holds all vertices."""
        xy = np.concatenate(list(xy))
        low, high = np.floor(xy.min(0)), np.ceil(xy.max(0))
        return Canvas(*map(float, (*low, *(high - low))))


class TriangleMeshPipeline:
    """A mesh for each frame over a shared pool of vertices: the tracks' points, and the border
    vertices of each mesh."""

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
            cameras: the cameras of all frames of the clip.
            vertices: world positions.
            faces: vertex indices of each frame's mesh, by frame.
            trust: trust in each face, 0 to 1, by frame; see ``FrameMesh``.
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
        options: MeshOptions = MeshOptions(),
    ) -> "TriangleMeshPipeline":
        """The mesh of each of ``frames`` from the points visible in it, at their projections.

        Points of other frames fill the parts of the scene that the frame does not see: past its
        border, and behind the movers of ``masks``. With ``surface_of``, dense depth replaces the
        points that stereo does not confirm.

        Raises:
            InputError: no frame has enough points for a mesh.
        """
        builder = _MeshBuilder(tracks, masks, options)
        measured = ((t, None if surface_of is None else surface_of(t)) for t in frames)
        # A mesh is built in one thread, while the next frame's depth is measured in all.
        for t, mesh in run_ahead(builder.build_mesh, measured, threads=1):
            builder.add(t, mesh)
        return builder.build()

    def fragments(
        self,
        t: int,
        view: Cameras,
        out: Fragments | None = None,
        device: torch.device | str = "cpu",
    ) -> Fragments:
        """Frame t's mesh in a camera's image; faces across depth jumps included."""
        return self.draw_faces(self.faces[t], view, out, device)

    def draw_faces(
        self,
        faces: Int[Tensor, "T 3"],
        view: Cameras,
        out: Fragments | None = None,
        device: torch.device | str = "cpu",
    ) -> Fragments:
        """Any faces over the pool of vertices in a camera's image."""
        used, own = find_used_vertices(faces, len(self.vertices))
        vertices = self.vertices[used].to(device)
        return rasterize_world(vertices, own.to(device), view, near=self.near, out=out)

    @property
    def near(self) -> float:
        """Smallest depth that is drawn, in world units."""
        return _NEAR_SHARE * self.depth_scale

    def shared_vertices(self) -> Float[np.ndarray, "V 3"]:
        """``vertices`` as an array over the same memory: whoever writes to it moves the meshes."""
        return self.vertices.numpy()

    def gather_used(self) -> Float[Tensor, "U 3"]:
        """Positions of the vertices of some face; of a long clip in a temporary file. All others may
        lie anywhere: no mesh could use their points."""
        found = np.zeros(len(self.vertices), bool)
        # A mark for each vertex: sorting all frames' corners would take gigabytes in a long clip.
        for faces in self.faces.values():
            found[faces.numpy()] = True
        out = allocate((np.count_nonzero(found), 3), np.float32)
        return torch.from_numpy(np.compress(found, self.vertices.numpy(), 0, out))

    def join_in_place(self, times: Sequence[int]) -> tuple[Int[Tensor, "T 3"], Float[Tensor, "T"]]:
        """Moves faces and trust of some frames into two joined arrays, and returns the arrays.

        ``faces[t]`` and ``trust[t]`` become views of the joined arrays, in the order of ``times``,
        so that memory holds each face once.
        """
        size = sum(len(self.faces[t]) for t in times)
        faces = torch.from_numpy(allocate((size, 3), np.int32))
        trust = torch.from_numpy(allocate([size], np.float32))
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
        """The scene's depth: median distance of the vertices from the middle frame's camera, in
        world units."""
        # The median, as a few vertices may lie very far away.
        middle = self.cameras.centers[len(self.cameras) // 2]
        vertices = self.gather_used()
        step = max(1, -(-len(vertices) // _MEDIAN_VERTICES))
        return float((vertices[::step].double() - middle).norm(dim=1).median())

    def clearance(self, point: Float[Tensor, "3"]) -> float:
        """Distance from a world point to the nearest vertex of a fully trusted face, in world
        units."""
        trusted = (faces[self.trust[t] == 1].flatten().long() for t, faces in self.faces.items())
        nearest = [
            float((self.vertices[own].double() - point.double()).norm(dim=1).min())
            for own in trusted
            if len(own)
        ]
        return min(nearest, default=self.depth_scale)

    def inverse_depth(self, t: int, width: int, height: int) -> Float[np.ndarray, "h w"]:
        """1 / z-depth, per world unit, of frame t's mesh in an image of another size of its own
        camera; 0 off the mesh."""
        return 1 / self.fragments(t, self.cameras[t].resized(width, height)).depth.double().numpy()

    def nearest_frame(self, view: Cameras) -> int:
        """Frame with a mesh whose camera is nearest to a camera in position and direction."""
        return list(self.faces)[int(torch.argsort(self.view_costs(view), stable=True)[0])]

    def view_costs(self, view: Cameras) -> Float[Tensor, "M"]:
        """Distance of a camera from the camera of each frame with a mesh: position, as a share of
        the scene's depth, plus half the angle between their axes in radians."""
        axes = self.cameras[list(self.faces)].world_from_cam[:, :3, 2]
        axis = view.world_from_cam[0].double()[:3, 2]
        turned = torch.arccos((axes * axis).sum(1).clamp(-1, 1))
        return self.view_distances(view) + 0.5 * turned

    def view_distances(self, view: Cameras) -> Float[Tensor, "M"]:
        """Distance of a camera from the camera of each frame with a mesh, as a share of the
        scene's depth."""
        centers = self.cameras[list(self.faces)].centers
        return (centers - view.world_from_cam[0, :3, 3].double()).norm(dim=1) / self.depth_scale

    def path_distance(self, view: Cameras) -> float:
        """Distance of a camera from the line segments between successive frames with a mesh, as a
        share of the scene's depth."""
        centers = self.cameras[list(self.faces)].centers.double()
        point = view.world_from_cam[0, :3, 3].double()
        start = centers[:-1]
        along = centers.diff(dim=0)
        # a camera that stands still has segments of length 0
        squared = (along * along).sum(1).clamp_min(torch.finfo(torch.float64).tiny)
        share = ((point - start) * along).sum(1) / squared
        nearest = torch.cat([start + share.clamp(0, 1)[:, None] * along, centers[-1:]])
        return float((nearest - point).norm(dim=1).min()) / self.depth_scale


class _MeshBuilder:
    """Meshes of a clip's frames, added in turn to a common pool of vertices."""

    def __init__(
        self,
        tracks: Tracks,
        masks: Bool[np.ndarray, "F H W"] | None,
        options: MeshOptions,
    ):
        self.tracks = tracks
        self.masks = masks
        self.options = options
        self.cameras = tracks.cameras
        self.points = tracks.xyz[0].double()
        self.first, self.last = find_lifetimes(tracks.visible.numpy())
        self._shelf = Shelf()
        self.pool = [self.points.float().numpy()]
        """World positions: the tracks', followed by the border vertices of each mesh."""
        self.size = len(self.points)
        """Vertices in the pool."""
        self.faces: dict[int, Int[Tensor, "T 3"]] = {}
        self.trust: dict[int, Float[Tensor, "T"]] = {}
        self.spans: list[Float[np.ndarray, "2 2"]] = []
        """Lowest and highest 2D vertex of each mesh, in pixels."""

    def build(self) -> TriangleMeshPipeline:
        """The meshes added so far.

        Raises:
            InputError: no frame had enough points for a mesh.
        """
        if not self.faces:
            raise InputError(
                "no frame has enough tracked points for a mesh: track more (a smaller --spacing)"
            )
        vertices = np.concatenate(self.pool, out=allocate((self.size, 3), np.float32))
        canvas = Canvas.around(self.spans)
        vertices = torch.from_numpy(vertices)
        return TriangleMeshPipeline(self.cameras, vertices, self.faces, self.trust, canvas)

    def add(self, t: int, mesh: FrameMesh | None) -> None:
        """Adds frame t's mesh, if it has one, to the pool."""
        if mesh is None:
            return
        border = mesh.point < 0
        xy = torch.from_numpy(mesh.xy[border])[None]
        depth = torch.from_numpy(mesh.depth[border])[None]
        own = self.cameras[t].unproject(xy, depth)[0].float().numpy()
        self.pool.append(self._shelf.keep(own))
        # int32 takes half the memory of torch's usual int64.
        index = mesh.point.astype(np.int32)
        index[border] = self.size + np.arange(border.sum())
        self.size += int(border.sum())
        self.faces[t] = torch.from_numpy(self._shelf.keep(index[mesh.faces]))
        self.trust[t] = torch.from_numpy(self._shelf.keep(mesh.trust))
        self.spans.append(np.stack([mesh.xy.min(0), mesh.xy.max(0)]))

    def build_mesh(self, measured: tuple[int, Surface | None]) -> tuple[int, FrameMesh | None]:
        """A frame's number, and its mesh from its own and hidden points and its dense depth; None
        if there are too few points."""
        t, surface = measured
        tracks = self.tracks
        # Frame by frame: the projections into all frames would fill the memory.
        xy, depth = (of_frame[0].numpy() for of_frame in self.cameras[t].project(self.points))
        projected = FramePoints(xy, depth, np.arange(len(xy)), tracks.width, tracks.height)
        visible = tracks.visible[t].numpy()
        gap = np.maximum(self.first - t, 0) + np.maximum(t - self.last, 0)
        mask = None if self.masks is None else self.masks[t]
        hidden = find_hidden_points(projected, gap, visible, mask, self.options)
        seen = np.flatnonzero(visible)
        fine = None
        if surface is not None:
            fine = surface.place_vertices(tracks.width, tracks.height)
            seen = seen[surface.confirms(projected[seen])]
            hidden = hidden[surface.confirms(projected[hidden])]
        return t, build_mesh(projected[np.concatenate([seen, hidden])], fine, self.options)


class WorldSpaceTrianglePipeline(nn.Module):
    """Colour of surface points: a hash grid over normalised world space and an MLP."""

    def __init__(
        self,
        field: ColorField,
        normalized_from_world: Float[Tensor, "4 4"],
        viewpoints: Viewpoints | None = None,
    ):
        """
        Args:
            normalized_from_world: projective map into the field's box [-1, 1]^3.
            viewpoints: gives the codes of views; None for a field that reads none.
        """
        super().__init__()
        self.field = field
        self.viewpoints = viewpoints
        self.register_buffer("normalized_from_world", normalized_from_world.double())

    def seen_from(
        self, center: Float[Tensor, "3"], frame: float, changes: float = 1.0
    ) -> "WorldSpaceTrianglePipeline":
        """This renderer specialised to a camera position and a time. A renderer that is not
        specialised shows the middle of the camera path.

        Args:
            center: the camera's centre in the world.
            frame: the time, in frames of the clip.
            changes: weight of the grid of changes, 0 to 1.
        """
        if self.viewpoints is None:
            return self
        code = self.viewpoints(center[None], torch.tensor([frame]), changes)
        return WorldSpaceTrianglePipeline(self.field.specialize(code), self.normalized_from_world)

    def forward(self, points: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3"]:
        """World points -> rgb in [0, 1]."""
        return self.field(transform_points(self.normalized_from_world, points.double()).float())

    @torch.no_grad()
    def colors(
        self, points: Float[Tensor, "S 3"], chunk: int = _COLOR_CHUNK
    ) -> Float[Tensor, "S 3"]:
        """World points on any device -> rgb in [0, 1] on the same device, ``chunk`` points at a
        time; in half precision on a GPU."""
        if not len(points):
            return points.new_zeros((0, 3))
        device = self.normalized_from_world.device
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            parts = [
                self(part.to(device)).float().to(points.device) for part in points.split(chunk)
            ]
        return torch.cat(parts)
