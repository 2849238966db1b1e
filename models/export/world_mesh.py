"""The meshes of a clip's frames -> one static mesh of the world: few key frames, each adding what
others lack.

The middle frame's mesh comes first. Every further key frame adds those of its faces that lie where
no earlier one has a surface, and no face stays that hides what other frames see. A face keeps the
number of its key frame, whose image plane is the natural place for its texture.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from models.cameras import Cameras
from models.export.footage import spread
from models.pipeline import TriangleMeshPipeline
from models.surface import BORDER_TRUST, Fragments, find_used_vertices

MARGIN = 0.2
"""How far past the image the test of coverage looks, as a share of the longer side: as far as
meshes reach."""
MAX_KEYFRAMES = 12
"""Frames, evenly spread, that may become key frames; also the witnesses of what a face hides."""
LEAST_GAIN = 0.001
"""A key frame must add so much of its view, as a share of the image."""
AGREEMENT = 0.02
"""Depths within this ratio of each other are one surface."""
HIDDEN_SHARE = 0.4
"""A face goes if of its pixels in other frames, so large a share hides a surface there."""
OPEN_SHARE = 0.05
"""A face is added if so large a share of it is on no surface yet: overlaps leave no cracks."""


@dataclass(frozen=True)
class WorldMesh:
    """One mesh of all that stands still."""

    vertices: Float[np.ndarray, "V 3"]
    """World positions."""
    faces: Int[np.ndarray, "T 3"]
    keyframe: Int[np.ndarray, "T"]
    """The frame that each face comes from, and in whose image its texture lies."""
    painted: Bool[np.ndarray, "T"]
    """Faces off the surface that the colour field was trained on; their colours are the key frame's
    pixels."""

    def with_painted(self, corners: dict[int, Float[np.ndarray, "T 3 3"]]) -> "WorldMesh":
        """The mesh with more faces, given by their corners for each key frame that paints them."""
        vertices = [self.vertices]
        faces = [self.faces]
        keyframe = [self.keyframe]
        size = len(self.vertices)
        for k, own in corners.items():
            points, index = np.unique(
                own.reshape(-1, 3).astype(np.float32), axis=0, return_inverse=True
            )
            vertices.append(points)
            faces.append(index.reshape(-1, 3) + size)
            keyframe.append(np.full(len(own), k))
            size += len(points)
        joined = [np.concatenate(parts) for parts in (vertices, faces, keyframe)]
        return WorldMesh(*joined, np.arange(len(joined[1])) >= len(self.faces))


def keyframes(meshes: TriangleMeshPipeline) -> list[int]:
    """Frames that may become key frames, in order."""
    return spread(sorted(meshes.faces), MAX_KEYFRAMES)


def build_world_mesh(meshes: TriangleMeshPipeline) -> WorldMesh:
    """One static mesh from the meshes of well spread frames."""
    frames = keyframes(meshes)
    frames.insert(0, frames.pop(len(frames) // 2))
    views = _widened(meshes.cameras)
    own = {t: meshes.fragments(t, views[t]) for t in frames}
    good = {t: meshes.trust[t].numpy() == 1 for t in frames}
    small = views.resized(views.width // 2, views.height // 2)
    witness = {t: meshes.fragments(t, small[t]) for t in frames}
    kept = {t: ~_hiding(meshes, t, small, witness, good) for t in frames}
    chosen = _cover(meshes, views, own, {t: good[t] & kept[t] for t in frames})
    for trust in (
        BORDER_TRUST,
        0.0,
    ):  # what is left open is closed by faces that are hardly trusted
        spare = {
            t: ~good[t] & kept[t] & (meshes.trust[t].numpy() >= np.float32(trust)) for t in frames
        }
        chosen = _close(meshes, views, own, spare, chosen)
    faces = _faces(meshes, chosen)
    used, faces = find_used_vertices(faces, len(meshes.vertices))
    keyframe = np.concatenate([np.full(len(index), t) for t, index in chosen.items()])
    return WorldMesh(
        meshes.vertices[used].numpy(), faces.numpy(), keyframe, np.zeros(len(faces), bool)
    )


def _widened(cameras: Cameras) -> Cameras:
    """The same cameras with images that reach past their borders."""
    pad = round(MARGIN * max(cameras.width, cameras.height))
    K = cameras.K.double().clone()
    K[:, :2, 2] += pad
    return Cameras(K, cameras.world_from_cam, cameras.width + 2 * pad, cameras.height + 2 * pad)


def _hiding(
    meshes: TriangleMeshPipeline,
    t: int,
    views: Cameras,
    own: dict[int, Fragments],
    good: dict[int, np.ndarray],
) -> Bool[np.ndarray, "T"]:
    """Faces of frame t that stand before surfaces which other frames see."""
    count = len(meshes.faces[t])
    hides = np.zeros(count)
    agrees = np.zeros(count)
    for other in own.keys() - {t}:
        there = meshes.fragments(t, views[other])
        face = there.face.numpy()
        depth = there.depth.numpy()
        seen = own[other].face.numpy()
        behind = own[other].depth.numpy()
        both = (face >= 0) & (seen >= 0)
        both[both] = good[other][seen[both]]
        before = both & (depth < (1 - AGREEMENT) * behind)
        same = both & (np.abs(depth - np.where(both, behind, 0)) < AGREEMENT * depth)
        hides += np.bincount(face[before], minlength=count)
        agrees += np.bincount(face[same], minlength=count)
    return hides > HIDDEN_SHARE * (hides + agrees)


def _cover(
    meshes: TriangleMeshPipeline,
    views: Cameras,
    own: dict[int, Fragments],
    allowed: dict[int, np.ndarray],
) -> dict[int, Int[np.ndarray, "n"]]:
    """Faces of each key frame, those that add most chosen first; a face is added where no surface
    is yet."""
    frames = list(own)
    chosen: dict[int, np.ndarray] = {frames[0]: np.flatnonzero(allowed[frames[0]])}
    gain = dict.fromkeys(
        frames[1:], np.inf
    )  # what a frame adds only shrinks: an old value is a bound
    least = LEAST_GAIN * meshes.cameras.width * meshes.cameras.height
    while gain:
        best = max(gain, key=lambda t: gain[t])
        if gain[best] < least:
            break
        added, gain[best] = _additions(meshes, chosen, views, best, own[best], allowed[best])
        if gain[best] >= max(gain.values()):
            del gain[best]
            chosen[best] = added
    return chosen


def _additions(
    meshes: TriangleMeshPipeline,
    chosen: dict[int, np.ndarray],
    views: Cameras,
    t: int,
    own: Fragments,
    allowed: Bool[np.ndarray, "T"],
    any_surface: bool = False,
) -> tuple[Int[np.ndarray, "n"], int]:
    """Frame t's allowed faces that lie where the chosen ones have no surface, and pixels they add.

    With ``any_surface`` nothing is added before or behind a surface either.
    """
    world = meshes.draw_faces(_faces(meshes, chosen), views[t]).depth.numpy()
    face = own.face.numpy()
    depth = own.depth.numpy()
    mine = face >= 0
    mine[mine] = allowed[face[mine]]
    there = np.isfinite(world)
    if not any_surface:
        there[there] = np.abs(world[there] - depth[there]) < AGREEMENT * world[there]
    total = np.bincount(face[mine], minlength=len(allowed))
    bare = np.bincount(face[mine & ~there], minlength=len(allowed))
    added = np.flatnonzero(bare > OPEN_SHARE * total)
    return added, int(bare[added].sum())


def _close(
    meshes: TriangleMeshPipeline,
    views: Cameras,
    own: dict[int, Fragments],
    spare: dict[int, np.ndarray],
    chosen: dict[int, np.ndarray],
) -> dict[int, Int[np.ndarray, "n"]]:
    """Adds spare faces of the frames in turn where they see nothing at all."""
    chosen = {
        t: chosen.get(t, np.zeros(0, np.int64)) for t in [*chosen, *(own.keys() - chosen.keys())]
    }
    for t in chosen:
        added, _ = _additions(meshes, chosen, views, t, own[t], spare[t], any_surface=True)
        chosen[t] = np.union1d(chosen[t], added)
    return chosen


def _faces(meshes: TriangleMeshPipeline, chosen: dict[int, np.ndarray]) -> torch.Tensor:
    return torch.cat([meshes.faces[t][torch.from_numpy(index)] for t, index in chosen.items()])
