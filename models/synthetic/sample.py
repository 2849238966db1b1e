"""The sample clip: a rendered room with carts, and its ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real, UInt8

from models.cameras import Cameras
from models.run import InputError
from models.synthetic.camera import build_camera_path
from models.synthetic.rays import find_unoccluded, trace
from models.synthetic.room import Room
from models.synthetic.textures import shade

Times = Real[np.ndarray, "F"] | Sequence[int | float]


@dataclass(frozen=True)
class SyntheticScene:
    """A rendered clip and its ground truth, in metres; the world's z axis points up and the floor
    is z = 0."""

    frames: UInt8[np.ndarray, "F H W 3"]
    """RGB with noise."""
    masks: Bool[np.ndarray, "F H W"]
    """Pixels whose centre's ray meets a cart."""
    depth: Float[np.ndarray, "F H W"]
    """z-depth at pixel centres."""
    cameras: Cameras
    """Camera of each frame."""
    track_xyz: Float[np.ndarray, "F N 3"]
    """World position of each surface point in each frame."""
    track_xy: Float[np.ndarray, "F N 2"]
    """Projections of the points in pixels, inside the image or not."""
    track_visible: Bool[np.ndarray, "F N"]
    """True if a point is inside the image and nothing hides it."""
    track_is_foreground: Bool[np.ndarray, "N"]
    """True for points on carts."""
    track_query: Int[np.ndarray, "N"]
    """First frame in which each point is visible."""
    mean_depth: float
    """Mean of ``depth``."""
    fps: float
    """Frames per second."""
    seed: int
    """Seed of the room, its textures and the noise."""
    num_movers: int
    """Number of carts."""


@dataclass(frozen=True)
class RoomOptions:
    """Settings of the rendered clip; the same options give the same scene."""

    num_frames: int = 48
    """Frames of the clip."""
    width: int = 480
    """Image width in pixels."""
    height: int = 270
    """Image height in pixels."""
    seed: int = 0
    """Seed of the room, its textures, the tracks and the noise."""
    num_movers: int = 1
    """Carts that travel and turn on the floor, 0 to 3."""
    motion: Literal["sideways", "turn", "still"] = "sideways"
    """Motion of the camera: carried sideways (with parallax), turned about a fixed centre,
    or none."""
    noise: float = 1.0
    """Standard deviation of the frames' Gaussian noise, in grey levels of 255."""
    num_tracks: int = 512
    """Surface points to follow; a quarter of them on carts if there are any."""
    fps: float = 24.0
    """Frames per second of the video file."""


def render_room(options: RoomOptions = RoomOptions(), **fields: object) -> SyntheticScene:
    """Renders the clip and its ground truth.

    Args:
        fields: fields of ``options`` by name, in place of the values there.

    Raises:
        InputError: an option is out of range.
    """
    options = replace(options, **fields)
    _check_options(options)
    num_frames = options.num_frames
    cameras = build_camera_path(num_frames, options.width, options.height, options.motion)
    room = Room(options.seed, options.num_movers)
    clean, depth, mover = _render_frames(room, cameras, np.arange(num_frames), num_frames)
    random = np.random.default_rng([options.seed, 1])
    pixel = _draw_pixels(mover > 0, options.num_tracks, random)
    xyz = _follow_points(room, cameras, depth, pixel, mover[pixel])
    xy, visible = _project_points(room, cameras, xyz)
    return SyntheticScene(
        frames=np.stack([_add_noise(frame, options.noise, random) for frame in clean]),
        masks=mover > 0,
        depth=depth,
        cameras=cameras,
        track_xyz=xyz,
        track_xy=xy,
        track_visible=visible,
        track_is_foreground=mover[pixel] > 0,
        track_query=visible.argmax(0),
        mean_depth=float(depth.mean(dtype=np.float64)),
        fps=options.fps,
        seed=options.seed,
        num_movers=options.num_movers,
    )


def render_views(
    cameras: Cameras, times: Times, num_frames: int = 48, seed: int = 0, num_movers: int = 1
) -> tuple[UInt8[np.ndarray, "F H W 3"], Float[np.ndarray, "F H W"], Bool[np.ndarray, "F H W"]]:
    """The room of a clip in other cameras: images without noise, z-depth in metres, cart masks.

    Args:
        times: frame of the clip that each camera sees; may be fractional.
        num_frames: length of the clip, which sets the speed of the carts.

    Raises:
        InputError: the room has no lane for so many carts.
    """
    rgb, depth, mover = _render_frames(Room(seed, num_movers), cameras, times, num_frames)
    return rgb.round().astype(np.uint8), depth, mover > 0


