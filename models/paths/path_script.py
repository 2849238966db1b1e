"""Camera paths from a text: "spiral radius=0.1 turns=3 frames=120; freeze 24; orbit degrees=20
fps=30 size=1280x720".

Parts between semicolons follow each other in time. ``freeze N`` holds the picture for N frames;
``bullet_time T`` stops the clip at its frame T while the camera swings. The others share what is
left of the clip's time between them.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from models.cameras import Cameras
from models.paths.stabilization import interpolate_cameras
from models.paths.trajectories import TRAJECTORIES, CameraPath, Clip
from models.run import InputError

MAX_FRAMES = 100_000
MAX_SIDE = 8192
JOINT = 15
"""Frames over which one part's path goes over into the next."""
NUMBERED = {
    "freeze": "how many frames, as in 'freeze 24'",
    "bullet_time": "a frame of the clip, as in 'bullet_time 24'",
}


@dataclass(frozen=True)
class Part:
    """One part of a path."""

    name: str
    number: float | None = None
    """The N of freeze, the T of bullet_time."""
    frames: int | None = None
    speed: float = 1.0
    """Of camera and clip: at 2 the part takes half as many frames."""
    settings: dict[str, float] = field(default_factory=dict)

    def count(self, clip_frames: int) -> int:
        """Frames of video that the part takes."""
        if self.name == "freeze":
            return int(self.number)
        return max(1, round((self.frames or clip_frames) / self.speed))


@dataclass(frozen=True)
class PathScript:
    """A path as it was asked for."""

    parts: tuple[Part, ...]
    fps: float | None = None
    """Of the video; None for the clip's."""
    size: tuple[int, int] | None = None
    """Width and height in pixels; None for the clip's."""

    @property
    def name(self) -> str:
        """For files: the parts' names."""
        return "_".join(part.name for part in self.parts)

    def check(self, num_frames: int) -> None:
        """Raises InputError where a part names a frame that the clip does not have."""
        for part in self.parts:
            if (
                part.name == "bullet_time"
                and part.number is not None
                and part.number > num_frames - 1
            ):
                raise InputError(
                    f"bullet_time {part.number:g}: the clip's last frame is {num_frames - 1}"
                )

    def build(self, clip: Clip, freeze_time: float | None = None) -> CameraPath:
        """The cameras and the times of the movers; with ``freeze_time`` they stand still at that
        frame throughout."""
        self.check(len(clip.cameras))
        times = self._times(len(clip.cameras))
        poses = []
        K = []
        joined = []
        for part, own in zip(self.parts, times, strict=True):
            if part.name == "freeze":
                path = _held(poses[-1][-1], K[-1][-1], len(own), clip.cameras)
            else:
                path = TRAJECTORIES[part.name](clip, own, **part.settings)
                path = _joined(poses[-1][-1], K[-1][-1], path) if poses else path
            poses.append(path.world_from_cam)
            K.append(path.K)
            joined += own
        cameras = Cameras(torch.cat(K), torch.cat(poses), clip.cameras.width, clip.cameras.height)
        cameras = cameras if self.size is None else _cropped(cameras, *self.size)
        return cameras, joined if freeze_time is None else [float(freeze_time)] * len(joined)

    def _times(self, num_frames: int) -> list[list[float]]:
        """Clip times of each part: even between the ends of the clip and the frames where bullets
        stand."""
        parts = [
            replace(p, number=(num_frames - 1) / 2)
            if p.name == "bullet_time" and p.number is None
            else p
            for p in self.parts
        ]
        stops = [i for i, part in enumerate(parts) if part.name == "bullet_time"]
        times: list[list[float]] = [[] for _ in parts]
        begin = 0
        now = 0.0
        for stop in [*stops, len(parts)]:
            goal = float(num_frames - 1) if stop == len(parts) else float(parts[stop].number)
            _share(parts, times, range(begin, stop), now, goal, num_frames)
            if stop < len(parts):
                times[stop] = [goal] * parts[stop].count(num_frames)
            begin = stop + 1
            now = goal
        return times


def parse_path(text: str) -> PathScript:
    """Reads a path from its text.

    Raises:
        InputError: a part, setting or number is unknown or out of range.
    """
    script = PathScript(())
    parts = []
    for piece in text.split(";"):
        words = piece.split()
        options = [word for word in words if "=" in word]
        for option in [word for word in options if word.split("=")[0] in ("fps", "size")]:
            script = _with_option(script, option)
            options.remove(option)
        heads = [word for word in words if "=" not in word]
        if heads:
            parts.append(_part(heads, options))
        elif options:
            raise InputError(
                f"camera path '{piece.strip()}': '{options[0]}' needs the name of a path before it"
            )
    if not parts or parts[0].name == "freeze":
        raise InputError(f"camera path '{text}': must begin with one of {', '.join(TRAJECTORIES)}")
    return replace(script, parts=tuple(parts))


