"""The sample clip: a rendered room with carts, and everything about it that a real clip does not
tell.

``python -m models.synthetic FOLDER`` writes frames, video, masks, depth, tracks, cameras and novel
views.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float, Int, Real, UInt8

from models.cameras import Cameras
from models.clip import write_images, write_video
from models.run import InputError, check_output_dir, replacing
from models.synthetic.camera import build_camera_path
from models.synthetic.rays import trace, unoccluded
from models.synthetic.room import Room
from models.synthetic.textures import shade

Times = Real[np.ndarray, "F"] | Sequence[int | float]
NOVEL_VIEWS = {"n1": "right", "n2": "up", "n3": "spiral"}
"""Names of the novel views in the written folder, and their kinds."""


@dataclass(frozen=True)
class SyntheticScene:
    """A rendered clip and its ground truth, in metres; the world's z axis points up, the floor is z
    = 0."""

    frames: UInt8[np.ndarray, "F H W 3"]
    """RGB, with noise where asked for."""
    masks: Bool[np.ndarray, "F H W"]
    """True where the ray through the pixel's centre meets a cart."""
    depth: Float[np.ndarray, "F H W"]
    """z-depth at pixel centres."""
    cameras: Cameras
    """One camera a frame."""
    track_xyz: Float[np.ndarray, "F N 3"]
    """World position of each surface point in each frame."""
    track_xy: Float[np.ndarray, "F N 2"]
    """Its projection in pixels, inside the image or not."""
    track_visible: Bool[np.ndarray, "F N"]
    """True where it is inside the image and nothing stands before it."""
    track_is_foreground: Bool[np.ndarray, "N"]
    """True for points on carts."""
    track_query: Int[np.ndarray, "N"]
    """The first frame that sees the point."""
    mean_depth: float
    """Mean of ``depth``."""
    fps: float
    """Frames per second."""
    seed: int
    """Of the room, its textures and the noise."""
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
    """Motion of the camera: carried sideways (with parallax), turned about a fixed centre, or none."""
    noise: float = 1.0
    """Standard deviation of the frames' Gaussian noise, in grey levels of 255."""
    num_tracks: int = 512
    """Surface points to follow; a quarter of them on carts if there are any."""
    fps: float = 24.0
    """Frames per second of the video file."""


def render_room(options: RoomOptions = RoomOptions()) -> SyntheticScene:
    """Renders the clip and its ground truth.

    Raises:
        InputError: an option is out of range.
    """
    num_frames = options.num_frames
    size = f"{options.width}x{options.height}"
    if min(num_frames, options.width, options.height) < 1 or options.num_tracks < 0:
        raise InputError(
            f"cannot render {num_frames} frames of {size} with {options.num_tracks} tracks"
        )
    if options.noise < 0:
        raise InputError(f"noise is {options.noise}; it must not be negative")
    cameras = build_camera_path(num_frames, options.width, options.height, options.motion)
    room = Room(options.seed, options.num_movers)
    clean, depth, mover = _render(room, cameras, np.arange(num_frames), num_frames)
    random = np.random.default_rng([options.seed, 1])
    xyz, is_foreground = _follow_points(room, cameras, depth, mover, options.num_tracks, random)
    xy, visible = _observe(room, cameras, xyz)
    return SyntheticScene(
        frames=np.stack([_with_noise(frame, options.noise, random) for frame in clean]),
        masks=mover > 0,
        depth=depth,
        cameras=cameras,
        track_xyz=xyz,
        track_xy=xy,
        track_visible=visible,
        track_is_foreground=is_foreground,
        track_query=visible.argmax(0),
        mean_depth=float(depth.mean(dtype=np.float64)),
        fps=options.fps,
        seed=options.seed,
        num_movers=options.num_movers,
    )


def render_views(
    cameras: Cameras, times: Times, num_frames: int = 48, seed: int = 0, num_movers: int = 1
) -> tuple[UInt8[np.ndarray, "F H W 3"], Float[np.ndarray, "F H W"], Bool[np.ndarray, "F H W"]]:
    """What other cameras see of the room of a clip: images without noise, z-depth in metres, masks
    of the carts.

    Args:
        times: frame of the clip that each camera sees, fractional ones included.
        num_frames: length of the clip, which sets the pace of the carts.
    """
    rgb, depth, mover = _render(Room(seed, num_movers), cameras, times, num_frames)
    return rgb.round().astype(np.uint8), depth, mover > 0


