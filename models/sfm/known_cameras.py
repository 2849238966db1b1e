"""Cameras that a user gives, for a clip's frames: found by file name or by number, at the frames'
size."""

from collections.abc import Callable
from pathlib import Path

from models.cameras import Cameras
from models.clip import Video, image_paths, load_lenses, load_transforms
from models.run import InputError
from models.sfm.colmap import lens_shift, read_model

ASPECT_TOLERANCE = 0.03
"""Relative difference in aspect ratio up to which images count as the frames at another size."""
LENS_LIMIT = 1.0
"""Pixels by which lens distortion of given cameras may move pixels and be left out."""


def cameras_of_clip(
    path: Path, video: Video, report: Callable[[str], None] = lambda text: None
) -> Cameras:
    """The cameras of a file for the frames taken from a clip, see ``read_cameras``."""
    names = [str(i) for i in video.frame_indices]
    if video.path.is_dir():
        paths = image_paths(video.path)
        names = [paths[i].name for i in video.frame_indices]
    indices, size = video.frame_indices.tolist(), (video.width, video.height)
    return read_cameras(path, names, indices, *size, video.original_frames, report)


def read_cameras(
    path: Path,
    names: list[str],
    indices: list[int],
    width: int,
    height: int,
    original_frames: int | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Cameras:
    """Known cameras from a transforms.json or a COLMAP model folder, one for each frame, at the
    frames' size.

    Frames are found by file name. Where no name fits, the file must have one camera for each frame
    taken, or one for each frame of the clip, in order.

    Args:
        names: file names of the frames taken.
        indices: their numbers in the clip.
        original_frames: how many frames the whole clip has, if known.
        report: is told of lens distortion too small to matter, which is left out.

    Raises:
        InputError: not such a file, a frame has no camera, images of another shape, or lens
            distortion that matters.
    """
    path = Path(path)
    if path.is_dir():
        cameras, known_names, shift = read_model(path)
    else:
        cameras, _, known_names = load_transforms(path)
        shift = max(lens_shift(*lens) for lens in load_lenses(path))
    rows = _match_frames(known_names, names, indices, original_frames, path)
    if abs(cameras.width / cameras.height / (width / height) - 1) > ASPECT_TOLERANCE:
        raise InputError(
            f"{path}: its images are {cameras.width}x{cameras.height}, the frames are {width}x{height}; "
            "give cameras of this clip, neither cropped nor turned"
        )
    _check_lens(path, shift * width / cameras.width, report)
    return cameras[rows].resized(width, height)


def _check_lens(path: Path, shift: float, report: Callable[[str], None]) -> None:
    """Says how much lens distortion is left out, and refuses what would show."""
    if shift > LENS_LIMIT:
        raise InputError(
            f"{path}: its lens distortion moves pixels by up to {shift:.0f}, and cameras here have none; undistort the "
            "images first (colmap image_undistorter --image_path IMAGES --input_path MODEL --output_path OUT) and give "
            "OUT/images and OUT/sparse"
        )
    if shift > 0.01:
        report(f"{path}: lens distortion of up to {shift:.2f} px is left out")


def _match_frames(
    known: list[str], names: list[str], indices: list[int], original_frames: int | None, path: Path
) -> list[int]:
    """Row of the file for each frame, by name or else by number."""
    by_stem = {Path(name).stem: i for i, name in enumerate(known)}
    stems = [Path(name).stem for name in names]
    lacking = [name for name, stem in zip(names, stems, strict=True) if stem not in by_stem]
    if not lacking:
        return [by_stem[stem] for stem in stems]
    if len(lacking) < len(names):
        raise InputError(
            f"{path}: has no camera for {len(lacking)} of the {len(names)} frames, first {lacking[0]}; "
            "give one camera for each frame, or leave those frames out"
        )
    if len(known) == len(names):
        return list(range(len(names)))
    if len(known) == original_frames or (original_frames is None and len(known) > max(indices)):
        return list(indices)
    raise InputError(
        f"{path}: has {len(known)} cameras, none under a frame's name ({Path(known[0]).name}, but {names[0]}), and "
        f"there are {len(names)} frames; give one camera for each frame"
    )
