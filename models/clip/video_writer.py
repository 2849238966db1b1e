"""H.264 MP4 files that browsers play, written frame by frame, under their name once they are
whole."""

import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from models.clip.decoding import SCALE_FLAGS, find_ffmpeg, read_log
from models.clip.sources.streams import write_frame_rate
from models.run import InputError, make_write_error, name_unfinished, take_place


class VideoWriter:
    """Writes frames to an H.264 MP4 that browsers play; a context manager.

    The file appears under its name when the block ends without an error. Odd sizes are padded to
    even sizes with the last column or row, since yuv420p stores colour at half resolution.

    Raises:
        InputError: the folder is missing or cannot be written, or the disk is full.
    """

    def __init__(self, path: str | Path, fps: float, crf: int = 16):
        """Opens nothing yet.

        Args:
            fps: frames per second.
            crf: quality of x264: 0 is lossless, 16 nearly so to the eye, 23 the default of x264.
        """
        self.path = Path(path)
        self._temporary = name_unfinished(self.path)
        self._fps = fps
        self._crf = crf
        self._process: subprocess.Popen | None = None
        self._shape: tuple[int, ...] | None = None
        self._count = 0

    def __enter__(self) -> "VideoWriter":
        try:
            # A link of that name would make ffmpeg write elsewhere.
            self._temporary.unlink(missing_ok=True)
            self._temporary.open("wb").close()
        except OSError as error:
            raise make_write_error(self.path, error.strerror) from error
        self._log = tempfile.TemporaryFile()
        return self

    def add(self, frame: UInt8[ndarray, "H W 3"]) -> None:
        """Appends an RGB frame of the size of the first.

        Raises:
            ValueError: another type or size.
            InputError: ffmpeg cannot write the frame.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
        if self._process is None:
            self._start(frame.shape)
        if frame.shape != self._shape:
            raise ValueError(f"frame is {frame.shape}, the first was {self._shape}")
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        # ffmpeg has ended; its log says why.
        except OSError as error:
            raise self._make_error() from error
        self._count += 1

    def _start(self, shape: tuple[int, ...]) -> None:
        """Starts ffmpeg for frames of a shape."""
        self._shape = shape
        height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        command = [find_ffmpeg(), *["-hide_banner", "-loglevel", "error", "-y"]]
        command += f"-f rawvideo -pix_fmt rgb24 -s {width}x{height}".split()
        command += f"-r {write_frame_rate(self._fps)} -i pipe:0".split()
        # The BT.601 matrix, and tagged so: readers that ignore the tag assume 601, browsers obey it.
        colors = f"scale=out_color_matrix=bt601:out_range=tv:{SCALE_FLAGS},format=yuv420p"
        command += ["-vf", colors]
        command += ["-colorspace", "smpte170m", "-color_primaries", "bt709", "-color_trc", "bt709"]
        command += f"-c:v libx264 -crf {self._crf} -preset fast -movflags +faststart".split()
        command += ["-f", "mp4", f"file:{self._temporary.absolute()}"]
        pipe = subprocess.PIPE
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=null, stderr=self._log)

    def __exit__(
        self, kind: type | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._release()

    def _finish(self) -> None:
        """Waits for ffmpeg, reads the file again and gives it its name."""
        if self._process is None:
            raise ValueError(f"{self.path}: no frame was given to write")
        try:
            self._process.stdin.close()
        except OSError as error:
            raise self._make_error() from error
        if self._process.wait() != 0:
            raise self._make_error()
        if (found := count_frames(self._temporary)) != self._count:
            raise make_write_error(self.path, f"{found} of {self._count} frames can be read again")
        try:
            take_place(self._temporary, self.path)
        except OSError as error:
            raise make_write_error(self.path, error.strerror) from error

    def _release(self) -> None:
        """Ends ffmpeg if it still runs, and removes an unfinished file."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            # The raw stream: closing the buffered one would write to a process that has ended.
            getattr(self._process.stdin, "raw", self._process.stdin).close()
        self._log.close()
        self._temporary.unlink(missing_ok=True)

    def _make_error(self) -> InputError:
        """An error with the last line of ffmpeg's log."""
        self._process.wait()
        lines = read_log(self._log).strip().splitlines()
        ended = f"ffmpeg ended with {self._process.returncode}"
        return make_write_error(self.path, lines[-1].strip() if lines else ended)


def count_frames(path: Path) -> int:
    """Frames of a video file that ffmpeg decodes; 0 for other files."""
    command = [find_ffmpeg(), *["-v", "error", "-nostdin", "-i"], f"file:{path.absolute()}"]
    command += [
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
        "-f",
        "null",
        "-progress",
        "pipe:1",
        "-",
    ]
    told = subprocess.run(command, capture_output=True, check=False).stdout
    counts = re.findall(rb"^frame=\s*(\d+)", told, re.MULTILINE)
    return int(counts[-1]) if counts else 0


def write_video(path: str | Path, frames: Iterable[UInt8[ndarray, "H W 3"]], fps: float) -> None:
    """Writes RGB frames, from an array or an iterable, to an H.264 MP4; see ``VideoWriter``.

    Raises:
        InputError: the folder is missing or cannot be written, or the disk is full.
    """
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.add(frame)
