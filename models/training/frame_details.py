"""A trained scene and its clip -> the colours of each training frame, in detail.pt."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.detail import ClipDetail, DetailOptions, FrameDetail, load_details, save_details
from models.render import Scene
from models.run import PAIR, SILENT, Progress, hash_content, run_ahead
from models.training.inputs import ClipInputs
from models.training.shadow_light import measure_light


def record_details(
    model: Path,
    scene: Scene,
    inputs: ClipInputs,
    options: DetailOptions = DetailOptions(),
    progress: Progress = SILENT,
) -> None:
    """Writes detail.pt beside a scene's model; held-out frames give none.

    Raises:
        InputError: the file cannot be written.
    """
    details = _measure_details(scene, inputs, progress)
    save_details(_place(model), details, options.quality, hash_content(model))


def _measure_details(
    scene: Scene, inputs: ClipInputs, progress: Progress
) -> Iterator[tuple[int, FrameDetail]]:
    """Detail of each frame that training learned from."""
    times = [t for t in scene.background.meshes.faces if t not in inputs.held_out]

    def measure(t: int) -> FrameDetail:
        frame = inputs.frames[t]
        movers = np.zeros(frame.shape[:2], bool) if inputs.masks is None else inputs.masks[t]
        factor = scene.exposure.factor(t)
        light = None
        if inputs.shadows is not None and inputs.shadows[t].any():
            light = measure_light(scene, t, frame / factor, movers, inputs.shadows[t])
        return FrameDetail.of(frame, factor, movers, light)

    yield from zip(progress.over(times, "detail"), run_ahead(measure, times, PAIR), strict=True)


def add_details(
    scene: Scene, model: Path, options: DetailOptions = DetailOptions(), progress: Progress = SILENT
) -> Scene:
    """The scene with the detail beside its model; without where the options want none or there is
    no such file.

    Raises:
        InputError: the file is damaged or belongs to another model.
    """
    path = _place(model)
    if not options.frames:
        return scene
    if not path.is_file():
        progress.say(f"{path}: there is no such file, so that views have no detail of the frames")
        return scene
    size = scene.cameras.width, scene.cameras.height
    return replace(scene, detail=ClipDetail(load_details(path, hash_content(model), size), options))


def _place(model: Path) -> Path:
    """detail.pt of a model."""
    return model.with_name("detail.pt")
