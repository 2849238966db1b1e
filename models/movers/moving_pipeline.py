"""The moving layer: a mesh of each frame's mover, carried to any time and camera, with a soft
outline.

``MovingMeshPipeline`` stands beside ``TriangleMeshPipeline``: its vertices move, and colour is read
not at world points but at canonical coordinates (u, v, w): place on the mover, and which mover;
what changes with time is the field's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import Delaunay, QhullError
from torch import Tensor

from models.cameras import Cameras
from models.movers.local_maps import local_map, mover_box
from models.movers.mesh import MovingMesh
from models.movers.soft_mask import SoftMask
from models.pipeline import WorldSpaceTrianglePipeline
from models.surface import interpolate
from models.tracks import Tracks

OUTLINE_STEP = 6
"""Pixels between vertices along a mover's outline."""
OUTLINE_MARGIN = 3
"""Pixels by which the mesh reaches past the mask, so that the soft edge has colour."""
LONGEST_GAP = 16
"""Most frames between two that have a mesh of a mover for it to be there in between."""
SUBPIXELS = 3
"""Points to a side of a pixel at which movers are drawn in views that are not a frame's own."""
CELLS_PER_PIXEL = 1.0
"""Cells of the hash grid's finest level along one pixel of the reference frame."""


@dataclass(frozen=True)
class MoverPicture:
    """Movers as a camera sees them."""

    rgb: Float[np.ndarray, "H W 3"]
    alpha: Float[np.ndarray, "H W"]
    depth: Float[np.ndarray, "H W"]