def novel_cameras(scene: SyntheticScene, kind: str) -> tuple[Cameras, Int[np.ndarray, "V"]]:
    """Cameras beside the clip's own path and the frame that each of them sees.

    Args:
        kind: "right" or "up": every fourth camera moved by 5 % of the mean depth along its own
            axis; "spiral": 12 cameras around the middle frame's, 3 to 8 % of the mean depth away
            from it.

    Raises:
        InputError: kind is none of these.
    """
    num_frames = len(scene.cameras)
    if kind == "spiral":
        angle = torch.arange(12, dtype=torch.float64) * (2 * math.pi * 1.5 / 12)
        radius = torch.linspace(0.03, 0.08, 12, dtype=torch.float64)
        times = np.full(12, num_frames // 2)
        offset = torch.stack([radius * angle.cos(), radius * angle.sin(), 0 * angle], 1)
    elif kind in ("right", "up"):
        times = np.arange(0, num_frames, 4)
        offset = torch.tensor(
            [[0.05, 0.0, 0.0] if kind == "right" else [0.0, -0.05, 0.0]], dtype=torch.float64
        )
    else:
        raise InputError(f'novel view is "{kind}"; it must be "right", "up" or "spiral"')
    cameras = scene.cameras[torch.from_numpy(times)]
    pose = cameras.world_from_cam.clone()
    pose[:, :3, 3] += scene.mean_depth * (pose[:, :3, :3] @ offset[..., None])[..., 0]
    return Cameras(cameras.K, pose, cameras.width, cameras.height), times


def write_scene(scene: SyntheticScene, folder: str | Path) -> None:
    """Writes ``frames``, ``masks`` (where there are movers), ``video.mp4``, ``depth.npz``,
    ``truth.npz`` and ``novel``.

    Raises:
        InputError: the folder cannot be made or written.
    """
    folder = Path(folder)
    every = range(len(scene.frames))
    write_images(folder / "frames", scene.frames, every)
    if scene.num_movers:
        write_images(folder / "masks", _as_images(scene.masks), every)
    write_video(folder / "video.mp4", scene.frames, scene.fps)
    _write_npz(folder / "depth.npz", depth=scene.depth.astype(np.float16))
    truth = {
        "K": scene.cameras.K[0].numpy(),
        "image_size": np.array([scene.cameras.height, scene.cameras.width]),
        "world_from_cam": scene.cameras.world_from_cam.numpy(),
        **{name: getattr(scene, name) for name in vars(scene) if name.startswith("track_")},
        "mean_depth": np.float64(scene.mean_depth),
    }
    for name, kind in NOVEL_VIEWS.items():
        cameras, times = novel_cameras(scene, kind)
        rgb, _, masks = render_views(
            cameras, times, len(scene.frames), scene.seed, scene.num_movers
        )
        write_images(folder / "novel" / name, rgb, range(len(rgb)))
        if scene.num_movers:
            write_images(folder / "novel" / f"{name}_masks", _as_images(masks), range(len(rgb)))
        truth[f"novel_{name}_world_from_cam"] = cameras.world_from_cam.numpy()
        truth[f"novel_{name}_time"] = times
    _write_npz(folder / "truth.npz", **truth)


def _render(room: Room, cameras: Cameras, times: Times, num_frames: int):
    """Images (0 to 255, not rounded), z-depth and number of the cart (0: none) at pixel centres."""
    rgb = []
    depth = []
    mover = []
    intrinsics = cameras.K.numpy()
    poses = cameras.world_from_cam.contiguous().numpy()
    for K, pose, time in zip(intrinsics, poses, np.asarray(times, np.float64), strict=True):
        surface, z, solid = trace(
            room.solids_at(_progress(time, num_frames)), K, pose, cameras.height, cameras.width
        )
        rgb.append(shade(room.materials, surface))
        depth.append(z)
        mover.append(room.mover_of_solid[solid].astype(np.int8))
    return np.stack(rgb), np.stack(depth), np.stack(mover)


def _progress(time: int | float, num_frames: int) -> float:
    return time / max(num_frames - 1, 1)


def _with_noise(
    image: np.ndarray, noise: float, random: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    noisy = image + noise * random.standard_normal(image.shape, dtype=np.float32)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _follow_points(
    room: Room, cameras: Cameras, depth, mover, num_tracks: int, random: np.random.Generator
):
    """World path (F, N, 3) of points under random pixels of random frames, and whether each lies on
    a cart."""
    num_frames = len(depth)
    num_foreground = num_tracks // 4 if (mover > 0).any() else 0
    pixels = [
        random.choice(np.flatnonzero((mover > 0) == wanted), count)
        for wanted, count in ((True, num_foreground), (False, num_tracks - num_foreground))
        if count
    ]
    frame, row, column = np.unravel_index(
        np.concatenate([np.empty(0, np.int64), *pixels]), depth.shape
    )
    xy = torch.from_numpy(np.stack([column, row], 1) + 0.5)
    z = torch.from_numpy(depth[frame, row, column].astype(np.float64))
    start = cameras[torch.from_numpy(frame)].unproject(xy[:, None], z[:, None])[:, 0].numpy()
    path = np.broadcast_to(start, (num_frames, *start.shape)).copy()
    for number in range(1, mover.max() + 1):
        moved = np.flatnonzero(mover[frame, row, column] == number)
        poses = np.stack(
            [room.mover_pose(number, _progress(f, num_frames)) for f in range(num_frames)]
        )
        local = (
            np.linalg.inv(poses)[frame[moved]] @ np.c_[start[moved], np.ones(len(moved))][..., None]
        )
        path[:, moved] = (poses[:, None] @ local)[..., :3, 0]
    return path, mover[frame, row, column] > 0


def _observe(room: Room, cameras: Cameras, xyz: Float[np.ndarray, "F N 3"]):
    """Pixel (F, N, 2) of each point and whether it is inside the image with nothing before it."""
    xy, z = (values.numpy() for values in cameras.project(torch.from_numpy(xyz)))
    visible = (
        (z > 0) & (xy >= 0).all(-1) & (xy[..., 0] < cameras.width) & (xy[..., 1] < cameras.height)
    )
    for f, center in enumerate(cameras.centers.numpy()):
        solids = room.solids_at(_progress(f, len(xyz)))
        visible[f] &= unoccluded(solids, np.ascontiguousarray(center), xyz[f])
    return xy, visible


def _as_images(masks: Bool[np.ndarray, "F H W"]) -> UInt8[np.ndarray, "F H W"]:
    return masks.astype(np.uint8) * 255


def _write_npz(path: Path, **arrays: np.ndarray | np.float64) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


@dataclass(frozen=True)
class Settings:
    """Renders the sample clip with its ground truth."""

    folder: tyro.conf.Positional[Path]
    """Where to write it."""
    room: tyro.conf.OmitArgPrefixes[RoomOptions] = RoomOptions()


def main() -> None:
    settings = tyro.cli(Settings)
    write_scene(render_room(settings.room), check_output_dir(settings.folder))
    print(f"sample clip: {settings.folder / 'video.mp4'}, its ground truth beside it")
