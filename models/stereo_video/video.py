"""A camera path as a stereoscopic video."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from models.cameras import Cameras
from models.clip import VideoWriter
from models.paths import CameraPath
from models.render import Scene
from models.run import SILENT, Progress, write_bytes
from models.stereo_video.eyes import Eyes, SeenDepth, choose_evenly_spaced, choose_eyes
from models.stereo_video.half_sphere import map_half_sphere
from models.stereo_video.layouts import LAYOUTS, Layout
from models.stereo_video.mp4_tags import tag_stereo
from models.stereo_video.options import StereoVideoOptions

# Longer side in pixels of the views whose depth is measured.
_MEASURED = 160


def name_stereo_video(name: str, layout: str) -> str:
    """File name of a stereoscopic video, such as ``stereo_reconstruction_FSBS.mp4``.

    Args:
        name: of the video of one eye, without suffix.
        layout: a key of ``LAYOUTS``.
    """
    return f"stereo_{name}_{LAYOUTS[layout].suffix}.mp4"


def write_stereo_videos(
    out: Path,
    name: str,
    scene: Scene,
    camera_path: CameraPath,
    layouts: Sequence[str],
    fps: float | None = None,
    options: StereoVideoOptions = StereoVideoOptions(),
    progress: Progress = SILENT,
) -> dict[str, float | None]:
    """Renders both eyes of a camera path, each with its own meshes and detail, and writes a video
    for each layout.

    Args:
        out: folder of the videos; see ``name_stereo_video``.
        name: of the video of one eye, without suffix.
        layouts: keys of ``LAYOUTS``.
        fps: frames per second; the clip's if not given.

    Returns:
        Separation of the eyes and convergence (None for parallel eyes), world units, of the flat
        layouts where there are some; and the smallest covered share of a picture.

    Raises:
        InputError: the views show no surface, or a file cannot be written.
    """
    views, times = camera_path
    flat = [key for key in layouts if not LAYOUTS[key].is_half_sphere]
    kinds = [kind for kind in (flat, [key for key in layouts if key not in flat]) if kind]
    coverage = 1.0
    shown: Eyes | None = None
    for part in kinds:
        eyes = measure_eyes(scene, camera_path, options, on_screen=part is flat)
        shown = shown or eyes
        with ExitStack() as stack:
            writers = {
                key: stack.enter_context(
                    VideoWriter(out / name_stereo_video(name, key), fps or scene.fps)
                )
                for key in part
            }
            label = f"stereo {name}" if part is flat else f"stereo {name} 180"
            for i in progress.over(range(len(views)), label):
                pair = eyes.split(views[i])
                pictures = [scene.render(eye, times[i]) for eye in pair]
                coverage = min(coverage, *(float(p.covered.mean()) for p in pictures))
                rgb = [picture.rgb for picture in pictures]
                for key, writer in writers.items():
                    writer.add(_join(LAYOUTS[key], rgb, pair))
        for key in part:
            if options.tag:
                _tag(out / name_stereo_video(name, key), LAYOUTS[key])
    return {
        "eye_separation": shown.separation,
        "convergence": shown.convergence if np.isfinite(shown.convergence) else None,
        "coverage": coverage,
    }


def measure_eyes(
    scene: Scene, camera_path: CameraPath, options: StereoVideoOptions, on_screen: bool
) -> Eyes:
    """Separation and convergence by the depth of some views of a path, drawn small; see
    ``choose_eyes``."""
    views, times = camera_path
    scale = min(1.0, _MEASURED / max(views.width, views.height))
    small = views.resized(*(max(1, round(scale * side)) for side in (views.width, views.height)))
    # Depth alone is wanted, and holes do not count: the mesh of the nearest frame is enough.
    plain = replace(
        scene, detail=None, options=replace(scene.options, blended=1, blended_off_path=1)
    )
    seen = []
    for i in choose_evenly_spaced(len(views), options.sampled_views):
        layers = plain.views(small[i], times[i])
        seen.append(SeenDepth(layers.merged.depth, layers.foreground.any(2)))
    focal = float(small.K[:, 0, 0].median()) / small.width
    return choose_eyes(seen, focal, options, on_screen)


def _join(
    layout: Layout, rgb: Sequence[UInt8[np.ndarray, "H W 3"]], pair: Sequence[Cameras]
) -> UInt8[np.ndarray, "h w 3"]:
    """One frame of both eyes' pictures."""
    if layout.is_half_sphere:
        rgb = [map_half_sphere(own, eye) for own, eye in zip(rgb, pair, strict=True)]
    return layout.join(*rgb)


def _tag(path: Path, layout: Layout) -> None:
    if layout.mode:
        write_bytes(path, tag_stereo(path.read_bytes(), layout.mode, layout.is_half_sphere))
