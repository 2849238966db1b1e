"""What a run tells of itself, and its cameras and depth against the truth."""

import torch

from benchmarks.flicker import measure_spiral_flicker
from benchmarks.quality_runs import Run
from benchmarks.quality_scenes import HELD_OUT
from benchmarks.quality_scores import camera_errors, rendered_depth_error, track_depth_error
from benchmarks.shown_movers import measure_shown_movers
from models.export import spread
from models.render import Scene, load_scene
from models.run import read_json
from models.training import add_details

DEPTH_FRAMES = 8
"""Frames whose rendered depth is looked at."""


def figures(run: Run) -> dict:
    """Of the whole run: least coverage of the novel view video, its flicker, seconds, memory, errors
    of cameras and depth.

    Seconds and memory are those of the stages when they were done: without Python's start, in an
    earlier run or now.
    """
    background = read_json(run.folder / "tracks" / "background_metrics.json", "table of figures")
    demo = read_json(run.demo / "metrics.json", "table of figures")
    stages = read_json(run.folder / "tracks" / "stages.json", "table of stages")["stages"]
    has_movers = (run.folder / "tracks" / "foreground_points.pt").is_file()
    seconds = {
        "seconds_background": stages["background_points"]["seconds"],
        "seconds_foreground": stages["foreground_points"]["seconds"] if has_movers else 0.0,
        "seconds_demo": sum(demo["seconds"].values()),
    }
    held = [stage["peak_memory_gib"] for stage in stages.values()]
    held += [*background["peak_memory_gib_of_stages"].values(), demo["peak_memory_gib"]]
    path = run.demo / "model.pt"
    scene = load_scene(path, torch.device("cpu"))
    return {
        "spiral_coverage": demo.get("novel_view_coverage"),
        "seconds": sum(seconds.values()),
        **seconds,
        "seconds_of_stages": {"background": background["seconds"], "demo": demo["seconds"]},
        "peak_memory_gib": max((gib for gib in held if gib is not None), default=None),
        "frames_registered": background["frames_registered"] / background["frames"],
        "reprojection_error_px": background["reprojection_error_px"],
        **measure_spiral_flicker(add_details(scene, path)),
        **measure_shown_movers(scene),
        **errors_against_truth(run, scene),
    }


def errors_against_truth(run: Run, scene: Scene) -> dict[str, float]:
    """Of cameras and depth, as far as there is truth.

    Args:
        scene: of the run, without detail.
    """
    if not run.scene.truth:
        return {}
    estimate, tracks = run.cameras.world_from_cam.numpy(), run.tracks
    errors = camera_errors(estimate, run.scene.truth["world_from_cam"][run.numbers])
    if not run.scene.has_depth:
        return errors
    depth, scale = run.scene.depth()[run.numbers], run.similarity.scale
    errors["track_depth_error"] = track_depth_error(
        run.cameras, tracks.xyz, tracks.xy, tracks.visible, depth, scale
    )
    some = spread(range(len(scene.cameras)), DEPTH_FRAMES)
    pictures = {t: scene.render(scene.cameras[t], t).depth for t in some}
    return errors | {"rendered_depth_error": rendered_depth_error(pictures, depth, scale)}


def coverage_of(run: Run, views: str) -> float | None:
    """Least share of a picture of these views that some mesh covers; not told for frames held
    out."""
    if views == HELD_OUT:
        return None
    return read_json(run.folder / f"novel_{views}" / "metrics.json", "table of figures")[
        "camera_path_coverage"
    ]
