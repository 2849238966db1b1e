"""Detail of a clip's frames in any view of its scene: which frames give it, and how much."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from models.cameras import Cameras
from models.detail.carry import Source, Surfaces, carry_surfaces, mix_colors, sees
from models.detail.frame_details import MOVER, FrameDetails
from models.detail.options import DetailOptions
from models.detail.source_maps import SourceMap, map_mover, map_surface
from models.movers import MovingMeshPipeline
from models.pipeline import TriangleMeshPipeline

# Depth images that are held: the nearest frames of successive views are nearly the same.
_HELD = 12
# Focal length of a view, relative to the frames', below which frames hold finer detail than the
# view: read there, it would flicker.
_LEAST_FOCAL = 0.75
# Smallest cost that is told from none.
_TINY = 1e-6


@dataclass(frozen=True)
class ChosenMovers:
    """The movers of a clip, parted into those that are drawn and those that are not."""

    kept: MovingMeshPipeline
    removed: MovingMeshPipeline

    def keep_shadows(self, light: UInt8[np.ndarray, "H W 3"], t: int) -> UInt8[np.ndarray, "H W 3"]:
        """Light of frame t without the shadows of removed movers: a pixel's shadow is that of the
        mover nearest to it in the picture.

        Args:
            light: share of its light that each pixel keeps, 255 = all.
        """
        if not self.kept.meshes:
            return np.full_like(light, 255)
        distances = []
        for movers in (self.kept, self.removed):
            if t not in movers.meshes:
                distances.append(np.full(light.shape[:2], np.inf, np.float32))
                continue
            beside = movers.meshes[t].fragments(movers.cameras[t]).face.numpy() < 0
            distance = cv2.distanceTransform(
                beside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
            )
            distances.append(distance)
        kept, removed = distances
        return np.where((removed < kept)[..., None], np.uint8(255), light)


class ClipDetail:
    """Detail of the frames of a clip, for the views of its scene."""

    def __init__(
        self,
        frames: FrameDetails,
        options: DetailOptions = DetailOptions(),
        chosen: "ChosenMovers | None" = None,
    ):
        """
        Args:
            chosen: the movers whose shadows are drawn; all if None.
        """
        self.frames = frames
        self.options = options
        self.chosen = chosen
        self._draw_depth = lru_cache(_HELD)(_draw_depth)

    def of_background(
        self,
        meshes: TriangleMeshPipeline,
        view: Cameras,
        rgb: UInt8[np.ndarray, "H W 3"],
        depth: Float[np.ndarray, "H W"],
        without: Collection[int] = (),
    ) -> Surfaces:
        """The static surfaces of a view in the colours of the frames nearest to it.

        Args:
            view: a single camera.
            rgb: the rendering of the static scene, without exposure.
            depth: its z-depth; inf without a surface.
            without: frames whose own colours must not be used.
        """
        sources = [
            Source(self.frames[t], meshes.cameras[t], self._draw_depth(meshes, t), share)
            for t, share in self._weigh_frames(meshes, view, without).items()
        ]
        return carry_surfaces(view, rgb, depth, sources, self.options)

    def of_movers(
        self,
        meshes: MovingMeshPipeline,
        view: Cameras,
        time: float,
        rgb: UInt8[np.ndarray, "H W 3"],
        without: Collection[int] = (),
    ) -> Float[np.ndarray, "H W 3"]:
        """Colours of the movers in a view at a time, 0 to 255; see ``of_background``.

        Args:
            time: in frames of the clip, may be fractional.
            rgb: the movers over black.
        """
        out = rgb.astype(np.float32)
        rows, columns = (np.flatnonzero(rgb.any((axis, 2))) for axis in (1, 0))
        if not len(rows) or _is_coarse(view, meshes.cameras):
            return out
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        carried = []
        for t, share in self._weigh_times(meshes, time, without).items():
            pixels = map_mover(meshes, view, time, t)
            pixels = SourceMap(pixels.x[part], pixels.y[part], pixels.z[part])
            is_mover = pixels.read(self.frames[t].layers, cv2.INTER_NEAREST) == MOVER
            is_mover &= np.isfinite(pixels.z)
            colors = pixels.read(self.frames[t].rgb, cv2.INTER_CUBIC).astype(np.float32)
            carried.append((colors, np.float32(share) * is_mover))
        out[part] = mix_colors(rgb[part], carried)
        return out

    def find_light(
        self,
        meshes: TriangleMeshPipeline,
        view: Cameras,
        time: float,
        depth: Float[np.ndarray, "H W"],
        without: Collection[int] = (),
    ) -> Float[np.ndarray, "H W 3"] | None:
        """Share of its light that each static surface of a view keeps in the shadows of movers,
        interpolated between the frames before and after a time; None without shadows.

        Args:
            time: in frames of the clip, may be fractional.
            depth: z-depth of the view; inf without a surface.
            without: frames whose shadows are not used.
        """
        times = np.array([t for t in meshes.faces if t in self.frames and t not in without])
        total = None
        for t, share in weigh_around(times, time):
            light = self.frames[t].light
            if light is None:
                continue
            if self.chosen is not None:
                light = self.chosen.keep_shadows(light, t)
            pixels = map_surface(meshes.cameras[t], view, depth)
            lost = 1 - pixels.read(light).astype(np.float32) / 255
            lost[~pixels.is_inside(*light.shape[1::-1])] = 0
            lost *= sees(pixels, self._draw_depth(meshes, t), self.options)[..., None]
            total = (0 if total is None else total) + np.float32(share) * lost
        return None if total is None else 1 - total

    def _weigh_frames(
        self, meshes: TriangleMeshPipeline, view: Cameras, without: Collection[int]
    ) -> dict[int, float]:
        """Weights of the frames nearest to a view."""
        if _is_coarse(view, meshes.cameras):
            return {}
        costs = meshes.view_costs(view).tolist()
        frames = [
            (cost, t)
            for cost, t in zip(costs, meshes.faces, strict=True)
            if t in self.frames and t not in without
        ]
        nearness = self._measure_nearness(meshes, view)
        shares = _share_by_cost(sorted(frames), self.options.frames)
        return {t: nearness * share for (_, t), share in shares if nearness}

    def _measure_nearness(self, meshes: TriangleMeshPipeline, view: Cameras) -> float:
        """1 for a view near the camera path to 0 for a view far from it."""
        whole, far = self.options.whole, self.options.far
        return min(1.0, max(0.0, (far - meshes.path_distance(view)) / (far - whole)))

    def _weigh_times(
        self, meshes: MovingMeshPipeline, time: float, without: Collection[int]
    ) -> dict[int, float]:
        """Weights of the frames nearest in time whose movers have a known place then.

        A time with a mesh of its own is drawn from that mesh, and only its own frame fits it.
        """
        own = [t for t, _ in meshes.find_frames(time)]
        near = meshes.meshes if len(own) > 1 else own
        frames = [
            (abs(t - time), t)
            for t in near
            if t in self.frames and t not in without and meshes.meshes[t].is_placed(time)
        ]
        shares = _share_by_cost(sorted(frames), self.options.mover_frames)
        return {t: share for (_, t), share in shares}


def weigh_around(times: Int[np.ndarray, "n"], time: float) -> list[tuple[int, float]]:
    """The last of ascending times up to a time and the first after it, with weights that interpolate
    linearly; the nearest alone outside all times."""
    if not len(times):
        return []
    after = int(np.searchsorted(times, time, "right"))
    if after in (0, len(times)):
        return [(int(times[min(after, len(times) - 1)]), 1.0)]
    first, last = int(times[after - 1]), int(times[after])
    share = (time - first) / (last - first)
    return [(t, weight) for t, weight in ((first, 1 - share), (last, share)) if weight]


def _draw_depth(meshes: TriangleMeshPipeline, t: int) -> Float[np.ndarray, "H W"]:
    """z-depth of frame t's own mesh in frame t."""
    return meshes.fragments(t, meshes.cameras[t]).depth.numpy()


def _share_by_cost(frames: list[tuple], count: int) -> list[tuple[tuple, float]]:
    """The first frames with shares that sum to 1: all of a frame without cost.

    A share falls to 0 as a frame's cost rises to that of the first frame left out, so that nothing
    jumps as a view moves on.

    Args:
        frames: tuples of a cost and other values, by rising cost.
    """
    limit = 1 / max(frames[count][0], _TINY) if len(frames) > count else 0
    left = [1 / max(cost[0], _TINY) - limit for cost in frames[:count]]
    total = sum(left)
    # frames of equal cost, as of a camera that stands still
    shares = [part / total if total else 1 / len(left) for part in left]
    return list(zip(frames, shares, strict=False))


def _is_coarse(view: Cameras, cameras: Cameras) -> bool:
    """True if a view has far fewer pixels for a surface than the frames have."""
    return bool(view.K[0, 0, 0] < _LEAST_FOCAL * cameras.K[:, 0, 0].median())
