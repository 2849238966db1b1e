"""A frame from its two neighbours by optical flow alone, without a scene: the least that a rendering
of a held-out frame should reach."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from benchmarks.quality_runs import Run
from models.clip import read_image, write_image
from models.run import make_subfolder


def interpolate_held_out(run: Run) -> dict[int, Path]:
    """Writes each held-out frame of a run as its neighbours give it; returns the files by number.

    A frame without two neighbours is the copy of its only neighbour.
    """
    folder = make_subfolder(run.folder, "interpolated")
    paths = {t: run.scene.frames[number] for t, number in enumerate(run.numbers)}
    made = {}
    for t in run.held_out_frames:
        near = [read_image(paths[s]) for s in (t - 1, t + 1) if s in paths]
        made[t] = folder / f"{t:05d}.png"
        write_image(made[t], interpolate_middle(*near) if len(near) == 2 else near[0])
    return made


def interpolate_middle(
    before: UInt8[np.ndarray, "H W 3"], after: UInt8[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture half-way between two: both are moved by half the flow between them, found in
    either direction, and all four are averaged."""
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after)]
    # Flow at the pixels of one picture stands for the flow at the pixels of the middle.
    forward, backward = _find_flow(*grey), _find_flow(*reversed(grey))
    moved = [
        _move(picture, flow)
        for flow in (forward / 2, -backward / 2)
        for picture, flow in ((before, -flow), (after, flow))
    ]
    return (np.mean(moved, 0) + 0.5).clip(0, 255).astype(np.uint8)


def _find_flow(
    a: UInt8[np.ndarray, "H W"], b: UInt8[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W 2"]:
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(a, b, None)


def _move(
    picture: UInt8[np.ndarray, "H W 3"], flow: Float[np.ndarray, "H W 2"]
) -> Float[np.ndarray, "H W 3"]:
    """The picture read at each pixel plus the flow."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    at = columns + flow[..., 0], rows + flow[..., 1]
    return cv2.remap(
        picture.astype(np.float32), *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
