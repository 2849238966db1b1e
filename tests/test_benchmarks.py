"""The benchmarks measure the project's own paths, and give the figures that others read."""

from benchmarks.clip import make_clip
from benchmarks.renderer import measure_field, measure_raster
from models.render.rendering import render_view


def test_the_figures_that_others_read_are_there():
    figures = measure_field(1, 512, "cpu") | measure_raster(1, "cpu")
    wanted = {
        "train_ratio",
        "inference_ratio",
        "train_samples_per_second",
        "inference_samples_per_second",
    }
    assert wanted | {"raster_ms_5k", "raster_ms_50k", "share_of_sgemm"} <= figures.keys()
    assert all(value > 0 for value in figures.values())


def test_the_clip_covers_its_views():
    clip = make_clip(3, 96, 54, faces=600)
    assert all(300 < len(faces) < 1200 for faces in clip.meshes.faces.values())
    assert render_view(clip.meshes, clip.renderer(), clip.views[7]).covered.mean() > 0.99
