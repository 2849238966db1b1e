"""z-depth of the rebuilt clip and of new views, for compositors: EXR, 16-bit PNG, a grey video."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8, UInt16

from models.clip import VideoWriter
from models.paths import CameraPath
from models.render import Scene
from models.run import (
    Progress,
    clear_numbered,
    make_subfolder,
    replace_file,
    write_bytes,
    write_json,
)

# Percentiles of the depth between which a PNG and the video are scaled: specks count for nothing.
_NEAR, _FAR = 0.1, 99.9
# Largest far / near of a PNG: its steps of far / 65535 are then 0.08 % of the nearest depth.
_MOST_RANGE = 100.0
_STEPS = 65535
# Depths of a view that are looked at for its range.
_SAMPLED = 20_000


def write_depth_maps(
    folder: Path,
    scene: Scene,
    paths: Mapping[str, CameraPath],
    rates: Mapping[str, float],
    unit: str,
    progress: Progress,
) -> None:
    """Writes the depth of each camera path, movers included.

    ``NAME/%05d.exr`` holds z-depth in world units as half floats in channel Z, inf without a
    surface. ``NAME/%05d.png`` holds z-depth times ``png_steps_per_unit`` in 16 bits, 0 without a
    surface, 65535 at ``far`` and beyond. ``NAME.mp4`` shows inverse depth, white at ``near``.
    ``NAME.json`` holds these numbers.

    Args:
        paths: camera paths by name.
        rates: frames per second of their videos; the clip's where there is none.
        unit: of the depth, in words.
    """
    for name, (views, times) in paths.items():
        own = make_subfolder(folder, name)
        clear_numbered(own)
        depths = []
        for i in progress.over(range(len(views)), f"depth {name}"):
            depth = to_half(scene.views(views[i], times[i]).merged.depth)
            write_exr(own / f"{i:05d}.exr", depth)
            depths.append(depth)
        _remove_exr_behind(own, len(depths))
        near, far = find_range(depths)
        with VideoWriter(folder / f"{name}.mp4", rates.get(name, scene.fps)) as video:
            for i, depth in enumerate(depths):
                encoded = cv2.imencode(".png", to_steps(depth, far))[1]
                write_bytes(own / f"{i:05d}.png", encoded.tobytes())
                video.add(to_grey(depth, near, far))
        told = {
            "near": near,
            "far": far,
            "unit": unit,
            "png_steps_per_unit": _STEPS / far,
            "frames": len(depths),
        }
        write_json(folder / f"{name}.json", told)


def to_half(depth: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Depth as half floats; depths beyond their range take its end, inf stays inf."""
    largest = np.finfo(np.float16).max
    return np.where(np.isfinite(depth), np.minimum(depth, largest), np.inf).astype(np.float16)


def write_exr(path: Path, depth: Float[np.ndarray, "H W"]) -> None:
    """Writes a depth image as half floats in channel Z."""
    import OpenEXR  # only this export needs it

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with replace_file(path) as temporary:
        OpenEXR.File(header, {"Z": depth.astype(np.float16)}).write(str(temporary))


def find_range(depths: list[Float[np.ndarray, "H W"]]) -> tuple[float, float]:
    """The nearest and the farthest depth of a video, without specks; 1 and 2 without any depth."""
    sampled = [depth.ravel()[:: max(1, depth.size // _SAMPLED)] for depth in depths]
    values = np.concatenate(sampled).astype(np.float32)
    values = values[np.isfinite(values)]
    if not len(values):
        return 1.0, 2.0
    near, far = (float(value) for value in np.percentile(values, [_NEAR, _FAR]))
    return near, float(min(max(far, 1.001 * near), _MOST_RANGE * near))


def to_steps(depth: Float[np.ndarray, "H W"], far: float) -> UInt16[np.ndarray, "H W"]:
    """Depth in 65535 steps up to ``far``; 0 without a surface."""
    known = np.isfinite(depth)
    steps = np.round(np.where(known, depth, 0).astype(np.float64) * (_STEPS / far))
    return np.where(known, steps.clip(1, _STEPS), 0).astype(np.uint16)


def to_grey(depth: Float[np.ndarray, "H W"], near: float, far: float) -> UInt8[np.ndarray, "H W 3"]:
    """Inverse depth as grey: white at ``near``, black at ``far`` and without a surface."""
    inverse = 1 / np.maximum(depth.astype(np.float32), near)
    share = ((inverse - 1 / far) / (1 / near - 1 / far)).clip(0, 1)
    return np.repeat(np.round(255 * share).astype(np.uint8)[..., None], 3, 2)


def _remove_exr_behind(folder: Path, count: int) -> None:
    """Removes the files of an earlier, longer video."""
    for path in folder.glob("[0-9]*.exr"):
        if path.stem.isdigit() and int(path.stem) >= count:
            path.unlink()
