"""Cameras that a user gives, for the frames of a clip: matched by file name or by number, at the
size of the frames."""

from pathlib import Path

from models.cameras import Cameras
from models.clip import ClipFrames, Video, image_paths, load_lenses, load_transforms
from models.run import SILENT, InputError, Progress
from models.sfm.colmap_files import measure_lens_shift, read_model

# Pixels by which the lens distortion of given cameras may move a pixel and still be ignored.
_LENS_LIMIT = 1.0
# Pixels of lens distortion below which nothing is said of it.
_LENS_MENTIONED = 0.01


def cameras_of_clip(path: Path, video: Video, progress: Progress = SILENT) -> Cameras:
    """The cameras of a file for the frames taken from a clip, see ``read_cameras``."""
    names = [str(i) for i in video.frame_indices]
    if video.path.is_dir():
        paths = image_paths(video.path)
        names = [paths[i].name for i in video.frame_indices]
    return read_cameras(path, names, video.clip_frames, progress)


def read_cameras(
    path: Path, names: list[str], frames: ClipFrames, progress: Progress = SILENT
) -> Cameras:
    """Known cameras from a transforms.json or a COLMAP model folder, one for each frame, at the size
    of the frames.

    Cameras are matched to frames by file name. If no name matches, the file must have one camera
    for each frame taken, or one for each frame of the clip, in order.

    Args:
        names: file names of the frames taken.
        progress: hears of lens distortion that is too small to matter and therefore ignored.

    Raises:
        InputError: the file cannot be read, a frame has no camera, the images have another aspect
            ratio than the frames, or their lens distortion is too large to be ignored.
    """
    path = Path(path)
    if path.is_dir():
        cameras, known_names, shift = read_model(path)
    else:
        cameras, _, known_names = load_transforms(path)
        shift = max(measure_lens_shift(*lens) for lens in load_lenses(path))
    rows = _match_frames(known_names, names, frames, path)
    size = cameras.width, cameras.height
    advice = "give cameras of this clip, neither cropped nor turned"
    frames.check_aspect(path, size, "its images are", advice)
    _check_lens(path, shift * frames.size[0] / cameras.width, progress)
    return cameras[rows].resized(*frames.size)


def _check_lens(path: Path, shift: float, progress: Progress) -> None:
    """Reports lens distortion that is ignored, and refuses distortion that would be visible.

    Args:
        shift: largest distance in pixels of the frames by which distortion moves a pixel.
    """
    if shift > _LENS_LIMIT:
        raise InputError(
            f"{path}: its lens distortion moves pixels by up to {shift:.0f}, and cameras here have none; undistort the "
            "images first (colmap image_undistorter --image_path IMAGES --input_path MODEL --output_path OUT) and give "
            "OUT/images and OUT/sparse"
        )
    if shift > _LENS_MENTIONED:
        progress.say(f"{path}: lens distortion of up to {shift:.2f} px is left out")


def _match_frames(known: list[str], names: list[str], frames: ClipFrames, path: Path) -> list[int]:
    """Index of the camera of each frame: by file name without folder and suffix, or else by number.

    Args:
        known: file names of the cameras' images.
        names: file names of the frames taken.
    """
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
    entries = f"cameras, none under a frame's name ({Path(known[0]).name}, but {names[0]})"
    advice = "give one camera for each frame"
    return frames.choose_rows(path, len(known), entries, advice).tolist()
