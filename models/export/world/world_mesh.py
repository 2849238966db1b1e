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
from models.run import PAIR, run_ahead
from models.surface import BORDER_TRUST, Fragments, find_used_vertices

# Times that a face at the border of all images is cut into four; more follow the border closer.
_CUTS = 3
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

    def add(self, corners: dict[int, Float[np.ndarray, "T 3 3"]], painted: bool) -> "WorldMesh":
        """The mesh with more faces.

        Args:
            corners: world positions of the faces that belong to each key frame.
            painted: see the field.
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
        more = np.full(len(joined[1]) - len(self.faces), painted)
        return WorldMesh(*joined, np.concatenate([self.painted, more]))


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
    hiding = run_ahead(lambda t: witnesses.find_hiding(t, trusted), frames, PAIR)
    kept = {t: ~hides for t, hides in zip(frames, hiding, strict=True)}
    # A face over a depth jump joins a near surface to a far one. Unless some frame looks down on it,
    # it is a streak of mixed colours from elsewhere.
    for t in frames:
        closing = np.flatnonzero(kept[t] & ~trusted[t])
        kept[t][closing] = _measure_angles(meshes, t, closing, options) > options.edge_on
    chosen = views.cover({t: trusted[t] & kept[t] for t in frames})
    # holes are closed by faces of little trust: first on borders, then over depth jumps
    for trust in (BORDER_TRUST, 0.0):
        enough = {t: meshes.trust[t].numpy() >= np.float32(trust) for t in frames}
        chosen = views.close({t: ~trusted[t] & kept[t] & enough[t] for t in frames}, chosen)
    pieces = {}
    for t, index in chosen.items():
        chosen[t], pieces[t] = _cut_to_images(meshes, t, index, options)
    used, faces = find_used_vertices(_join_faces(meshes, chosen), len(meshes.vertices))
    keyframe = np.concatenate([np.full(len(index), t) for t, index in chosen.items()])
    vertices = meshes.vertices[used].numpy()
    world = WorldMesh(vertices, faces.numpy(), keyframe, np.zeros(len(faces), bool))
    return world.add(pieces, painted=False)


def _gather_corners(
    meshes: TriangleMeshPipeline, t: int, index: Int[np.ndarray, "n"]
) -> Float[torch.Tensor, "n 3 3"]:
    """World positions of the corners of some faces of frame t."""
    return meshes.vertices[meshes.faces[t][torch.from_numpy(index)].long()].double()


def _measure_angles(
    meshes: TriangleMeshPipeline, t: int, index: Int[np.ndarray, "n"], options: ExportOptions
) -> Float[np.ndarray, "n"]:
    """Largest angle in degrees between some faces of frame t and the line of sight of some frame."""
    corners = _gather_corners(meshes, t, index)
    a, b, c = corners.unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    middle = corners.mean(1)
    best = torch.zeros(len(corners), dtype=torch.float64)
    for k in spread(sorted(meshes.faces), options.witnesses):
        ray = torch.nn.functional.normalize(middle - meshes.cameras.centers[k].double(), dim=1)
        best = torch.maximum(best, (normal * ray).sum(1).abs())
    return torch.rad2deg(torch.arcsin(best.clamp(max=1))).numpy()


def _cut_to_images(
    meshes: TriangleMeshPipeline, t: int, index: Int[np.ndarray, "n"], options: ExportOptions
) -> tuple[Int[np.ndarray, "m"], Float[np.ndarray, "k 3 3"]]:
    """Removes the parts of frame t's faces that lie outside the images of all frames and a border
    around them: no frame shows their colours.

    Returns:
        The faces that some images show whole, and the corners of pieces of the others.
    """
    corners = _gather_corners(meshes, t, index)
    share = _measure_filmed(meshes, corners, options)
    whole = (share == 1).numpy()
    pieces = []
    left = corners[share < 1]
    for _ in range(_CUTS if len(left) else 0):
        left = _quarter(left)
        share = _measure_filmed(meshes, left, options)
        pieces.append(left[share == 1])
        left, share = left[share < 1], share[share < 1]
    pieces.append(left[share > 0] if pieces else left)
    return index[whole], torch.cat(pieces).numpy()


def _measure_filmed(
    meshes: TriangleMeshPipeline, corners: Float[torch.Tensor, "n 3 3"], options: ExportOptions
) -> Float[torch.Tensor, "n"]:
    """Share of each face in the image of some frame or in the border around it, by its corners, the middles of
    its sides and its centre."""
    middles = (corners + corners.roll(1, 1)) / 2
    points = torch.cat([corners, middles, corners.mean(1, keepdim=True)], 1)
    filmed = torch.zeros(points.shape[:2], dtype=torch.bool)
    size = torch.tensor([meshes.cameras.width, meshes.cameras.height])
    border = options.unfilmed * size.max()
    for k in spread(sorted(meshes.faces), options.witnesses):
        xy, depth = meshes.cameras[k].project(points.reshape(-1, 3))
        inside = ((xy[0] >= -border) & (xy[0] < size + border)).all(1) & (depth[0] > 0)
        filmed |= inside.reshape(filmed.shape)
    return filmed.double().mean(1)


def _quarter(corners: Float[torch.Tensor, "n 3 3"]) -> Float[torch.Tensor, "m 3 3"]:
    """Each face as four, cut at the middles of its sides."""
    a, b, c = corners.unbind(1)
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return torch.cat([torch.stack(part, 1) for part in parts])


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
        drawn = run_ahead(lambda t: meshes.fragments(t, cameras[t]), frames, PAIR)
        return _Views(meshes, cameras, dict(zip(frames, drawn, strict=True)), options)

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
