"""Camera paths of several parts that follow each other in time.

``freeze`` holds a picture; ``bullet_time`` stops the clip at a frame while the camera swings. The
other parts share the rest of the clip's time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from models.cameras import Cameras
from models.paths.stabilization import interpolate_cameras
from models.paths.trajectories import TRAJECTORIES, CameraPath, Clip
from models.run import InputError

JOINT_FRAMES = 15
"""Frames over which the camera moves from the end of one part to the path of the next; more give a
slower transition."""


@dataclass(frozen=True)
class Part:
    """A part of a path."""

    name: str
    """Name in ``TRAJECTORIES``, or "freeze"."""
    number: float | None = None
    """Number of frames of ``freeze``, frame of the clip of ``bullet_time``."""
    frames: int | None = None
    """Frames of the video at speed 1; those of the clip if None."""
    speed: float = 1.0
    """Of camera and clip: at 2 the part takes half as many frames."""
    settings: dict[str, float] = field(default_factory=dict)
    """Fields of the trajectory."""
    loops: int = 1
    """How many times the movers play the part's stretch of the clip."""

    def count_frames(self, clip_frames: int) -> int:
        """Frames of video that the part takes, at least 1."""
        if self.name == "freeze":
            return int(self.number)
        return max(1, round((self.frames or clip_frames) / self.speed))


@dataclass(frozen=True)
class PathScript:
    """A camera path as a sequence of parts."""

    parts: tuple[Part, ...]
    fps: float | None = None
    """Frames per second of the video; None for the clip's."""
    size: tuple[int, int] | None = None
    """Width and height in pixels; None for the clip's."""

    @property
    def name(self) -> str:
        """Name for files: the names of the parts."""
        return "_".join(part.name for part in self.parts)

    def check(self, num_frames: int) -> None:
        """Checks the parts against the length of a clip.

        Raises:
            InputError: a part names a frame that the clip does not have.
        """
        last = num_frames - 1
        for part in self.parts:
            if part.name == "bullet_time" and part.number is not None and part.number > last:
                raise InputError(f"bullet_time {part.number:g}: the clip's last frame is {last}")

    def build(self, clip: Clip, freeze_time: float | None = None) -> CameraPath:
        """Cameras of the video, and the time of the movers at each.

        Args:
            freeze_time: frame of the clip at which the movers stand still throughout.

        Raises:
            InputError: a part names a frame that the clip does not have.
        """
        self.check(len(clip.cameras))
        times = _assign_times(self.parts, len(clip.cameras))
        path: Cameras | None = None
        joined: list[float] = []
        for part, own in zip(self.parts, times, strict=True):
            if part.name == "freeze":
                path = _join(path, path[[-1] * len(own)])
            else:
                follower = TRAJECTORIES[part.name](**part.settings).follow(clip, own)
                path = _join(path, follower if path is None else _lead_over(path[-1], follower))
            joined += own
        # freeze_time stops the movers, not the camera
        cameras = path if self.size is None else _crop(path, *self.size)
        return cameras, joined if freeze_time is None else [float(freeze_time)] * len(joined)


def _assign_times(parts: Sequence[Part], num_frames: int) -> list[list[float]]:
    """Times of each part in frames of the clip: evenly spaced between the clip's ends and the
    frames of ``bullet_time``."""
    # without a number the clip stops halfway
    middle = (num_frames - 1) / 2
    parts = [
        replace(p, number=middle) if p.name == "bullet_time" and p.number is None else p
        for p in parts
    ]
    stops = [i for i, part in enumerate(parts) if part.name == "bullet_time"]
    times: list[list[float]] = []
    now = 0.0
    begin = 0
    for stop in stops:
        goal = float(parts[stop].number)
        times += _share_time(parts[begin:stop], now, goal, num_frames)
        times.append([goal] * parts[stop].count_frames(num_frames))
        begin = stop + 1
        now = goal
    return times + _share_time(parts[begin:], now, float(num_frames - 1), num_frames)


def _share_time(
    parts: Sequence[Part], now: float, goal: float, num_frames: int
) -> list[list[float]]:
    """Times of parts that play the clip from ``now`` to ``goal``, in proportion to their frames;
    ``freeze`` holds the time it has reached."""
    moving = [part for part in parts if part.name != "freeze"]
    # a stabilised path alone keeps the speed of the clip
    alone = len(moving) == 1 and moving[0].name == "stabilized"
    clip_frames = round(abs(goal - now)) + 1 if alone else num_frames
    total = sum(part.count_frames(clip_frames) for part in moving)
    times = []
    done = 0
    for part in parts:
        if part.name == "freeze":
            at = now + (goal - now) * done / total if total else now
            times.append([at] * part.count_frames(num_frames))
            continue
        count = part.count_frames(clip_frames)
        ends = [now + (goal - now) * share / total for share in (done, done + count)]
        times.append(_loop_time(*ends, count, part.loops))
        done += count
    return times


def _loop_time(begin: float, end: float, count: int, loops: int) -> list[float]:
    """``count`` times from ``begin`` to ``end``, ``loops`` times over; the last is ``end``."""
    if loops == 1:
        # the times of whole frames stay whole numbers
        return torch.linspace(begin, end, count, dtype=torch.float64).tolist()
    length = end - begin
    passed = torch.linspace(0, loops * length, count, dtype=torch.float64).round(decimals=9)
    # the end of the last turn is no new beginning
    within = torch.where(passed < loops * length, passed % length, length)
    return (begin + within).tolist()


def _join(path: Cameras | None, more: Cameras) -> Cameras:
    """A path continued by more cameras."""
    if path is None:
        return more
    K = torch.cat([path.K, more.K])
    poses = torch.cat([path.world_from_cam, more.world_from_cam])
    return Cameras(K, poses, path.width, path.height)


def _lead_over(start: Cameras, path: Cameras) -> Cameras:
    """The path with its first frames blended from the camera ``start``, slow at both ends."""
    poses = path.world_from_cam.clone()
    K = path.K.clone()
    for i in range(min(JOINT_FRAMES, len(path))):
        share = (i + 1) / (JOINT_FRAMES + 1)
        # smoothstep: no jump of the velocity at either end
        between = interpolate_cameras(_join(start, path[i]), [share * share * (3 - 2 * share)])
        poses[i] = between.world_from_cam[0]
        K[i] = between.K[0]
    return Cameras(K, poses, path.width, path.height)


def _crop(cameras: Cameras, width: int, height: int) -> Cameras:
    """The same views at another size in pixels; for another aspect ratio the image is scaled to
    cover the new size and cropped about its centre."""
    scale = max(width / cameras.width, height / cameras.height)
    K = cameras.K.double().clone()
    K[:, :2] *= scale
    # the principal point keeps its place relative to the image centre
    K[:, 0, 2] += (width - scale * cameras.width) / 2
    K[:, 1, 2] += (height - scale * cameras.height) / 2
    return Cameras(K.to(cameras.K), cameras.world_from_cam, width, height)
