"""Camera paths from a text: "spiral radius=0.1 turns=3 frames=120; freeze 24; orbit degrees=20
fps=30 size=1280x720".

Semicolons separate the parts. ``freeze N`` holds the picture for N frames; ``bullet_time T`` stops
the clip at its frame T.
"""

import math
from collections.abc import Sequence
from dataclasses import fields, replace

from models.paths.path_script import Part, PathScript
from models.paths.trajectories import TRAJECTORIES
from models.run import InputError

# frames of one part; more is a mistake, such as frames=1e9
_MAX_FRAMES = 100_000
# pixels of a side of the video; the upper limit bounds the memory of a frame
_MIN_SIDE = 16
_MAX_SIDE = 8192
# smallest value of a setting: none makes sense at 0 or below
_LEAST_SETTING = 1e-6
_LEAST_FPS = 0.1
_NUMBERED = {
    "freeze": "how many frames, as in 'freeze 24'",
    "bullet_time": "a frame of the clip, as in 'bullet_time 24'",
}


def parse_path(text: str) -> PathScript:
    """Reads a camera path from its text.

    Raises:
        InputError: a part, setting or number is unknown or out of range.
    """
    script = PathScript(())
    parts = []
    for piece in text.split(";"):
        heads, settings = _split_words(piece)
        # fps and size hold for the whole video, wherever they stand
        for setting in [word for word in settings if word.split("=")[0] in ("fps", "size")]:
            script = _set_video_option(script, setting)
            settings.remove(setting)
        if heads:
            parts.append(_parse_part(heads, settings))
        elif settings:
            raise InputError(
                f"camera path '{piece.strip()}': '{settings[0]}' needs the name of a path before it"
            )
    # freeze holds the picture before it
    if not parts or parts[0].name == "freeze":
        raise InputError(f"camera path '{text}': must begin with one of {', '.join(TRAJECTORIES)}")
    return replace(script, parts=tuple(parts))


def _split_words(piece: str) -> tuple[list[str], list[str]]:
    """The words of a part: its name and argument, and its settings."""
    words = piece.split()
    heads = [word for word in words if "=" not in word]
    return heads, [word for word in words if "=" in word]


def _parse_part(heads: Sequence[str], settings: Sequence[str]) -> Part:
    """A part from its name and number, and its settings as name=value."""
    name = heads[0]
    numbers = heads[1:]
    if name not in TRAJECTORIES and name != "freeze":
        known = ", ".join([*TRAJECTORIES, "freeze"])
        raise InputError(f"there is no camera path '{name}'; choose one of {known}")
    if len(numbers) > (name in _NUMBERED) or (name == "freeze" and not numbers):
        takes = _NUMBERED.get(name, "no number, but name=value")
        raise InputError(f"camera path '{' '.join(heads)}': {name} takes {takes}")
    least = 0 if name == "bullet_time" else 1
    number = _parse_number(numbers[0], name, least) if numbers else None
    values = _parse_settings(name, settings)
    frames = values.pop("frames", None)
    speed = values.pop("speed", 1.0)
    loops = int(values.pop("loops", 1))
    part = Part(name, number, None if frames is None else int(frames), speed, values, loops)
    if part.count_frames(1) > _MAX_FRAMES:
        raise InputError(f"camera path {name}: more than {_MAX_FRAMES} frames")
    return part


def _parse_settings(name: str, settings: Sequence[str]) -> dict[str, float]:
    """Numbers of a part's settings, given as name=value, by name."""
    allowed = []
    if name != "freeze":
        allowed = [f.name for f in fields(TRAJECTORIES[name])] + ["frames", "speed", "loops"]
    values = {}
    for setting in settings:
        key, text = setting.split("=", 1)
        if key not in allowed:
            raise InputError(
                f"camera path {name}: there is no setting '{key}'; "
                f"it has {', '.join(allowed) or 'none'}, and fps and size"
            )
        least = 1 if key in ("frames", "loops") else _LEAST_SETTING
        values[key] = _parse_number(text, f"{name} {key}", least)
    return values


def _set_video_option(script: PathScript, option: str) -> PathScript:
    """The script with fps or size of the video, given as name=value."""
    key, text = option.split("=", 1)
    if key == "fps":
        return replace(script, fps=_parse_number(text, key, _LEAST_FPS))
    sides = [_parse_number(side, key, _MIN_SIDE) for side in text.split("x")]
    if len(sides) != 2 or max(sides) > _MAX_SIDE:
        raise InputError(
            f"camera path: size={text} is not of the form 1280x720, "
            f"{_MIN_SIDE} to {_MAX_SIDE} pixels a side"
        )
    return replace(script, size=(int(sides[0]), int(sides[1])))


def _parse_number(text: str, name: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= least):
        raise InputError(f"camera path: {name} must be a number from {least:g}, not '{text}'")
    return value
