"""Tracks and mask of a frame -> the mesh of its movers."""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import Delaunay, QhullError
from torch import Tensor

from models.movers.local_maps import find_box, find_home, map_locally
from models.movers.mesh import MovingMesh
from models.movers.options import MoverOptions
from models.tracks import Tracks

# Box to which displacements are held where tracks are few: no displacement, in world units.
_NO_DISPLACEMENT = np.array([[0.0, 0.0], [1e-9, 1e-9]])


def build_mover_mesh(
    tracks: Tracks,
    mask: Bool[np.ndarray, "H W"],
    t: int,
    near: list[int],
    options: MoverOptions = MoverOptions(),
) -> MovingMesh | None:
    """The mesh of the movers of frame t: vertices are its tracks and points along its outline,
    whose values follow from the tracks near them.

    Args:
        tracks: of the moving layer.
        mask: of the movers in frame t.
        near: rising numbers of the frames for which places are noted, t among them; frames without
            tracks in common with t are left out.

    Returns:
        None if frame t sees no track or no triangle lies on the mask.
    """
    if not tracks.visible[t].any():
        return None
    box = find_box(mask)
    xy, values, mover = _find_vertices(tracks, t, _trace_outline(mask, options), box)
    faces = _find_faces(xy, mask, mover, options)
    if faces is None:
        return None
    depth = torch.from_numpy(1 / values[:, 3])
    xyz = tracks.cameras[t].unproject(torch.from_numpy(xy)[None], depth[None])[0]
    places = {t: xyz.float()}
    for other in near:
        step = None if other == t else _map_displacement(tracks, t, other, xy, box)
        if step is not None:
            places[other] = (xyz + step).float()
    times = sorted(places)
    source = torch.from_numpy(np.concatenate([values[:, :3], xy], 1)).float()
    numbers = torch.from_numpy(mover[faces[:, 0]])
    places_in_order = torch.stack([places[other] for other in times])
    corners = torch.from_numpy(faces)
    return MovingMesh(t, torch.tensor(times), places_in_order, source, corners, numbers)


def _find_vertices(
    tracks: Tracks, t: int, outline: Float[np.ndarray, "n 2"], box: Float[np.ndarray, "2 2"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (V, 2) of the vertices of frame t, their canonical coordinates and inverse depth (V,
    4), and the number of their mover (V)."""
    seen = torch.nonzero(tracks.visible[t])[:, 0].numpy()
    inner = tracks.xy[t, seen].double().numpy()
    mover = np.ones(len(seen), np.int64) if tracks.label is None else tracks.label[seen].numpy()
    depth = tracks.cameras[t].project(tracks.xyz[t, seen].double()[None])[1][0].numpy()
    known = np.concatenate([tracks.canonical[seen].double().numpy(), 1 / depth[:, None]], 1)
    home = find_home(inner, known[:, :2], box)
    outer = map_locally(inner, known, outline, box, home)
    # Along the outline inverse depth would be extrapolated: it is taken from the nearest track.
    nearest = ((outline[:, None] - inner[None]) ** 2).sum(-1).argmin(1)
    outer[:, 3] = known[nearest, 3]
    values = np.concatenate([known, outer])
    return np.concatenate([inner, outline]), values, np.concatenate([mover, mover[nearest]])


def _trace_outline(
    mask: Bool[np.ndarray, "H W"], options: MoverOptions
) -> Float[np.ndarray, "n 2"]:
    """Points in pixels along the outline of the mask, grown by the margin."""
    side = 2 * options.outline_margin + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padding = 2 * options.outline_margin
    grown = cv2.dilate(np.pad(mask.astype(np.uint8), padding), kernel)
    contours, _ = cv2.findContours(grown, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    step = options.outline_step
    # Short contours keep all points: every few of them would not enclose their area.
    points = [contour[:: step if len(contour) > 4 * step else 1, 0] for contour in contours]
    return np.concatenate(points).astype(np.float64) - padding + 0.5


def _find_faces(
    xy: Float[np.ndarray, "V 2"],
    mask: Bool[np.ndarray, "H W"],
    mover: Int[np.ndarray, "V"],
    options: MoverOptions,
) -> Int[np.ndarray, "T 3"] | None:
    """Delaunay triangles with their middle on the slightly grown mask and all corners on the same
    mover; None without any."""
    try:
        faces = Delaunay(xy).simplices.astype(np.int64)
    except (QhullError, ValueError):
        return None
    side = 2 * options.outline_margin + 3
    padding = options.outline_margin + 5
    padded = np.pad(mask.astype(np.uint8), padding)
    grown = cv2.dilate(padded, np.ones((side, side), np.uint8)) > 0
    middle = (xy[faces].mean(1) + padding).astype(np.int64)
    rows = middle[:, 1].clip(0, len(grown) - 1)
    columns = middle[:, 0].clip(0, grown.shape[1] - 1)
    faces = faces[grown[rows, columns] & (np.ptp(mover[faces], 1) == 0)]
    return faces if len(faces) else None


def _map_displacement(
    tracks: Tracks,
    t: int,
    other: int,
    xy: Float[np.ndarray, "V 2"],
    box: Float[np.ndarray, "2 2"],
) -> Float[Tensor, "V 3"] | None:
    """World displacement of each vertex from frame t to another frame, from the tracks that both
    see; None without such tracks."""
    both = (tracks.visible[t] & tracks.visible[other]).numpy()
    if not both.any():
        return None
    moved = (tracks.xyz[other, both] - tracks.xyz[t, both]).double().numpy()
    known = tracks.xy[t, both].double().numpy()
    return torch.from_numpy(map_locally(known, moved, xy, box, _NO_DISPLACEMENT))
