"""--preview: values of a preset, unless the command line gives others."""

from pathlib import Path

import numpy as np
import pytest

import background_points
import demo_pipeline
import foreground_points
from models.clip import halve_max_size, write_images
from models.run import flatten_settings, parse_settings


@pytest.mark.parametrize("script", [background_points, foreground_points, demo_pipeline])
def test_every_value_of_the_preset_is_a_flag_of_the_script(script):
    given = {} if script is demo_pipeline else {"video_path": Path("clip")}
    default = script.Settings(**given)
    flags = ["--preview", *(f"--{name}={path}" for name, path in given.items())]
    settings = parse_settings(default, flags, script.PREVIEW)
    plain = parse_settings(default, flags[1:], script.PREVIEW)
    before, after = (flatten_settings(own) for own in (plain, settings))
    changed = {name for name in after if after[name] != before[name]}
    assert plain == default and len(changed) == len(script.PREVIEW) + 1


def test_a_flag_that_is_given_counts_more_than_the_preset():
    flags = ["--preview", "--num_epochs", "3", "--mvs.longest_side", "300"]
    settings = parse_settings(demo_pipeline.Settings(), flags, demo_pipeline.PREVIEW)
    assert settings.num_epochs == 3 and settings.mvs.longest_side == 300
    assert settings.export == ""
    flags = ["--preview", "--export", "glb", "--trajectory=spiral"]
    settings = parse_settings(demo_pipeline.Settings(), flags, demo_pipeline.PREVIEW)
    assert (settings.export, settings.trajectory) == ("glb", "spiral")


def test_frames_of_a_preview_have_half_the_size(tmp_path: Path):
    write_images(tmp_path, np.zeros((2, 60, 90, 3), np.uint8), range(2))
    assert halve_max_size(tmp_path, 960) == 45
    assert halve_max_size(tmp_path, 50) == 25
    assert halve_max_size(tmp_path / "missing", 960) == 480
