"""Writes the sample clip with its ground truth: ``python -m models.synthetic FOLDER``."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from models.run import check_output_dir, run_script
from models.synthetic.folder import write_scene
from models.synthetic.sample import RoomOptions, render_room


@dataclass(frozen=True)
class Settings:
    """Renders the sample clip with its ground truth."""

    folder: tyro.conf.Positional[Path]
    """Folder to write."""
    room: tyro.conf.OmitArgPrefixes[RoomOptions] = RoomOptions()


def main() -> None:
    """Reads the command line and writes the clip."""
    settings = tyro.cli(Settings)
    write_scene(render_room(settings.room), check_output_dir(settings.folder))
    print(f"sample clip: {settings.folder / 'video.mp4'}, its ground truth beside it")


if __name__ == "__main__":
    run_script(main)
