"""The meshes of a clip's frames -> a static mesh of the world: a few key frames, each adding the
surfaces that the others lack.

The middle frame's mesh comes first. Every further key frame adds its faces in places without a
surface. Faces that hide surfaces of other frames are left out. A face keeps the number of its key
frame, and the image plane of the key frame is the place for the face's texture.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from models.cameras import Cameras
from models.export.footage import spread
from models.export.options import ExportOptions
from models.pipeline import TriangleMeshPipeline
from models.surface import BORDER_TRUST, Fragments, find_used_vertices

# Frame -> indices of faces of the frame's mesh, or a flag for each face.
FaceIndices = dict[int, Int[np.ndarray, "n"]]
FaceFlags = dict[int, Bool[np.ndarray, "T"]]


@dataclass(frozen=True)
class WorldMesh:
    """A mesh of the static background."""

    vertices: Float[np.ndarray, "V 3"]
    """World positions."""
    faces: Int[np.ndarray, "T 3"]
    keyframe: Int[np.ndarray, "T"]
    """The frame that each face comes from; the face's texture lies in the frame's image."""
    painted: Bool[np.ndarray, "T"]
    """Faces off the surface that the colour field was trained on; their colours are the key frame's
    pixels."""

    def add_painted(self, corners: dict[int, Float[np.ndarray, "T 3 3"]]) -> "WorldMesh":
        """The mesh with painted faces in addition.

        Args:
            corners: world positions of the faces that each key frame paints.
        """
        vertices = [self.vertices]
        faces = [self.faces]
        keyframe = [self.keyframe]
        size = len(self.vertices)
        for k, added in corners.items():
            flat = added.reshape(-1, 3).astype(np.float32)
            points, index = np.unique(flat, axis=0, return_inverse=True)
            vertices.append(points)
            faces.append(index.reshape(-1, 3) + size)
            keyframe.append(np.full(len(added), k))
            size += len(points)
        joined = [np.concatenate(parts) for parts in (vertices, faces, keyframe)]
        return WorldMesh(*joined, np.arange(len(joined[1])) >= len(self.faces))


def choose_keyframes(
    meshes: TriangleMeshPipeline, options: ExportOptions = ExportOptions()
) -> list[int]:
    """Frames that may become key frames, in order."""
    return spread(sorted(meshes.faces), options.keyframes)


def build_world_mesh(
    meshes: TriangleMeshPipeline, options: ExportOptions = ExportOptions()
) -> WorldMesh:
    """A static mesh from the meshes of evenly spread frames."""
    frames = choose_keyframes(meshes, options)
    # the middle frame shares most with the others
    frames.insert(0, frames.pop(len(frames) // 2))
    cameras = _widen(meshes.cameras, options.margin)
    views = _Views.draw(meshes, cameras, frames, options)
    # half the size is enough to see which faces hide a surface
    small = cameras.resized(cameras.width // 2, cameras.height // 2)
    witnesses = _Views.draw(meshes, small, frames, options)
    trusted = {t: meshes.trust[t].numpy() == 1 for t in frames}
    kept = {t: ~witnesses.find_hiding(t, trusted) for t in frames}
    chosen = views.cover({t: trusted[t] & kept[t] for t in frames})
    # holes are closed by faces of little trust: first on borders, then over depth jumps
    for trust in (BORDER_TRUST, 0.0):
        enough = {t: meshes.trust[t].numpy() >= np.float32(trust) for t in frames}
        chosen = views.close({t: ~trusted[t] & kept[t] & enough[t] for t in frames}, chosen)
    used, faces = find_used_vertices(_join_faces(meshes, chosen), len(meshes.vertices))
    keyframe = np.concatenate([np.full(len(index), t) for t, index in chosen.items()])
    vertices = meshes.vertices[used].numpy()
    return WorldMesh(vertices, faces.numpy(), keyframe, np.zeros(len(faces), bool))


def _widen(cameras: Cameras, margin: float) -> Cameras:
    """The same cameras with images that reach past their borders.

    Args:
        margin: width of the added border as a share of the longer side.
    """
    pad = round(margin * max(cameras.width, cameras.height))
    K = cameras.K.double().clone()
    K[:, :2, 2] += pad
    return Cameras(K, cameras.world_from_cam, cameras.width + 2 * pad, cameras.height + 2 * pad)


def _join_faces(meshes: TriangleMeshPipeline, chosen: FaceIndices) -> Int[torch.Tensor, "T 3"]:
    return torch.cat([meshes.faces[t][torch.from_numpy(index)] for t, index in chosen.items()])


@dataclass(frozen=True)
class _Views:
    """The candidates for key frames, each drawn by a camera of its own."""

    meshes: TriangleMeshPipeline
    cameras: Cameras
    fragments: dict[int, Fragments]
    """Each candidate's mesh as its own camera sees it."""
    options: ExportOptions

    @staticmethod
    def draw(
        meshes: TriangleMeshPipeline, cameras: Cameras, frames: list[int], options: ExportOptions
    ) -> "_Views":
        """Draws the mesh of each frame."""
        fragments = {t: meshes.fragments(t, cameras[t]) for t in frames}
        return _Views(meshes, cameras, fragments, options)

    def find_hiding(self, t: int, trusted: FaceFlags) -> Bool[np.ndarray, "T"]:
        """Faces of frame t in front of trusted surfaces of the other frames."""
        agreement = self.options.agreement
        count = len(self.meshes.faces[t])
        hides = np.zeros(count)
        agrees = np.zeros(count)
        # a set: sums of whole numbers do not depend on the order
        for other in self.fragments.keys() - {t}:
            drawn = self.meshes.fragments(t, self.cameras[other])
            face = drawn.face.numpy()
            depth = drawn.depth.numpy()
            behind_face = self.fragments[other].face.numpy()
            behind = self.fragments[other].depth.numpy()
            both = (face >= 0) & (behind_face >= 0)
            both[both] = trusted[other][behind_face[both]]
            before = both & (depth < (1 - agreement) * behind)
            same = both & (np.abs(depth - np.where(both, behind, 0)) < agreement * depth)
            hides += np.bincount(face[before], minlength=count)
            agrees += np.bincount(face[same], minlength=count)
        return hides > self.options.hidden_share * (hides + agrees)

    def cover(self, allowed: FaceFlags) -> FaceIndices:
        """Faces of the key frames, from the frame that adds most to the frame that adds least."""
        frames = list(self.fragments)
        chosen: FaceIndices = {frames[0]: np.flatnonzero(allowed[frames[0]])}
        # the gain of a frame only shrinks as others are added: an old value is an upper bound
        gain = dict.fromkeys(frames[1:], np.inf)
        cameras = self.meshes.cameras
        least = self.options.keyframe_gain * cameras.width * cameras.height
        while gain:
            best = max(gain, key=lambda t: gain[t])
            if gain[best] < least:
                break
            added, gain[best] = self._find_additions(chosen, best, allowed[best])
            if gain[best] >= max(gain.values()):
                del gain[best]
                chosen[best] = added
        return chosen

    def close(self, spare: FaceFlags, chosen: FaceIndices) -> FaceIndices:
        """Adds spare faces of the frames in turn in places without any surface."""
        nothing = np.zeros(0, np.int64)
        order = [*chosen, *(self.fragments.keys() - chosen.keys())]
        chosen = {t: chosen.get(t, nothing) for t in order}
        for t in chosen:
            added, _ = self._find_additions(chosen, t, spare[t], any_surface=True)
            chosen[t] = np.union1d(chosen[t], added)
        return chosen

    def _find_additions(
        self,
        chosen: FaceIndices,
        t: int,
        allowed: Bool[np.ndarray, "T"],
        any_surface: bool = False,
    ) -> tuple[Int[np.ndarray, "n"], int]:
        """Frame t's allowed faces in places without a chosen surface, and the pixels they add.

        Args:
            any_surface: leave out faces in front of or behind a chosen surface, too.
        """
        world = self.meshes.draw_faces(_join_faces(self.meshes, chosen), self.cameras[t])
        world = world.depth.numpy()
        face = self.fragments[t].face.numpy()
        depth = self.fragments[t].depth.numpy()
        drawn = face >= 0
        drawn[drawn] = allowed[face[drawn]]
        taken = np.isfinite(world)
        if not any_surface:
            limit = self.options.agreement * world[taken]
            taken[taken] = np.abs(world[taken] - depth[taken]) < limit
        total = np.bincount(face[drawn], minlength=len(allowed))
        bare = np.bincount(face[drawn & ~taken], minlength=len(allowed))
        added = np.flatnonzero(bare > self.options.open_share * total)
        return added, int(bare[added].sum())
