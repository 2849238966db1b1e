"""H.264 MP4 files that browsers play, frame by frame, under their name only once they are whole."""

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from models.clip.decoding import SCALE_FLAGS, text_of
from models.run import InputError, make_write_error, take_place


class VideoWriter:
    """Writes frames as they come to an H.264 MP4 that browsers play; a context manager.

    The file appears under its name only when the block ends without an error. Odd sizes are padded
    to even ones by repeating the last column or row, since yuv420p stores colour at half
    resolution.

    Raises:
        InputError: the folder is missing or cannot be written, or the disk is full.
    """

    def __init__(self, path: str | Path, fps: float, crf: int = 16):
        """``crf``: quality of x264, 0 lossless, 16 near-visually-lossless, 23 its default."""
        self.path = Path(path)
        self._temporary = self.path.with_name(self.path.name + ".part")
        self._fps = fps
        self._crf = crf
        self._process: subprocess.Popen | None = None
        self._shape: tuple[int, ...] | None = None

    def __enter__(self) -> "VideoWriter":
        try:
            self._temporary.unlink(missing_ok=True)  # it may be a link to elsewhere
            self._temporary.open("wb").close()
        except OSError as error:
            raise make_write_error(self.path, error.strerror) from error
        self._log = tempfile.TemporaryFile()
        return self

    def add(self, frame: UInt8[ndarray, "H W 3"]) -> None:
        """Appends one RGB frame; all must have the size of the first."""
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
        except OSError as error:  # ffmpeg has ended: its log says why
            raise self._failure() from error

    def _start(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-hide_banner",
            "-loglevel",
            "error",
            "-y",
            "-f",
            "rawvideo",
        ]
        command += [
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            f"{self._fps:.6f}",
            "-i",
            "pipe:0",
        ]
        # The BT.601 matrix, and tagged so: readers that ignore the tag assume 601, browsers obey it.
        command += [
            "-vf",
            f"scale=out_color_matrix=bt601:out_range=tv:{SCALE_FLAGS},format=yuv420p",
        ]
        command += ["-colorspace", "smpte170m", "-color_primaries", "bt709", "-color_trc", "bt709"]
        command += [
            "-c:v",
            "libx264",
            "-crf",
            str(self._crf),
            "-preset",
            "fast",
            "-movflags",
            "+faststart",
        ]
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
        if self._process is None:
            raise ValueError(f"{self.path}: no frame was given to write")
        try:
            self._process.stdin.close()
        except OSError as error:
            raise self._failure() from error
        if self._process.wait() != 0:
            raise self._failure()
        try:
            take_place(self._temporary, self.path)
        except OSError as error:
            raise make_write_error(self.path, error.strerror) from error

    def _release(self) -> None:
        """Ends ffmpeg if it still runs and removes what was not finished."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.raw.close() if hasattr(
                self._process.stdin, "raw"
            ) else self._process.stdin.close()
        self._log.close()
        self._temporary.unlink(missing_ok=True)

    def _failure(self) -> InputError:
        self._process.wait()
        lines = text_of(self._log).strip().splitlines()
        return make_write_error(
            self.path,
            lines[-1].strip() if lines else f"ffmpeg ended with {self._process.returncode}",
        )


def write_video(path: str | Path, frames: Iterable[UInt8[ndarray, "H W 3"]], fps: float) -> None:
    """Writes RGB frames (an array or any iterable, consumed one by one) to an H.264 MP4; see
    :class:`VideoWriter`.

    Raises:
        InputError: the folder is missing or cannot be written, or the disk is full.
    """
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.add(frame)
