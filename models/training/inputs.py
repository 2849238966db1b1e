"""What demo_pipeline.py works on, read and checked: track files, the frames they were made on, and
masks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from models.clip import ClipFrames, ClipSize, Lens, read_masks, read_video, straighten_video
from models.render import Scene
from models.run import InputError
from models.tools import MOST_SAMPLES, SAMPLE_BYTES
from models.tracks import (
    ScaleOptions,
    Tracks,
    check_content,
    find_clip,
    find_scale,
    load_tracks,
    look_alike,
    scale_tracks,
)

# Ratio of the lengths of two camera paths up to which they have the same units.
_SAME_SPAN = 1.02
BASE_MEMORY = 5 << 28
"""Bytes that the program takes whatever the clip."""


@dataclass(frozen=True)
class ClipInputs:
    """One clip with its tracks."""

    tracks: Tracks
    """Of the background."""
    movers: Tracks | None
    """Of what moves; None where nothing does or no file was made."""
    frames: UInt8[np.ndarray, "F H W 3"]
    masks: Bool[np.ndarray, "F H W"] | None
    """Where something moves; None where there are no masks beside the background's track file."""
    shadows: Bool[np.ndarray, "F H W"] | None
    """Shadows that movers cast, beside the masks; None where there are no masks of them."""
    held_out: list[int]
    """Frames kept out of training."""
    files: Mapping[str, Path]
    """Where all of it came from, for ``stages.fingerprint``."""
    scale: float = 1.0
    """Units of ``tracks`` and ``movers`` to a unit of their files."""

    @property
    def not_static(self) -> Bool[np.ndarray, "F H W"] | None:
        """Movers and their shadows: pixels that do not show the background as it is; None where
        there are no masks."""
        if self.masks is None or self.shadows is None:
            return self.masks
        return self.masks | self.shadows

    @property
    def size(self) -> ClipSize:
        """Number and size of ``frames``."""
        return ClipSize(len(self.frames), self.frames.shape[2], self.frames.shape[1])

    def unread_tracks(self, layer: str = "background") -> Tracks:
        """``tracks``, or ``movers``, from the file again: what is looked at in these leaves memory
        with them."""
        tracks = scale_tracks(load_tracks(self.files[layer]), self.scale)
        # Of its own memory: whoever keeps the cameras would keep all of the file that was looked at.
        return replace(tracks, K=tracks.K.clone(), world_from_cam=tracks.world_from_cam.clone())


def load_inputs(
    background_path: Path,
    foreground_path: Path | None = None,
    video_path: Path | None = None,
    holdout_every: int = 0,
    memory: int | None = None,
    scale: ScaleOptions = ScaleOptions(),
) -> ClipInputs:
    """Reads it all.

    Args:
        foreground_path: foreground_points.pt beside the background's, where there is one, if not
            given.
        video_path: the clip; found by the track file if not given.
        holdout_every: see ``held_out_frames``.
        memory: bytes to stay within, see ``read_video``.
        scale: what is known of the scene's size.

    Raises:
        InputError: a file cannot be read, or they are not of one clip.
    """
    tracks = load_tracks(background_path)
    if tracks.layer != "background":
        raise InputError(
            f"{background_path}: holds the {tracks.layer} layer; give a background track file"
        )
    clip = video_path or find_clip(tracks, background_path)
    masks = background_path.parent / "masks"
    shadows = background_path.parent / "shadows"
    beside = foreground_path or background_path.parent / "foreground_points.pt"
    factor = find_scale(tracks, scale)
    movers = None
    if foreground_path or beside.is_file():
        movers = _movers(beside, tracks, background_path)
    return ClipInputs(
        tracks=scale_tracks(tracks, factor),
        frames=_frames(clip, tracks, background_path, memory),
        masks=_masks(masks, tracks),
        shadows=_masks(shadows, tracks),
        movers=None if movers is None else scale_tracks(movers, factor),
        held_out=held_out_frames(len(tracks), holdout_every),
        files={
            "clip": clip,
            "masks": masks,
            "shadows": shadows,
            "background": background_path,
            "foreground": beside,
        },
        scale=factor,
    )


