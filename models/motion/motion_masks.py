"""Masks of what moves, from motion alone: flow against the rigid scene, cut to pixel edges, a label
for each mover."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from models.motion.evidence import gather_evidence
from models.motion.segments import label_movers, segment
from models.run import return_freed
from models.sfm import StaticScene, adjust_rotation, solve_rotation, triangulate
from models.tracking import thin

COVERAGE = 0.7
"""Share of the image over which tracks must agree with a scene for it to be taken as the background
at once."""
SUSPECT = 0.25
"""Share of agreeing neighbours above which a track belongs to what a wrong scene was built on."""
CELL = 20
"""Side of the cells, in pixels at 854 wide, over which agreement is averaged."""
STEADY_GAIN = 0.7
"""A camera that may move must leave less than this share of the residual of one that only turns."""
WHOLE = 100
"""Frames of a clip that is taken whole, at most; each takes some 14 MB of evidence."""
WINDOW = 52
MARGIN = 12
"""Frames of a longer clip that are told at a time, and those to either side whose evidence they are
told from too."""
LONG_TRACK = 6
"""Frames that a track must last to be believed to be static."""
VOTE_GAIN = 12.0
"""Makes one track's vote about certain within 2 pixels."""
CROWD = 5.0
"""Reach in pixels, at 480 wide, over which tracks must mostly move to say so."""


@dataclass(frozen=True)
class MotionMasks:
    """What moves in each frame."""

    masks: Bool[np.ndarray, "F H W"]
    """True on movers."""
    labels: UInt8[np.ndarray, "F H W"]
    """0 = static, 1, 2, ... = movers, the same number through time; 1 covers most pixels."""
    scene: StaticScene | None
    """The rigid scene that the flow was held against; not the given one where that followed a
    mover."""


