"""Cameras that a user gives, for the frames of a clip, at the size of the frames, with their
lenses."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool

from models.cameras import Cameras, interpolate_poses
from models.clip import ClipFrames, Lens, Video, image_paths, load_lenses, load_transforms
from models.run import SILENT, InputError, Progress
from models.sfm.colmap_files import read_model
from models.sfm.given.matching import Images, match_frames

# Pixels of the frames up to which lens distortion has no effect.
_LENS_LIMIT = 0.05


@dataclass(frozen=True)
class KnownCameras:
    """The given cameras of the frames of a clip."""

    cameras: Cameras
    """One for each frame, at the size of the frames. Where there are lenses, cameras of the straight
    images."""
    known: Bool[np.ndarray, "F"]
    """False where the file has no camera: the pose is interpolated from its neighbours in time."""
    lenses: tuple[Lens, ...] | None = None
    """The lens of each frame, for images of the size of the frames; None where no lens distorts."""


def cameras_of_clip(path: Path, video: Video, progress: Progress = SILENT) -> KnownCameras:
    """The cameras of a file for the frames taken from a clip, see ``read_cameras``."""
    frames = video.clip_frames
    if video.path.is_dir():
        names = [image.name for image in image_paths(video.path)]
    else:
        names = [str(i) for i in range(frames.original_count or frames.indices[-1] + 1)]
    return read_cameras(path, [names[i] for i in frames.indices], frames, progress, names)


def read_cameras(
    path: Path,
    names: list[str],
    frames: ClipFrames,
    progress: Progress = SILENT,
    clip_names: list[str] | None = None,
) -> KnownCameras:
    """Known cameras from a transforms.json, its folder or a COLMAP folder, for the frames taken.

    Cameras are matched to frames by file name, by the number in the name, or in order where names
    hold no numbers; see ``match_frames``. Less than half of the frames may have no camera.

    Args:
        names: file names of the frames taken; frame numbers of a video.
        progress: hears of frames without a camera, and of matches that are not plain.
        clip_names: file names of all frames of the clip; those of the frames taken if not given.

    Raises:
        InputError: the file cannot be read, its cameras do not fit the frames, the images have
            another aspect ratio than the frames, or no pinhole camera shows what their lens does.
    """
    path = Path(path)
    cameras, known_names, lenses = _read_file(path, frames)
    images = Images(names, clip_names or _name_clip(names, frames), frames)
    rows = match_frames(path, known_names, images, progress)
    size = cameras.width, cameras.height
    advice = "give cameras of this clip, neither cropped nor turned"
    frames.check_aspect(path, size, "its images are", advice)
    known = rows >= 0
    # A frame without a camera has the intrinsics of the camera before.
    filled = np.maximum.accumulate(np.where(known, np.arange(len(rows)), known.argmax()))
    rows = rows[filled]
    chosen = cameras[rows.tolist()].resized(*frames.size)
    poses = interpolate_poses(chosen.world_from_cam.double().numpy(), known)
    chosen = replace(chosen, world_from_cam=torch.from_numpy(poses).to(chosen.world_from_cam))
    return _straighten(path, chosen, known, [lenses[row] for row in rows])


def _read_file(path: Path, frames: ClipFrames) -> tuple[Cameras, list[str], list[Lens]]:
    """Cameras without lens distortion, image names and lenses."""
    beside = path / "transforms.json"
    if path.is_dir() and not beside.is_file():
        return read_model(path)
    path = beside if path.is_dir() else path
    size = frames.original_size or frames.size
    cameras, _, names = load_transforms(path, size)
    return cameras, names, load_lenses(path, size)


def _name_clip(names: list[str], frames: ClipFrames) -> list[str]:
    """Names of all frames as far as those of the frames taken tell them."""
    if names != [str(i) for i in frames.indices]:
        return names
    return [str(i) for i in range(frames.original_count or frames.indices[-1] + 1)]


def _straighten(
    path: Path, cameras: Cameras, known: Bool[np.ndarray, "F"], lenses: list[Lens]
) -> KnownCameras:
    """The cameras as they are if no lens has an effect; otherwise cameras of the straight images.

    Raises:
        InputError: no pinhole camera shows what a lens does.
    """
    resized = {lens: lens.resized(cameras.width, cameras.height) for lens in set(lenses)}
    if max(lens.shift for lens in resized.values()) <= _LENS_LIMIT:
        return KnownCameras(cameras, known)
    for lens in resized.values():
        problem = lens.find_problem()
        if problem:
            raise InputError(
                f"{path}: no pinhole camera shows its images, for {problem}; give images of a narrower lens, "
                "or undistorted images"
            )
    own = tuple(resized[lens] for lens in lenses)
    K = torch.from_numpy(np.stack([lens.undistorted_K for lens in own]))
    return KnownCameras(replace(cameras, K=K.to(cameras.K)), known, own)
