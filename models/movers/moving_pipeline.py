"""The moving layer: a mesh of the movers of each frame, carried to any time and camera, with a soft
outline.

``MovingMeshPipeline`` stands beside ``TriangleMeshPipeline``: its vertices move, and the colour
field is read not at world points but at canonical coordinates (u, v, w): the place on the
mover, with the movers one behind another along w. Changes of colour with time are the field's.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.cameras import Cameras
from models.movers.mesh import MovingMesh
from models.movers.mesh_building import build_mover_mesh
from models.movers.options import MoverOptions
from models.movers.soft_mask import SoftMask
from models.pipeline import WorldSpaceTrianglePipeline
from models.run import SILENT, Progress
from models.surface import interpolate
from models.tracks import Tracks

# Frames with a mesh to either side of a mesh's own frame in which its places are noted.
_NOTED_FRAMES = 2
# Least and most cells along an axis of the hash grid's finest level.
_MIN_CELLS = 128
_MAX_CELLS = 2048
# Quantiles of u and v that the box of the grid holds, and its side relative to their range.
_BOX_QUANTILES = 0.01, 0.99
_BOX_MARGIN = 1.3
# Distance between two movers along w, in widths or heights of the former.
_APART = 0.5
# Smallest range of u and v that a box is made for, in pixels.
_MIN_RANGE = 16
# Vertices from which quantiles are taken, about.
_QUANTILE_VERTICES = 100_000


@dataclass(frozen=True)
class MoverPicture:
    """Movers as a camera sees them."""

    rgb: Float[np.ndarray, "H W 3"]
    """Colours, 0 to 1."""
    alpha: Float[np.ndarray, "H W"]
    """Opacity, 0 to 1."""
    depth: Float[np.ndarray, "H W"]
    """z-depth in world units; inf beside the movers."""


class MovingMeshPipeline:
    """Meshes of the movers of all frames that have some."""

    def __init__(
        self,
        meshes: dict[int, MovingMesh],
        alpha: dict[int, SoftMask],
        cameras: Cameras,
        options: MoverOptions = MoverOptions(),
    ):
        """See ``from_tracks``.

        Args:
            meshes: by frame.
            alpha: soft masks of the movers, by frame.
            cameras: of all frames of the clip.
            options: how movers are drawn.
        """
        self.meshes = meshes
        self.alpha = alpha
        self.cameras = cameras
        self.options = options

    @staticmethod
    def from_tracks(
        tracks: Tracks,
        masks: Bool[np.ndarray, "F H W"],
        frames: list[int],
        progress: Progress = SILENT,
        options: MoverOptions = MoverOptions(),
    ) -> "MovingMeshPipeline":
        """Meshes of the movers of some frames, from the moving tracks visible in each.

        Args:
            tracks: of the moving layer.
            masks: of the movers.
            frames: rising numbers of the frames that get a mesh if they have movers.
        """
        frames = [t for t in frames if masks[t].any()]
        tracks = replace(tracks, canonical=_set_apart(tracks))
        meshes = {}
        alpha = {}
        for i, t in enumerate(progress.over(frames, "mover meshes")):
            near = frames[max(0, i - _NOTED_FRAMES) : i + _NOTED_FRAMES + 1]
            mesh = build_mover_mesh(tracks, masks[t], t, near, options)
            if mesh is not None:
                meshes[t] = mesh
                alpha[t] = SoftMask.of(masks[t], options.edge_softness)
        return MovingMeshPipeline(meshes, alpha, tracks.cameras, options)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the movers, from 1, as in ``labels/``."""
        every = [mesh.movers.unique() for mesh in self.meshes.values()]
        return torch.cat(every).unique().tolist() if every else []

    def keep(self, numbers: Collection[int]) -> "MovingMeshPipeline":
        """The same with some of the movers alone.

        Args:
            numbers: of the movers to keep.
        """
        wanted = torch.tensor(sorted(numbers), dtype=torch.long)
        meshes = {}
        for t, mesh in self.meshes.items():
            kept = torch.isin(mesh.movers, wanted)
            if kept.any():
                meshes[t] = replace(mesh, faces=mesh.faces[kept], movers=mesh.movers[kept])
        alpha = {t: self.alpha[t] for t in meshes}
        return MovingMeshPipeline(meshes, alpha, self.cameras, self.options)

    def find_frames(self, time: float) -> list[tuple[int, float]]:
        """The frames whose meshes show a time, with shares that sum to 1; empty without movers."""
        before = max((t for t in self.meshes if t <= time), default=None)
        after = min((t for t in self.meshes if t > time), default=None)
        if before is not None and after is not None and before != time:
            gap = after - before
            # Over a longer gap the mover was hidden or away, and its path between is a guess.
            if gap <= self.options.longest_gap:
                share = (time - before) / gap
                return [(before, 1 - share), (after, share)]
        near = [t for t in (before, after) if t is not None and abs(t - time) <= 1]
        return [(min(near, key=lambda t: abs(t - time)), 1.0)] if near else []

    def draw(
        self, renderer: WorldSpaceTrianglePipeline, view: Cameras, time: float
    ) -> MoverPicture | None:
        """The movers at a time as a camera sees them; None if no mover is in view.

        Between two frames the movers of both are carried to the time, each with its own colours,
        and averaged.

        Args:
            renderer: the colour field over canonical coordinates.
            view: a single camera.
            time: in frames of the clip.
        """
        drawn = []
        for t, share in self.find_frames(time):
            picture = self._draw_frame(renderer, view, time, t)
            if picture is not None:
                drawn.append((picture, share))
        if len(drawn) < 2:
            return drawn[0][0] if drawn else None
        # Colours count by their alpha: the soft edge of a picture has hardly any.
        alpha = sum(share * picture.alpha for picture, share in drawn)
        rgb = sum((share * picture.alpha)[..., None] * picture.rgb for picture, share in drawn)
        rgb /= np.where(alpha > 0, alpha, 1)[..., None]
        return MoverPicture(rgb, alpha, np.minimum(*(picture.depth for picture, _ in drawn)))

    def _draw_frame(
        self, renderer: WorldSpaceTrianglePipeline, view: Cameras, time: float, t: int
    ) -> MoverPicture | None:
        """Frame t's movers at their places of ``time``, with the colours of frame t.

        The colour field has learned frame t's pixels. In other views its pixels fall between them:
        several samples a pixel are averaged.
        """
        mesh = self.meshes[t]
        centers = self.cameras.centers.double()
        own = renderer.seen_from(centers[t], t)
        is_own_view = time == t and view.same_as(self.cameras[t])
        side = 1 if is_own_view else self.options.subpixels
        camera = view.resized(side * view.width, side * view.height)
        fragments = mesh.fragments(camera, mesh.place(time, centers))
        rows, columns = np.nonzero(fragments.face.numpy() >= 0)
        if not len(rows):
            return None
        source = interpolate(fragments, mesh.faces, mesh.source)[rows, columns]
        rgba = np.zeros((camera.height, camera.width, 4), np.float32)
        rgba[rows, columns, :3] = own.colors(source[:, :3]).numpy()
        rgba[rows, columns, 3] = self.alpha[t].at(source[:, 3:].numpy())
        return _reduce_samples(rgba, fragments.depth.numpy(), side)

    def state(self) -> dict:
        """Tensors by name, for the model file."""
        return {
            "meshes": {t: list(mesh.parts()) for t, mesh in self.meshes.items()},
            "alpha": {t: [own.values, own.left, own.top] for t, own in self.alpha.items()},
        }

    @staticmethod
    def from_state(
        state: dict, cameras: Cameras, options: MoverOptions = MoverOptions()
    ) -> "MovingMeshPipeline":
        """The inverse of ``state``, for a clip with these cameras."""
        meshes = {t: MovingMesh(t, *parts) for t, parts in state["meshes"].items()}
        alpha = {t: SoftMask(*parts) for t, parts in state["alpha"].items()}
        return MovingMeshPipeline(meshes, alpha, cameras, options)