def _check_options(options: RoomOptions) -> None:
    size = f"{options.width}x{options.height}"
    if min(options.num_frames, options.width, options.height) < 1 or options.num_tracks < 0:
        raise InputError(
            f"cannot render {options.num_frames} frames of {size} with {options.num_tracks} tracks"
        )
    if options.noise < 0:
        raise InputError(f"noise is {options.noise}; it must not be negative")


def _render_frames(
    room: Room, cameras: Cameras, times: Times, num_frames: int
) -> tuple[Float[np.ndarray, "F H W 3"], Float[np.ndarray, "F H W"], Int[np.ndarray, "F H W"]]:
    """Images (0 to 255, not rounded), z-depth and number of the cart (0: none) at pixel centres."""
    rgb = []
    depth = []
    mover = []
    intrinsics = cameras.K.numpy()
    poses = cameras.world_from_cam.contiguous().numpy()
    for K, pose, time in zip(intrinsics, poses, np.asarray(times, np.float64), strict=True):
        solids = room.place_solids(_measure_progress(time, num_frames))
        surface, z, solid = trace(solids, K, pose, cameras.height, cameras.width)
        rgb.append(shade(room.materials, surface))
        depth.append(z)
        mover.append(room.mover_of_solid[solid].astype(np.int8))
    return np.stack(rgb), np.stack(depth), np.stack(mover)


def _measure_progress(time: int | float, num_frames: int) -> float:
    """Share of the clip that has passed at a frame: 0 at the first, 1 at the last."""
    return time / max(num_frames - 1, 1)


def _add_noise(
    image: Float[np.ndarray, "H W 3"], noise: float, random: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    noisy = image + noise * random.standard_normal(image.shape, dtype=np.float32)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _draw_pixels(
    on_cart: Bool[np.ndarray, "F H W"], num_tracks: int, random: np.random.Generator
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Frame, row and column of random pixels, a quarter of them on carts if there are any."""
    num_foreground = num_tracks // 4 if on_cart.any() else 0
    pixels = [
        random.choice(np.flatnonzero(on_cart == wanted), count)
        for wanted, count in ((True, num_foreground), (False, num_tracks - num_foreground))
        if count
    ]
    flat = np.concatenate([np.empty(0, np.int64), *pixels])
    return np.unravel_index(flat, on_cart.shape)


def _follow_points(
    room: Room,
    cameras: Cameras,
    depth: Float[np.ndarray, "F H W"],
    pixel: tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"], Int[np.ndarray, "N"]],
    mover: Int[np.ndarray, "N"],
) -> Float[np.ndarray, "F N 3"]:
    """World positions in every frame of the surface points at some pixels.

    Args:
        pixel: frame, row and column of each point.
        mover: cart of each point, 0 if it is static.
    """
    frame, row, column = pixel
    num_frames = len(depth)
    xy = torch.from_numpy(np.stack([column, row], 1) + 0.5)
    z = torch.from_numpy(depth[frame, row, column].astype(np.float64))
    start = cameras[torch.from_numpy(frame)].unproject(xy[:, None], z[:, None])[:, 0].numpy()
    path = np.broadcast_to(start, (num_frames, *start.shape)).copy()
    progress = [_measure_progress(f, num_frames) for f in range(num_frames)]
    # points of a cart keep their place in the cart's own frame of reference
    for number in range(1, mover.max(initial=0) + 1):
        moved = np.flatnonzero(mover == number)
        poses = np.stack([room.place_mover(number, share) for share in progress])
        homogeneous = np.c_[start[moved], np.ones(len(moved))][..., None]
        local = np.linalg.inv(poses)[frame[moved]] @ homogeneous
        path[:, moved] = (poses[:, None] @ local)[..., :3, 0]
    return path


def _project_points(
    room: Room, cameras: Cameras, xyz: Float[np.ndarray, "F N 3"]
) -> tuple[Float[np.ndarray, "F N 2"], Bool[np.ndarray, "F N"]]:
    """Pixels of the points, and whether each is inside the image with no solid before it."""
    xy, z = (values.numpy() for values in cameras.project(torch.from_numpy(xyz)))
    visible = (z > 0) & (xy >= 0).all(-1)
    visible &= (xy[..., 0] < cameras.width) & (xy[..., 1] < cameras.height)
    for f, center in enumerate(cameras.centers.numpy()):
        solids = room.place_solids(_measure_progress(f, len(xyz)))
        visible[f] &= find_unoccluded(solids, np.ascontiguousarray(center), xyz[f])
    return xy, visible