def _frames(
    clip: Path, tracks: Tracks, background_path: Path, memory: int | None
) -> UInt8[np.ndarray, "F H W 3"]:
    """The frames that the tracks were made on."""
    indices = tracks.frame_indices.numpy()
    stride = max(1, int(np.gcd.reduce(indices)))
    longer = max(tracks.width, tracks.height)
    video = read_video(
        clip, int(indices[-1]) // stride + 1, stride, longer, keep=indices, memory=memory
    )
    if len(video) != len(tracks) or (video.width, video.height) != (tracks.width, tracks.height):
        raise InputError(
            f"{clip}: gives {len(video)} frames {video.width}x{video.height}, but {background_path} was made "
            f"from {len(tracks)} frames {tracks.width}x{tracks.height}; give the same clip by --video_path"
        )
    if tracks.lens is not None:
        video = straighten_video(video, Lens.from_line(tracks.lens), memory)
    check_content(tracks, background_path, video.frames, clip)
    return video.frames


def _masks(folder: Path, tracks: Tracks) -> Bool[np.ndarray, "F H W"] | None:
    if not folder.is_dir():
        return None
    return read_masks(folder, ClipFrames.in_order(len(tracks), (tracks.width, tracks.height)))


def _movers(path: Path, background: Tracks, background_path: Path) -> Tracks | None:
    tracks = load_tracks(path)
    same_size = (tracks.width, tracks.height) == (background.width, background.height)
    same_frames = len(tracks) == len(background) and look_alike(
        tracks.thumbnails, background.thumbnails
    )
    if not (same_size and same_frames):
        raise InputError(
            f"{path}: was made from another clip than {background_path}; make both again"
        )
    if tracks.num_tracks and (tracks.canonical is None or tracks.label is None):
        raise InputError(
            f"{path}: has no canonical coordinates and labels; make it with foreground_points.py"
        )
    return tracks if tracks.num_tracks else None


def held_out_frames(num_frames: int, every: int) -> list[int]:
    """Frames kept out of training: the middle one of every ``every``; none for 0."""
    return [t for t in range(num_frames) if every and t % every == every // 2]


def check_same_clip(scene: Scene, path: Path, tracks: Tracks, background_path: Path) -> None:
    """Refuses a model that was trained on another clip.

    Raises:
        InputError: number, size or pictures of the frames, or the units of the scenes differ.
    """
    cameras = scene.cameras
    if (len(cameras), cameras.width, cameras.height) != (len(tracks), tracks.width, tracks.height):
        raise InputError(
            f"{path}: was trained on {len(cameras)} frames {cameras.width}x{cameras.height}, but "
            f"{background_path} has {len(tracks)} frames {tracks.width}x{tracks.height}; give two of one clip"
        )
    spans = [
        float((own - own[0]).norm(dim=1).max()) for own in (cameras.centers, tracks.cameras.centers)
    ]
    if min(spans) > 0 and not 1 / _SAME_SPAN < spans[0] / spans[1] < _SAME_SPAN:
        raise InputError(
            f"{path}: has other units than {background_path}, by a factor of "
            f"{spans[0] / spans[1]:.4g}; give the --scale_metres and --scale_between that it was "
            "trained with"
        )
    if not look_alike(scene.thumbnails, tracks.thumbnails):
        raise InputError(
            f"{path}: was trained on other pictures than those of {background_path}; give two of one clip"
        )


def needed_memory(size: ClipSize) -> int:
    """About how many bytes training holds: the program and the fields, frames and masks, and the
    training pixels."""
    pixels = size.frames * size.area
    return BASE_MEMORY + 8 * pixels + SAMPLE_BYTES * min(pixels, MOST_SAMPLES)
