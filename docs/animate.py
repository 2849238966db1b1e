"""Makes the README's animated picture from a results folder: docs/overview.webp.

    python docs/animate.py results/pipeline_demo

Four panels play together: the input, the rebuilt video, the spiral novel view with the mover, and
the background alone. Run it after ``make demo``, whose results folder is the default.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.clip import read_video
from models.run import InputError, run_script

PANELS = {
    "input": "input.mp4",
    "rebuilt": "reconstruction.mp4",
    "novel view": "novel_view_spiral.mp4",
    "background alone": "background_only.mp4",
}
"""Caption and video of each panel, row by row."""


@dataclass(frozen=True)
class Settings:
    """Makes the README's animated picture from a results folder."""

    results: tyro.conf.Positional[Path] = Path("results/pipeline_demo")
    """Results folder of demo_pipeline.py, of a clip with a mover."""
    output: Path = Path(__file__).parent / "overview.webp"
    """Animated WebP to write."""
    width: int = 256
    """Width of a panel in pixels; the file grows with its square."""
    num_frames: int = 20
    """Frames of the animation, taken evenly from the videos; the file grows with them."""
    quality: int = 40
    """WebP quality, 0 to 100; the file grows with it."""
    seconds: float = 3.2
    """Length of one round."""


def read_panels(settings: Settings) -> list[list[UInt8[np.ndarray, "h w 3"]]]:
    """The frames of each panel at its size, ``num_frames`` of each video.

    Raises:
        InputError: a video is missing, such as the background's where nothing moves.
    """
    panels = []
    for caption, name in PANELS.items():
        path = settings.results / name
        if not path.is_file():
            raise InputError(f"{path}: is missing; run make demo first (a clip with a mover)")
        frames = read_video(path).frames
        chosen = np.linspace(0, len(frames) - 1, settings.num_frames).round().astype(int)
        height = round(settings.width * frames.shape[1] / frames.shape[2])
        size = (settings.width, height)
        panels.append(
            [
                write_caption(cv2.resize(frames[t], size, interpolation=cv2.INTER_AREA), caption)
                for t in chosen
            ]
        )
    return panels


def write_caption(image: UInt8[np.ndarray, "h w 3"], text: str) -> UInt8[np.ndarray, "h w 3"]:
    """The image with a caption in its top-left corner, white on a dark strip."""
    image = np.ascontiguousarray(image)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    image[: height + 12, : width + 14] //= 3
    cv2.putText(
        image,
        text,
        (7, height + 5),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.45,
        (255, 255, 255),
        1,
        cv2.LINE_AA,
    )
    return image


def main() -> None:
    settings = tyro.cli(Settings)
    first, second, third, fourth = read_panels(settings)
    pictures = [
        Image.fromarray(np.vstack([np.hstack(top), np.hstack(bottom)]))
        for top, bottom in zip(
            zip(first, second, strict=True), zip(third, fourth, strict=True), strict=True
        )
    ]
    duration = round(1000 * settings.seconds / len(pictures))
    pictures[0].save(
        settings.output,
        save_all=True,
        append_images=pictures[1:],
        duration=duration,
        loop=0,
        quality=settings.quality,
        method=6,
    )
    print(f"wrote {settings.output}, {settings.output.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    run_script(main)