class MovingMeshPipeline:
    """Meshes of the movers in those frames that have them."""

    def __init__(self, meshes: dict[int, MovingMesh], alpha: dict[int, SoftMask], cameras: Cameras):
        """
        Args:
            meshes: by frame.
            alpha: where in each of those frames they are.
            cameras: those of all frames of the clip.
        """
        self.meshes = meshes
        self.alpha = alpha
        self.cameras = cameras

    @staticmethod
    def from_tracks(
        tracks: Tracks,
        masks: Bool[np.ndarray, "F H W"],
        frames: list[int],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "MovingMeshPipeline":
        """Meshes of the given frames' masks from the moving tracks visible in them.

        Args:
            progress: is told how many frames are done, of how many.
        """
        frames = [t for t in frames if masks[t].any()]
        meshes = {}
        alpha = {}
        for i, t in enumerate(frames):
            mesh = _build(tracks, masks, t, frames[max(0, i - 2) : i + 3])
            if mesh is not None:
                meshes[t] = mesh
                alpha[t] = SoftMask.of(masks[t])
            progress(i + 1, len(frames))
        return MovingMeshPipeline(meshes, alpha, tracks.cameras)

    def at(self, time: float) -> list[tuple[int, float]]:
        """The frames whose meshes show ``time``, with shares that sum to 1; empty where no mover
        is."""
        before = max((t for t in self.meshes if t <= time), default=None)
        after = min((t for t in self.meshes if t > time), default=None)
        if (
            before is not None
            and after is not None
            and before != time
            and after - before <= LONGEST_GAP
        ):
            share = (time - before) / (after - before)
            return [(before, 1 - share), (after, share)]
        near = [t for t in (before, after) if t is not None and abs(t - time) <= 1]
        return [(min(near, key=lambda t: abs(t - time)), 1.0)] if near else []

    def picture(
        self, renderer: WorldSpaceTrianglePipeline, view: Cameras, time: float
    ) -> MoverPicture | None:
        """The movers at ``time`` in the image of one camera; None if it sees none of them.

        Between two frames it is both frames' movers, each with its own colours, carried there and
        averaged.
        """
        drawn = [(self._picture(renderer, view, time, t), share) for t, share in self.at(time)]
        drawn = [(picture, share) for picture, share in drawn if picture is not None]
        if len(drawn) < 2:
            return drawn[0][0] if drawn else None
        alpha = sum(share * picture.alpha for picture, share in drawn)
        rgb = sum((share * picture.alpha)[..., None] * picture.rgb for picture, share in drawn)
        rgb /= np.where(alpha > 0, alpha, 1)[..., None]
        return MoverPicture(rgb, alpha, np.minimum(*(picture.depth for picture, _ in drawn)))

    def _picture(
        self, renderer: WorldSpaceTrianglePipeline, view: Cameras, time: float, t: int
    ) -> MoverPicture | None:
        """Frame t's movers where they are at ``time``, as they look in their own frame.

        The colour field knows them at that frame's pixels; where the view has others, it is asked
        at more points.
        """
        mesh = self.meshes[t]
        centers = self.cameras.centers.double()
        own = renderer.seen_from(centers[t], t)
        side = 1 if time == t and view.same_as(self.cameras[t]) else SUBPIXELS
        camera = view.resized(side * view.width, side * view.height)
        fragments = mesh.fragments(camera, xyz=mesh.placed(time, centers))
        rows, columns = np.nonzero(fragments.face.numpy() >= 0)
        if not len(rows):
            return None
        source = interpolate(fragments, mesh.faces, mesh.source)[rows, columns]
        rgba = np.zeros((camera.height, camera.width, 4), np.float32)
        rgba[rows, columns, :3] = own.colors(source[:, :3]).numpy()
        rgba[rows, columns, 3] = self.alpha[t].at(source[:, 3:].numpy())
        return MoverPicture(*_reduced(rgba, fragments.depth.numpy(), side))

    def state(self) -> dict:
        """Tensors only, for the model file."""
        return {
            "meshes": {t: [m.times, m.places, m.source, m.faces] for t, m in self.meshes.items()},
            "alpha": {t: [own.values, own.left, own.top] for t, own in self.alpha.items()},
        }

    @staticmethod
    def from_state(state: dict, cameras: Cameras) -> "MovingMeshPipeline":
        """The inverse of ``state``, for a clip with these cameras."""
        meshes = {t: MovingMesh(t, *parts) for t, parts in state["meshes"].items()}
        alpha = {t: SoftMask(*parts) for t, parts in state["alpha"].items()}
        return MovingMeshPipeline(meshes, alpha, cameras)


def _reduced(
    rgba: Float[np.ndarray, "h w 4"], depth: Float[np.ndarray, "h w"], side: int
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """rgb, alpha and depth of pixels that are ``side`` points square: means of what is there, and
    the nearest depth."""
    if side == 1:
        return rgba[..., :3], rgba[..., 3], depth
    height, width = (size // side for size in depth.shape)
    blocks = rgba.reshape(height, side, width, side, 4)
    alpha = blocks[..., 3].mean((1, 3))
    rgb = (blocks[..., :3] * blocks[..., 3:]).mean((1, 3)) / np.where(alpha > 0, alpha, 1)[
        ..., None
    ]
    return rgb, alpha, depth.reshape(height, side, width, side).min((1, 3))


def canonical_normalization(meshes: MovingMeshPipeline) -> tuple[Float[Tensor, "4 4"], int]:
    """Affine map from canonical coordinates to [-1, 1]^3, and the finest resolution of the grid
    that fits it.

    One scale for (u, v), by the range that holds nearly all vertices; movers are spread evenly
    along w.
    """
    source = torch.cat([mesh.source[:, :3] for mesh in meshes.meshes.values()]).double()
    levels = torch.tensor([0.01, 0.99], dtype=torch.float64)
    step = max(1, len(source) // 100_000)
    low, high = torch.quantile(source[::step], levels, dim=0)
    low[2] = source[:, 2].min()
    high[2] = source[:, 2].max()
    reach = 1.3 * float((high - low)[:2].max().clamp_min(16))
    finest = int(min(2048, max(128, CELLS_PER_PIXEL * reach)))
    scale = torch.full((3,), 2.0 / reach, dtype=torch.float64)
    scale[2] = 2 / float((high - low)[2] + 1)
    matrix = torch.diag(torch.cat([scale, torch.ones(1).double()]))
    matrix[:3, 3] = -scale * (low + high) / 2
    return matrix, finest


def _build(tracks: Tracks, masks: np.ndarray, t: int, near: list[int]) -> MovingMesh | None:
    """The mesh of frame t: its tracks and an outline, whose values follow from the tracks near it.

    Args:
        near: frames in which its places are noted, those with tracks in common with t; in order, t
            among them.
    """
    seen = torch.nonzero(tracks.visible[t])[:, 0].numpy()
    if not len(seen):
        return None
    inner = tracks.xy[t, seen].double().numpy()
    outline = _outline(masks[t])
    box = mover_box(masks[t])
    w = tracks.label[seen].double().numpy() if tracks.label is not None else np.zeros(len(seen))
    depth = tracks.cameras[[t]].project(tracks.xyz[t, seen].double()[None])[1][0].numpy()
    known = np.concatenate([tracks.canonical[seen, :2].double().numpy(), 1 / depth[:, None]], 1)
    home = _home(inner, known[:, :2], box)
    outer = local_map(inner, known, outline, box, home)
    nearest = ((outline[:, None] - inner[None]) ** 2).sum(-1).argmin(1)
    outer[:, 2] = known[nearest, 2]
    xy = np.concatenate([inner, outline])
    values = np.concatenate([known, outer])
    w = np.concatenate([w, w[nearest]])
    faces = _faces_inside(xy, masks[t], w)
    if faces is None:
        return None
    camera = tracks.cameras[[t]]
    xyz = camera.unproject(torch.from_numpy(xy)[None], torch.from_numpy(1 / values[:, 2])[None])[0]
    steps = {other: _displacement(tracks, t, other, xy, box) for other in near if other != t}
    places = {t: xyz.float()} | {
        other: (xyz + step).float() for other, step in steps.items() if step is not None
    }
    times = sorted(places)
    source = torch.from_numpy(np.concatenate([values[:, :2], w[:, None], xy], 1)).float()
    noted = torch.tensor(times), torch.stack([places[other] for other in times])
    return MovingMesh(t, *noted, source, torch.from_numpy(faces))


def _home(inner: np.ndarray, place: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box that ``box`` is carried to: where the known points of the frame lie in canonical
    coordinates."""
    spread = inner.std(0).mean()
    scale = place.std(0).mean() / spread if len(inner) > 3 and spread > 1 else 1.0
    return np.array([place.mean(0) + scale * (box[0] - inner.mean(0)), box[1] * scale])


def _outline(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "n 2"]:
    """Points round the mask, a few pixels outside."""
    side = 2 * OUTLINE_MARGIN + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padded = np.pad(mask.astype(np.uint8), 2 * OUTLINE_MARGIN)
    grown = cv2.dilate(padded, kernel)
    contours, _ = cv2.findContours(grown, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    points = [
        contour[:: OUTLINE_STEP if len(contour) > 4 * OUTLINE_STEP else 1, 0]
        for contour in contours
    ]
    return np.concatenate(points).astype(np.float64) - 2 * OUTLINE_MARGIN + 0.5


def _faces_inside(xy: np.ndarray, mask: np.ndarray, w: np.ndarray) -> Int[np.ndarray, "T 3"] | None:
    """Delaunay faces whose middle lies on the (slightly grown) mask and whose corners are of one
    mover."""
    try:
        faces = Delaunay(xy).simplices.astype(np.int64)
    except (QhullError, ValueError):
        return None
    side = 2 * OUTLINE_MARGIN + 3
    grown = cv2.dilate(np.pad(mask.astype(np.uint8), 8), np.ones((side, side), np.uint8)) > 0
    middle = (xy[faces].mean(1) + 8).astype(np.int64)
    inside = grown[middle[:, 1].clip(0, len(grown) - 1), middle[:, 0].clip(0, grown.shape[1] - 1)]
    faces = faces[inside & (np.ptp(w[faces], 1) == 0)]
    return faces if len(faces) else None


def _displacement(
    tracks: Tracks, t: int, other: int, xy: Float[np.ndarray, "V 2"], box: np.ndarray
) -> Float[Tensor, "V 3"] | None:
    """World displacement of each vertex from frame t to another, from the tracks seen in both; None
    if none is."""
    both = (tracks.visible[t] & tracks.visible[other]).numpy()
    if not both.any():
        return None
    moved = (tracks.xyz[other, both] - tracks.xyz[t, both]).double().numpy()
    still = np.array([[0.0, 0.0], [1e-9, 1e-9]])
    return torch.from_numpy(local_map(tracks.xy[t, both].double().numpy(), moved, xy, box, still))