def motion_masks(
    frames: UInt8[np.ndarray, "F H W 3"],
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    scene: StaticScene | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MotionMasks:
    """Masks and labels of what moves; all False where nothing does.

    Args:
        frames: RGB.
        xy: 2D tracks of the whole image in pixels, movers included.
        visible: which of them were seen.
        scene: cameras and points of those tracks. If most of the image disagrees with it
            (reconstruction has followed a mover), or with None, the background's cameras are solved
            here from the tracks it leaves out.
        progress: is called with (done, total).
    """
    height, width = frames.shape[1:3]
    if len(frames) < 2:
        return MotionMasks(
            np.zeros(frames.shape[:3], bool), np.zeros(frames.shape[:3], np.uint8), scene
        )
    scene = background_scene(xy, visible, scene, width, height)
    if scene is None:
        return MotionMasks(
            np.zeros(frames.shape[:3], bool), np.zeros(frames.shape[:3], np.uint8), None
        )
    patches = _probabilities(frames, xy, visible, scene, progress or (lambda done, total: None))
    masks, labels = _enlarged(patches, label_movers(_moving(patches)), width, height)
    return MotionMasks(masks, labels, scene)


@dataclass(frozen=True)
class _Patch:
    """The part of an image that is not 0."""

    values: Float[np.ndarray, "h2 w2"]
    top: int
    left: int
    shape: tuple[int, int]

    @staticmethod
    def of(image: Float[np.ndarray, "h w"]) -> "_Patch":
        rows, columns = (np.flatnonzero(image.any(axis)) for axis in (1, 0))
        if not len(rows):
            return _Patch(image[:0, :0], 0, 0, image.shape)
        own = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return _Patch(own.copy(), rows[0], columns[0], image.shape)

    def whole(self) -> Float[np.ndarray, "h w"]:
        image, (height, width) = np.zeros(self.shape, self.values.dtype), self.values.shape
        image[self.top : self.top + height, self.left : self.left + width] = self.values
        return image


def _moving(patches: list[_Patch]) -> Bool[np.ndarray, "F h w"]:
    """Pixels that move more likely than not."""
    moving = np.empty((len(patches), *patches[0].shape), bool)
    for t, patch in enumerate(patches):
        moving[t] = patch.whole() > 0.5
    return moving


def _probabilities(
    frames: np.ndarray,
    xy: np.ndarray,
    visible: np.ndarray,
    scene: StaticScene,
    report: Callable[[int, int], None],
) -> list[_Patch]:
    """How likely each pixel moves, at the size of the evidence, which is held for one window of
    frames at a time."""
    nearest = _nearest(scene)
    patches = []
    before = 0
    windows = _windows(len(frames))
    total = sum(len(around) + 3 for around, _ in windows)
    for around, own in windows:
        probability = _of_window(
            frames, xy, visible, scene, nearest, around, partial(_count, report, total, before)
        )
        patches += [_Patch.of(probability[t - around[0]]) for t in own]
        before += len(around) + 3
        del probability
        return_freed()  # the evidence, much of it arrays of one frame, before that of the next window is gathered
    return patches


def _of_window(
    frames: np.ndarray,
    xy: np.ndarray,
    visible: np.ndarray,
    scene: StaticScene,
    nearest: Float[np.ndarray, "F"],
    around: range,
    report: Callable[[int, int], None],
) -> Float[np.ndarray, "T h w"]:
    """How likely each pixel of the frames ``around`` moves; their evidence is let go on return."""
    part = slice(around[0], around[-1] + 1)
    evidence = gather_evidence(frames[part], scene.cameras[part], nearest[part], report)
    votes = track_votes(xy, visible, scene, *evidence.misfit.shape[1:], times=around)
    return segment(
        evidence, votes, scene.cameras[part], lambda done, _: report(len(around) + done, 0)
    )


def _count(report: Callable[[int, int], None], total: int, before: int, done: int, _: int) -> None:
    report(before + done, total)


def _windows(num_frames: int) -> list[tuple[range, range]]:
    """Stretches of a clip that overlap, and the frames of each that are its own."""
    if num_frames <= WHOLE:
        return [(range(num_frames), range(num_frames))]
    edges = np.linspace(0, num_frames, -(-num_frames // WINDOW) + 1).round().astype(int).tolist()
    return [
        (range(max(0, a - MARGIN), min(num_frames, b + MARGIN)), range(a, b))
        for a, b in pairwise(edges)
    ]


def background_scene(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    scene: StaticScene | None,
    width: int,
    height: int,
) -> StaticScene | None:
    """The given scene where it covers most of the image; else one solved without the tracks that it
    was built on.

    Reconstruction prefers what shows the most parallax; that may be a mover. The background is what
    covers most of the image. None where there are too few tracks for any camera.
    """
    share = np.zeros(xy.shape[1])
    coverage = 0.0
    if scene is not None:
        share, coverage = agreement(xy, visible, scene.points.agrees, width, height)
        if coverage >= COVERAGE:
            return scene
    best = scene
    most = coverage
    for left_out in (True, False) if scene is not None else (False,):
        keep = share < SUSPECT if left_out else np.ones(xy.shape[1], bool)
        candidate = _solve_from_rotation(xy, visible, keep, width, height)
        if candidate is None:
            continue
        agreed = candidate.points.agrees.sum(0) > 0.8 * visible.sum(0)
        candidate = _solve_from_rotation(xy, visible, agreed, width, height) or candidate
        _, coverage = agreement(xy, visible, candidate.points.agrees, width, height)
        if coverage > most:
            best = candidate
            most = coverage
        if most >= COVERAGE:
            break
    return best


def agreement(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    agrees: Bool[np.ndarray, "F N"],
    width: int,
    height: int,
) -> tuple[Float[np.ndarray, "N"], float]:
    """Share of agreeing observations around each track, and share of the tracked image where most
    agree."""
    cell = max(4.0, CELL * max(width, height) / 854)
    shape = len(xy), int(height / cell) + 1, int(width / cell) + 1
    seen = np.zeros(shape)
    good = np.zeros(shape)
    size = shape[1] * shape[2]
    for t in range(len(xy)):
        where = _cells(xy[t, visible[t]], cell, shape[1:])
        seen[t] = np.bincount(where, minlength=size).reshape(shape[1:])
        good[t] = np.bincount(where, agrees[t, visible[t]], size).reshape(shape[1:])
    blur = (1.0, 1.5, 1.5)
    share = ndimage.gaussian_filter(good, blur) / np.maximum(
        ndimage.gaussian_filter(seen, blur), 1e-3
    )
    coverage = float((share[seen > 0] > 0.5).mean()) if (seen > 0).any() else 0.0
    mean = np.zeros(xy.shape[1])
    for t in range(len(xy)):
        mean[visible[t]] += share[t].ravel()[_cells(xy[t, visible[t]], cell, shape[1:])]
    return mean / np.maximum(visible.sum(0), 1), coverage


def _cells(
    xy: Float[np.ndarray, "n 2"], cell: float, shape: tuple[int, int]
) -> Int[np.ndarray, "n"]:
    """Number of the cell that each point of an image lies in, row by row; beyond the border that of
    the border."""
    column = np.clip(xy[:, 0] / cell, 0, shape[1] - 1).astype(int)
    row = np.clip(xy[:, 1] / cell, 0, shape[0] - 1).astype(int)
    return np.ravel_multi_index((row, column), shape)


def _solve_from_rotation(
    xy: np.ndarray, visible: np.ndarray, keep: Bool[np.ndarray, "N"], width: int, height: int
) -> StaticScene | None:
    """Cameras that turn and, where that explains much more, also move, from tracks spread evenly
    over the image."""
    chosen = np.flatnonzero(keep)
    chosen = chosen[
        thin(xy[:, chosen], visible[:, chosen], max(8, max(width, height) // 24), min_length=3)
    ]
    few = xy[:, chosen]
    seen = visible[:, chosen]
    if len(chosen) < 8 or seen.sum(1).min() < 8:
        return None
    cameras, error = solve_rotation(few, seen, width, height)
    moving, moving_error = adjust_rotation(few, seen, cameras)
    flat = error < 0.3 or moving_error > STEADY_GAIN * error
    cameras, error = (cameras, error) if flat else (moving, moving_error)
    points = triangulate(xy, visible, cameras, flat=flat)
    return StaticScene(
        cameras, points, "rotation" if flat else "adjusted", np.ones(len(xy), bool), error
    )


def track_votes(
    xy: Float[np.ndarray, "F N 2"],
    visible: Bool[np.ndarray, "F N"],
    scene: StaticScene,
    height: int,
    width: int,
    times: Sequence[int] | None = None,
) -> Float[np.ndarray, "T h w"]:
    """What long tracks say round them, in images of another size: -1 static, 1 moving, 0 nothing
    known.

    A track is told over its whole life, far more frames than flow spans, and at the frames' own
    resolution: it tells a mover that for a while moves as a nearer static point would. One alone
    that agrees with no point may have slipped at an edge; where most around it do, they move.
    """
    seen = np.maximum(visible.sum(0), 1)
    share = scene.points.agrees.sum(0) / seen
    long = seen >= min(LONG_TRACK, len(xy))
    static = long & (share > 0.9)
    moving = long & (share < 0.5)
    scale = np.array([width / scene.cameras.width, height / scene.cameras.height])
    crowd = CROWD * max(height, width) / 480
    times = range(len(xy)) if times is None else times
    out = np.zeros((len(times), height, width), np.float32)
    for image_out, t in zip(out, times, strict=True):
        near = np.zeros((2, height, width), np.float32)
        for of_kind, image in zip((static, moving), near, strict=True):
            x, y = np.clip(
                (xy[t, visible[t] & of_kind] * scale).astype(int), 0, [width - 1, height - 1]
            ).T
            np.add.at(image, (y, x), 1.0)
        vote = -np.minimum(cv2.GaussianBlur(near[0], (0, 0), 2.0) * VOTE_GAIN, 1)
        around = [cv2.GaussianBlur(image, (0, 0), crowd) for image in near]
        majority = np.clip((around[1] / (around[0] + around[1] + 1e-9) - 0.6) / 0.3, 0, 1)
        enough = np.minimum(around[1] * 4 * np.pi * crowd**2 / 3, 1)
        image_out[:] = vote + (1 + vote) * majority * enough
    return out


def _nearest(scene: StaticScene) -> Float[np.ndarray, "F"]:
    """Twice the inverse depth of the nearest agreeing points of each frame: nothing static is
    nearer."""
    pose = scene.cameras.cam_from_world.double().numpy()
    nearest = np.ones(len(pose))
    for t in range(len(pose)):
        good = scene.points.agrees[t]
        depth = scene.points.xyz[good] @ pose[t, 2, :3] + pose[t, 2, 3]
        depth = depth[depth > 1e-6]
        if len(depth):
            nearest[t] = 2 / np.quantile(depth, 0.01)
    return nearest


def _enlarged(
    patches: list[_Patch], labels: np.ndarray, width: int, height: int
) -> tuple[Bool[np.ndarray, "F H W"], UInt8[np.ndarray, "F H W"]]:
    """Masks and labels at the frames' own size; the edge runs where the interpolated probability is
    one half."""
    out = np.zeros((len(labels), height, width), np.uint8)
    for t, (patch, small) in enumerate(zip(patches, labels, strict=True)):
        if small.any():
            p = patch.whole()
            kept = cv2.resize(
                np.where(small > 0, p, np.minimum(p, 0.49)),
                (width, height),
                interpolation=cv2.INTER_LINEAR,
            )
            nearest = ndimage.distance_transform_edt(
                small == 0, return_distances=False, return_indices=True
            )
            grown = cv2.resize(
                small[tuple(nearest)], (width, height), interpolation=cv2.INTER_NEAREST
            )
            out[t] = np.where(kept > 0.5, grown, 0)
    return out > 0, out
