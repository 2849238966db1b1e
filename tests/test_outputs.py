"""The table of a results folder agrees with the code that writes files and with the documentation."""

import re
from pathlib import Path

import pytest

from models.export.formats import FORMATS, format_files
from models.run.outputs import (
    FRAMES,
    KINDS,
    OUTPUTS,
    clear_outputs,
    find_output,
    find_shown,
    group_by_kind,
    stage_outputs,
)

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
NAMES = sorted({output.name for output in OUTPUTS if output.kind != FRAMES})


def documented_files() -> set[str]:
    """Files named in the first cells of the documents' tables with the head "file"."""
    tables = re.findall(r"^\| file \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    names = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    return {name.partition("/%")[0] for name in names}


@pytest.mark.parametrize("name", NAMES)
def test_every_output_is_documented(name: str):
    pattern = re.escape(name).replace(r"\*", r"\w*")
    beside = f"`{Path(name).suffix}`" if name.startswith("scene.") else name
    assert re.search(pattern, TEXT) or beside in TEXT


def test_every_documented_file_is_an_output():
    files = documented_files()
    assert len(files) > 10
    assert {name for name in files if find_output(name) is None} == set()


def test_entries_have_a_kind_and_a_sentence():
    assert {output.kind for output in OUTPUTS} == {*KINDS, FRAMES, ""}
    assert all(output.text.endswith(".") for output in OUTPUTS)
    scripts = {f"{output.script}.py" for output in OUTPUTS}
    assert all((ROOT / script).is_file() for script in scripts)


def test_every_export_format_has_files_and_every_exported_file_a_format():
    assert all(format_files(name) for name in FORMATS)
    exported = {file for name in FORMATS for file in format_files(name)}
    assert exported == set(stage_outputs("export"))


def test_a_variant_names_the_video_of_new_views():
    names = stage_outputs("novel_view", "_orbit")
    paths = ("novel_view_orbit_path.json", "novel_view_orbit_path.glb")
    assert names == (*paths, "novel_view_orbit.mp4", "frames/novel_view_orbit")
    assert all(find_output(name).stage == "novel_view" for name in names)
    assert find_output("novel_view.mp4").stage == "camera_path"
    assert find_output("holiday.mp4") is None


def test_the_page_shows_each_existing_video_once_and_in_order(tmp_path: Path):
    for name in ("tracks.mp4", "novel_view_orbit.mp4", "novel_view.mp4", "mesh.mp4", "own.mp4"):
        (tmp_path / name).touch()
    shown = [path.name for path in find_shown(tmp_path, "videos")]
    assert shown == ["novel_view.mp4", "novel_view_orbit.mp4", "mesh.mp4", "tracks.mp4"]


def test_names_come_in_the_order_of_their_kinds():
    names = ["scene.glb", "tracks.mp4", "model.pt", "mesh.mp4", "notes.txt", "index.html"]
    assert group_by_kind(names) == {
        "model": ["model.pt"],
        "videos": ["mesh.mp4", "tracks.mp4"],
        "exported": ["scene.glb"],
    }


def test_only_old_frames_and_files_of_missing_movers_are_removed(tmp_path: Path):
    frames = tmp_path / "frames" / "heldout"
    frames.mkdir(parents=True)
    for path in (frames / "00001.png", frames / "own.png", tmp_path / "foreground_only.mp4"):
        path.touch()
    (tmp_path / "reconstruction.mp4").touch()
    clear_outputs(tmp_path, "reconstruction", has_movers=True)
    assert (tmp_path / "foreground_only.mp4").exists()
    clear_outputs(tmp_path, "reconstruction", has_movers=False)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"own.png", "reconstruction.mp4"}