def _part(heads: Sequence[str], options: Sequence[str]) -> Part:
    name = heads[0]
    numbers = heads[1:]
    if name not in TRAJECTORIES and name != "freeze":
        raise InputError(
            f"there is no camera path '{name}'; choose one of {', '.join([*TRAJECTORIES, 'freeze'])}"
        )
    if len(numbers) > (name in NUMBERED) or (name == "freeze" and not numbers):
        raise InputError(
            f"camera path '{' '.join(heads)}': {name} takes {NUMBERED.get(name, 'no number, but name=value')}"
        )
    number = _number(numbers[0], name, least=0 if name == "bullet_time" else 1) if numbers else None
    own = [] if name == "freeze" else _settings_of(name)
    values: dict[str, float] = {}
    for option in options:
        key, text = option.split("=", 1)
        if key not in own and (key not in ("frames", "speed") or name == "freeze"):
            known = ", ".join([*own, "frames", "speed"]) if own else "none"
            raise InputError(
                f"camera path {name}: there is no setting '{key}'; it has {known}, and fps and size"
            )
        values[key] = _number(text, f"{name} {key}", least=1 if key == "frames" else 1e-6)
    frames = values.pop("frames", None)
    speed = values.pop("speed", 1.0)
    part = Part(name, number, None if frames is None else int(frames), speed, values)
    if part.count(1) > MAX_FRAMES:
        raise InputError(f"camera path {name}: more than {MAX_FRAMES} frames")
    return part


def _settings_of(name: str) -> list[str]:
    parameters = inspect.signature(TRAJECTORIES[name]).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def _with_option(script: PathScript, option: str) -> PathScript:
    key, text = option.split("=", 1)
    if key == "fps":
        return replace(script, fps=_number(text, key, least=0.1))
    sides = [_number(side, key, least=16) for side in text.split("x")]
    if len(sides) != 2 or max(sides) > MAX_SIDE:
        raise InputError(
            f"camera path: size={text} is not of the form 1280x720, 16 to {MAX_SIDE} pixels a side"
        )
    return replace(script, size=(int(sides[0]), int(sides[1])))


def _number(text: str, what: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= least):
        raise InputError(f"camera path: {what} must be a number from {least:g}, not '{text}'")
    return value


def _share(
    parts: Sequence[Part],
    times: list[list[float]],
    indices: range,
    now: float,
    goal: float,
    num_frames: int,
) -> None:
    """Plays the clip from ``now`` to ``goal`` over the parts that move, in proportion to their
    frames."""
    moving = [i for i in indices if parts[i].name != "freeze"]
    span = round(abs(goal - now)) + 1
    alone = [
        span if parts[i].name == "stabilized" and len(moving) == 1 else num_frames for i in moving
    ]
    counts = dict(
        zip(moving, [parts[i].count(n) for i, n in zip(moving, alone, strict=True)], strict=True)
    )
    total = sum(counts.values())
    done = 0
    for i in indices:
        if parts[i].name == "freeze":
            at = now + (goal - now) * done / total if total else now
            times[i] = [at] * parts[i].count(num_frames)
            continue
        ends = [now + (goal - now) * share / total for share in (done, done + counts[i])]
        times[i] = torch.linspace(*ends, counts[i], dtype=torch.float64).tolist()
        done += counts[i]


def _held(pose: torch.Tensor, K: torch.Tensor, count: int, like: Cameras) -> Cameras:
    return Cameras(K.expand(count, 3, 3), pose.expand(count, 4, 4), like.width, like.height)


def _joined(pose: torch.Tensor, K: torch.Tensor, path: Cameras) -> Cameras:
    """The path, led over from another camera in its first frames, slow at both ends."""
    poses = path.world_from_cam.clone()
    lenses = path.K.clone()
    for i in range(min(JOINT, len(path))):
        share = (i + 1) / (JOINT + 1)
        pair = Cameras(
            torch.stack([K, path.K[i]]), torch.stack([pose, poses[i]]), path.width, path.height
        )
        between = interpolate_cameras(pair, [share * share * (3 - 2 * share)])
        poses[i] = between.world_from_cam[0]
        lenses[i] = between.K[0]
    return Cameras(lenses, poses, path.width, path.height)


def _cropped(cameras: Cameras, width: int, height: int) -> Cameras:
    """The same views at another size; of another aspect, the larger scale is taken and the rest cut
    off."""
    scale = max(width / cameras.width, height / cameras.height)
    K = cameras.K.double().clone()
    K[:, :2] *= scale
    K[:, 0, 2] += (width - scale * cameras.width) / 2
    K[:, 1, 2] += (height - scale * cameras.height) / 2
    return Cameras(K.to(cameras.K), cameras.world_from_cam, width, height)