def _reduce_samples(
    rgba: Float[np.ndarray, "h w 4"], depth: Float[np.ndarray, "h w"], side: int
) -> MoverPicture:
    """Pixels from ``side`` x ``side`` samples each: means of colour (weighted by alpha) and alpha,
    and the nearest depth."""
    if side == 1:
        return MoverPicture(rgba[..., :3], rgba[..., 3], depth)
    alpha = _shrink(rgba[..., 3], side)
    rgb = _shrink(rgba[..., :3] * rgba[..., 3:], side) / np.where(alpha > 0, alpha, 1)[..., None]
    height, width = alpha.shape
    nearest = depth.reshape(height, side, width, side).min(3).min(1)
    return MoverPicture(rgb, alpha, nearest)


def _shrink(image: Float[np.ndarray, "H W *C"], side: int) -> Float[np.ndarray, "h w *C"]:
    """Means of ``side`` x ``side`` pixels."""
    size = image.shape[1] // side, image.shape[0] // side
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _set_apart(tracks: Tracks) -> Float[Tensor, "N 3"]:
    """Canonical coordinates with the movers one behind another along w, as far apart as they are
    wide: movers share a colour field, and their coordinates overlap."""
    places = tracks.canonical.clone()
    if tracks.label is None or not len(places):
        return places
    end = 0.0
    for number in tracks.label.unique():
        members = tracks.label == number
        low, high = _find_range(places[members])
        places[members, 2] += end - low[2]
        end += float((high - low)[2] + _APART * (high - low)[:2].max())
    return places


def _find_range(places: Float[Tensor, "n 3"]) -> Float[Tensor, "2 3"]:
    """Lower and upper bounds of nearly all places, axis by axis."""
    step = max(1, len(places) // _QUANTILE_VERTICES)
    return torch.quantile(places[::step], torch.tensor(_BOX_QUANTILES).to(places), dim=0)


def fit_canonical_box(
    meshes: MovingMeshPipeline, options: MoverOptions = MoverOptions()
) -> tuple[Float[Tensor, "4 4"], int]:
    """Affine map from canonical coordinates to [-1, 1]^3, and the finest resolution of a hash grid
    in that box.

    u and v share a scale, which fits nearly all vertices into the box; w has that scale too, or a
    smaller one if movers need more room along w.
    """
    parts = meshes.meshes.values()
    corners = torch.cat([mesh.source[mesh.faces[:, 0].long(), :3] for mesh in parts]).double()
    movers = torch.cat([mesh.movers for mesh in parts])
    # Each mover must be inside the box, however few its vertices are.
    ranges = [_find_range(corners[movers == number]) for number in movers.unique()]
    low, high = torch.stack(ranges)[:, 0].amin(0), torch.stack(ranges)[:, 1].amax(0)
    reach = _BOX_MARGIN * float((high - low)[:2].max().clamp_min(_MIN_RANGE))
    finest = int(min(_MAX_CELLS, max(_MIN_CELLS, options.cells_per_pixel * reach)))
    scale = torch.full((3,), 2.0 / reach, dtype=torch.float64)
    scale[2] = 2 / max(reach, _BOX_MARGIN * float((high - low)[2]))
    matrix = torch.diag(torch.cat([scale, torch.ones(1).double()]))
    matrix[:3, 3] = -scale * (low + high) / 2
    return matrix, finest
