"""Memory that a run from video to the background's track file needs."""

from models.clip import Video
from models.motion.options import MotionOptions

# Bytes that the program takes for any clip.
_BASE = 1 << 29
# Bytes of all arrays together for a track in a frame.
_PER_OBSERVATION = 20
# Bytes of the evidence of motion for a pixel at the work size.
_PER_EVIDENCE_PIXEL = 108
# Bytes of frames and masks for a pixel.
_PER_PIXEL = 4
# Tracks of a slow clip in a grid cell, and frames after which the cell is filled once more.
_TRACKS_PER_CELL = 3
_FRAMES_PER_TRACK = 75


def estimate_num_tracks(video: Video, spacing: int) -> int:
    """Number of tracks of a clip whose points stay in view for long; a fast clip has up to ten
    times as many.

    Args:
        spacing: side in pixels of the grid cells in which tracks begin.
    """
    cells = video.width * video.height / spacing**2
    return int(cells * (_TRACKS_PER_CELL + len(video) / _FRAMES_PER_TRACK))


def estimate_memory(
    video: Video,
    num_tracks: int,
    with_motion: bool = True,
    options: MotionOptions = MotionOptions(),
) -> int:
    """Bytes that a run holds: the program, frames and masks, and all tracks in all frames.

    Args:
        with_motion: masks are made from motion, whose evidence is held for a window of frames.
    """
    size = video.width * video.height
    need = _BASE + _PER_PIXEL * size * len(video) + _PER_OBSERVATION * num_tracks * len(video)
    if with_motion:
        shrink = min(1.0, options.work_size / max(video.width, video.height)) ** 2
        window = options.window_frames + 2 * options.window_margin
        held = len(video) if len(video) <= options.whole_frames else window
        need += int(_PER_EVIDENCE_PIXEL * shrink * size * held)
    return need
